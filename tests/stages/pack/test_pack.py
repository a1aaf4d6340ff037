"""The pack stage: advice, rotation, near positives."""

import json
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from hypothesis import given
from hypothesis import strategies as st

from stx_mine.core.ragged import Ragged, ragged_union
from stx_mine.errors import ConfigError, ViolationError
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack import shard_files
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.core.bind import rotated
from stx_mine.stages.pack.core.strata import cut_strata
from stx_mine.stages.pack.shard_files import write_shard
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.stage import run_train
from stx_mine.stages.verify.config import VerifyConfig
from stx_mine.stages.verify.stage import run_verify
from stx_mine.store.artifact import require
from stx_mine.store.batches import BatchShard, list_packings
from stx_mine.store.files import read_table, write_table
from stx_mine.store.groups import TextGroups
from stx_mine.store.negatives import pool_files, read_verdicts
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore
from stx_mine.store.vectors import Vectors


def pack(run, **fields):
    return run_pack(PackConfig(run_dir=str(run), overwrite=True, **fields))


def verify(run):
    """Raises where an invariant is broken."""
    assert run_verify(VerifyConfig(run_dir=str(run))).counts["batches"] > 0


def rows_of(run, packing=0):
    shards = sorted((run / f"batches/epoch-{packing:03d}").glob("*.parquet"))
    return pa.concat_tables([pq.read_table(one) for one in shards])


def negatives_of(run):
    manifest = require(RunDir(run), "negatives")
    return pa.concat_tables([read_verdicts(manifest, one) for one in pool_files(manifest)])


def test_a_dry_run_says_what_packing_would_give_and_writes_nothing(run_copy):
    before = sorted(path for path in run_copy.rglob("*"))
    said = pack(run_copy, batch_size=32, k=2, dry_run=True)
    assert sorted(path for path in run_copy.rglob("*")) == before
    for policy in ("merge", "strict"):
        done = pack(run_copy, batch_size=32, k=2, policy=policy, packings=1)
        assert said.counts["batches"][policy] == done.counts["batches"]
    assert said.counts["strict_bound"] == done.counts["batches_bound"] >= done.counts["batches"]
    assert "advice: --batch-size" in said.lines[-1]
    other = pack(run_copy, batch_size=16, k=2, dry_run=True)
    assert "20 steps" not in other.lines[-1]
    too_large = pack(run_copy, batch_size=100_000, dry_run=True)
    assert too_large.counts["batches"] == {"merge": 0, "strict": 0}
    assert "advice: --batch-size" in too_large.lines[-1]


def test_the_share_of_rows_that_meet_is_what_random_batches_give(run_copy):
    said = pack(run_copy, batch_size=200, dry_run=True).counts
    store = TextStore.open(require(RunDir(run_copy), "texts"))
    groups = TextGroups.of_texts(store).passages[store.pair_passage_ids]
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        batch = groups[rng.choice(len(groups), 200, replace=False)]
        _, inverse, counts = np.unique(batch, return_inverse=True, return_counts=True)
        shares.append((counts[inverse] > 1).mean())
    expected = np.mean(shares)
    assert said["rows_that_meet_their_text"]["positive"] == pytest.approx(expected, abs=0.01)


@given(
    st.lists(st.lists(st.integers(0, 99), max_size=6), min_size=1, max_size=5), st.integers(0, 20)
)
def test_rotated_pools_begin_later_and_go_on_from_their_start(lists, steps):
    pools = np.full((len(lists), 6), -1, np.int32)
    for row, one in enumerate(lists):
        pools[row, : len(one)] = one
    for row, one in zip(rotated(pools, steps).tolist(), lists, strict=True):
        start = steps % len(one) if one else 0
        assert row == (one[start:] + one[:start]) + [-1] * (6 - len(one))


