"""Known negatives of the input: counted in and out, first in their pools, filtered, or alone."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stx_mine.core.ragged import Ragged
from stx_mine.core.verdicts import ELIGIBLE, Verdict
from stx_mine.errors import ConfigError
from stx_mine.search.score import score_hits
from stx_mine.stages.diff.config import DiffConfig
from stx_mine.stages.diff.stage import run_diff
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.estimate.step_texts import deeper_pools
from stx_mine.stages.export.config import ExportConfig
from stx_mine.stages.export.stage import run_export
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.verify.config import VerifyConfig
from stx_mine.stages.verify.stage import run_verify
from stx_mine.store.artifact import require
from stx_mine.store.files import read_table
from stx_mine.store.hits import HitSource
from stx_mine.store.negatives import near_positives, pool_files, read_verdicts
from stx_mine.store.pools import Pools
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import NEGATIVES, TextStore
from stx_mine.store.vectors import Vectors

NUM_ROWS, DEPTH = 120, 20


def embed(folder, corpus, table):
    pq.write_table(pa.table(table), folder / "pairs.parquet")
    run = folder / "run"
    return run, run_embed(
        EmbedConfig(
            run_dir=str(run),
            pairs=str(folder / "pairs.parquet"),
            corpus=str(corpus),
            negative_column=tuple(name for name in table if name not in ("query", "passage")),
            device="cpu",
        )
    )


@pytest.fixture(scope="module")
def embedded(small_run, small_input, tmp_path_factory):
    """A run with a near and a far known negative a row; one of them is the row's positive."""
    rows = pq.read_table(small_input / "pairs.parquet").slice(0, NUM_ROWS).to_pydict()
    store = TextStore.open(require(RunDir(small_run), "texts"))
    texts = store.passages["text"].to_pylist()
    number = {text: row for row, text in enumerate(store.queries["text"].to_pylist())}
    embeddings = require(RunDir(small_run), "embeddings")
    queries, passages = (Vectors.open(embeddings, role) for role in ("queries", "passages"))
    scores = queries.rows(0, len(queries)) @ passages.rows(0, len(passages)).T
    near, far = [], []
    for query, passage in zip(rows["query"], rows["passage"], strict=True):
        ranked = np.argsort(-scores[number[query]])
        near.append(next(texts[one] for one in ranked if texts[one] != passage))
        far.append(texts[ranked[-1]])
    near[7] = rows["passage"][7]
    folder = tmp_path_factory.mktemp("known")
    run, report = embed(folder, small_input / "corpus.parquet", {**rows, "near": near, "far": far})
    return run, report.parts[0].counts["known_negatives"]


@pytest.fixture
def run(embedded, tmp_path):
    shutil.copytree(embedded[0], tmp_path / "run")
    return tmp_path / "run"


def mine(run, **fields):
    if fields.get("sources") != "known":
        fields = {"depth": DEPTH} | fields
    return run_mine(MineConfig(run_dir=str(run), device="cpu", k=4, **fields))


def store_of(run):
    return TextStore.open(require(RunDir(run), "texts"))


def pools_of(run):
    """Query -> passage ids of its pool, with their scores."""
    manifest = require(RunDir(run), "negatives")
    tables = [read_table(manifest.folder / name) for name in pool_files(manifest)]
    return {
        one["query_id"]: list(zip(one["passage_ids"], one["scores"], strict=True))
        for one in pa.concat_tables(tables).to_pylist()
    }


def judged_of(run):
    manifest = require(RunDir(run), "negatives")
    return pa.concat_tables(
        [read_verdicts(manifest, name) for name in pool_files(manifest)]
    ).to_pylist()


def known_of(run):
    """Query -> its known negatives that are no positives, best first."""
    texts = require(RunDir(run), "texts")
    store, embeddings = store_of(run), require(RunDir(run), "embeddings")
    queries, passages = (Vectors.open(embeddings, role) for role in ("queries", "passages"))
    positives = set(
        zip(store.pair_query_ids.tolist(), store.pair_passage_ids.tolist(), strict=True)
    )
    found = {}
    for row in read_table(texts.folder / NEGATIVES).to_pylist():
        pair = row["query_id"], row["passage_id"]
        own = found.setdefault(pair[0], [])
        if pair not in positives:
            vectors = queries.take(np.array([pair[0]])), passages.take(np.array([pair[1]]))
            score = score_hits(*vectors, np.array([[0]]), queries.similarity)[0, 0]
            own.append((pair[1], float(score)))
    return {q: sorted(own, key=lambda one: (-one[1], one[0])) for q, own in found.items()}


