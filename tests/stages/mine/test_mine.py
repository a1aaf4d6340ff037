"""Mining as a whole: layers of hits, sources, what is dropped, and what stays the same."""

import json
import re
import shutil
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stx_mine.core.ragged import Ragged
from stx_mine.core.verdicts import Verdict
from stx_mine.errors import ArtifactError, ConfigError, InputError
from stx_mine.models.load import load_model
from stx_mine.search.exact import ExactSearcher
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.export.config import ExportConfig
from stx_mine.stages.export.stage import run_export
from stx_mine.stages.index.config import IndexConfig
from stx_mine.stages.index.stage import run_index
from stx_mine.stages.ingest.config import IngestConfig
from stx_mine.stages.ingest.stage import run_ingest
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.store.artifact import require
from stx_mine.store.files import read_table
from stx_mine.store.hits import HitBlock, HitLayers, HitSource, concatenate, merge_sources
from stx_mine.store.negatives import pool_files, read_verdicts
from stx_mine.store.pools import Pools
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore
from stx_mine.store.vectors import Vectors


def mine(run, **fields):
    return run_mine(MineConfig(run_dir=str(run), device="cpu", **fields))


def negatives(run):
    manifest = require(RunDir(run), "negatives")
    return pa.concat_tables([read_verdicts(manifest, name) for name in pool_files(manifest)])


def store_of(run):
    return TextStore.open(require(RunDir(run), "texts"))


def layers_of(run):
    return require(RunDir(run), "hits", "dense").extra["layers"]


def block_of(rows):
    """rows: query -> [(passage, score)], one source."""
    lists = [sorted(hits, key=lambda one: (-one[1], one[0])) for hits in rows.values()]
    flat = [hit for hits in lists for hit in hits]
    offsets = np.cumsum([0, *map(len, lists)])
    return HitBlock(
        np.array(list(rows), np.int64),
        Ragged(offsets, np.array([hit[0] for hit in flat], np.int64)),
        np.array([hit[1] for hit in flat], np.float32),
        np.full(len(flat), 1, np.uint8),
    )


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3))
def test_sources_merge_into_one_hit_a_passage(seed, num_sources):
    rng = np.random.default_rng(seed)
    scores = rng.choice(np.linspace(-1, 1, 5), (4, 9)).astype(np.float32)
    blocks, expected = [], [{} for _ in range(4)]
    for source in range(num_sources):
        rows = {}
        for query in range(4):
            chosen = rng.choice(9, rng.integers(0, 9), replace=False)
            rows[query + 10] = [(int(one), float(scores[query, one])) for one in chosen]
            for one in chosen:
                bits = expected[query].get(int(one), 0)
                expected[query][int(one)] = bits | 1 << source
        block = block_of(rows)
        blocks.append(
            HitBlock(block.query_ids, block.hits, block.scores, block.sources << np.uint8(source))
        )
    merged = merge_sources(blocks)
    assert merged.query_ids.tolist() == [10, 11, 12, 13]
    for query in range(4):
        first, last = merged.hits.offsets[query : query + 2]
        ids = merged.hits.values[first:last].tolist()
        order = sorted(expected[query], key=lambda one: (-scores[query, one], one))
        assert ids == order
        assert merged.sources[first:last].tolist() == [expected[query][one] for one in ids]
        np.testing.assert_array_equal(merged.scores[first:last], scores[query, ids])


def test_blocks_of_different_queries_join_in_order():
    one, two = block_of({3: [(1, 0.5)], 9: []}), block_of({0: [(4, 0.1), (2, 0.2)], 5: [(7, 1.0)]})
    joined = concatenate([one, two])
    assert joined.query_ids.tolist() == [0, 3, 5, 9]
    assert [joined.hits.row(row).tolist() for row in range(4)] == [[2, 4], [1], [7], []]
    assert len(concatenate([]).query_ids) == 0