def test_rotation_binds_other_negatives_in_other_packings(run_copy):
    pack(run_copy, batch_size=50, k=3, packings=2, rotate=True)
    pools = dict(
        zip(
            negatives_of(run_copy)["unit_id"].to_pylist(),
            negatives_of(run_copy)["passage_ids"].to_pylist(),
            strict=True,
        )
    )
    store = TextStore.open(require(RunDir(run_copy), "texts"))
    other = 0
    for packing in range(2):
        table = rows_of(run_copy, packing)
        for row, found in zip(
            table["row_id"].to_pylist(), table["negative_ids"].to_pylist(), strict=True
        ):
            pool = pools[int(store.pair_query_ids[row])]
            start = 3 * packing % max(1, len(pool))
            expected = (pool[start:] + pool[:start])[:3]
            assert found == TextGroups.of_texts(store).passages[expected].tolist()
            other += packing and len(pool) >= 6
    assert other > 100


def passages_in(batch):
    return {one for row in batch for one in (row["positive_id"], *row["negative_ids"])}


def near_of(run, margin):
    """query -> groups of the hits within the margin of its positive, or above it."""
    table = negatives_of(run)
    store = TextStore.open(require(RunDir(run), "texts"))
    return store, {
        unit["query_id"]: {
            int(TextGroups.of_texts(store).passages[passage])
            for passage, score in zip(unit["hit_ids"], unit["hit_scores"], strict=True)
            if np.float32(score) > np.float32(unit["positive_score"]) - np.float32(margin)
        }
        for unit in table.to_pylist()
    }


@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_near_positives_are_masked_and_never_bound(run_copy, margin):
    pack(run_copy, batch_size=100, k=4, packings=1, near_positive_margin=margin)
    store, near = near_of(run_copy, margin)
    verify(run_copy)
    table, masked = rows_of(run_copy), 0
    for start in range(0, table.num_rows, 100):
        batch = table.slice(start, 100).to_pylist()
        present = passages_in(batch)
        for row in batch:
            query = int(store.pair_query_ids[row["row_id"]])
            assert not near[query] & set(row["negative_ids"])
            hidden = (near[query] & present) - {row["positive_id"]}
            assert hidden <= set(row["ignore_ids"])
            masked += len(hidden)
    assert masked > 50


def test_a_strict_batch_holds_no_near_positive(run_copy):
    pack(run_copy, batch_size=16, k=2, packings=1, policy="strict", near_positive_margin=0.0)
    store, near = near_of(run_copy, 0.0)
    verify(run_copy)
    table = rows_of(run_copy)
    for start in range(0, table.num_rows, 16):
        batch = table.slice(start, 16).to_pylist()
        present = passages_in(batch)
        for row in batch:
            query = int(store.pair_query_ids[row["row_id"]])
            assert not (near[query] & present) - {row["positive_id"]}


@given(
    st.lists(st.lists(st.integers(0, 9), max_size=5), min_size=1, max_size=5), st.integers(0, 99)
)
def test_the_union_of_raggeds_is_that_of_sets(lists, seed):
    rng = np.random.default_rng(seed)
    others = [rng.integers(0, 9, rng.integers(0, 4)).tolist() for _ in lists]

    def ragged(rows):
        values = np.array([one for row in rows for one in row], np.int64)
        return Ragged(np.cumsum([0, *map(len, rows)]).astype(np.int64), values)

    found = ragged_union(ragged(lists), ragged(others))
    for row, (one, two) in enumerate(zip(lists, others, strict=True)):
        assert found.row(row).tolist() == sorted({*one, *two})


