"""The checks of packed batches read each text once, in little memory, whatever the batches hold."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks import packed_shapes
from benchmarks.fresh import run_fresh
from stx_mine.errors import ViolationError
from stx_mine.stages.verify import batch_blocks
from stx_mine.stages.verify.config import VerifyConfig
from stx_mine.stages.verify.stage import run_verify
from stx_mine.store.batches import list_packings

SHAPES = {
    "typical": packed_shapes.typical(3_000, 128),
    "small batches": packed_shapes.typical(2_000, 2),
    "giant query": packed_shapes.giant_query(3_000, 512),
    "giant passage": packed_shapes.giant_passage(1_000, 256),
    "one negative": packed_shapes.one_negative(2_000, 512),
    "giant groups": packed_shapes.giant_groups(2_000, 1_000, 128),
    "one batch": packed_shapes.typical(2_000, 2_000),
}


def verify(folder, **options):
    return run_verify(VerifyConfig(directory=str(folder), **options))


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_is_read_once_and_holds(name, tmp_path, monkeypatch):
    """Each text of a shard is numbered once for each of its columns and row groups, whatever B."""
    numbered = []

    def counted(texts):
        numbered.append(len(texts))
        return text_numbers(texts)

    text_numbers = batch_blocks.text_numbers
    monkeypatch.setattr(batch_blocks, "text_numbers", counted)
    folder = packed_shapes.write_shape(tmp_path / "batches", SHAPES[name])
    [shards] = list_packings(folder)
    rows = sum(shard.num_batches for shard in shards) * shards[0].batch_size
    assert verify(folder).counts["rows"] == rows
    assert sum(numbered) <= rows * (2 + SHAPES[name].k)


def test_blocks_of_any_size_name_the_same(tmp_path, monkeypatch):
    shape = packed_shapes.typical(1_000, 50)
    folder = packed_shapes.write_shape(tmp_path / "batches", shape)
    positives = folder / "positives.parquet"
    table = pq.read_table(positives)
    pq.write_table(table.slice(0, 600), positives)
    said = []
    for rows in (60, 130, 32_768):
        monkeypatch.setattr(batch_blocks, "_ROWS_AT_ONCE", rows)
        with pytest.raises(ViolationError) as caught:
            verify(folder, max_violations=10_000)
        said.append(str(caught.value))
    assert said[0] == said[1] == said[2]
    assert said[0].count("the positive is not a known one") > 100


def test_one_giant_label_does_not_slow_every_batch(tmp_path):
    sizes = np.array([50_000] + [4] * 2_000)
    folder = packed_shapes.write_labels_shape(tmp_path / "batches", sizes, 64, 4)
    assert verify(folder).counts["batches"] > 100


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape", [packed_shapes.giant_query(20_000, 4_096), packed_shapes.typical(200_000, 2_048)]
)
def test_memory_stays_below_two_gigabytes(shape, tmp_path):
    folder = packed_shapes.write_shape(tmp_path / "batches", shape)
    found = run_fresh("benchmarks.verify", ["--measure", str(folder)], 2)
    assert found["rss_mb"] < 2_000
    assert found["cpu_s"] < 60