def in_and_out(counts):
    assert counts["known_in"] == counts["known_pooled"] + sum(counts["known_dropped"].values())
    return counts


def test_known_negatives_come_first_however_far_they_are(run, embedded):
    counts = in_and_out(mine(run, pool=30).counts)
    known = known_of(run)
    assert counts["known_in"] == embedded[1] >= 2 * NUM_ROWS - 20
    assert counts["known_dropped"]["known_positive"] == 1
    assert counts["known_pooled"] == counts["known_in"] - 1
    kept = pools_of(run)
    above = 0
    for query, own in known.items():
        assert kept[query][: len(own)] == own
    for one in judged_of(run):
        above += sum(score > one["positive_score"] for _, score in known[one["query_id"]])
    assert counts["known_above_positive"] == above > 0
    # After them come those that the rules choose among all others, in the same order.
    mine(run, pool=500, known_negatives="filter")
    for query, filtered in pools_of(run).items():
        own = dict(known[query])
        others = [one for one in filtered if one[0] not in own]
        assert kept[query] == [*known[query], *others][:30]


def test_filtered_known_negatives_are_judged_like_all_hits(run, embedded):
    counts = in_and_out(mine(run, known_negatives="filter", absolute_margin=0.1).counts)
    assert counts["known_in"] == embedded[1]
    assert counts["known_dropped"]["known_positive"] == 1
    assert counts["known_dropped"]["absolute_margin"] > 0
    assert counts["known_dropped"]["relative_margin"] > 0 or counts["known_pooled"] > 0
    verdicts = [
        verdict
        for one in judged_of(run)
        for verdict, source in zip(one["verdicts"], one["hit_sources"], strict=True)
        if source & HitSource.KNOWN
    ]
    found = {v.name.lower(): verdicts.count(v) for v in Verdict if v != Verdict.POOLED}
    assert counts["known_dropped"] == {**found, "no_pool": 0}
    for one in judged_of(run):
        limit = np.float32(one["positive_score"]) - np.float32(0.1)
        for verdict, score in zip(one["verdicts"], one["hit_scores"], strict=True):
            assert verdict not in ELIGIBLE or np.float32(score) <= limit


def test_no_rule_drops_what_is_kept_and_the_pool_has_an_end(run, embedded):
    counts = in_and_out(
        mine(
            run,
            pool=4,
            range_min=5,
            min_score=0.9,
            max_score=0.91,
            upper_margin=0.0,
            closeness=0.1,
            max_uses=1,
            relative_margin=0.9,
        ).counts
    )
    assert counts["known_pooled"] == embedded[1] - 1 == counts["pooled"]
    in_and_out(mine(run, pool=4, sampling="random").counts)
    known = known_of(run)
    for query, pool in pools_of(run).items():
        size = len(known[query])
        assert sorted(pool[:size]) == sorted(known[query])


def test_what_does_not_fit_in_the_pool_is_counted(small_input, tmp_path):
    rows = pq.read_table(small_input / "pairs.parquet").slice(0, 30).to_pydict()
    texts = pq.read_table(small_input / "corpus.parquet").column(0).to_pylist()
    many = {f"negative_{n}": texts[n * 30 : n * 30 + 30] for n in range(9)}
    run, _ = embed(tmp_path, small_input / "corpus.parquet", {**rows, **many})
    counts = in_and_out(mine(run, pool=5).counts)
    known = known_of(run)
    assert counts["known_dropped"]["beyond_pool"] == sum(max(len(k) - 5, 0) for k in known.values())
    store, manifest = store_of(run), require(RunDir(run), "negatives")
    # What a larger pool would take comes in the same order.
    found = deeper_pools(manifest, store.pair_query_ids, 40)
    mine(run, pool=40)
    expected = Pools.open(require(RunDir(run), "negatives"), store.pair_query_ids).ids_NS
    np.testing.assert_array_equal(found, expected)
    for query, pool in pools_of(run).items():
        assert pool[: len(known[query])] == known[query]