def test_verify_finds_a_near_positive_that_is_not_masked(run_copy):
    pack(run_copy, batch_size=100, k=4, packings=1, near_positive_margin=0.0)
    (run_copy / "batches/manifest.json").unlink()
    path = run_copy / "batches/positives.parquet"
    table = pq.read_table(path)
    near = table["near_ids"].to_pylist()
    rows = rows_of(run_copy).to_pylist()
    victim = next(row for row in rows if row["negative_ids"] and row["ignore_ids"])
    place = table["anchor_id"].to_pylist().index(victim["anchor_id"])
    near[place] = sorted({*near[place], victim["negative_ids"][0]})
    pq.write_table(table.set_column(2, "near_ids", pa.array(near, table.schema[2].type)), path)
    with pytest.raises(ViolationError, match="a negative is a near positive of its anchor"):
        verify(run_copy)


def test_rules_of_mine_do_not_touch_what_pack_avoids(run_copy):
    """Near positives come from all hits, whatever the margins dropped."""
    run_mine(MineConfig(run_dir=str(run_copy), k=4, relative_margin=None, device="cpu"))
    pack(run_copy, batch_size=100, k=4, packings=1, near_positive_margin=0.0)
    store, near = near_of(run_copy, 0.0)
    for row in rows_of(run_copy).to_pylist():
        query = int(store.pair_query_ids[row["row_id"]])
        assert not near[query] & set(row["negative_ids"])


def difficulties(run):
    """Row by row: the best candidate's score less the positive's."""
    found = {}
    for unit in negatives_of(run).to_pylist():
        scores = [
            score
            for score, verdict in zip(unit["hit_scores"], unit["verdicts"], strict=True)
            if verdict not in (1, 2, 3)
        ]
        found[unit["query_id"]] = max(scores, default=-np.inf) - unit["positive_score"]
    store = TextStore.open(require(RunDir(run), "texts"))
    return np.array([found[int(query)] for query in store.pair_query_ids])


