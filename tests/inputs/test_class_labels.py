"""Labels that have names in a table's features are read as those names."""

from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_formats import Fields, read, write_lines

from stx_mine.errors import InputError
from stx_mine.inputs.pairs import PairSource

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


def card(folder: Path, names: str, config: str = "default") -> None:
    (folder / "README.md").write_text(
        f"---\ndataset_info:\n- config_name: {config}\n  features:\n"
        f"  - name: label\n    dtype:\n      class_label:\n        names: {names}\n---\n# Pairs\n"
    )


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize(
    ("names", "positive"),
    [("{'0': duplicate, '1': not_duplicate}", "0"), ("[not_relevant, relevant]", "1")],
)
def test_names_of_a_card_decide(tmp_path: Path, names: str, positive: str, suffix: str) -> None:
    card(tmp_path, names)
    labels = ["0", "1", "1", "0", "1", "-1"]
    if suffix == ".csv":
        lines = [f"{q},{t},{n}" for q, t, n in zip(QUERIES, TEXTS, labels, strict=True)]
        (tmp_path / "train.csv").write_text("\n".join(["query,passage,label", *lines]))
    else:
        rows = [
            {"query": q, "passage": t, "label": int(n)}
            for q, t, n in zip(QUERIES, TEXTS, labels, strict=True)
        ]
        write_lines(tmp_path / "train.jsonl", rows)
    found = read(tmp_path)
    kept = [place for place, label in enumerate(labels) if label == positive]
    assert found.pairs == [(QUERIES[place], TEXTS[place]) for place in kept]
    assert found.dropped == {"known_negative": 5 - len(kept), "no_label": 1}


def test_names_that_stand_in_the_table_already(tmp_path: Path) -> None:
    card(tmp_path, "[relevant, not_relevant]")
    lines = [f"{q},{t},relevant" for q, t in zip(QUERIES, TEXTS, strict=True)]
    (tmp_path / "train.csv").write_text("\n".join(["query,passage,label", *lines]))
    assert len(read(tmp_path).pairs) == 6
    (tmp_path / "train.csv").write_text("\n".join(["query,passage,label", *lines, "a,b,maybe"]))
    with pytest.raises(InputError, match=r"as its features name them \(0 is relevant"):
        read(tmp_path)


def test_a_card_that_is_no_yaml_is_said(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nconfigs: [a: {\n---\n")
    lines = [f"{q},{t}" for q, t in zip(QUERIES, TEXTS, strict=True)]
    (tmp_path / "train.csv").write_text("\n".join(["query,passage", *lines]))
    source = PairSource.open(str(tmp_path), Fields(), "train")
    assert "the head of its README.md is no YAML" in " ".join(source.description())
    assert read(tmp_path).pairs == list(zip(QUERIES, TEXTS, strict=True))
