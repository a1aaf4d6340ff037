"""Dataset cards: `load_dataset` gives what a folder holds, whatever lay under its name before."""

import json
import shutil
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import load_dataset

from stx_mine import cli as command_line
from stx_mine.stages.export.config import ExportConfig
from stx_mine.stages.export.layouts import LAYOUTS
from stx_mine.stages.export.stage import run_export
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.transfer.config import FetchConfig, PublishConfig
from stx_mine.stages.transfer.fetch import run_fetch
from stx_mine.stages.transfer.publish import run_publish
from stx_mine.store.dataset_card import DATASET_CARD, CardConfig, DatasetCard

PACKAGE = Path(command_line.__file__).parent
PACKINGS = {
    "merge": {"batch_size": 50, "k": 2},
    "strict": {"batch_size": 16, "k": 2, "policy": "strict"},
    "scores": {"batch_size": 50, "k": 0, "scores": True},
    "ids": {"batch_size": 50, "k": 2, "layout": "ids"},
    "labels": {"batch_size": 16, "layout": "labels"},
}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A fresh cache, where `load_dataset` looks by itself."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    return folder


@pytest.fixture(scope="module")
def runs(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs of the same name that hold different negatives."""
    folder = tmp_path_factory.mktemp("runs")
    paths = [folder / one / "stx-run" for one in ("one", "two")]
    for path in paths:
        shutil.copytree(small_run, path)
    run_mine(MineConfig(run_dir=str(paths[1]), k=4, range_min=3, device="cpu"))
    return paths


def pack(run: Path, **fields):
    run_pack(PackConfig(run_dir=str(run), overwrite=True, packings=2, **fields))
    return run / "batches"


def configs_of(folder: Path) -> list[dict]:
    """The configurations of the card in a folder."""
    head = (folder / DATASET_CARD).read_text("utf-8").split("---\n")[1]
    return yaml.safe_load(head)["configs"]


def stored(folder: Path, config: dict) -> list[dict]:
    """The lines that a configuration names, read without `datasets`."""
    rows: list[dict] = []
    for path in sorted(folder.glob(config["data_files"][0]["path"])):
        if path.suffix == ".jsonl":
            rows += map(json.loads, path.open(encoding="utf-8"))
        else:
            rows += pq.read_table(path, columns=config.get("columns")).to_pylist()
    return rows


def check(folder: Path, **options) -> list[list[dict]]:
    """See that every configuration gives what its files hold; returns that."""
    found = []
    for config in configs_of(folder):
        rows = load_dataset(str(folder), config["config_name"], split="train", **options).to_list()
        assert rows
        assert rows == stored(folder, config), config["config_name"]
        found.append(rows)
    return found


@pytest.mark.parametrize("name", list(PACKINGS))
def test_two_runs_of_one_name_keep_their_batches(name: str, runs: list[Path]) -> None:
    one, two = (check(pack(run, **PACKINGS[name], seed=seed)) for seed, run in enumerate(runs))
    assert one[0] != two[0]


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_two_runs_of_one_name_keep_their_exports(name: str, runs: list[Path]) -> None:
    for run in runs:
        run_export(ExportConfig(run_dir=str(run), to=name, k=2))
    one, two = (check(run / "exports" / name) for run in runs)
    assert one != two


@pytest.mark.parametrize("options", [{}, {"num_proc": 2}])
def test_a_packing_made_anew_is_read_anew(options: dict, runs: list[Path]) -> None:
    found = [check(pack(runs[0], batch_size=16, k=1, seed=seed), **options) for seed in (1, 2, 1)]
    assert found[0] != found[1]
    assert found[0] == found[2]


def test_parts_of_a_split_are_those_of_the_folder(runs: list[Path]) -> None:
    for seed in (3, 4):
        folder = pack(runs[0], batch_size=16, k=1, seed=seed)
        whole = stored(folder, configs_of(folder)[0])
        assert load_dataset(str(folder))["train"].to_list() == whole
        assert load_dataset(str(folder), split="train[16:32]").to_list() == whole[16:32]
        assert list(load_dataset(str(folder), split="train", streaming=True)) == whole


def test_a_fetched_copy_is_the_run_that_was_published(runs: list[Path], tmp_path: Path) -> None:
    for number, run in enumerate(runs):
        folder = pack(run, batch_size=16, k=1, seed=5 + number)
        run_publish(PublishConfig(run_dir=str(run), url=f"file://{tmp_path}/{number}"))
        copy = tmp_path / f"fetched-{number}" / "stx-run"
        run_fetch(FetchConfig(run_dir=str(copy), url=f"file://{tmp_path}/{number}"))
        assert check(copy / "batches") == check(folder)


def test_folders_without_a_card_are_told_apart_by_their_files(runs: list[Path]) -> None:
    """`datasets` names files, their times and sizes in its key where no card lists them."""
    found = []
    for seed in (6, 7):
        path = str(pack(runs[0], batch_size=16, k=1, seed=seed) / "epoch-000")
        by_files = load_dataset("parquet", data_files=f"{path}/*.parquet", split="train").to_list()
        assert load_dataset(path, split="train").to_list() == by_files
        found.append(by_files)
    assert found[0] != found[1]


def test_equal_content_is_described_alike_and_other_content_is_not(runs: list[Path]) -> None:
    described = []
    for seed in (1, 2, 1):
        words = {one["description"] for one in configs_of(pack(runs[1], batch_size=16, seed=seed))}
        assert len(words) == 1
        described += words
    assert described[0] == described[2] != described[1]


def test_a_digest_of_digits_stays_a_word(tmp_path: Path) -> None:
    for digest in ("1" * 32, "1e10", "0x12", "null"):
        card = DatasetCard((CardConfig("default", "data/*.parquet"),), ("stx-mine",), "# Text\n")
        card.write(tmp_path, digest)
        [config] = configs_of(tmp_path)
        assert config["description"] == f"content {digest}"
        assert (tmp_path / DATASET_CARD).read_text("utf-8").endswith("---\n# Text\n")


def test_one_module_writes_the_configurations_of_all_cards() -> None:
    writers = [path.name for path in PACKAGE.rglob("*.py") if "config_name:" in path.read_text()]
    assert writers == ["dataset_card.py"]
