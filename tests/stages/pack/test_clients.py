"""Batches and exports as the programs read them that people open Parquet with."""

import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import concatenate_datasets, load_dataset
from datasets.distributed import split_dataset_by_node

from stx_mine.stages.export.config import ExportConfig
from stx_mine.stages.export.stage import run_export
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack

K, BATCH = 2, 16
TEXTS = ["anchor", "positive", "negative_1", "negative_2"]


@pytest.fixture(scope="module")
def folders(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Batches in several shards, and an export of the same run."""
    run_dir = shutil.copytree(small_run, tmp_path_factory.mktemp("clients") / "run")
    config = PackConfig(run_dir=str(run_dir), k=K, batch_size=BATCH, policy="strict", packings=2)
    run_pack(config)
    run_export(ExportConfig(run_dir=str(run_dir), to="n-tuple", k=K, short_rows="drop"))
    return {"batches": run_dir / "batches", "exports": run_dir / "exports/n-tuple"}


def pattern_of(folder: Path) -> str:
    """The files that a dataset card calls `train`: the first packing, or all of an export."""
    return f"{folder}/epoch-000/*.parquet" if folder.name == "batches" else f"{folder}/*/*.parquet"


def rows_of(folder: Path) -> list[tuple[str, ...]]:
    """The texts of all rows in the order of files."""
    paths = sorted(Path("/").glob(pattern_of(folder)[1:]))
    return tuples(pa.concat_tables([pq.read_table(path, columns=TEXTS) for path in paths]))


def tuples(table: pa.Table) -> list[tuple[str, ...]]:
    return list(zip(*(table.column(name).to_pylist() for name in TEXTS), strict=True))


def by_polars(folder: Path, _: Path) -> list[tuple[str, ...]]:
    return polars.read_parquet(pattern_of(folder)).select(TEXTS).rows()


def by_polars_lazily(folder: Path, _: Path) -> list[tuple[str, ...]]:
    return polars.scan_parquet(pattern_of(folder)).select(TEXTS).collect().rows()


def by_duckdb(folder: Path, _: Path) -> list[tuple[str, ...]]:
    query = f"SELECT {', '.join(TEXTS)} FROM read_parquet(?, file_row_number=true, filename=true)"
    ordered = f"{query} ORDER BY filename, file_row_number"
    return duckdb.execute(ordered, [pattern_of(folder)]).fetchall()


def by_datasets(folder: Path, cache: Path) -> list[tuple[str, ...]]:
    return tuples(load_dataset(str(folder), split="train", cache_dir=str(cache)).data)


def by_datasets_in_processes(folder: Path, cache: Path) -> list[tuple[str, ...]]:
    data = load_dataset(str(folder), split="train", cache_dir=str(cache), num_proc=2)
    return tuples(data.data)


def by_streaming(folder: Path, _: Path) -> list[tuple[str, ...]]:
    data = load_dataset(str(folder), split="train", streaming=True)
    return [tuple(row[name] for name in TEXTS) for row in data]


def by_nodes(folder: Path, cache: Path) -> list[tuple[str, ...]]:
    data = load_dataset(str(folder), split="train", cache_dir=str(cache))
    parts = [split_dataset_by_node(data, rank=rank, world_size=2) for rank in range(2)]
    return tuples(concatenate_datasets(parts).flatten_indices().data)


@pytest.mark.parametrize("artifact", ["batches", "exports"])
@pytest.mark.parametrize(
    "read",
    [
        by_polars,
        by_polars_lazily,
        by_duckdb,
        by_datasets,
        by_datasets_in_processes,
        by_streaming,
        by_nodes,
    ],
)
def test_every_client_reads_the_same_rows(
    folders: dict[str, Path],
    artifact: str,
    read: Callable[[Path, Path], list[tuple[str, ...]]],
    tmp_path: Path,
) -> None:
    expected = rows_of(folders[artifact])
    assert len(expected) > 2 * BATCH
    assert read(folders[artifact], tmp_path / "cache") == expected
    assert all(isinstance(text, str) for row in expected for text in row)