def test_a_pair_with_a_pool_of_its_own_has_the_known_negatives_of_its_query(run, embedded):
    report = mine(run, positive_score="pair")
    counts = in_and_out(report.counts)
    store, known = store_of(run), known_of(run)
    assert counts["known_pooled"] == sum(len(known[query]) for query in store.pair_query_ids)
    assert counts["known_in"] == counts["known_pooled"] + counts["known_dropped"]["known_positive"]
    assert any("once a pair of their query" in line for line in report.lines)


def test_known_negatives_of_queries_without_a_row_are_counted(run, embedded):
    counts = in_and_out(mine(run, min_positive_percentile=99).counts)
    assert counts["pairs_dropped"]["positive_percentile"] > 0
    assert counts["known_dropped"]["no_pool"] > 0
    assert counts["known_in"] == embedded[1]


def test_uses_of_known_negatives_count_first(run):
    mine(run, max_uses=3, relative_margin=None)
    known = known_of(run)
    given = [passage for own in known.values() for passage, _ in own]
    chosen = [passage for pool in pools_of(run).values() for passage, _ in pool]
    for passage in set(chosen):
        assert chosen.count(passage) <= max(3, given.count(passage))
    assert max(map(given.count, given)) > 3


def test_they_fill_pools_before_a_query_is_searched_deeper(run):
    """A query is short by what all sources give."""
    counts = mine(run, max_depth=200, relative_margin=0.5).counts
    table = judged_of(run)
    shallow = mine(run, relative_margin=0.5).counts
    short = sum(len(pool) < 4 for pool in pools_of(run).values())
    assert counts["queries_deepened"] == short > 0
    deepened = {one["query_id"] for one in table if one["depth"] > DEPTH}
    assert len(deepened) == short
    assert shallow["queries_deepened"] == 0


def test_mined_alone_nothing_is_searched_and_all_that_follows_works(run, embedded, cli_here):
    done = cli_here("mine", "--k", "2", "--sources", "known", run_dir=run)
    assert done.code == 0, done
    assert "nothing is searched; " in done.stdout
    assert f"{embedded[1]:,} known negatives in: " in done.stdout
    assert "--max-depth" not in done.stdout
    assert not (run / "hits/dense").exists()
    assert pools_of(run) == known_of(run)
    rows = embedded[1] - 1
    packed = cli_here(
        "pack",
        "--batch-size",
        "16",
        "--packings",
        "1",
        "--scores",
        "--near-positive-margin",
        "2",
        run_dir=run,
    )
    assert packed.code == 0, packed
    verified = cli_here("verify", run_dir=run)
    assert verified.code == 0, verified
    exported = run_export(ExportConfig(run_dir=str(run), to="triplet"))
    assert 0 < exported.counts["rows_kept"] <= rows + NUM_ROWS
    searched = run.with_name("searched")
    shutil.copytree(run, searched)
    mine(searched, relative_margin=None)
    differences = run_diff(DiffConfig(run_a=str(run), run_b=str(searched)))
    assert differences.lines
    # The files of the batches hold the stored scores.
    known = known_of(run)
    scores = {(query, one): score for query, own in known.items() for one, score in own}
    store, stored, expected = store_of(run), 0, 0
    for shard in sorted((run / "batches/epoch-000").glob("*.parquet")):
        for row in pq.read_table(shard).to_pylist():
            query = int(store.pair_query_ids[row["row_id"]])
            own = zip(row["negative_ids"], row["scores"][1:], strict=True)
            stored += sum(scores.get((query, passage)) == score for passage, score in own)
            expected += min(2, len(known[query]))
    assert stored == expected > NUM_ROWS


@pytest.mark.parametrize("policy", ["merge", "strict"])
def test_batches_of_pools_with_known_negatives_are_clean(run, policy):
    mine(run)
    size = 32 if policy == "merge" else 8
    run_pack(PackConfig(run_dir=str(run), batch_size=size, packings=1, policy=policy, k=2))
    run_verify(VerifyConfig(run_dir=str(run)))


def test_what_is_known_to_be_a_negative_is_no_near_positive(run):
    mine(run)
    store, known = store_of(run), known_of(run)
    groups = np.arange(store.num_passages)
    manifest = require(RunDir(run), "negatives")
    near = near_positives(manifest, 0.1, groups, store.num_queries)
    for one in judged_of(run):
        limit = np.float32(one["positive_score"]) - np.float32(0.1)
        hits = zip(one["hit_ids"], one["hit_scores"], strict=True)
        high = {passage for passage, score in hits if np.float32(score) > limit}
        own = {passage for passage, _ in known[one["query_id"]]}
        assert set(near.row(one["query_id"]).tolist()) == high - own
    mine(run, known_negatives="filter")
    filtered = near_positives(require(RunDir(run), "negatives"), 0.1, groups, store.num_queries)
    assert filtered.offsets[-1] > near.offsets[-1]


