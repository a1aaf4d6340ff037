"""Packing against sentence-transformers' no-duplicates sampler, its hashes precomputed.

Both read the same rows. The sampler knows texts only: rows that know each other's positive may
meet in its batches (`peer_clean` counts those where none do), never in ours. Of its batches, only
those before its first re-drawn row count.
Its time is that of one epoch, ours that of assigning one (strict); both are CPU time, and both run
on one thread, so that other work on the machine counts less.

    python -m benchmarks.pack [--quick] [--members 228792] [--output benchmarks/results/pack.json]

a) Debian's package descriptions; b) members of botocore, 8 negatives a row from pools of 30, all
full rows, and writing its shards (ours alone); c) 10M rows of synthetic texts with Zipf
multiplicities, ours alone, in a fresh process. Times are medians: of 5 assignments (1 in c), and of
3 epochs of the sampler where one takes less than 5 s.
"""

import argparse
import json
import logging
import signal
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from sentence_transformers.base.sampler import NoDuplicatesBatchSampler

from benchmarks import machine, members, packages, shards
from benchmarks.datasets import write_pairs
from benchmarks.fresh import PeakMemory, run_fresh
from benchmarks.wheels import Pair
from stx_mine.cli import quiet
from stx_mine.core.forbidden import forbidden_groups
from stx_mine.core.ragged import Ragged
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.core.assign import Assignment, assign_merge, assign_strict, draw_order
from stx_mine.stages.pack.core.bind import bind_clean, bind_top, ignored_passages
from stx_mine.stages.pack.core.bounds import strict_bound
from stx_mine.store.artifact import require
from stx_mine.store.groups import TextGroups
from stx_mine.store.pools import Pools
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

K = 8
REPEATS, PEER_REPEATS, SHORT_S = 5, 3, 5
NONE = np.empty(0, np.int64)
MODEL = "package:wordllama"
SIZES = {
    "debian": (64, 256, 1_024, 8_192, 32_768),
    "botocore": (256, 1_024, 4_096, 8_192, 32_768),
    "zipf": (1_024, 32_768),
}
QUICK_SIZES = {"debian": (256, 1_024), "botocore": (256,), "zipf": (1_024,)}


@dataclass(frozen=True)
class Rows:
    """What is packed.

    Attributes:
        query_ids: int64 (N,).
        anchor_groups: int64 (N,).
        positive_groups: int64 (N,).
        passage_groups: int64 (num passages,).
        forbidden: Forbidden groups of each query.
        num_groups: Size of the group space.
        pools: int32 (N, 30), or None where no negatives are bound.
        rows: Numbers of the rows that are packed.
    """

    query_ids: NDArray[np.int64]
    anchor_groups: NDArray[np.int64]
    positive_groups: NDArray[np.int64]
    passage_groups: NDArray[np.int64]
    forbidden: Ragged
    num_groups: int
    rows: NDArray[np.int64]
    pools: NDArray[np.int32] | None = None


@dataclass(frozen=True)
class Case:
    """One set at one batch size under one policy; `peer_*` is None where the peer was not run."""

    name: str
    rows: int
    batch: int
    policy: str
    bound: int
    cause: str
    full: int
    assign_s: float
    bind_s_per_batch: float | None = None
    random_negatives_share: float | None = None
    peer_full: int | None = None
    peer_clean: int | None = None
    peer_redrawn: int | None = None
    peer_never_used: int | None = None
    peer_s: float | None = None
    peer_stopped: bool | None = None


def rows_of_pairs(pairs: Sequence[Pair]) -> Rows:
    """Number the texts of pairs; equal texts are one group in both roles."""
    passages: dict[str, int] = {}
    queries: dict[str, int] = {}
    passage_ids = np.array([passages.setdefault(text, len(passages)) for _, text in pairs])
    query_ids = np.array([queries.setdefault(text, len(queries)) for text, _ in pairs])
    query_groups = np.array(
        [passages.get(text, len(passages) + number) for text, number in queries.items()]
    )
    groups = np.arange(len(passages))
    return Rows(
        query_ids,
        query_groups[query_ids],
        passage_ids,
        groups,
        forbidden_groups(query_ids, passage_ids, query_groups, groups),
        len(passages) + len(queries),
        np.arange(len(pairs)),
    )