def test_more_depth_adds_a_layer_and_less_depth_reads_what_is_there(run_copy):
    mine(run_copy, k=4, depth=40)
    first = layers_of(run_copy)
    deep = mine(run_copy, k=4, depth=160)
    assert "reused" not in deep.lines[0]
    assert [layer["depth"] for layer in layers_of(run_copy)] == [
        *[layer["depth"] for layer in first],
        160,
    ]
    again = mine(run_copy, k=4, depth=80)
    assert "hits reused" in again.lines[0]
    found = negatives(run_copy)
    fresh = run_copy.with_name("fresh")
    shutil.copytree(run_copy, fresh, ignore=shutil.ignore_patterns("hits", "negatives*"))
    mine(fresh, k=4, depth=80)
    assert found.equals(negatives(fresh))


def test_a_new_layer_makes_nothing_stale(run_copy):
    mine(run_copy, k=4)
    run_pack(PackConfig(run_dir=str(run_copy), batch_size=64))
    before = require(RunDir(run_copy), "hits", "dense")
    mine(run_copy, k=4, depth=300)
    mine(run_copy, k=4)
    after = require(RunDir(run_copy), "hits", "dense")
    assert after.digest == before.digest
    assert len(after.content["files"]) > len(before.content["files"])
    assert require(RunDir(run_copy), "batches")


def test_only_queries_that_lack_negatives_are_searched_deeper(run_copy):
    shutil.rmtree(run_copy / "hits")
    shallow = mine(run_copy, k=8, depth=20, relative_margin=0.3)
    short = {
        int(unit)
        for unit, pool in zip(
            negatives(run_copy)["unit_id"].to_pylist(),
            negatives(run_copy)["passage_ids"].to_pylist(),
            strict=True,
        )
        if len(pool) < 8
    }
    assert 20 < len(short) < 580
    deep = mine(run_copy, k=8, depth=20, max_depth=200, relative_margin=0.3)
    assert deep.counts["queries_deepened"] == len(short)
    assert deep.counts["rows_full"] > shallow.counts["rows_full"]
    searched = HitLayers(require(RunDir(run_copy), "hits", "dense"))
    deeper = [layer for layer in searched.layers if layer["depth"] in (80, 200)]
    assert [layer["depth"] for layer in deeper] == [80, 200]
    table = read_table(run_copy / "hits/dense" / deeper[0]["files"]["0"])
    assert set(table["query_id"].to_pylist()) == short
    # A query that is short even there is one that nothing can help, or that went on to 200.
    store, table = store_of(run_copy), negatives(run_copy)
    lengths = dict(zip(table["unit_id"].to_pylist(), map(len, table["hit_ids"]), strict=True))
    forbidden = np.bincount(store.pair_query_ids) + 1
    for unit, pool in zip(table["unit_id"].to_pylist(), table["passage_ids"], strict=True):
        assert len(pool) >= 8 or lengths[unit] == min(200 + forbidden[unit], store.num_passages)
        assert (lengths[unit] == 20 + forbidden[unit]) == (unit not in short)


def test_a_killed_layer_is_searched_again_and_other_plans_files_are_not_trusted(run_copy):
    mine(run_copy, k=4, depth=40)
    reference = run_copy.with_name("reference")
    shutil.copytree(run_copy, reference)
    mine(reference, k=4, depth=160)
    folder = run_copy / "hits/dense"
    number = len(layers_of(run_copy))
    stem = f"layer-{number:03d}"
    # A run killed in a layer of other queries left these behind.
    (folder / f"{stem}.json").write_text(json.dumps({"depth": 77, "queries": "other"}))
    name = next(iter(layers_of(reference)[-1]["files"].values()))
    assert name.startswith(stem)
    shutil.copy(next(folder.glob("layer-000-*.arrow")), folder / name)
    mine(run_copy, k=4, depth=160)
    assert negatives(run_copy).equals(negatives(reference))


def test_hits_of_another_model_are_refused(run_copy, tiny_transformer):
    run_embed(
        EmbedConfig(
            run_dir=str(run_copy), model=str(tiny_transformer), overwrite=True, device="cpu"
        )
    )
    with pytest.raises(ArtifactError, match=r"embeddings/ has changed.*--overwrite"):
        mine(run_copy, k=4)
    again = mine(run_copy, k=4, relative_margin=None, overwrite=True)
    assert again.counts["pooled"] > 0