@pytest.mark.parametrize(
    "fields", [{}, {"known_negatives": "filter"}, {"sources": "known"}, {"sampling": "weighted"}]
)
def test_blocks_of_queries_change_no_pool_and_no_count(run, fields):
    found = []
    for query_block in (4_096, 17):
        for name in ("hits", "negatives"):
            shutil.rmtree(run / name, ignore_errors=True)
        counts = mine(run, query_block=query_block, **fields).counts
        found.append((counts, pools_of(run), judged_of(run)))
    assert found[0][0] == found[1][0]
    assert found[0][1] == found[1][1]
    assert found[0][2] == found[1][2]


def test_another_treatment_replaces_the_pools_and_the_same_one_is_reused(run):
    assert not mine(run).skipped
    assert mine(run).skipped
    assert not mine(run, known_negatives="filter").skipped
    assert not mine(run, sources="known").skipped
    assert mine(run, sources="known").skipped


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depth": 50}, r"--sources known searches nothing, found --depth 50"),
        ({"max_depth": 400}, r"searches nothing, found --max-depth 400"),
        ({"search": "exact"}, r"searches nothing, found --search exact"),
        ({"candidates": "run.trec"}, r"searches nothing, found --candidates run.trec"),
        ({"closeness": 0.7}, r"--closeness 0.7 has no effect .*--known-negatives filter"),
        ({"relative_margin": None}, r"--relative-margin none has no effect"),
        ({"sources": "known,dense"}, r"known \(alone\), found 'known,dense'"),
    ],
)
def test_options_without_effect_on_known_negatives_alone_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        MineConfig(**{"sources": "known"} | fields)


def test_alone_they_need_no_depth_and_may_be_filtered(run, embedded):
    assert MineConfig(sources="known", k=200).k == 200
    counts = in_and_out(mine(run, sources="known", known_negatives="filter", max_score=0.3).counts)
    assert counts["known_dropped"]["score_window"] > 0
    assert counts["hits_in"] == counts["known_in"] == embedded[1]


@pytest.mark.parametrize("fields", [{"sources": "known"}, {"known_negatives": "filter"}])
def test_a_run_without_known_negatives_says_how_to_name_them(run_copy, fields):
    with pytest.raises(ConfigError, match=r"has none; name their columns .*--negative-column NAME"):
        mine(run_copy, **fields)


def test_the_report_says_what_became_of_them(run, embedded, cli_here):
    done = cli_here("mine", "--k", "4", "--depth", str(DEPTH), run_dir=run)
    total = embedded[1]
    assert f"{total:,} known negatives in: {total - 1:,} (" in done.stdout
    assert "in a pool; dropped: known_positive 1" in done.stdout
    assert "first in their pools, whatever their score (" in done.stdout
    assert "--known-negatives filter applies the rules to them" in done.stdout
    filtered = cli_here(
        "mine", "--k", "4", "--depth", str(DEPTH), "--known-negatives", "filter", run_dir=run
    )
    assert "--known-negatives keep puts them first" in filtered.stdout


def test_a_known_negative_holds_the_place_of_its_group():
    """Chunks of one document, or near-duplicates: the one that the user gave stays."""
    from stx_mine.stages.mine.core.select import HitMarks, Rules, select_negatives

    chosen = select_negatives(
        np.array([0]),
        np.array([0]),
        np.array([0.5], np.float32),
        Ragged(np.array([0, 3]), np.array([2, 1, 0])),
        np.array([0.4, 0.3, 0.2], np.float32),
        query_groups=np.array([9]),
        passage_groups=np.array([0, 1, 1]),
        forbidden=Ragged(np.array([0, 1]), np.array([9])),
        rules=Rules(pool=3),
        marks=HitMarks(known=np.array([False, True, False])),
    )
    assert chosen.ids_US.tolist() == [[1, 0, -1]]
    assert chosen.ranks_US.tolist() == [[0, 1, -1]]
    assert chosen.verdicts_H.tolist() == [Verdict.DUPLICATE_GROUP, Verdict.POOLED, Verdict.POOLED]
