"""Packing on disk, and that `verify` finds what was broken by hand."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from stx_mine.errors import ViolationError
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.shard_files import group_rows
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.verify.config import VerifyConfig
from stx_mine.stages.verify.stage import run_verify
from stx_mine.store.artifact import MANIFEST
from stx_mine.store.batches import BatchShard, list_packings, ragged_column
from stx_mine.store.files import checksum
from stx_mine.store.manifest import sealed

BATCH = 64


@pytest.fixture(scope="module")
def mined(small_input, tmp_path_factory):
    """A run of 600 rows in which 150 queries have two positives each."""
    folder = tmp_path_factory.mktemp("mined")
    table = pq.read_table(small_input / "pairs.parquet")
    queries, passages = table["query"].to_pylist(), table["passage"].to_pylist()
    pairs = folder / "pairs.parquet"
    rows = {"query": queries[:450] + queries[:150], "passage": passages[:450] + passages[450:600]}
    pq.write_table(pa.table(rows), pairs)
    run = folder / "run"
    corpus = str(small_input / "corpus.parquet")
    run_embed(EmbedConfig(run_dir=str(run), pairs=str(pairs), corpus=corpus, device="cpu"))
    run_mine(MineConfig(run_dir=str(run), k=4, device="cpu"))
    return run


@pytest.fixture(scope="module")
def packed(mined, tmp_path_factory):
    """Batches under each policy, made once."""
    folders = {}
    for policy in ("merge", "strict"):
        run = tmp_path_factory.mktemp(policy) / "run"
        shutil.copytree(mined, run)
        k = 4 if policy == "merge" else 2
        run_pack(PackConfig(run_dir=str(run), batch_size=BATCH, policy=policy, k=k))
        folders[policy] = run / "batches"
    return folders


@pytest.fixture(params=["merge", "strict"])
def batches(request, packed, tmp_path):
    """A copy that a test may break."""
    folder = tmp_path / "batches"
    shutil.copytree(packed[request.param], folder)
    return folder


def verify(folder):
    return run_verify(VerifyConfig(directory=str(folder)))


def first_shard(folder):
    return sorted(folder.glob("epoch-000/*.parquet"))[0]


def rewrite(folder, change):
    """Change the rows of the first shard and make its checksum right again."""
    path = first_shard(folder)
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    refresh(folder, path)


def refresh(folder, path):
    manifest = json.loads((folder / MANIFEST).read_text())
    for one in manifest["files"]:
        if folder / one["file"] == path:
            one |= {"bytes": path.stat().st_size, "xxh3_128": checksum(path)}
    (folder / MANIFEST).write_text(json.dumps(sealed(manifest)))


def violation(folder):
    with pytest.raises(ViolationError) as caught:
        verify(folder)
    assert caught.value.exit_code == 1
    return str(caught.value)


def test_what_pack_writes_holds(batches):
    report = verify(batches)
    assert report.counts["rows"] == report.counts["batches"] * BATCH
    assert report.counts["files"] >= 4


def test_a_flipped_byte_is_found(batches):
    path = first_shard(batches)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    message = violation(batches)
    assert "checksum" in message
    assert path.name in message


def test_a_missing_shard_is_found(batches):
    first_shard(batches).unlink()
    assert "missing" in violation(batches)


def test_a_negative_swapped_for_a_positive_is_found(batches):
    def change(rows):
        row = next(row for row in rows if row["negative_ids"])
        row["negative_1"], row["negative_ids"][0] = row["positive"], row["positive_id"]

    rewrite(batches, change)
    message = violation(batches)
    assert "a negative is a known positive" in message
    assert "batch 0 row" in message


def test_a_text_swapped_under_its_old_id_is_found(batches):
    def change(rows):
        row = next(row for row in rows if row["negative_ids"])
        row["negative_1"] = row["positive"]

    rewrite(batches, change)
    assert "a text stands under two ids" in violation(batches)


def test_a_positive_of_another_query_is_found(batches):
    def change(rows):
        rows[0]["positive"], rows[0]["positive_id"] = rows[1]["positive"], rows[1]["positive_id"]

    rewrite(batches, change)
    assert "the positive is not a known one of its anchor" in violation(batches)


def test_a_row_that_is_packed_twice_is_found(batches):
    def change(rows):
        rows[BATCH] = dict(rows[0])

    rewrite(batches, change)
    assert "more than once" in violation(batches)


def test_a_violation_names_every_row_and_the_text_concerned(packed, tmp_path):
    folder = tmp_path / "batches"
    shutil.copytree(packed["strict"], folder)

    def change(rows):
        for row in (rows[3], rows[9]):
            row["negative_1"], row["negative_ids"][0] = rows[1]["positive"], rows[1]["positive_id"]

    rewrite(folder, change)
    said = violation(folder).splitlines()
    text = pq.read_table(first_shard(folder))["positive"][1].as_py()
    line = next(one for one in said if "a text stands twice in a strict batch" in one)
    assert f"{first_shard(folder).relative_to(folder)} batch 0 row 3: " in line
    assert f" {text[:60]!r} row 1, 3, 9); anchor " in line


def test_a_missing_negative_text_is_found(batches):
    def change(rows):
        row = next(row for row in rows if row["negative_ids"])
        row["negative_1"] = None

    rewrite(batches, change)
    assert "negative_1 does not fit" in violation(batches)


def test_a_removed_ignore_entry_is_found(packed, tmp_path):
    folder = tmp_path / "batches"
    shutil.copytree(packed["merge"], folder)
    paths = sorted(folder.glob("epoch-*/*.parquet"))
    path, table = next(
        (path, table)
        for path, table in ((path, pq.read_table(path)) for path in paths)
        if any(table["ignore_ids"].to_pylist())
    )
    rows = table.to_pylist()
    row = next(row for row in rows if row["ignore_ids"])
    row["ignore_ids"] = row["ignore_ids"][1:]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    refresh(folder, path)
    assert "ignore_ids misses a known or near positive" in violation(folder)


def test_verify_needs_the_shards_alone(batches, cli):
    done = cli("verify", batches)
    assert done.code == 0, done
    assert "every invariant" in done.stdout


def test_the_command_leaves_with_one_on_a_violation(batches, cli):
    path = first_shard(batches)
    path.write_bytes(path.read_bytes()[:-7] + b"garbage")
    done = cli("verify", batches)
    assert done.code == 1
    assert "Traceback" not in done.stderr
    assert path.name in done.stderr


def test_load_dataset_shows_columns_without_nulls(batches, tmp_path):
    default = load_dataset(str(batches), split="train", cache_dir=str(tmp_path / "cache"))
    assert default.column_names[:2] == ["anchor", "positive"]
    assert not any(None in default[name] for name in default.column_names)
    full = load_dataset(str(batches), "full", split="train", cache_dir=str(tmp_path / "cache"))
    packings = list_packings(batches)
    assert len(full) == len(packings) * len(default)
    assert {"anchor_id", "positive_id", "negative_ids", "ignore_ids"} <= set(full.column_names)


def test_every_row_is_packed_at_most_once_and_packings_differ(batches):
    packings = list_packings(batches)
    row_ids = []
    for shards in packings:
        ids = [
            shard.batch(i)["row_id"].to_numpy()
            for shard in shards
            for i in range(shard.num_batches)
        ]
        row_ids.append(np.concatenate(ids))
        assert len(np.unique(row_ids[-1])) == len(row_ids[-1])
    assert len(row_ids[0]) == len(row_ids[1])
    assert not np.array_equal(row_ids[0], row_ids[1])
    left_out = np.setdiff1d(np.arange(600), row_ids[0])
    # Under merge there is room for all of them; strict may have to leave one out again.
    assert np.isin(left_out, row_ids[1]).mean() > 0.9


def test_no_negative_is_forbidden_and_texts_are_those_of_the_ids(packed):
    texts = {}
    for shards in list_packings(packed["merge"]):
        for shard in shards:
            for number in range(shard.num_batches):
                table = shard.batch(number)
                negatives = ragged_column(table, "negative_ids")
                for row, columns in enumerate(table.to_pylist()):
                    assert columns["positive_id"] not in negatives.row(row)
                    pairs = [(columns["positive_id"], columns["positive"])]
                    pairs += [
                        (group, columns[f"negative_{slot + 1}"])
                        for slot, group in enumerate(negatives.row(row).tolist())
                    ]
                    for group, text in pairs:
                        assert texts.setdefault(group, text) == text


@pytest.mark.parametrize(
    ("batch_size", "expected"),
    [(2, 1_024), (100, 1_000), (1_000, 1_000), (2_048, 1_024), (32_768, 4_096), (3_001, 3_001)],
)
def test_row_groups_are_parts_or_multiples_of_batches(batch_size, expected):
    rows = group_rows(batch_size)
    assert rows == expected
    assert rows % batch_size == 0 or batch_size % rows == 0


def test_a_batch_is_read_from_its_row_groups_only(packed):
    shard = BatchShard.open(first_shard(packed["merge"]))
    whole = pq.read_table(shard.path)
    for number in range(shard.num_batches):
        expected = whole.slice(number * BATCH, BATCH)
        assert shard.batch(number).column("row_id").equals(expected.column("row_id"))


def test_the_pair_margin_gives_each_pair_its_own_pool(mined, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(mined, run)
    lowest = run_mine(MineConfig(run_dir=str(run), k=4, device="cpu")).counts
    own = run_mine(MineConfig(run_dir=str(run), k=4, positive_score="pair", device="cpu")).counts
    assert own["rows"] == lowest["rows"] == 600
    # A pair's own positive is never below the lowest one, so no pair loses candidates.
    assert own["rows_full"] >= lowest["rows_full"]
    run_pack(PackConfig(run_dir=str(run), batch_size=BATCH))
    verify(run / "batches")


def test_counts_add_up(small_run):
    manifest = json.loads((small_run / "negatives" / MANIFEST).read_text())
    counts = manifest["counts"]
    assert counts["hits_in"] == counts["pooled"] + sum(counts["dropped"].values())
    kinds = ("rows_full", "rows_ragged", "rows_empty")
    assert counts["rows"] == sum(counts[kind] for kind in kinds) == 600