def test_short_rows_are_dropped_only_when_asked_and_counted(run_copy):
    kept = mine(run_copy, k=8, relative_margin=0.2).counts
    assert kept["rows_ragged"] + kept["rows_empty"] > 20
    assert kept["rows"] == kept["pairs_in"] == store_of(run_copy).num_pairs
    dropped = mine(run_copy, k=8, relative_margin=0.2, short_rows="drop").counts
    assert dropped["rows"] == dropped["rows_full"] == kept["rows_full"]
    assert dropped["pairs_dropped"]["short"] == kept["rows_ragged"] + kept["rows_empty"]
    pools = Pools.open(require(RunDir(run_copy), "negatives"), store_of(run_copy).pair_query_ids)
    assert len(pools.rows) == dropped["rows"]
    assert ((pools.ids_NS[pools.rows] >= 0).sum(1) >= 8).all()
    size = len(pools.rows) // 3
    packed = run_pack(PackConfig(run_dir=str(run_copy), batch_size=size, packings=1)).counts
    assert packed["rows_in"] == dropped["rows"]
    exported = run_export(ExportConfig(run_dir=str(run_copy), to="n-tuple")).counts
    assert exported["rows_in"] == exported["rows_kept"] == dropped["rows"]
    shards = sorted((run_copy / "batches/epoch-000").glob("*.parquet"))
    rows = np.concatenate([pq.read_table(one)["row_id"].to_numpy() for one in shards])
    assert set(rows) <= set(pools.rows)


@pytest.mark.parametrize("positive_score", ["lowest", "pair"])
def test_a_mislabelled_positive_is_reported_and_dropped_when_asked(
    small_run, small_input, tmp_path, positive_score
):
    """One wrong positive empties the pool of its query through the lowest-positive margin."""
    table = pq.read_table(small_input / "pairs.parquet").slice(0, 200).to_pydict()
    scores = (
        vectors(small_run, "passages").rows(0, 500) @ vectors(small_run, "queries").rows(0, 1)[0]
    )
    table["query"].append(table["query"][0])
    table["passage"].append(store_of(small_run).passages["text"][int(scores.argmin())].as_py())
    pairs = tmp_path / "pairs.parquet"
    pq.write_table(pa.table(table), pairs)
    run = tmp_path / "run"
    corpus = str(small_input / "corpus.parquet")
    run_embed(EmbedConfig(run_dir=str(run), pairs=str(pairs), corpus=corpus, device="cpu"))
    plain = mine(run, k=4, positive_score=positive_score)
    assert plain.counts["pairs_suspect"] >= 1
    assert any("below most random passages" in line for line in plain.lines)
    strict = mine(run, k=4, positive_score=positive_score, min_positive_percentile=50)
    assert strict.counts["pairs_dropped"]["positive_percentile"] == plain.counts["pairs_suspect"]
    pools = Pools.open(require(RunDir(run), "negatives"), store_of(run).pair_query_ids)
    assert 200 not in pools.rows
    # It stays forbidden, though it is no row.
    assert 200 < store_of(run).num_pairs
    wrong = store_of(run).pair_passage_ids[200]
    assert wrong not in pools.ids_NS[0]
    if positive_score == "lowest":
        before = plain.counts["rows_full"]
        assert strict.counts["rows_full"] + 1 >= before - plain.counts["pairs_suspect"]
        assert (pools.ids_NS[0] >= 0).sum() >= 4


def test_max_uses_holds_for_every_passage(run_copy):
    free = mine(run_copy, k=4)
    counts = np.bincount(np.concatenate(negatives(run_copy)["passage_ids"].to_numpy()))
    assert counts.max() > 12
    capped = mine(run_copy, k=4, max_uses=12)
    counts = np.bincount(np.concatenate(negatives(run_copy)["passage_ids"].to_numpy()))
    assert counts.max() <= 12
    assert capped.counts["dropped"]["max_uses"] > 0
    assert capped.counts["hits_in"] == free.counts["hits_in"]