def mined_rows(pairs: Sequence[Pair], folder: Path) -> tuple[Rows, Dataset]:
    """Mine pools of 30; rows with fewer than 8 negatives are left out, as the peer needs 8."""
    write_pairs(pairs, folder / "pairs.parquet")
    run_dir = str(folder / "run")
    run_embed(
        EmbedConfig(run_dir=run_dir, pairs=str(folder / "pairs.parquet"), model=MODEL, device="cpu")
    )
    run_mine(MineConfig(run_dir=run_dir, search="exact", device="cpu", k=K))
    run = RunDir(run_dir)
    store = TextStore.open(require(run, "texts"))
    pools = Pools.open(require(run, "negatives"), store.pair_query_ids)
    queries, passages = np.array(store.pair_query_ids), np.array(store.pair_passage_ids)
    groups = TextGroups.open(require(run, "groups"))
    query_groups, passage_groups = np.array(groups.queries), np.array(groups.passages)
    rows = np.array(pools.rows)
    rows = rows[pools.ids_NS[rows, K - 1] >= 0]
    query_texts = np.array(store.queries.column("text").to_pylist(), object)
    passage_texts = np.array(store.passages.column("text").to_pylist(), object)
    columns = {"anchor": query_texts[queries[rows]], "positive": passage_texts[passages[rows]]}
    for j in range(K):
        columns[f"negative_{j + 1}"] = passage_texts[pools.ids_NS[rows, j]]
    found = Rows(
        queries,
        query_groups[queries],
        passage_groups[passages],
        passage_groups,
        forbidden_groups(queries, passages, query_groups, passage_groups),
        store.num_texts,
        rows,
        np.array(pools.ids_NS),
    )
    return found, Dataset.from_dict({name: list(texts) for name, texts in columns.items()})


def zipf_rows(num_rows: int, seed: int = 0) -> Rows:
    """Rows whose texts repeat by Zipf's law; every row is a query of its own with one positive.

    Anchors repeat through 2N texts with exponent 0.5, positives through N texts with 0.7.
    """
    rng = np.random.default_rng(seed)

    def draw(num_texts: int, exponent: float) -> NDArray[np.int64]:
        shares = np.cumsum(np.arange(1, num_texts + 1) ** -exponent)
        return np.searchsorted(shares, rng.random(num_rows) * shares[-1]).astype(np.int64)

    positives = draw(num_rows, 0.7)
    anchors = num_rows + draw(2 * num_rows, 0.5)
    values = np.stack([positives, anchors], axis=1).reshape(-1)
    return Rows(
        np.arange(num_rows),
        anchors,
        positives,
        np.arange(num_rows),
        Ragged(np.arange(0, 2 * num_rows + 1, 2), values),
        3 * num_rows,
        np.arange(num_rows),
    )


