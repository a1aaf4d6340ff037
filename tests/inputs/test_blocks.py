"""Blocks are bounded by bytes too: long texts, dictionaries, files of one large row group."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stx_mine.inputs import column_file
from stx_mine.inputs.blocks import BLOCK_BYTES, parquet_rows, within_bytes
from stx_mine.inputs.column_file import ColumnFile


@given(st.lists(st.integers(0, 3_000), min_size=1, max_size=60), st.integers(1, 5_000))
def test_blocks_hold_all_rows_in_order_and_few_bytes(sizes: list[int], most: int) -> None:
    texts = pa.array([f"{size}".ljust(size, "x") for size in sizes], pa.large_string())
    numbers = pa.array(range(len(sizes)))
    blocks = list(within_bytes([texts, numbers], most))
    assert [one for _, block in blocks for one in block.to_pylist()] == list(range(len(sizes)))
    assert [one for block, _ in blocks for one in block.to_pylist()] == texts.to_pylist()
    for block in blocks:
        assert len(block[0]) == 1 or sum(one.nbytes for one in block) <= most


def test_a_dictionary_counts_as_what_it_stands_for() -> None:
    texts = pa.array(["a" * 10_000, "b" * 10_000]).take(pa.array([0, 1] * 500)).dictionary_encode()
    blocks = [block for (block,) in within_bytes([texts], 100_000)]
    assert max(pc.sum(pc.binary_length(one.cast(pa.string()))).as_py() for one in blocks) <= 100_000
    assert pa.chunked_array(blocks).to_pylist() == texts.to_pylist()


@pytest.mark.parametrize("value", [pa.string_view(), pa.binary_view()])
@pytest.mark.parametrize("in_lists", [False, True])
def test_views_count_as_what_they_show(value: pa.DataType, in_lists: bool) -> None:
    """Each shares its bytes with all of its column."""
    shown = pa.array([str(i).ljust(1_000, "x") for i in range(64)], pa.string()).cast(pa.binary())
    texts = pa.array(shown.cast(pa.string()) if value == pa.string_view() else shown).cast(value)
    if in_lists:
        texts = pa.ListArray.from_arrays(pa.array(range(65), pa.int32()), texts)
    blocks = [block for (block,) in within_bytes([texts], 20_000)]
    assert [len(one) for one in blocks] == [16] * 4
    assert pa.chunked_array(blocks).to_pylist() == texts.to_pylist()


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".jsonl", ".csv"])
def test_no_format_yields_more_bytes(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        column_file, "within_bytes", lambda arrays: within_bytes(arrays, most_bytes=50_000)
    )
    table = pa.table({"query": [f"q{i}" for i in range(300)], "passage": ["p " * 2_000] * 300})
    path = tmp_path / f"pairs{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, path)
    elif suffix == ".arrow":
        dictionary = table.set_column(1, "passage", table.column(1).dictionary_encode())
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, dictionary.schema) as writer:
            writer.write_table(dictionary)
    elif suffix == ".csv":
        table.to_pandas().to_csv(path, index=False)
    else:
        table.to_pandas().to_json(path, orient="records", lines=True)
    blocks = list(ColumnFile.open(path).batches(["query", "passage"]))
    assert max(sum(one.nbytes for one in block) for block in blocks) <= 60_000
    assert [one for block, _ in blocks for one in block.to_pylist()] == table["query"].to_pylist()


def test_long_rows_of_parquet_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    long = [f"{i} ".ljust(1 << 20, "x") for i in range(96)]
    pq.write_table(pa.table({"query": ["q"] * 96, "passage": long}), tmp_path / "long.parquet")
    file = pq.ParquetFile(tmp_path / "long.parquet")
    assert parquet_rows(file, ["passage"]) == pytest.approx(BLOCK_BYTES >> 20, abs=2)
    assert parquet_rows(file, ["query"]) == 8_192
    whole = pa.table({"n": range(100_000)})
    pq.write_table(whole, tmp_path / "short.parquet", use_dictionary=False)
    assert parquet_rows(pq.ParquetFile(tmp_path / "short.parquet"), ["n"]) == 65_536