def test_the_waterfall_adds_up_whatever_the_rules(run_copy):
    counts = mine(
        run_copy,
        k=4,
        pool=6,
        range_min=2,
        range_max=80,
        min_score=0.1,
        max_score=0.9,
        absolute_margin=0.01,
        upper_margin=0.3,
        max_uses=20,
        sampling="weighted",
        short_rows="drop",
        max_depth=400,
    ).counts
    assert counts["hits_in"] == counts["pooled"] + sum(counts["dropped"].values())
    assert counts["rows"] == sum(counts[f"rows_{one}"] for one in ("full", "ragged", "empty"))
    assert counts["pairs_in"] == counts["rows"] + sum(counts["pairs_dropped"].values())
    assert all(counts["dropped"][one] for one in ("upper_margin", "rank_window", "max_uses"))


def test_words_find_what_vectors_do_not_and_get_a_dense_score(run_copy):
    dense = mine(run_copy, k=4)
    both = mine(run_copy, k=4, sources="dense,bm25")
    assert both.counts["hits_in"] > dense.counts["hits_in"]
    run = RunDir(run_copy)
    table, store = negatives(run_copy), store_of(run_copy)
    bits = np.concatenate(table["hit_sources"].to_numpy())
    assert set(bits) == {HitSource.DENSE, HitSource.BM25, HitSource.DENSE | HitSource.BM25}
    block = HitBlock.read(require(run, "hits", "bm25"), "hits-00000-of-00001.arrow", HitSource.BM25)
    texts = {role: getattr(store, role)["text"].to_pylist() for role in ("queries", "passages")}
    for query in range(0, 60, 7):
        words = set(re.findall(r"\w+", texts["queries"][query].lower()))
        for passage in block.hits.row(query):
            assert words & set(re.findall(r"\w+", texts["passages"][passage].lower()))
    queries, passages = vectors(run_copy, "queries"), vectors(run_copy, "passages")
    expected = queries.take(block.query_ids[:50]).astype(float) @ passages.rows(
        0, len(passages)
    ).T.astype(float)
    for query in range(50):
        first, last = block.hits.offsets[query : query + 2]
        np.testing.assert_allclose(
            block.scores[first:last], expected[query, block.hits.row(query)], atol=1e-6
        )


def test_candidates_come_in_as_texts(run_copy, tmp_path):
    mine(run_copy, k=4)
    store = store_of(run_copy)
    queries, passages = (getattr(store, one)["text"].to_pylist() for one in ("queries", "passages"))
    ranked = ExactSearcher(vectors(run_copy, "passages")).search(
        vectors(run_copy, "queries").take(np.array([5])), store.num_passages
    )
    far = [int(one) for one in ranked.ids_QK[0, -3:]]
    rows = {
        "query": [queries[5]] * 3 + ["not a query of this run"],
        "passage": [passages[far[0]], "  " + passages[far[1]], passages[far[2]], passages[0]],
    }
    path = tmp_path / "candidates.parquet"
    pq.write_table(pa.table(rows), path)
    mine(run_copy, k=4, candidates=str(path))
    manifest = require(RunDir(run_copy), "hits", "candidates")
    assert manifest.counts["lines_unknown"] == 1
    table = negatives(run_copy)
    ids, bits = table["hit_ids"][5].as_py(), table["hit_sources"][5].as_py()
    assert {one for one, bit in zip(ids, bits, strict=True) if bit & HitSource.CANDIDATES} == set(
        far
    )
    assert table["verdicts"][5].as_py()[ids.index(far[0])] in (Verdict.POOLED, Verdict.BEYOND_POOL)


def vectors(run, role):
    return Vectors.open(require(RunDir(run), "embeddings"), role)


@pytest.mark.parametrize("delimiter", [" ", "\t"])
def test_candidates_come_in_as_a_trec_run(shared_data, tmp_path, delimiter):
    run = tmp_path / "run"
    run_embed(EmbedConfig(run_dir=str(run), pairs=str(shared_data / "xquad-en"), device="cpu"))
    store = store_of(run)
    queries, passages = (
        getattr(store, one)["original_id"].to_pylist() for one in ("queries", "passages")
    )
    lines = [
        delimiter.join([queries[q], "Q0", passages[-1 - q], str(q), "1.5", "splade"])
        for q in range(30)
    ]
    path = tmp_path / "run.trec"
    path.write_text("\n".join(lines) + "\n")
    mine(run, k=4, depth=10, candidates=str(path))
    table = negatives(run)
    for query in range(30):
        ids, bits = table["hit_ids"][query].as_py(), table["hit_sources"][query].as_py()
        given_ids = [i for i, bit in zip(ids, bits, strict=True) if bit & HitSource.CANDIDATES]
        assert given_ids == [len(passages) - 1 - query]


