"""Diff: the comparison of two runs against plain dictionaries, and through the command line."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cores import ragged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stx_mine.core.ragged import Ragged, offsets_of
from stx_mine.core.verdicts import Verdict, candidate_ranks
from stx_mine.errors import ArtifactError, ConfigError
from stx_mine.stages.diff import stage as diff_stage
from stx_mine.stages.diff.config import DiffConfig
from stx_mine.stages.diff.core.diff import (
    NOT_A_HIT,
    NOT_IN_CORPUS,
    REASONS,
    ChangeSample,
    compare_pools,
    explain,
    find,
)
from stx_mine.stages.diff.stage import run_diff
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.ingest.config import IngestConfig
from stx_mine.stages.ingest.stage import run_ingest
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.store.artifact import Artifact, require
from stx_mine.store.files import read_array, read_table, write_array, write_table
from stx_mine.store.hits import HitBlock, HitSource, LayerFile
from stx_mine.store.negatives import DROPPED_PAIRS, StoredVerdicts, pool_files, read_verdicts
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

# --- the core ---


def random_rows(rng, num_rows, num_values, longest):
    sizes = rng.integers(0, min(longest, num_values) + 1, num_rows)
    return [rng.permutation(num_values)[:size].tolist() for size in sizes]


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_values_are_found_in_their_rows(seed):
    rng = np.random.default_rng(seed)
    rows = random_rows(rng, 5, 12, 6)
    asked = rng.integers(0, 5, 30), rng.integers(-1, 14, 30)
    places = find(ragged(rows), *asked)
    starts = offsets_of([len(row) for row in rows])
    for row, value, place in zip(*asked, places, strict=True):
        there = value in rows[row]
        assert place == (starts[row] + rows[row].index(value) if there else -1)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9))
def test_pools_are_compared_as_lists_and_sets(seed, k):
    rng = np.random.default_rng(seed)
    pools_a = random_rows(rng, 12, 9, 6)
    # Some rows stay, some are only put in another order.
    pools_b = random_rows(rng, 12, 9, 6)
    for row in range(12):
        if row % 3 == 0:
            pools_b[row] = list(pools_a[row])
        elif row % 3 == 1:
            pools_b[row] = rng.permutation(pools_a[row]).astype(int).tolist()
    found = compare_pools(ragged(pools_a), ragged(pools_b), k)
    lost, gained, shared = [], [], 0
    for row, (a, b) in enumerate(zip(pools_a, pools_b, strict=True)):
        assert found.empty_R[row] == (not a and not b)
        assert found.equal_R[row] == (a == b and bool(a))
        assert found.same_R[row] == (set(a) == set(b) and bool(a))
        longer = max(len(a[:k]), len(b[:k]))
        expected = len(set(a[:k]) & set(b[:k])) / longer if longer else 0
        assert found.overlap_R[row] == pytest.approx(expected)
        lost += [(row, one) for one in a if one not in b]
        gained += [(row, one) for one in b if one not in a]
        shared += len(set(a) & set(b))
    assert list(zip(*map(np.ndarray.tolist, found.lost), strict=True)) == lost
    assert list(zip(*map(np.ndarray.tolist, found.gained), strict=True)) == gained
    assert found.num_shared == shared


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_a_reason_is_the_verdict_or_why_there_is_none(seed):
    rng = np.random.default_rng(seed)
    hits = random_rows(rng, 4, 20, 10)
    verdicts = [rng.integers(1, len(Verdict), len(row)).tolist() for row in hits]
    positives = [sorted(row) for row in random_rows(rng, 4, 20, 3)]
    rows, ids = rng.integers(0, 4, 40), rng.integers(-1, 20, 40)
    reasons = explain(
        rows,
        ids,
        ids,
        ragged(hits),
        np.array([one for row in verdicts for one in row], np.uint8),
        ragged(positives),
    )
    for row, passage, reason in zip(rows, ids, reasons, strict=True):
        if passage < 0:
            expected = NOT_IN_CORPUS
        elif passage in hits[row]:
            expected = verdicts[row][hits[row].index(passage)]
        elif passage in positives[row]:
            expected = Verdict.KNOWN_POSITIVE
        else:
            expected = NOT_A_HIT
        assert reason == expected
    assert REASONS[NOT_IN_CORPUS] == "not_in_corpus"
    assert REASONS[Verdict.MAX_USES] == "max_uses"


def test_ranks_skip_what_is_no_candidate():
    verdicts = np.array([2, 0, 3, 7, 1, 11], np.uint8)
    assert candidate_ranks(verdicts).tolist() == [-1, 0, -1, 1, -1, 2]


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 12))
def test_a_sample_takes_of_every_kind_in_turn(seed, size):
    rng = np.random.default_rng(seed)
    kinds = np.concatenate([np.zeros(30, np.int64), np.ones(3, np.int64), np.full(1, 7)])
    kinds = rng.permutation(kinds)
    numbers = np.stack([np.arange(len(kinds)), kinds], 1)
    sample = ChangeSample(size, 2, np.random.default_rng(seed))
    assert sample.numbers().shape == (0, 2)
    for part in np.array_split(np.arange(len(kinds)), 4):
        sample.add(kinds[part], numbers[part])
    taken = sample.numbers()
    assert len(taken) == min(size, len(kinds))
    assert len(np.unique(taken[:, 0])) == len(taken)
    assert (kinds[taken[:, 0]] == taken[:, 1]).all()
    assert (np.diff(taken[:, 0]) > 0).all()
    counts = Counter(taken[:, 1].tolist())
    left = size
    expected = Counter()
    while left and sum(expected.values()) < len(kinds):
        for kind in (0, 1, 7):
            if left and expected[kind] < (kinds == kind).sum():
                expected[kind] += 1
                left -= 1
    assert counts == expected


def test_a_sample_is_random_within_a_kind():
    kinds = np.zeros(100, np.int64)
    first = set()
    for seed in range(40):
        sample = ChangeSample(1, 1, np.random.default_rng(seed))
        sample.add(kinds, np.arange(100)[:, None])
        first |= set(sample.numbers()[:, 0].tolist())
    assert len(first) > 20


# --- whole runs, told in plain Python ---


def plain(text):
    return " ".join(text.split())


def told(run):
    """A run as dictionaries: corpus, queries, pairs, positives, rows with pool and verdicts."""
    negatives = require(RunDir(run), "negatives")
    store = TextStore.open(require(RunDir(run), "texts"))
    passages = [plain(one) for one in store.passages.column("text").to_pylist()]
    queries = [plain(one) for one in store.queries.column("text").to_pylist()]
    pairs = [
        (queries[q], passages[p])
        for q, p in zip(store.pair_query_ids.tolist(), store.pair_passage_ids.tolist(), strict=True)
    ]
    positives = {}
    for query, passage in pairs:
        positives.setdefault(query, set()).add(passage)
    units = {}
    for name in pool_files(negatives):
        for one in read_verdicts(negatives, name).to_pylist():
            verdicts = zip(one["hit_ids"], one["verdicts"], strict=True)
            units[one["unit_id"]] = {
                "pool": [passages[p] for p in one["passage_ids"]],
                "verdicts": {passages[p]: Verdict(v).name.lower() for p, v in verdicts},
            }
    dropped = set(read_array(negatives.folder / DROPPED_PAIRS).tolist())
    unit_of = range(len(pairs)) if negatives.extra["per_pair"] else store.pair_query_ids.tolist()
    rows = {
        pair: units[unit_of[number]] for number, pair in enumerate(pairs) if number not in dropped
    }
    return {
        "corpus": set(passages),
        "queries": set(queries),
        "pairs": set(pairs),
        "positives": positives,
        "rows": rows,
        "k": negatives.extra["k"],
    }


def three(a, b):
    return {"only_a": len(a - b), "both": len(a & b), "only_b": len(b - a)}


def why(side, pair, passage):
    if passage not in side["corpus"]:
        return "not_in_corpus"
    verdicts = side["rows"][pair]["verdicts"]
    if passage in verdicts:
        return verdicts[passage]
    return "known_positive" if passage in side["positives"][pair[0]] else "not_a_hit"


def oracle(run_a, run_b, k=None):
    a, b = told(run_a), told(run_b)
    k = k or min(a["k"], b["k"])
    pairs = a["pairs"] & b["pairs"]
    row_a, row_b = pairs & set(a["rows"]), pairs & set(b["rows"])
    rows = {
        **three(row_a, row_b),
        "neither": len(pairs - row_a - row_b),
        **dict.fromkeys(("empty", "equal", "reordered", "changed"), 0),
    }
    lost, gained, both, overlaps = Counter(), Counter(), 0, []
    for pair in row_a & row_b:
        pool_a, pool_b = a["rows"][pair]["pool"], b["rows"][pair]["pool"]
        if not pool_a and not pool_b:
            rows["empty"] += 1
            continue
        same = set(pool_a) == set(pool_b)
        rows["equal" if pool_a == pool_b else "reordered" if same else "changed"] += 1
        overlaps.append(
            len(set(pool_a[:k]) & set(pool_b[:k])) / max(len(pool_a[:k]), len(pool_b[:k]))
        )
        both += len(set(pool_a) & set(pool_b))
        lost.update(why(b, pair, one) for one in pool_a if one not in pool_b)
        gained.update(why(a, pair, one) for one in pool_b if one not in pool_a)
    return {
        "queries": three(a["queries"], b["queries"]),
        "passages": three(a["corpus"], b["corpus"]),
        "pairs": three(a["pairs"], b["pairs"]),
        "rows": rows,
        "negatives": {
            "only_a": sum(lost.values()),
            "both": both,
            "only_b": sum(gained.values()),
        },
        "overlap": {
            "k": k,
            "mean": pytest.approx(float(np.mean(overlaps))) if overlaps else None,
        },
        "reasons": {"lost": dict(lost), "gained": dict(gained)},
    }


def diff(run_a, run_b, **fields):
    report = run_diff(DiffConfig(run_a=str(run_a), run_b=str(run_b), json="-", **fields))
    return json.loads(report.document)


def check_against_oracle(found, run_a, run_b, k=None):
    expected = oracle(run_a, run_b, k)
    assert {name: found[name] for name in expected} == expected


def check_examples(found, run_a, run_b):
    """Every example is a change, and says of it what the runs say."""
    sides = {"a": told(run_a), "b": told(run_b)}
    for one in found["examples"]:
        pair = plain(one["query"]), plain(one["positive"])
        passage = plain(one["negative"])
        has, lacks = ("a", "b") if one["change"] == "lost" else ("b", "a")
        assert passage in sides[has]["rows"][pair]["pool"]
        assert passage not in sides[lacks]["rows"][pair]["pool"]
        assert one["reason"] == why(sides[lacks], pair, passage)
        assert one[has]["verdict"] == "pooled"
        assert one[has]["slot"] == sides[has]["rows"][pair]["pool"].index(passage)
        assert one[lacks]["slot"] is None
        assert one[lacks]["verdict"] == sides[lacks]["rows"][pair]["verdicts"].get(passage)


DEPTH = 100


def write_run(run, pairs, corpus, rng, per_pair, block):
    """A run of these texts whose hits, verdicts and pools are drawn at random."""
    run.mkdir(parents=True)
    pq.write_table(
        pa.table({"q": [q for q, _ in pairs], "p": [p for _, p in pairs]}), run / "pairs.parquet"
    )
    pq.write_table(pa.table({"text": corpus}), run / "corpus.parquet")
    run_ingest(
        IngestConfig(
            pairs=str(run / "pairs.parquet"),
            corpus=str(run / "corpus.parquet"),
            run_dir=str(run),
        )
    )
    texts = require(RunDir(run), "texts")
    store = TextStore.open(texts)
    made_from = {"texts": texts.digest}
    embeddings = Artifact(RunDir(run), "embeddings", fields={}, inputs=made_from)
    embeddings.begin([])
    embedded = embeddings.finish([], counts={}, extra={"miner": "none"})
    made_from["embeddings"] = embedded.digest
    blocks = [
        np.arange(first, min(first + block, store.num_queries))
        for first in range(0, store.num_queries, block)
    ]
    hits = [random_hits(queries, store.num_passages, rng) for queries in blocks]
    made_from["hits/dense"] = write_hits(RunDir(run), hits, embedded.digest).digest
    artifact = Artifact(RunDir(run), "negatives", fields={"pool": 5}, inputs=made_from)
    artifact.begin([])
    names = []
    for number, of_queries in enumerate(hits):
        names.append(f"negatives-{number:05d}.arrow")
        # Pairs of the queries of a file may have any numbers.
        units = of_queries.query_ids
        if per_pair:
            units = np.flatnonzero(np.isin(store.pair_query_ids, of_queries.query_ids))
        table = random_units(units, of_queries, store, rng, per_pair)
        write_table(artifact.folder / names[-1], table)
    dropped = np.flatnonzero(rng.random(store.num_pairs) < 0.2)
    write_array(artifact.folder / DROPPED_PAIRS, dropped)
    artifact.finish(
        [*names, DROPPED_PAIRS],
        counts={},
        extra={"slots": 5, "k": int(rng.integers(1, 5)), "per_pair": per_pair},
    )


def random_hits(queries, num_passages, rng):
    """Random passages of each query with random scores, best first."""
    rows = [rng.permutation(num_passages)[: rng.integers(0, num_passages + 1)] for _ in queries]
    scores = [np.sort(rng.random(len(row)))[::-1] for row in rows]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    values = np.concatenate(rows).astype(np.int64)
    return HitBlock(
        queries,
        Ragged(offsets, values),
        np.concatenate(scores).astype(np.float32),
        np.full(len(values), HitSource.DENSE, np.uint8),
    )


def write_hits(run, blocks, embedded):
    """`hits/dense/` with one layer."""
    artifact = Artifact(
        run, "hits", fields={}, inputs={"embeddings": embedded}, subfolder="dense", grows=True
    )
    artifact.begin([])
    files = [LayerFile(0, number, len(blocks)) for number in range(len(blocks))]
    for file, block in zip(files, blocks, strict=True):
        write_table(artifact.folder / file.name, block.table())
    queries = np.concatenate([block.query_ids for block in blocks])
    write_array(artifact.folder / files[0].plan, np.stack([queries, np.full_like(queries, DEPTH)]))
    layer = {"depth": DEPTH, "files": {str(file.block): file.name for file in files}}
    names = [*(file.name for file in files), files[0].plan]
    return artifact.finish(names, counts={}, extra={"layers": [layer]})


def random_units(units, hits, store, rng, per_pair):
    rows = []
    for unit in units.tolist():
        query = int(store.pair_query_ids[unit]) if per_pair else unit
        own = hits.hits.row(int(np.searchsorted(hits.query_ids, query)))
        verdicts = rng.integers(1, len(Verdict), len(own))
        pooled = rng.permutation(len(own))[: rng.integers(0, 6)]
        verdicts[pooled] = Verdict.POOLED
        rows.append(
            {
                "unit_id": unit,
                "query_id": query,
                "positive_score": 0.5,
                "passage_ids": own[pooled].tolist(),
                "depth": DEPTH,
                "hits_wanted": DEPTH,
                "verdicts": verdicts.tolist(),
            }
        )
    schema = pa.schema(
        {
            "unit_id": pa.int64(),
            "query_id": pa.int64(),
            "positive_score": pa.float32(),
            "passage_ids": pa.large_list(pa.int32()),
            "depth": pa.int32(),
            "hits_wanted": pa.int32(),
            "verdicts": pa.large_list(pa.uint8()),
        }
    )
    return pa.Table.from_pylist(rows, schema)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10_000), st.booleans(), st.booleans(), st.booleans())
def test_random_runs_differ_as_dictionaries_do(
    tmp_path_factory, monkeypatch, seed, per_pair_a, per_pair_b, same_texts
):
    monkeypatch.setattr(diff_stage, "_BLOCK", 3)
    rng = np.random.default_rng(seed)
    runs = [tmp_path_factory.mktemp("random") / name for name in "ab"]
    known = [(f"q{rng.integers(6)}", f"p{rng.integers(8)}") for _ in range(16)]
    corpus = [f"p {number}" for number in range(12)] + ["p1", "p2"]
    for run, per_pair in zip(runs, (per_pair_a, per_pair_b), strict=True):
        if not same_texts:
            kept = rng.permutation(len(known))[:10]
            # White space that normalisation collapses, and another order of everything.
            pairs = [(f"  {known[one][0]} ", known[one][1]) for one in kept]
            own = [one.replace(" ", "  ") for one in rng.permutation(corpus)[:10].tolist()]
        else:
            pairs, own = known, corpus
        write_run(run, pairs, own, rng, per_pair, block=int(rng.integers(1, 5)))
    found = diff(*runs, limit=6)
    check_against_oracle(found, *runs)
    check_examples(found, *runs)
    assert len(found["examples"]) == min(
        6, found["negatives"]["only_a"] + found["negatives"]["only_b"]
    )
    back = diff(*reversed(runs), limit=0)
    assert back["reasons"]["gained"] == found["reasons"]["lost"]
    assert back["examples"] == []


def test_units_are_read_in_any_order_from_any_file(tmp_path):
    pairs = [(f"q{number}", f"p{number}") for number in range(11)]
    write_run(tmp_path / "run", pairs, ["x", "y"], np.random.default_rng(0), True, block=3)
    manifest = require(RunDir(tmp_path / "run"), "negatives")
    stored = {}
    for name in pool_files(manifest):
        for one in read_verdicts(manifest, name).to_pylist():
            stored[one["unit_id"]] = one
    units, asked = StoredVerdicts(manifest), np.array([7, 0, 7, 10, 3])
    judged = units.take(asked)
    pools = units.pools(asked)
    for row, unit in enumerate(asked.tolist()):
        first, last = judged.hits.offsets[row : row + 2]
        assert judged.hits.row(row).tolist() == stored[unit]["hit_ids"]
        assert judged.verdicts[first:last].tolist() == stored[unit]["verdicts"]
        assert judged.hit_scores[first:last].tolist() == stored[unit]["hit_scores"]
        assert judged.pools.row(row).tolist() == stored[unit]["passage_ids"]
        assert pools.row(row).tolist() == stored[unit]["passage_ids"]


# --- real runs ---


def mine(run, **fields):
    return run_mine(MineConfig(run_dir=str(run), device="cpu", **fields))


def test_a_run_mined_by_other_rules(small_run, run_copy):
    mine(run_copy, k=4, pool=12, relative_margin=None, absolute_margin=0.02, max_uses=3)
    found = diff(small_run, run_copy, limit=20)
    check_against_oracle(found, small_run, run_copy)
    check_examples(found, small_run, run_copy)
    assert set(found["reasons"]["lost"]) >= {"absolute_margin", "max_uses", "beyond_pool"}
    assert "relative_margin" in found["reasons"]["gained"]
    assert {one["field"] for one in found["settings"]} == {
        "pool",
        "relative_margin",
        "absolute_margin",
        "max_uses",
    }
    assert {one["artifact"] for one in found["settings"]} == {"negatives"}
    check_against_oracle(diff(small_run, run_copy, k=2), small_run, run_copy, k=2)


def test_equal_runs_do_not_differ(small_run, run_copy):
    found = diff(small_run, run_copy)
    assert found["settings"] == found["examples"] == []
    assert found["rows"]["changed"] == found["rows"]["reordered"] == 0
    assert found["rows"]["equal"] > 100
    assert found["overlap"] == {"k": 4, "mean": 1.0}
    assert found["reasons"] == {"lost": {}, "gained": {}}


def test_pools_of_pairs_and_dropped_rows(small_run, run_copy):
    mine(run_copy, k=4, positive_score="pair", short_rows="drop", min_positive_percentile=90)
    found = diff(small_run, run_copy)
    check_against_oracle(found, small_run, run_copy)
    assert found["rows"]["only_a"] > 20
    assert found["rows"]["only_b"] == 0


def test_another_model_and_another_round(small_input, small_run, tiny_transformer, run_copy):
    """A round reads the texts of its run; another model finds other hits."""
    second = run_copy / "rounds/2"
    run_embed(
        EmbedConfig(run_dir=str(second), model=str(tiny_transformer), device="cpu", max_length=16)
    )
    mine(second, k=4, relative_margin=None)
    found = diff(small_run, second, limit=4)
    check_against_oracle(found, small_run, second)
    check_examples(found, small_run, second)
    differing = {(one["artifact"], one["field"]) for one in found["settings"]}
    assert {("embeddings", "max_length"), ("embeddings", "model.weights")} <= differing
    assert {one for one in differing if one[0] != "embeddings"} == {
        ("negatives", "relative_margin")
    }
    assert found["models"]["b"] == str(tiny_transformer)
    assert found["reasons"]["lost"]["not_a_hit"] > 0
    unseen = [one["b"] for one in found["examples"] if one["reason"] == "not_a_hit"]
    assert unseen
    assert all(one["score"] is one["rank"] is one["verdict"] is None for one in unseen)
    report = run_diff(DiffConfig(run_a=str(small_run), run_b=str(second)))
    assert f"  the model: package:wordllama in A, {tiny_transformer} in B" in report.lines
    assert any("B: no hit (positive " in line for line in report.lines)


def test_embeddings_made_by_a_function_or_given_as_vectors(
    small_input, small_run, tmp_path, monkeypatch
):
    """What made them is named as `embed` names it."""
    (tmp_path / "encoder_of_lengths.py").write_text(
        "import numpy as np\n"
        "def embed(texts):\n"
        "    return np.array([[len(one), one.count('a'), 1] for one in texts], np.float32)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    source = {
        "pairs": str(small_input / "pairs.parquet"),
        "corpus": str(small_input / "corpus.parquet"),
    }
    made, given = tmp_path / "made", tmp_path / "given"
    by_function = run_embed(
        EmbedConfig(run_dir=str(made), encoder="encoder_of_lengths:embed", **source)
    )
    mine(made, k=4, relative_margin=None)
    vectors, rng = {}, np.random.default_rng(0)
    for role, name in (("query", "queries"), ("passage", "passages")):
        vectors[f"{role}_vectors"] = str(tmp_path / f"{name}.npy")
        matrix = rng.standard_normal((by_function.counts[name], 8)).astype(np.float32)
        np.save(vectors[f"{role}_vectors"], matrix)
    by_vectors = run_embed(EmbedConfig(run_dir=str(given), **vectors, **source))
    mine(given, k=4, relative_margin=None)
    names = [
        "encoder_of_lengths:embed",
        f"{vectors['query_vectors']} and {vectors['passage_vectors']}",
    ]
    for name, report in zip(names, (by_function, by_vectors), strict=True):
        assert f"embedded with {name} (" in report.lines[0]
    assert diff(made, given)["models"] == {"a": names[0], "b": names[1]}
    said = run_diff(DiffConfig(run_a=str(made), run_b=str(given))).lines
    assert f"  the model: {names[0]} in A, {names[1]} in B" in said
    said = run_diff(DiffConfig(run_a=str(small_run), run_b=str(made))).lines
    assert f"  the model: package:wordllama in A, {names[0]} in B" in said


def part_of_nl2bash(source, folder, rows):
    """A BEIR folder with these training rows (query id, passage id) of nl2bash."""
    (folder / "qrels").mkdir(parents=True)
    (folder / "qrels/train.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"{q}\t{p}\t1\n" for q, p in rows)
    )
    for name, wanted in (("queries", {q for q, _ in rows}), ("corpus", {p for _, p in rows})):
        lines = (source / f"{name}.jsonl").read_text("utf-8").splitlines(keepends=True)
        kept = [line for line in lines if json.loads(line)["_id"] in wanted]
        (folder / f"{name}.jsonl").write_text("".join(kept), "utf-8")


def everything(folder):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(scope="module")
def two_runs(shared_data, tmp_path_factory):
    """nl2bash with 1,000 pairs, and again with 1% more, a wider margin, and a new positive."""
    source, folder = shared_data / "nl2bash", tmp_path_factory.mktemp("two_runs")
    lines = (source / "qrels/train.tsv").read_text().splitlines()[1:1_011]
    rows = [tuple(line.split("\t")[:2]) for line in lines]
    part_of_nl2bash(source, folder / "data_a", rows[:1_000])
    run_embed(EmbedConfig(pairs=str(folder / "data_a"), run_dir=str(folder / "a"), device="cpu"))
    mine(folder / "a")
    # The first negative of some query becomes a positive of it.
    store = TextStore.open(require(RunDir(folder / "a"), "texts"))
    table = read_table(folder / "a/negatives/negatives-00000-of-00001.arrow")
    unit = next(one for one in table.to_pylist() if len(one["passage_ids"]) > 8)
    query = store.queries.column("original_id")[unit["query_id"]].as_py()
    negative = store.passages.column("original_id")[unit["passage_ids"][0]].as_py()
    part_of_nl2bash(source, folder / "data_b", [(query, negative), *rows[::-1]])
    run_embed(EmbedConfig(pairs=str(folder / "data_b"), run_dir=str(folder / "b"), device="cpu"))
    mine(folder / "b", relative_margin=0.1)
    return folder, query, negative


def test_one_percent_more_pairs_and_another_margin(two_runs, cli):
    folder, _, _ = two_runs
    before = everything(folder)
    done = cli("diff", "a", "b", "--limit", "3", "--json", "found.json", cwd=folder)
    assert done.code == 0, done
    written = folder / "found.json"
    found = json.loads(written.read_text("utf-8"))
    written.unlink()
    assert {path for path, said in everything(folder).items() if before.get(path) != said} == set()
    check_against_oracle(found, folder / "a", folder / "b")
    check_examples(found, folder / "a", folder / "b")
    assert found["pairs"] == {"only_a": 0, "both": 1_000, "only_b": 11}
    lost, gained = found["reasons"]["lost"], found["reasons"]["gained"]
    assert lost["known_positive"] == 1
    assert lost["relative_margin"] > 1_000
    assert set(lost) <= {"known_positive", "relative_margin", "beyond_pool", "not_a_hit"}
    assert gained["beyond_pool"] > 0
    assert gained["not_in_corpus"] > 0
    margins = [one for one in found["settings"] if one["artifact"] == "negatives"]
    assert margins == [{"artifact": "negatives", "field": "relative_margin", "a": 0.05, "b": 0.1}]
    assert len(found["examples"]) == 3
    lines = [line.strip() for line in done.stdout.splitlines()]
    rows = {line.split("  ")[0]: line.split()[-3:] for line in lines}
    assert rows["pairs"] == ["0", "1,000", "11"]
    assert rows["relative_margin"][-2:] == [f"{lost['relative_margin']:,}", "0"]
    assert rows["not_in_corpus (not in the corpus)"][-1] == f"{gained['not_in_corpus']:,}"
    assert "negatives: relative_margin 0.05 in A, 0.1 in B" in done.stdout
    assert "all of it is in found.json" in done.stdout


def test_one_query_by_id_and_by_text(two_runs, cli_here):
    folder, query, negative = two_runs
    store = TextStore.open(require(RunDir(folder / "a"), "texts"))
    ids = store.queries.column("original_id").to_pylist()
    text = store.queries.column("text")[ids.index(query)].as_py()
    by_id = diff(folder / "a", folder / "b", query=query, limit=100)
    by_text = diff(folder / "a", folder / "b", query=f" {text}  ", limit=100)
    assert {**by_text, "query": query} == by_id
    assert by_id["pairs"]["only_b"] == 1
    assert by_id["reasons"]["lost"]["known_positive"] == 1
    assert {one["query"] for one in by_id["examples"]} == {text}
    (positive,) = [one for one in by_id["examples"] if one["reason"] == "known_positive"]
    passages = store.passages.column("original_id").to_pylist()
    assert positive["negative"] == store.passages.column("text")[passages.index(negative)].as_py()
    assert positive["a"]["slot"] == 0
    assert positive["b"]["verdict"] == "known_positive"
    assert positive["b"]["rank"] is None
    done = cli_here("diff", folder / "a", folder / "b", "--query", query)
    assert f"pairs, rows and negatives: of the query {query!r} only" in done.stdout
    assert "only in A, in B known_positive" in done.stdout
    printed = cli_here("diff", folder / "a", "--query", query, "--json", "-", run_dir=folder / "b")
    assert json.loads(printed.stdout)["reasons"] == by_id["reasons"]


# --- what is wrong is said ---


def test_mistakes_are_said_in_one_line(two_runs, cli_here, tmp_path):
    folder, _, _ = two_runs
    a, b = folder / "a", folder / "b"
    link = tmp_path / "link"
    link.symlink_to(a)
    for second in (a, f"{a}/", link):
        assert "twice" in cli_here("diff", a, second).error
    assert "found none; name them" in cli_here("diff").error
    assert "--run-dir" in cli_here("diff", a, b, run_dir=folder).error
    missing = cli_here("diff", a, tmp_path / "typo")
    assert f"expected a run directory at {tmp_path / 'typo'}" in missing.error
    assert not (tmp_path / "typo").exists()
    assert "has the text or the original id 'nowhere'" in (
        cli_here("diff", a, b, "--query", "nowhere").error
    )
    taken = tmp_path / "taken.json"
    taken.write_text("mine")
    assert "is there already; give --overwrite" in cli_here("diff", a, b, "--json", taken).error
    assert taken.read_text() == "mine"
    assert cli_here("diff", a, b, "--json", taken, "--overwrite").code == 0
    assert json.loads(taken.read_text())["pairs"]["both"] == 1_000
    for extra in ((), ("--overwrite",)):
        assert "is a folder" in cli_here("diff", a, b, "--json", tmp_path, *extra).error
    assert "cannot write" in cli_here("diff", a, b, "--json", taken / "below.json").error


def test_missing_and_stale_negatives_are_refused(small_run, run_copy, small_input):
    shutil.rmtree(run_copy / "negatives")
    with pytest.raises(ArtifactError, match=r"negatives/ is missing; run `stx-mine mine`"):
        diff(small_run, run_copy)
    mine(run_copy, k=4)
    changed = small_input.with_name("changed.parquet")
    pq.write_table(pq.read_table(small_input / "pairs.parquet").slice(0, 500), changed)
    config = IngestConfig(pairs=str(changed), run_dir=str(run_copy), overwrite=True)
    run_ingest(config)
    with pytest.raises(ArtifactError, match="is stale: texts/ has changed"):
        diff(run_copy, small_run)
    with pytest.raises(ConfigError, match="twice"):
        diff(run_copy, Path(run_copy) / ".." / run_copy.name)


def test_a_run_that_is_mined_meanwhile_is_refused(small_run, run_copy, monkeypatch):
    compare = diff_stage._compare

    def compare_and_mine(*args):
        compare(*args)
        mine(run_copy, k=4, relative_margin=0.3)

    monkeypatch.setattr(diff_stage, "_compare", compare_and_mine)
    with pytest.raises(ArtifactError, match="made anew while it was read"):
        diff(small_run, run_copy)
