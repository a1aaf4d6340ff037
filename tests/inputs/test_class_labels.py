"""Labels that have names in a table's features are read as those names."""

from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_formats import read

from stx_mine.errors import InputError

QUERIES = [f"how high is hill {i}?" for i in range(6)]
TEXTS = [f"hill {i} is {i} m high" for i in range(6)]


def write(path: Path, names: list[str], labels: list[int], way: str) -> Path:
    features = datasets.Features(
        query=datasets.Value("string"),
        passage=datasets.Value("string"),
        label=datasets.ClassLabel(names=names),
    )
    rows = {"query": QUERIES, "passage": TEXTS, "label": labels}
    table = datasets.Dataset.from_dict(rows, features=features)
    if way == "parquet":
        path = path / "p.parquet"
        table.to_parquet(str(path))
    else:
        path = path / "saved"
        table.save_to_disk(str(path))
    return path


@pytest.mark.parametrize("way", ["parquet", "saved"])
@pytest.mark.parametrize(
    ("names", "positive"),
    [
        (["entailment", "not_entailment"], 0),
        (["duplicate", "not duplicate"], 0),
        (["not_equivalent", "equivalent"], 1),
        (["0", "1"], 1),
    ],
)
def test_names_decide(tmp_path: Path, names: list[str], positive: int, way: str) -> None:
    found = read(write(tmp_path, names, [0, 1] * 2 + [0, -1], way))
    kept = [place for place, label in enumerate([0, 1, 0, 1, 0, -1]) if label == positive]
    assert found.pairs == [(QUERIES[place], TEXTS[place]) for place in kept]
    assert len(found.known) == 5 - len(kept)
    assert found.dropped == {"known_negative": 5 - len(kept), "no_label": 1}


def test_names_of_classes_are_asked_for(tmp_path: Path) -> None:
    names = ["entailment", "neutral", "contradiction"]
    path = write(tmp_path, names, [0, 1, 2] * 2, "parquet")
    with pytest.raises(InputError, match=r"entailment, neutral, contradiction.*--positive-label"):
        read(path)
    found = read(path, positive_label=("entailment",), negative_label=("contradiction",))
    assert found.pairs == [(QUERIES[place], TEXTS[place]) for place in (0, 3)]
    assert found.known == {(QUERIES[place], TEXTS[place]) for place in (2, 5)}


def test_a_number_without_a_name_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, ["no", "yes"], [0, 1] * 3, "parquet")
    table = pq.read_table(path)
    labels = pa.array([0, 1, 2, 0, 1, 0], pa.int64())
    pq.write_table(table.set_column(2, "label", labels), path)
    with pytest.raises(InputError, match=r"from 0 to 1 in column 'label'.*found 2"):
        read(path)