def test_candidates_of_other_texts_are_refused(run_copy, tmp_path, cli_here):
    path = tmp_path / "other.jsonl"
    path.write_text('{"query": "nobody asked", "passage": "nobody answered"}\n')
    done = cli_here("mine", "--run-dir", run_copy, "--candidates", path)
    assert "names a query and a passage of this run" in done.error
    path = tmp_path / "other.trec"
    path.write_text("q1 Q0 d1 1 2.0 tag\n")
    assert "original ids" in cli_here("mine", "--run-dir", run_copy, "--candidates", path).error
    missing = cli_here("mine", "--run-dir", run_copy, "--candidates", tmp_path / "no.trec")
    assert "found nothing" in missing.error


def test_grades_below_the_least_are_no_positives(tmp_path):
    folder = tmp_path / "graded"
    (folder / "qrels").mkdir(parents=True)
    docs = [{"_id": f"d{i}", "title": "", "text": f"passage number {i}"} for i in range(6)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, docs)))
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "which number"}))
    judged = "query-id\tcorpus-id\tscore\nq\td0\t2\nq\td1\t1\nq\td2\t0\n"
    (folder / "qrels/train.tsv").write_text(judged)
    any_grade = run_ingest(IngestConfig(run_dir=str(tmp_path / "a"), pairs=str(folder)))
    assert any_grade.counts["pairs_kept"] == 2
    best = run_ingest(IngestConfig(run_dir=str(tmp_path / "b"), pairs=str(folder), min_grade=2))
    assert best.counts["pairs_kept"] == 1
    assert best.counts["pairs_dropped"]["below_min_grade"] == 2


def test_closeness_drops_what_lies_at_the_middle_of_query_and_positive(run_copy):
    mine(run_copy, k=4, relative_margin=None)
    free = negatives(run_copy)
    counts = mine(run_copy, k=4, relative_margin=None, closeness=0.7).counts
    assert counts["dropped"]["close_to_positive"] > 100
    store, table = store_of(run_copy), negatives(run_copy)
    assert table["hit_ids"].equals(free["hit_ids"])
    queries, passages = (
        vectors(run_copy, role).rows(0, len(vectors(run_copy, role))).astype(float)
        for role in ("queries", "passages")
    )
    queries, passages = (one - one.mean(0) for one in (queries, passages))
    queries, passages = (one / np.linalg.norm(one, axis=1)[:, None] for one in (queries, passages))
    for pair in range(0, store.num_pairs, 17):
        query, positive = store.pair_query_ids[pair], passages[store.pair_passage_ids[pair]]
        q, unit = queries[query], table["unit_id"].to_pylist().index(query)
        ids = np.array(table["hit_ids"][unit].as_py())
        gaps = passages[ids] @ (q + positive) - 0.7 * (1 + q @ positive)
        codes = np.array(table["verdicts"][unit].as_py())
        close = codes == Verdict.CLOSE_TO_POSITIVE
        assert (gaps[close] > -1e-5).all()
        judged = np.isin(codes, (Verdict.POOLED, Verdict.BEYOND_POOL))
        assert (gaps[judged] < 1e-5).all()


def test_a_window_that_ends_first_is_not_searched_beyond(run_copy):
    counts = mine(run_copy, k=8, range_max=60, relative_margin=0.3, max_depth=400).counts
    assert counts["queries_deepened"] == 0
    assert counts["rows_full"] < counts["rows"]