def pack(name: str, rows: Rows, batch_size: int) -> list[Case]:
    """Assign under both policies, and bind where there are pools."""
    texts = rows.anchor_groups, rows.positive_groups
    k = 0 if rows.pools is None else K
    bound = strict_bound(
        rows.query_ids,
        *texts,
        rows.passage_groups,
        rows.forbidden,
        rows.num_groups,
        batch_size,
        k,
        rows.rows,
    )
    shape = (name, len(rows.rows), batch_size)
    repeats = 1 if name == "zipf" else REPEATS
    cases = []
    for policy, most, cause in (
        ("merge", len(rows.rows) // batch_size, "the number of rows"),
        ("strict", bound.batches, bound.cause),
    ):
        found, seconds = timed(policy, rows, batch_size, repeats)
        full, bind_s, random_share = len(found.rows_PB), None, None
        if rows.pools is not None and full:
            bind = bind_all if policy == "strict" else bind_merge
            full, bind_s, random_share = bind(rows, found.rows_PB)
        cases.append(Case(*shape, policy, most, cause, full, seconds, bind_s, random_share))
        del found
    return cases


def timed(policy: str, rows: Rows, batch_size: int, repeats: int) -> tuple[Assignment, float]:
    """One assignment, and the median CPU seconds of some, each of another order."""
    seconds = []
    for seed in range(repeats):
        rng = np.random.default_rng(1 + seed)
        order = draw_order(rows.rows, NONE, rng)
        texts = rows.anchor_groups, rows.positive_groups
        start = time.process_time()
        if policy == "merge":
            found = assign_merge(*texts, batch_size, order, rng)
        else:
            known = rows.forbidden, rows.num_groups
            found = assign_strict(rows.query_ids, *texts, *known, batch_size, order)
        seconds.append(time.process_time() - start)
    return found, statistics.median(seconds)


def bind_all(rows: Rows, rows_PB: NDArray[np.int64]) -> tuple[int, float, float]:
    """Bind every batch: how many are full, seconds a batch, share of random negatives."""
    assert rows.pools is not None
    num_full = num_random = 0
    start = time.process_time()
    for number, batch in enumerate(rows_PB):
        negatives, random = bind_clean(
            rows.pools[batch],
            K,
            rows.query_ids[batch],
            rows.anchor_groups[batch],
            rows.positive_groups[batch],
            rows.passage_groups,
            rows.forbidden,
            rows.num_groups,
            number,
        )
        num_full += bool((negatives >= 0).all())
        num_random += int(random.sum())
    seconds = (time.process_time() - start) / len(rows_PB)
    return num_full, seconds, num_random / (rows_PB.size * K)


def bind_merge(rows: Rows, rows_PB: NDArray[np.int64]) -> tuple[int, float, float]:
    """Bind every batch under `merge`: all are full, seconds a batch, none random."""
    assert rows.pools is not None
    start = time.process_time()
    for batch in rows_PB:
        negatives = bind_top(rows.pools[batch], K)
        # No text but itself is of a passage's group: groups are passage ids here.
        positives = rows.positive_groups[batch]
        ignored_passages(
            rows.query_ids[batch],
            positives,
            negatives,
            rows.passage_groups,
            rows.forbidden,
            rows.num_groups,
        )
    return len(rows_PB), (time.process_time() - start) / len(rows_PB), 0.0


def run_peer(rows: Rows, dataset: Dataset, batch_size: int, limit_s: int) -> dict[str, Any]:
    """One epoch of the sampler, stopped after some seconds."""
    sampler = NoDuplicatesBatchSampler(
        dataset, batch_size, drop_last=True, precompute_hashes=True, precompute_num_proc=1
    )
    sampler._build_hashes()
    used = np.zeros(len(dataset), bool)
    fresh: list[list[int]] = []
    redrawn = 0

    def stop(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    start, stopped = time.process_time(), False
    signal.alarm(limit_s)
    try:
        for batch in sampler:
            if redrawn or used[batch].any():
                redrawn += 1
            else:
                fresh.append(batch)
            used[batch] = True
    except TimeoutError:
        stopped = True
    finally:
        signal.alarm(0)
    seconds = time.process_time() - start
    return {
        "peer_full": len(fresh),
        "peer_clean": sum(knows_no_positive(rows, rows.rows[batch]) for batch in fresh),
        "peer_redrawn": redrawn,
        "peer_never_used": int((~used).sum()),
        "peer_s": seconds,
        "peer_stopped": stopped,
    }


def knows_no_positive(rows: Rows, batch: NDArray[np.int64]) -> bool:
    """Whether no row of a batch meets another's positive that it knows as its own."""
    known = ignored_passages(
        rows.query_ids[batch],
        rows.positive_groups[batch],
        np.empty((len(batch), 0), np.int64),
        rows.passage_groups,
        rows.forbidden,
        rows.num_groups,
    )
    return not len(known.values)


def compare(
    name: str, rows: Rows, dataset: Dataset, sizes: Sequence[int], limit_s: int
) -> list[Case]:
    """Ours and the peer's on the same rows."""
    found = []
    for size in sizes:
        peer = run_peer(rows, dataset, size, limit_s)
        seconds = [peer["peer_s"]]
        while len(seconds) < PEER_REPEATS and seconds[0] < SHORT_S:
            seconds.append(run_peer(rows, dataset, size, limit_s)["peer_s"])
        peer["peer_s"] = statistics.median(seconds)
        for case in pack(name, rows, size):
            found.append(Case(**{**asdict(case), **peer}))
            print(f"  {json.dumps(asdict(found[-1]))}", flush=True)
    return found


def synthetic(num_rows: int, sizes: Sequence[int]) -> dict[str, object]:
    """Ours on Zipf rows, and memory beyond the rows themselves (in a process of its own)."""
    pack("warm-up", zipf_rows(1_000), 10)
    rows = zipf_rows(num_rows)
    rng = np.random.default_rng(1)
    texts = rows.anchor_groups, rows.positive_groups
    found: dict[str, object] = {
        "cases": [asdict(c) for size in sizes for c in pack("zipf", rows, size)]
    }
    for policy in ("merge", "strict"):
        with PeakMemory() as before:
            order = draw_order(rows.rows, NONE, rng)
            time.sleep(0.1)
        with PeakMemory() as memory:
            if policy == "merge":
                assign_merge(*texts, sizes[0], order, rng)
            else:
                assign_strict(
                    rows.query_ids, *texts, rows.forbidden, rows.num_groups, sizes[0], order
                )
        extra = (memory.anonymous_mb - before.anonymous_mb) * 1e6 / (2 * num_rows)
        found[f"{policy}_bytes_per_row_text_beside_rows"] = extra
    return found


def headline_of(cases: list[Case]) -> dict[str, object]:
    """The last line."""
    keys = ("name", "rows", "batch", "policy", "bound", "full", "peer_full")
    keys += ("peer_clean", "peer_never_used")
    zipf = [case for case in cases if case.name == "zipf"]
    binds = [case for case in cases if case.bind_s_per_batch is not None]
    ratios = [
        case.peer_s / case.assign_s
        for case in cases
        if case.policy == "strict" and case.peer_full and case.peer_s is not None
    ]
    largest = max((case.batch for case in binds), default=None)
    slowest = [case.bind_s_per_batch for case in binds if case.batch == largest]
    return {
        "cases": [{key: asdict(case)[key] for key in keys} for case in cases],
        "assign_rows_per_s": min(round(case.rows / case.assign_s) for case in zipf),
        "bind_s_per_batch": max(filter(None, slowest), default=None),
        "bind_batch": largest,
        "speedup": min(ratios, default=None),
    }


def main() -> None:
    """Measure all cases; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a reduced run of under a minute")
    parser.add_argument("--members", type=int, help="pairs of botocore (default: all)")
    parser.add_argument("--peer-seconds", type=int, default=600, help="limit of each peer's epoch")
    parser.add_argument("--rows", type=int, help="synthetic rows (default: 10M)")
    parser.add_argument("--output", type=Path, help="where to write the full results")
    parser.add_argument("--synthetic", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    quiet()
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    quick = arguments.quick
    sizes = QUICK_SIZES if quick else SIZES
    num_rows = arguments.rows or (200_000 if quick else 10_000_000)
    if arguments.synthetic:
        print(json.dumps(synthetic(num_rows, sizes["zipf"])))
        return
    pack("warm-up", zipf_rows(1_000), 10)  # machine code
    pairs = packages.load()[: 30_000 if quick else None]
    anchors, positives = (list(texts) for texts in zip(*pairs, strict=True))
    dataset = Dataset.from_dict({"anchor": anchors, "positive": positives})
    limit_s = arguments.peer_seconds
    cases = compare("debian", rows_of_pairs(pairs), dataset, sizes["debian"], limit_s)
    num_pairs = arguments.members or (4_000 if quick else None)
    with tempfile.TemporaryDirectory() as folder:
        rows, dataset = mined_rows(members.load().pairs[:num_pairs], Path(folder))
        fitting = [size for size in sizes["botocore"] if size <= len(rows.rows)]
        cases += compare("botocore", rows, dataset, fitting, limit_s)
        writings = [shards.measure(str(Path(folder, "run")), size, K) for size in fitting]
    command = ["--synthetic", "--rows", str(num_rows), *(["--quick"] if quick else [])]
    fresh = run_fresh("benchmarks.pack", command, 1)
    cases += [Case(**case) for case in fresh.pop("cases")]
    headline = {
        **headline_of(cases),
        "write_mb_per_s": {one.batch: round(one.mb_per_s, 1) for one in writings},
    }
    if arguments.output:
        content = {
            "machine": machine.describe(),
            "quick": quick,
            **headline,
            **fresh,
            "writing": [asdict(one) for one in writings],
            "details": [asdict(case) for case in cases],
        }
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(headline))


if __name__ == "__main__":
    main()
