"""Mining against `mine_hard_negatives`: time, memory, and the search alone against `faiss.knn`.

Both tools mine the same pairs (`benchmarks.members`) from the same float32 embeddings, which both
read from the same files; each in a fresh process, one after the other, several times. Ratios are
of medians; above 1 is in our favour, but for `rss_ratio`, which is our peak over the library's.

    python -m benchmarks.mine [--quick] [--repeats 3] [--output benchmarks/results/mine.json]
    python -m benchmarks.mine --gpu      # instead: share of a GPU's half-precision peak
"""

import argparse
import hashlib
import json
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import load_from_disk
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize

from benchmarks import gpu_search, machine, members
from benchmarks.datasets import write_pairs
from benchmarks.fresh import run_fresh
from benchmarks.mine_workers import NUM_HITS, NUM_NEGATIVES, Workplace
from stx_mine.cli import quiet
from stx_mine.models.load import load_model
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.store.artifact import require
from stx_mine.store.pools import Pools
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

MODEL = "package:wordllama"
NUM_THREADS = 2
QUICK_PAIRS = 12_000
WARM_UP_PAIRS = 500
SCORE_TOLERANCE = 1e-6
NUM_ORACLE_QUERIES = 100
COMPARE_BLOCK = 4_096
ROLES = ("queries", "passages")

Repeats = dict[str, list[dict[str, float]]]