def test_known_negatives_of_the_input_are_candidates(small_input, tmp_path):
    rows = pq.read_table(small_input / "pairs.parquet").slice(0, 60).to_pydict()
    extra = [f"a hand-picked wrong answer, number {row}" for row in range(60)]
    # A passage of another row, a missing one, a query's own positive.
    others = [*rows["passage"][1:59], None, rows["passage"][59]]
    table = {**rows, "negative_1": extra, "negative_2": others}
    pairs = tmp_path / "pairs.parquet"
    pq.write_table(pa.table(table), pairs)
    run = tmp_path / "run"
    config = EmbedConfig(
        run_dir=str(run),
        pairs=str(pairs),
        corpus=str(small_input / "corpus.parquet"),
        negative_column=("negative_1", "negative_2"),
        device="cpu",
    )
    report = run_embed(config)
    assert report.parts[0].counts["known_negatives"] == 119
    mine(run, k=4, depth=5, relative_margin=None)
    store, found = store_of(run), negatives(run)
    passages = store.passages["text"].to_pylist()
    for row in range(60):
        query = store.pair_query_ids[row]
        ids, bits = found["hit_ids"][int(query)].as_py(), found["hit_sources"][int(query)].as_py()
        codes = found["verdicts"][int(query)].as_py()
        known = {
            passages[i]: c for i, b, c in zip(ids, bits, codes, strict=True) if b & HitSource.KNOWN
        }
        assert extra[row] in known
        assert others[row] is None or others[row] in known
    assert known[others[59]] == Verdict.KNOWN_POSITIVE


def test_the_margin_can_be_switched_off_on_the_command_line(run_copy, cli_here):
    done = cli_here("mine", "--k", "4", "--relative-margin", "none", run_dir=run_copy)
    assert done.code == 0, done
    counts = require(RunDir(run_copy), "negatives").counts
    assert counts["dropped"]["relative_margin"] == 0
    assert require(RunDir(run_copy), "negatives").fields["relative_margin"] is None
    wrong = cli_here("mine", "--relative-margin", "much", run_dir=run_copy)
    assert wrong.code == 2
    assert "much" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_a_rule_that_takes_everything_says_what_would_be_left_without_it(run_copy):
    free = mine(run_copy, k=4).counts
    left = free["pooled"] + free["dropped"]["beyond_pool"]
    with pytest.raises(InputError, match=rf"--max-score -1.* {left:,} would be left"):
        mine(run_copy, k=4, max_score=-1)


def test_texts_with_a_zero_vector_are_named(tmp_path):
    model = load_model("package:wordllama", device="cpu")
    tokens = model.preprocess(["zebra"])["input_ids"]
    with torch.no_grad():
        model[0].embedding.weight[tokens] = 0
    model.save_pretrained(str(tmp_path / "model"))
    rows = {"query": ["a dog", "the cat"], "passage": ["barks", "zebra"]}
    pq.write_table(pa.table(rows), tmp_path / "pairs.parquet")
    config = EmbedConfig(
        run_dir=str(tmp_path / "run"),
        pairs=str(tmp_path / "pairs.parquet"),
        model=str(tmp_path / "model"),
        device="cpu",
    )
    report = run_embed(config)
    assert report.counts["zero_vectors"] == {"queries": [], "passages": [1]}
    (warning,) = report.warnings
    assert "1 passages have a zero vector (ids 1)" in warning


@pytest.mark.parametrize("options", [{}, {"closeness": 0.7, "short_rows": "drop"}])
def test_threads_and_blocks_change_no_negative(run_copy, options):
    found = []
    threads = torch.get_num_threads()
    try:
        for num_threads, query_block in ((1, 4_096), (4, 128)):
            torch.set_num_threads(num_threads)
            config = MineConfig(
                run_dir=str(run_copy),
                device="cpu",
                k=4,
                max_depth=400,
                query_block=query_block,
                **options,
            )
            for artifact in ("hits", "negatives"):
                shutil.rmtree(run_copy / artifact, ignore_errors=True)
            report = run_mine(config)
            run = RunDir(run_copy)
            pools = Pools.open(
                require(run, "negatives"), TextStore.open(require(run, "texts")).pair_query_ids
            )
            found.append((report.counts, np.array(pools.ids_NS), np.array(pools.rows)))
    finally:
        torch.set_num_threads(threads)
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])
    np.testing.assert_array_equal(found[0][2], found[1][2])


