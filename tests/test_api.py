"""`from stx_mine import Run`: the commands as methods, tables as input, artifacts as tables."""

import inspect
import subprocess
import sys
from pathlib import Path

import datasets
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import stx_mine
from stx_mine import Run
from stx_mine.api import Batches, Negatives
from stx_mine.commands import COMMANDS
from stx_mine.errors import ArtifactError, ConfigError
from stx_mine.settings import names_of
from stx_mine.store.artifact import require
from stx_mine.store.batches import list_packings
from stx_mine.store.run_dir import RunDir

PAIRS = [(f"what is number {n}", f"the number {n} is a whole number") for n in range(40)]


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_is_a_method_with_its_options(name: str) -> None:
    method = getattr(Run, name)
    names = list(inspect.signature(method).parameters)
    assert names[0] == "self"
    assert set(names[1:]) == set(names_of(COMMANDS[name].config)) - {"run_dir"}
    assert method.__doc__.startswith(COMMANDS[name].config.__doc__)
    assert all(f"    {one}: " in method.__doc__ for one in names[1:])


def test_importing_loads_no_heavy_library() -> None:
    code = (
        "import sys; from stx_mine import Run; Run('x')\n"
        "heavy = ('torch', 'transformers', 'datasets', 'faiss', 'numba', 'pyarrow', 'numpy')\n"
        "assert not [one for one in heavy if one in sys.modules]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError):
        _ = stx_mine.Runs


@pytest.mark.parametrize("kind", ["pairs", "dicts", "arrow", "polars", "dataset", "pandas"])
def test_tables_are_input_as_files_are(tmp_path: Path, kind: str) -> None:
    pd = pytest.importorskip("pandas")
    columns = {"query": [q for q, _ in PAIRS], "passage": [p for _, p in PAIRS]}
    rows = [dict(zip(columns, pair, strict=True)) for pair in PAIRS]
    table = {
        "pairs": PAIRS,
        "dicts": rows,
        "arrow": pa.table(columns),
        "polars": pl.DataFrame(columns),
        "dataset": datasets.Dataset.from_dict(columns),
        "pandas": pd.DataFrame(columns),
    }[kind]
    run, other = Run(tmp_path / "run"), Run(tmp_path / "other")
    report = run.embed(table, device="cpu")
    assert report.counts["queries"] == len(PAIRS)
    assert run.embed(table, device="cpu").skipped
    pq.write_table(pa.table(columns), tmp_path / "pairs.parquet")
    other.embed(tmp_path / "pairs.parquet", device="cpu")
    one, two = (require(RunDir(each.path), "embeddings") for each in (run, other))
    assert one.digest == two.digest


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    for wrong in (3, [1, 2], object(), [("a", "b", "c")]):
        with pytest.raises(ConfigError, match="expected a path or a table as pairs"):
            run.embed(wrong)
    with pytest.raises(TypeError, match="kk"):
        run.mine(kk=3)
    with pytest.raises(ArtifactError):
        _ = run.negatives
    with pytest.raises(ArtifactError):
        _ = run.batches


def test_negatives_are_tables(run_copy: Path) -> None:
    run = Run(run_copy)
    negatives = run.negatives
    assert isinstance(negatives, Negatives)
    frame, data = negatives.to_pandas(k=2), negatives.to_dataset()
    assert len(frame) == len(data)
    assert set(map(len, frame["negatives"])) <= {0, 1, 2}
    assert data.column_names == ["query", "positive", "negatives", "negative_scores"]
    for row in data.select(range(0, len(data), 97)):
        view = negatives.query(row["query"], limit=1_000)
        pooled = sorted(
            (one for one in view.candidates if one.slot is not None), key=lambda one: one.slot
        )
        assert [one.text for one in pooled][:4] == row["negatives"]
        assert [one.score for one in pooled][:4] == pytest.approx(row["negative_scores"])
        assert row["positive"] in {one.text for one in view.positives}
    used = negatives.passage(next(row["negatives"][0] for row in data if row["negatives"]))
    assert used.num_uses > 0
    with pytest.raises(ConfigError, match="--k 999"):
        negatives.to_arrow(999)


@pytest.mark.parametrize("layout", ["inline", "ids"])
def test_batches_are_tables(run_copy: Path, layout: str) -> None:
    run = Run(run_copy)
    report = run.pack(batch_size=64, k=2, packings=2, layout=layout)
    assert report.counts
    batches = run.batches
    assert isinstance(batches, Batches)
    assert (len(batches), batches.batch_size) == (2, 64)
    [first, _] = list_packings(run_copy / "batches")
    data = batches.to_dataset(packing=0)
    assert len(data) == sum(shard.num_batches for shard in first) * 64
    expected = first[0].batch(1).select(["anchor", "negative_1"]).to_pydict()
    found = data.select(range(64, 128))
    assert {name: found[name][:] for name in expected} == expected
    with pytest.raises(ConfigError, match="expected a packing from 0 to 1, found 2"):
        batches.to_arrow(2)
