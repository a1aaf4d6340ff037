"""Ids of the hub, read from a cache in the hub's own layout; nothing is fetched."""

from pathlib import Path

import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_formats import read

from stx_mine.errors import InputError

REVISION = "1f" * 20
PAIRS = {"query": ["what is a cat", "what is a dog"], "positive": ["it purrs", "it barks"]}
RELEVANT = {"query-id": ["q1", "q2"], "corpus-id": ["d2", "d1"], "score": [1, 1]}


def put(cache: Path, repo: str, files: dict[str, dict[str, list[object]]], card: str) -> None:
    """Lay a dataset into a cache as a download of revision `REVISION` leaves it."""
    folder = cache / f"datasets--{repo.replace('/', '--')}"
    snapshot = folder / "snapshots" / REVISION
    for name, columns in files.items():
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), snapshot / name)
    (snapshot / "README.md").write_text(card)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text(REVISION)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    of_pairs = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n"
    put(
        tmp_path,
        "org/pairs",
        {"data/train-00000-of-00001.parquet": PAIRS, "data/more/odd.parquet": RELEVANT},
        of_pairs + "    path: data/train-*\n---\n# Pairs\n",
    )
    configs = [("default", "test", "qrels/test-*"), ("corpus", "corpus", "corpus/corpus-*")]
    configs.append(("queries", "queries", "queries/queries-*"))
    listed = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: {split}\n    path: {path}\n"
        for name, split, path in configs
    )
    put(
        tmp_path,
        "mteb/tiny",
        {
            "qrels/test-00000-of-00001.parquet": RELEVANT,
            "corpus/corpus-0.parquet": {"_id": ["d1", "d2"], "text": ["it barks", "it purrs"]},
            "queries/queries-0.parquet": {"_id": ["q1", "q2"], "text": PAIRS["query"]},
        },
        f"---\nconfigs:\n{listed}---\n",
    )
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        "org/pairs",
        "org/pairs@main",
        "hf://datasets/org/pairs",
        "hf://datasets/org/pairs@main",
        "hf://datasets/org/pairs/data/train-00000-of-00001.parquet",
        "mteb/tiny",
        "hf://datasets/mteb/tiny",
    ],
)
def test_a_dataset_of_the_hub_gives_its_pairs(cache: Path, name: str) -> None:
    assert read(name).pairs == list(zip(PAIRS["query"], PAIRS["positive"], strict=True))


@pytest.mark.parametrize("name", ["org/others", "hf://datasets/org/pairs@v2"])
def test_what_cannot_be_fetched_is_named(cache: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"could not be fetched from the hub .*; check the path"):
        read(name)


def test_a_folder_goes_before_the_hub(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "org/pairs"
    own.mkdir(parents=True)
    pq.write_table(pa.table({"query": ["own"], "positive": ["text"]}), own / "train.parquet")
    monkeypatch.chdir(tmp_path)
    assert read("org/pairs").pairs == [("own", "text")]