@given(
    seed=st.integers(0, 2**32 - 1),
    num_passages=st.integers(1, 60),
    num_parts=st.integers(1, 7),
    num_hits=st.integers(1, 70),
)
@settings(max_examples=50, deadline=None)
def test_parts_of_the_corpus_merge_into_the_hits_of_one_pass(
    seed, num_passages, num_parts, num_hits
):
    """Small whole numbers, so that most scores tie and ids decide."""
    rng = np.random.default_rng(seed)
    passages = Vectors((rng.integers(-1, 2, (num_passages, 3)).astype(np.float32),), "dot")
    queries_QD = rng.integers(-1, 2, (9, 3)).astype(np.float32)
    found = []
    for parts in (1, num_parts):
        edges = [part * num_passages // parts for part in range(parts + 1)]
        blocks = []
        for start, stop in pairwise(edges):
            hits = ExactSearcher(passages, 7, "cpu", start=start, stop=stop).search(
                queries_QD, num_hits
            )
            lengths = np.full(len(queries_QD), hits.ids_QK.shape[1])
            ids = Ragged(np.cumsum([0, *lengths]), hits.ids_QK.ravel())
            sources = np.full(hits.ids_QK.size, HitSource.DENSE, np.uint8)
            blocks.append(HitBlock(np.arange(9), ids, hits.scores_QK.ravel(), sources))
        merged = merge_sources(blocks)
        found.append(merged.take(np.arange(9), np.full(9, min(num_hits, num_passages))))
    np.testing.assert_array_equal(found[0].hits.offsets, found[1].hits.offsets)
    np.testing.assert_array_equal(found[0].hits.values, found[1].hits.values)
    np.testing.assert_array_equal(found[0].scores, found[1].scores)


def test_parts_of_an_index_are_refused(run_copy):
    run_index(IndexConfig(run_dir=str(run_copy), factory="Flat"))
    with pytest.raises(ConfigError, match="--corpus-parts 2 divides exact search"):
        mine(run_copy, k=4, corpus_parts=2, overwrite=True)


def test_after_an_index_is_built_exact_hits_may_still_be_used(run_copy, cli_here):
    run_index(IndexConfig(run_dir=str(run_copy), factory="Flat"))
    refused = cli_here("mine", "--k", "4", run_dir=run_copy)
    assert refused.code == 2
    assert "search was 'exact' and is 'faiss' now" in refused.error
    assert "--search exact, which goes on with these hits" in refused.error
    kept = mine(run_copy, k=4, search="exact", relative_margin=0.01)
    assert "exact search, hits reused" in kept.lines[0]
    # Where it would not help, it is not offered.
    found = mine(run_copy, k=4, overwrite=True)
    assert found.lines[0].startswith("FAISS")
    run_index(IndexConfig(run_dir=str(run_copy), factory="HNSW8", overwrite=True))
    with pytest.raises(ArtifactError, match="--overwrite") as refusal:
        mine(run_copy, k=4)
    assert "--search exact" not in str(refusal.value)


@pytest.mark.parametrize(("nprobe", "low"), [(1, True), (64, False)])
def test_an_index_that_misses_much_is_said_when_it_is_built_and_used(run_copy, nprobe, low):
    made = run_index(IndexConfig(run_dir=str(run_copy), factory="IVF16,Flat", nprobe=nprobe))
    recall = made.counts["recall"]
    assert (recall < 0.9) == low
    used = mine(run_copy, k=4, overwrite=True)
    for report in (made, used):
        said = [one for one in report.warnings if "--search exact" in one]
        assert len(said) == low
        assert all(f"{1 - recall:.1%} of the nearest" in one for one in said)


# --- advice: only what helps ---


def said_of(report, words):
    return [line for line in report.lines if words in line]


def test_the_advice_to_search_deeper_counts_the_queries_that_gain(run_copy):
    shutil.rmtree(run_copy / "hits")
    shallow = mine(run_copy, k=8, depth=20, relative_margin=0.3)
    [line] = said_of(shallow, "--max-depth 80 would search deeper")
    number = shallow.counts["queries_to_deepen"]
    assert f"for {number:,} queries that lack negatives" in line
    deep = mine(run_copy, k=8, depth=20, relative_margin=0.3, max_depth=80)
    assert deep.counts["queries_deepened"] == number > 0
    assert deep.counts["rows_full"] > shallow.counts["rows_full"]
    assert not said_of(deep, "would search deeper")


@pytest.mark.parametrize(
    "options",
    [
        {"depth": 5_000, "max_score": -0.1},  # the corpus has no more
        {"depth": 20, "min_score": 0.3},  # what comes next scores lower
        {"depth": 20, "relative_margin": 0.05, "upper_margin": 0.06},
        {"depth": 20, "range_max": 20},  # and ranks beyond the window
    ],
)
def test_no_advice_to_search_deeper_where_that_gives_nothing(run_copy, options):
    shutil.rmtree(run_copy / "hits")
    options = {"relative_margin": 0.3, **options}
    found = mine(run_copy, k=8, **options)
    assert found.counts["rows_full"] < found.counts["rows"]
    lacking = found.counts["queries_to_deepen"]
    assert bool(said_of(found, "would search deeper")) == (lacking > 0)
    deepest = mine(run_copy, k=8, max_depth=5_000, **options)
    gained = deepest.counts["rows_full"] - found.counts["rows_full"]
    assert lacking >= gained
    if "upper_margin" not in options:
        assert lacking == gained == 0


def test_an_index_that_has_no_more_to_give_is_not_asked_for_more(run_copy):
    run_index(IndexConfig(run_dir=str(run_copy), factory="IVF64,Flat", nprobe=1))
    found = mine(run_copy, k=8, search="faiss", relative_margin=0.3, overwrite=True)
    searched = HitLayers(require(RunDir(run_copy), "hits", "dense"))
    assert searched.layers
    whole = {
        int(unit)
        for unit, ids, pool in zip(
            *(
                negatives(run_copy)[name].to_pylist()
                for name in ("unit_id", "hit_ids", "passage_ids")
            ),
            strict=True,
        )
        if len(pool) < 8 and len(ids) >= 100
    }
    assert found.counts["queries_to_deepen"] <= len(whole)


def test_pairs_that_are_dropped_already_get_no_advice_to_drop_them(run_copy):
    plain, strict = (mine(run_copy, k=4, min_positive_percentile=p) for p in (None, 50.0))
    assert said_of(plain, "--min-positive-percentile 50 drops them")
    assert strict.counts["pairs_dropped"]["positive_percentile"]
    assert not said_of(strict, "--min-positive-percentile")


def test_the_way_out_of_nothing_left_leaves_something(run_copy):
    """The rule that dropped most cannot help alone; the one that can is named with its value."""
    with pytest.raises(
        InputError, match=r"no candidate is left .* loosen --max-score -1\.0: "
    ) as e:
        mine(run_copy, k=4, max_score=-1.0, relative_margin=None)
    assert "--min-score" not in str(e.value)
    left = int(re.search(r"without it ([\d,]+) would be left", str(e.value))[1].replace(",", ""))
    found = mine(run_copy, k=4, relative_margin=None).counts
    assert left == found["pooled"] + found["dropped"]["beyond_pool"]
    with pytest.raises(InputError, match="give a larger --depth or --corpus, or loosen several"):
        mine(run_copy, k=4, max_score=-1.0, absolute_margin=5.0, relative_margin=None)
    with pytest.raises(InputError, match="give a larger --corpus, or loosen several"):
        mine(run_copy, k=4, max_score=-1.0, absolute_margin=5.0, depth=5_000)


def test_the_way_out_of_no_row_names_only_what_dropped_rows(run_copy):
    with pytest.raises(InputError, match=r"short 600.* give --short-rows keep, or a smaller --k$"):
        mine(run_copy, k=90, short_rows="drop", relative_margin=0.9)
    with pytest.raises(InputError, match=r"give a smaller --min-positive-percentile$"):
        mine(run_copy, k=4, min_positive_percentile=101.0)


def test_a_window_beyond_the_corpus_is_refused(run_copy):
    passages = store_of(run_copy).num_passages
    with pytest.raises(ConfigError, match=rf"give --range-min {passages - 9} or less"):
        mine(run_copy, k=8, range_min=passages - 8, depth=passages + 8)
    mine(run_copy, k=8, range_min=passages - 9, depth=passages + 8, relative_margin=None)