@pytest.mark.parametrize(("order", "sign"), [("easy-to-hard", 1), ("hard-to-easy", -1)])
def test_batches_come_in_the_order_of_their_difficulty(run_copy, order, sign):
    pack(run_copy, batch_size=20, k=2, packings=2, order=order)
    verify(run_copy)
    hard = difficulties(run_copy)
    for packing in range(2):
        rows = rows_of(run_copy, packing)["row_id"].to_numpy()
        assert len(set(rows)) == len(rows) == len(hard) // 20 * 20
        # Strata are four batches: every row of one is as hard as any of the one before.
        strata = sign * hard[rows[: len(rows) // 80 * 80]].reshape(-1, 80)
        assert (strata[1:].min(1) >= strata[:-1].max(1)).all()


def test_topics_make_batches_of_like_queries_and_leave_no_row_out(run_copy):
    vectors = Vectors.open(require(RunDir(run_copy), "embeddings"), "queries")
    store = TextStore.open(require(RunDir(run_copy), "texts"))
    queries = vectors.rows(0, len(vectors))

    def likeness(cluster):
        pack(run_copy, batch_size=25, k=2, packings=2, cluster=cluster)
        verify(run_copy)
        rows = rows_of(run_copy)["row_id"].to_numpy()
        assert len(set(rows)) == len(rows) == store.num_pairs // 25 * 25
        other = rows_of(run_copy, 1)["row_id"].to_numpy()
        assert set(other) >= set(range(store.num_pairs)) - set(rows)
        batches = queries[store.pair_query_ids[rows]].reshape(-1, 25, vectors.dim)
        return (batches @ batches.transpose(0, 2, 1)).mean()

    random, half, full = (likeness(one) for one in (0.0, 0.8, 1.0))
    assert random < half < full
    assert full > random + 0.01


@given(st.integers(0, 999), st.integers(1, 40), st.integers(1, 12))
def test_strata_rise_by_key_and_keep_priority(seed, num, size):
    rng = np.random.default_rng(seed)
    order, keys = rng.permutation(num), rng.choice(5, num).astype(float)
    strata = cut_strata(order, keys, size)
    assert sorted(np.concatenate(strata).tolist()) == list(range(num))
    assert all(len(one) == size for one in strata[:-1])
    place = np.argsort(order)
    for one, two in pairwise(strata):
        assert keys[one].max() <= keys[two].min()
    for one in strata:
        assert (np.diff(place[one]) > 0).all()


def test_topics_and_difficulty_together_are_refused():
    with pytest.raises(ConfigError, match=r"--cluster 0.5 does not fit --order easy-to-hard"):
        PackConfig(cluster=0.5, order="easy-to-hard")
    with pytest.raises(ConfigError, match="at most 1, found 2"):
        PackConfig(cluster=2.0)


def test_ids_with_a_table_of_texts_are_the_same_batches(run_copy):
    pack(run_copy, batch_size=50, k=3, packings=2)
    inline = [shard for shards in list_packings(run_copy / "batches") for shard in shards]
    expected = [shard.batch(number) for shard in inline for number in range(shard.num_batches)]
    pack(run_copy, batch_size=50, k=3, packings=2, layout="ids")
    verify(run_copy)
    shards = [shard for shards in list_packings(run_copy / "batches") for shard in shards]
    found = [shard.batch(number) for shard in shards for number in range(shard.num_batches)]
    for one, two in zip(found, expected, strict=True):
        assert one.to_pylist() == two.to_pylist()
    assert "anchor" not in pq.read_schema(shards[0].path).names
    loaded = load_dataset(
        str(run_copy / "batches"), split="train", cache_dir=str(run_copy / "cache")
    )
    assert loaded.column_names == ["anchor_id", "positive_id", "negative_ids"]
    assert loaded["anchor_id"][:50] == expected[0]["anchor_id"].to_pylist()


def test_training_does_not_care_where_the_texts_lie(run_copy):
    digests = []
    for layout in ("inline", "ids"):
        pack(run_copy, batch_size=100, k=2, packings=1, layout=layout)
        config = TrainConfig(run_dir=str(run_copy), overwrite=True, device="cpu")
        digests.append(run_train(config).counts["last_loss"])
    assert digests[0] == digests[1]


def test_verify_finds_a_text_that_changed_in_the_table(run_copy):
    pack(run_copy, batch_size=50, k=3, packings=1, layout="ids")
    (run_copy / "batches/manifest.json").unlink()
    path = run_copy / "batches/texts.arrow"
    texts = read_table(path)["text"].to_pylist()
    first = rows_of(run_copy)["positive_id"][0].as_py()
    second = rows_of(run_copy)["positive_id"][1].as_py()
    texts[first] = texts[second]
    write_table(path, pa.table({"text": pa.array(texts, pa.large_string())}))
    with pytest.raises(ViolationError, match="a text stands under two ids"):
        verify(run_copy)


def test_row_groups_stay_small_where_texts_are_long(tmp_path, monkeypatch):
    """So that a viewer reads a few rows; what the batches hold stays the same."""
    rows = 4_096
    texts = pa.array([f"{row} " * 100 for row in range(rows)], pa.large_string())
    ids = {"anchor_id": np.arange(rows), "positive_id": np.arange(rows)}
    lists = {"negative_ids": [[row] for row in range(rows)], "ignore_ids": [[]] * rows}
    table = pa.table(
        {"anchor": texts, "positive": texts, "row_id": np.arange(rows), **ids, **lists}
    )
    footer = {"batch_size": 2_048, "layout": "inline", "k": 0, "policy": "merge"}
    write_shard(tmp_path / "large.parquet", table, footer)
    monkeypatch.setattr(shard_files, "_MOST_GROUP_BYTES", 100_000)
    write_shard(tmp_path / "small.parquet", table, footer)
    large, small = (pq.ParquetFile(tmp_path / f"{name}.parquet") for name in ("large", "small"))
    assert large.num_row_groups == 4 < small.num_row_groups
    for group in map(small.metadata.row_group, range(small.num_row_groups)):
        assert group.total_byte_size < 100_000
        assert all(group.column(c).has_offset_index for c in range(group.num_columns))
    for number in range(2):
        found = [
            BatchShard.open(tmp_path / f"{name}.parquet").batch(number)
            for name in ("large", "small")
        ]
        assert found[0].equals(found[1])
        assert found[1].column("row_id").to_pylist() == [
            *range(2_048 * number, 2_048 * (number + 1))
        ]


def test_a_text_is_stored_once_a_column_chunk_however_much_text_there_is(tmp_path):
    """Without its own limit, a dictionary of over 1 MiB would fall back to plain text."""
    rng = np.random.default_rng(0)
    letters = rng.integers(97, 123, (4_096, 1_000), np.uint8)
    texts = [row.tobytes().decode() for row in letters]
    twice = pa.array([*texts, *texts], pa.large_string())
    # Row groups of 4,096 rows: each text stands once in two of them, twice in the other columns.
    halves = pa.array([texts[row % 2_048] for row in range(8_192)], pa.large_string())
    table = pa.table({"anchor": twice, "positive": halves, "row_id": np.arange(8_192)})
    path = tmp_path / "shard.parquet"
    write_shard(path, table, {"batch_size": 32_768})
    found = pq.ParquetFile(path).metadata
    assert [found.row_group(g).num_rows for g in range(found.num_row_groups)] == [4_096] * 2
    for group in range(2):
        sizes = [found.row_group(group).column(c).total_uncompressed_size for c in range(3)]
        assert sizes[0] == pytest.approx(4_096 * 1_004, rel=0.01)
        assert sizes[1] == pytest.approx(2_048 * 1_004, rel=0.01)
        assert sizes[2] == pytest.approx(4_096 * 8, rel=0.01)
        for column in (0, 1):
            chunk = found.row_group(group).column(column)
            assert chunk.has_dictionary_page
            assert chunk.has_offset_index
            assert chunk.compression == "ZSTD"
    assert pq.read_table(path).equals(table)
    assert json.loads(pq.read_schema(path).metadata[b"stx_mine"]) == {"batch_size": 32_768}


def mined_from(pairs, folder):
    """A run whose pairs are given as (query, passage)."""
    queries, passages = zip(*pairs, strict=True)
    given, corpus = str(folder / "given.parquet"), str(folder / "corpus.parquet")
    pq.write_table(pa.table({"query": list(queries), "passage": list(passages)}), given)
    pq.write_table(pa.table({"passage": [f"unused passage {n}" for n in range(20)]}), corpus)
    run = folder / "run"
    run_embed(EmbedConfig(run_dir=str(run), pairs=given, corpus=corpus, device="cpu"))
    run_mine(MineConfig(run_dir=str(run), k=1, relative_margin=None, device="cpu"))
    return run


def test_one_positive_of_all_rows_is_said_before_any_work(tmp_path):
    pairs = [(f"question {n}", "the one answer") for n in range(40)]
    run = mined_from([*pairs, ("another", "another answer")], tmp_path)
    with pytest.raises(ConfigError, match=r"repeated positives \(one text stands in 40 of 41 rows"):
        pack(run, batch_size=4, k=0, policy="strict")
    assert not (run / "batches").exists()
    assert pack(run, batch_size=4, k=0).counts["batches"] == 10


def test_rows_of_one_query_that_would_mask_each_other_by_the_million_are_refused(tmp_path):
    pairs = [("the one question", f"answer number {n}") for n in range(6_000)]
    run = mined_from([*pairs, ("another", "an answer")], tmp_path)
    with pytest.raises(ConfigError, match=r"one query stands in 6,000 of 6,001 rows") as refused:
        pack(run, batch_size=6_000, k=0)
    fits = int(str(refused.value).split("--batch-size ")[1].split(" or")[0].replace(",", ""))
    assert 5_000 < fits < 6_000
    assert not (run / "batches").exists()
    assert pack(run, batch_size=100, k=0, packings=1).counts["batches"] == 60
