"""`mine --k 0`: nothing is searched, and every reader of negatives takes it."""

import pyarrow as pa
import pytest

from stx_mine import Run
from stx_mine.commands import COMMANDS, stage_of
from stx_mine.errors import ConfigError
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.store.artifact import read_manifest
from stx_mine.store.batches import list_packings


@pytest.fixture
def run(run_copy):
    run_mine(MineConfig(run_dir=str(run_copy), k=0))
    return run_copy


def table_of(run):
    return pa.concat_tables(
        shard.batch(number)
        for packing in list_packings(run / "batches")
        for shard in packing
        for number in range(shard.num_batches)
    )


def test_nothing_is_searched_and_every_pair_is_a_row(run):
    manifest = read_manifest(run / "negatives")
    assert not [name for name in manifest.content["inputs"] if name.startswith("hits")]
    counts = manifest.counts
    assert counts["hits_in"] == counts["pooled"] == counts["rows_full"] == 0
    assert counts["rows"] == counts["rows_empty"] == counts["pairs_in"]
    report = run_mine(MineConfig(run_dir=str(run), k=0))
    assert report.skipped
    assert any("k=0: nothing is searched" in line for line in report.lines)


def test_it_packs_the_same_batches_as_k_0_of_what_was_mined(run):
    run_pack(PackConfig(run_dir=str(run), batch_size=32))
    found = table_of(run)
    run_mine(MineConfig(run_dir=str(run), k=4))
    run_pack(PackConfig(run_dir=str(run), batch_size=32, k=0, overwrite=True))
    assert table_of(run).equals(found)
    assert table_of(run).num_rows


def test_more_than_there_are_cannot_be_packed(run):
    with pytest.raises(ConfigError, match=r"mine kept 0; run `stx-mine mine --k 2` first"):
        run_pack(PackConfig(run_dir=str(run), batch_size=32, k=2))


def test_judges_have_nothing_to_judge():
    with pytest.raises(ConfigError, match="--judges a needs candidates, found --k 0"):
        MineConfig(k=0, judges=("a",))


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("show", {"random": 2}),
        ("show", {"without_negatives": True}),
        ("show", {"most_used": True}),
        ("show", {"suspects": True}),
        ("report", {}),
        ("estimate", {"device": "cpu"}),
        ("verify", {}),
        ("export", {"to": "dpr"}),
        ("export", {"to": "trec-run"}),
        ("pack", {"dry_run": True}),
        ("train", {"device": "cpu", "steps": 2}),
    ],
)
def test_every_reader_takes_it(run, command, options):
    run_pack(PackConfig(run_dir=str(run), batch_size=32))
    config = COMMANDS[command].config(run_dir=str(run), **options)
    assert stage_of(command)(config).lines is not None


def test_python_gives_rows_without_negatives(run):
    table = Run(run).negatives.to_arrow()
    assert table.column("negatives").to_pylist() == [[]] * table.num_rows
    assert not Run(run).negatives.query(table.column("query")[0].as_py()).candidates


def test_a_search_comes_back_with_k(run):
    report = run_mine(MineConfig(run_dir=str(run), k=4))
    assert report.counts["pooled"]
