"""JSON that is a table as a whole is read by the names and ids in it."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_formats import read

from stx_mine.errors import InputError

QUERIES = {f"q{i}": f"how high is hill {i}?" for i in range(5)}
TEXTS = {f"d{i}": f"hill {i} is {i} m high" for i in range(6)}
PAIRS = list(zip(QUERIES.values(), TEXTS.values(), strict=False))
FRAME = pd.DataFrame(
    {"positive": [text for _, text in PAIRS], "query": [query for query, _ in PAIRS]}
)
RELEVANT = {f"q{i}": [f"d{i}"] for i in range(5)}
LISTS = [["query", "passage"], *map(list, PAIRS)]


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize(
    "text",
    [
        FRAME.to_json(orient="split"),
        FRAME.to_json(),
        FRAME.to_json(indent=2),
        json.dumps(FRAME.to_dict("list")),
        json.dumps({"queries": QUERIES, "corpus": TEXTS, "relevant_docs": RELEVANT}),
        json.dumps(LISTS),
        "\n".join(map(json.dumps, LISTS)),
    ],
    ids=["split", "columns", "indented", "lists", "llama_index", "array", "lines"],
)
def test_tables_of_pairs(tmp_path: Path, text: str, end: str) -> None:
    (tmp_path / "p.json").write_text(text + end)
    found = read(tmp_path / "p.json")
    assert found.pairs == PAIRS
    assert not found.known


@pytest.mark.parametrize(
    "judgements",
    [RELEVANT, {name: dict.fromkeys(own, 1) for name, own in RELEVANT.items()}],
    ids=["lists", "grades"],
)
@pytest.mark.parametrize("titled", [False, True])
def test_objects_of_ids(tmp_path: Path, judgements: dict[str, Any], titled: bool) -> None:
    texts: dict[str, Any] = TEXTS
    if titled:
        texts = {name: {"title": "hills", "text": text} for name, text in TEXTS.items()}
    for name, table in {"p": judgements, "q": QUERIES, "c": texts}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(table))
    options = {"queries": str(tmp_path / "q.json"), "corpus": str(tmp_path / "c.json")}
    found = read(tmp_path / "p.json", **options)
    start = "hills " if titled else ""
    assert found.pairs == [(query, start + text) for query, text in PAIRS]
    assert found.ids == {text: name for name, text in QUERIES.items()}


def test_one_row_stays_a_row(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps({"query": "a", "pos": ["b"], "neg": ["c"]}))
    found = read(tmp_path / "p.jsonl")
    assert found.pairs == [("a", "b")]
    assert found.known == {("a", "c")}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"columns": ["query", "positive"], "data": [["a", "b"], ["c"]]}, "row 2"),
        ({"queries": {"q": "a"}, "corpus": {}, "relevant_docs": {"q": ["d"]}}, "corpus lacks"),
        ([["query", "passage"], ["a", "b"], ["c", "d", "e"]], "row 2"),
    ],
)
def test_broken_tables(tmp_path: Path, document: Any, said: str) -> None:
    (tmp_path / "p.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=said):
        read(tmp_path / "p.json")


@pytest.mark.parametrize("word", ["NaN", "Infinity", "null"])
def test_nan_is_no_text(tmp_path: Path, word: str) -> None:
    lines = [
        f'{{"query": "a{i}", "positive": {word if i == 1 else json.dumps(f"b{i}")}, '
        f'"negative": {word if i == 2 else json.dumps(f"c{i}")}}}\n'
        for i in range(4)
    ]
    (tmp_path / "p.jsonl").write_text("".join(lines))
    found = read(tmp_path / "p.jsonl")
    assert found.pairs == [(f"a{i}", f"b{i}") for i in (0, 2, 3)]
    assert found.known == {(f"a{i}", f"c{i}") for i in (0, 1, 3)}
    assert found.dropped == {"empty_passage": 1}