def main() -> None:
    """Run both tools and print the table; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a reduced run of about a minute")
    parser.add_argument("--repeats", type=int, help="runs of each tool (default: 3; quick: 1)")
    parser.add_argument("--gpu", action="store_true", help="measure only the search on a GPU")
    parser.add_argument("--output", type=Path, help="where to write the full results")
    arguments = parser.parse_args()
    quiet()
    if arguments.gpu:
        content: dict[str, object] = {}
        headline: dict[str, object] = {"gpu": gpu_search.measure() or "not run: no GPU is seen"}
    else:
        content = compare(arguments.quick, arguments.repeats or (1 if arguments.quick else 3))
        headline = headline_of(content)
        print_table(content)
    if arguments.output:
        head = {"machine": machine.describe(), "quick": arguments.quick, **headline}
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps({**head, **content}, indent=2) + "\n")
    print(json.dumps(headline))


def compare(quick: bool, num_repeats: int) -> dict[str, object]:
    """Everything that is measured on a CPU."""
    pairs = members.load().pairs[: QUICK_PAIRS if quick else None]
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(Path(folder))
        prepare(place, pairs)
        measured: Repeats = {}
        for name, arguments, num_threads in runs(place, num_repeats):
            result = run_fresh("benchmarks.mine_workers", arguments, num_threads)
            measured.setdefault(name, []).append(result)
            print(f"  {name}: {json.dumps(result)}", flush=True)
        return {
            "pairs": len(pairs),
            "passages": len({passage for _, passage in pairs}),
            "threads": NUM_THREADS,
            "search_gflop": search_gflop(place),
            "runs": measured,
            "medians": medians(measured),
            **compare_ids(place),
            "same_negatives_share": same_negatives(place),
        }


def prepare(place: Workplace, pairs: list[members.Pair]) -> None:
    """Make texts and embeddings, once, and link the embeddings into the library's cache.

    The model scales its vectors to unit length, as the library stores them. `half` is a run with
    every second query against all passages; `warm-up` puts numba's machine code on the disk.
    """
    write_pairs(pairs, place.pairs)
    write_pairs(pairs[::2], place.folder / "half.parquet")
    write_pairs(pairs[:WARM_UP_PAIRS], place.folder / "warm-up.parquet")
    corpus = place.folder / "corpus.parquet"
    pq.write_table(pa.table({"passage": list(dict.fromkeys(text for _, text in pairs))}), corpus)
    model = SentenceTransformer(modules=[*load_model(MODEL, "cpu"), Normalize()], device="cpu")
    model.save(str(place.model))
    for name, source, passages in (
        ("all", place.pairs, None),
        ("half", place.folder / "half.parquet", str(corpus)),
        ("warm-up", place.folder / "warm-up.parquet", None),
    ):
        run_embed(
            EmbedConfig(
                run_dir=str(place.folder / name),
                pairs=str(source),
                corpus=passages,
                model=str(place.model),
                shard_size=len(pairs),
                device="cpu",
            )
        )
    run_mine(MineConfig(run_dir=str(place.folder / "warm-up"), search="exact", device="cpu"))
    link_cache(place, pairs)


def link_cache(place: Workplace, pairs: list[members.Pair]) -> None:
    """Make the library's embedding cache of links to our embedding files.

    Raises:
        ValueError: Our texts are not the library's, or in another order.
    """
    place.peer_cache.mkdir()
    store = TextStore.open(require(RunDir(place.run), "texts"))
    for role, kind, texts in zip(
        ("queries", "passages"), ("query", "corpus"), zip(*pairs, strict=True), strict=True
    ):
        distinct = list(dict.fromkeys(texts))
        if getattr(store, role).column("text").to_pylist() != distinct:
            raise ValueError(
                f"expected the {len(distinct):,} {role} in the order of the pairs, found others "
                f"in {place.run}/texts; mend what prepares them"
            )
        (place.peer_cache / cache_name(kind, place.model, distinct)).symlink_to(place.vectors(role))


def cache_name(kind: str, model: Path, texts: list[str]) -> str:
    """How `mine_hard_negatives` names the embeddings of `query` or `corpus` texts."""
    loaded = SentenceTransformer(str(model), device="cpu")
    key = repr((loaded.model_card_data.base_model or "", None, None, texts))
    return f"{kind}_embeddings_{hashlib.sha256(key.encode()).hexdigest()}.npy"


def runs(place: Workplace, num_repeats: int) -> Iterator[tuple[str, list[str], int]]:
    """Yield (name, arguments, threads) of each process, and clean up before it is started."""
    folder = str(place.folder)
    for _ in range(num_repeats):
        shutil.rmtree(place.peer_negatives, ignore_errors=True)
        yield "peer", ["peer", folder], NUM_THREADS
        for artifact in ("hits", "negatives"):
            shutil.rmtree(place.run / artifact, ignore_errors=True)
        yield "ours", ["ours", folder], NUM_THREADS
        yield "search_faiss", ["search_faiss", folder], NUM_THREADS
        yield "search_ours", ["search_ours", folder], NUM_THREADS
    yield "ours_half", ["ours", folder, "half"], NUM_THREADS
    shutil.copytree(place.run, place.folder / "reselect")
    yield "reselect", ["reselect", folder, "reselect"], 1
    yield "product_rates", ["product_rates", folder], 1


def search_gflop(place: Workplace) -> float:
    """10^9 operations of the products of all queries and passages."""
    queries, passages = (np.load(place.vectors(role), mmap_mode="r").shape for role in ROLES)
    return 2 * queries[0] * passages[0] * queries[1] / 1e9


def medians(measured: Repeats) -> dict[str, dict[str, float]]:
    """The median of each number over the repeats."""
    return {
        name: {key: statistics.median(one[key] for one in repeats) for key in repeats[0]}
        for name, repeats in measured.items()
    }


def headline_of(content: dict[str, object]) -> dict[str, object]:
    """The ratios that the project has set itself goals for."""
    median = content["medians"]
    assert isinstance(median, dict)
    ours, peer = median["ours"], median["peer"]
    search = median["search_faiss"]["search_s"] / median["search_ours"]["search_s"]
    rate = NUM_THREADS * max(median["product_rates"].values())
    return {
        "total_speedup": round(peer["total_s"] / ours["total_s"], 2),
        "rss_ratio": round(ours["rss_mb"] / peer["rss_mb"], 3),
        "search_speedup": round(search, 2),
        "product_share": round(
            content["search_gflop"] / median["search_ours"]["search_s"] / rate, 2
        ),
        "post_speedup": round(peer["after_s"] / ours["after_s"], 2),
        "ids_identical": content["ids_identical"],
    }


# --- whether both did the same ----------------------------------------------------------------


def compare_ids(place: Workplace) -> dict[str, object]:
    """Compare the hits of both searches rank by rank, and ours with an oracle, in float64.

    Returns:
        `same_ids_share` of all ranks; `largest_gap`: the largest difference of score at a rank
        whose ids differ; `oracle_gap`: the same to the best hits of a sample of queries, found in
        float64 among all passages; `ids_identical`: neither gap exceeds `SCORE_TOLERANCE`.
    """
    queries, passages = (np.load(place.vectors(role), mmap_mode="r") for role in ROLES)
    ours_QK, faiss_QK = (np.load(place.ids(tool), mmap_mode="r") for tool in ("ours", "faiss"))
    largest_gap, num_same = 0.0, 0
    for start in range(0, len(queries), COMPARE_BLOCK):
        block = slice(start, start + COMPARE_BLOCK)
        q, k = np.nonzero(ours_QK[block] != faiss_QK[block])
        num_same += ours_QK[block].size - len(q)
        if len(q):
            scores = [
                np.einsum(
                    "nd,nd->n",
                    queries[block][q].astype(np.float64),
                    passages[ids_QK[block][q, k]].astype(np.float64),
                )
                for ids_QK in (ours_QK, faiss_QK)
            ]
            largest_gap = max(largest_gap, float(np.abs(scores[0] - scores[1]).max()))
    sample = np.random.default_rng(0).choice(len(queries), NUM_ORACLE_QUERIES, replace=False)
    product = queries[sample].astype(np.float64) @ passages.astype(np.float64).T
    best = -np.sort(-product, axis=1)[:, :NUM_HITS]
    found = np.take_along_axis(product, ours_QK[sample].astype(np.int64), axis=1)
    oracle_gap = float(np.abs(best - found).max())
    return {
        "same_ids_share": num_same / ours_QK.size,
        "largest_gap": largest_gap,
        "oracle_gap": oracle_gap,
        "ids_identical": max(largest_gap, oracle_gap) <= SCORE_TOLERANCE,
    }


def same_negatives(place: Workplace) -> float:
    """The share of the library's rows whose negatives are, as a set, those of our row."""
    run = RunDir(place.run)
    store = TextStore.open(require(run, "texts"))
    pools = Pools.open(require(run, "negatives"), store.pair_query_ids)
    row_of_query = np.empty(store.num_queries, np.int64)  # every query has one pair
    row_of_query[store.pair_query_ids] = np.arange(store.num_pairs)
    mined = load_from_disk(str(place.peer_negatives)).data.table

    def ids(column: str, texts: pa.ChunkedArray) -> np.ndarray:
        values = mined.column(column).cast(texts.type)
        found: np.ndarray = pc.index_in(values, value_set=texts.combine_chunks()).to_numpy()
        return found

    query_ids = ids("query", store.queries.column("text"))
    passages = store.passages.column("text")
    theirs = [ids(f"negative_{number}", passages) for number in range(1, NUM_NEGATIVES + 1)]
    ours = pools.ids_NS[row_of_query[query_ids], :NUM_NEGATIVES]
    return float((np.sort(np.stack(theirs, 1), 1) == np.sort(ours, 1)).all(axis=1).mean())


def print_table(content: dict[str, object]) -> None:
    """Print the medians of both tools side by side."""
    median = content["medians"]
    assert isinstance(median, dict)
    print(f"{content['pairs']:,} pairs, {content['passages']:,} passages, {NUM_THREADS} threads")
    print(f"{'':<16}{'peer':>12}{'ours':>12}{'peer / ours':>13}")
    for key in ("total_s", "before_s", "search_s", "after_s", "rss_mb", "anonymous_mb"):
        peer, ours = median["peer"][key], median["ours"][key]
        print(f"{key:<16}{peer:>12,.2f}{ours:>12,.2f}{peer / ours:>13.2f}")
    for key in ("rows", "rows_full"):
        print(f"{key:<16}{median['peer'][key]:>12,.0f}{median['ours'][key]:>12,.0f}")
    faiss, ours = median["search_faiss"]["search_s"], median["search_ours"]["search_s"]
    print(f"{'search alone, s':<16}{faiss:>12,.2f}{ours:>12,.2f}{faiss / ours:>13.2f}")
    growth = median["ours"]["rss_mb"] / median["ours_half"]["rss_mb"]
    print(f"our peak RSS with all queries over that with half of them: {growth:.2f}")
    first, second = (median["reselect"][key] for key in ("first_s", "second_s"))
    print(f"another margin on one core: {first:.2f} s, a second one in that process {second:.2f} s")
    print(
        f"hits: {content['same_ids_share']:.4%} of ids the same, largest gap of score elsewhere "
        f"{content['largest_gap']:.1e}, to the float64 oracle {content['oracle_gap']:.1e}; "
        f"negatives: {content['same_negatives_share']:.2%} of the peer's rows the same"
    )


if __name__ == "__main__":
    main()
