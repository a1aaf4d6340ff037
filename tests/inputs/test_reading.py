"""Inputs that were misread: ids, dates, quotation marks, symmetric pairs; and warnings."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_formats import PAIRS, PASSAGES, QUERIES, Read, raw_lines, read, write_lines, write_table

from stx_mine.errors import ArtifactError, ConfigError, InputError
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.ingest.config import IngestConfig
from stx_mine.stages.ingest.core.reverse_pairs import reverse_of
from stx_mine.stages.ingest.stage import run_ingest
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.store.artifact import require
from stx_mine.store.pools import Pools
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import StageReport
from stx_mine.store.texts import TextStore

ROWS = [{"query": q, "passage": p} for q, p in PAIRS]


def ingest(path: Path, **options: Any) -> tuple[TextStore, StageReport]:
    run_dir = path.parent / f"run-{path.stem}"
    report = run_ingest(
        IngestConfig(pairs=str(path), run_dir=str(run_dir), overwrite=True, **options)
    )
    return TextStore.open(require(RunDir(run_dir), "texts")), report


# --- the cases ---


def test_ids_are_never_texts(tmp_path: Path) -> None:
    corpus = [{"id": i, "contents": p} for i, p in enumerate([*PASSAGES, "of no pair"])]
    write_lines(tmp_path / "collection.jsonl", corpus)
    raw_lines(tmp_path / "collection.tsv", [(row["id"], row["contents"]) for row in corpus])
    path = write_lines(tmp_path / "pairs.jsonl", [{"id": i, **r} for i, r in enumerate(ROWS)])
    for name in ("collection.jsonl", "collection.tsv"):
        store, report = ingest(path, corpus=str(tmp_path / name))
        assert store.passages.column("text").to_pylist() == [*PASSAGES, "of no pair"]
        assert store.passages.column("original_id").to_pylist() == [str(i) for i in range(13)]
        assert store.queries.column("original_id").to_pylist() == [str(i) for i in range(12)]
        said = "\n".join(report.lines)
        assert "query from query, passage from passage, query id from id" in said
        assert f"{tmp_path / name}: text from" in said
        assert sum(line.startswith("pair ") for line in report.lines) == 3


def test_dates_stay_as_they_stand(tmp_path: Path) -> None:
    dates = [f"19{i:02}-03-{i + 1:02}" for i in range(12)]
    metas = ["none", *range(1, 12)]
    rows = [
        {"question": q, "answer": date, "meta": meta}
        for q, date, meta in zip(QUERIES, dates, metas, strict=True)
    ]
    assert read(write_lines(tmp_path / "p.jsonl", rows)).pairs == list(
        zip(QUERIES, dates, strict=True)
    )


def test_quotation_marks_of_a_spreadsheet_are_not_text(tmp_path: Path) -> None:
    passages = [f'"Yes," he said of {p}' for p in PASSAGES]
    frame = pd.DataFrame({"query": QUERIES, "passage": passages})
    path = tmp_path / "p.tsv"
    frame.to_csv(path, sep="\t", index=False)
    assert read(path).pairs == list(zip(QUERIES, passages, strict=True))
    marked = [f'"""Yes,"" he said of hill {i}"' for i in range(2)]
    raw_lines(path, [("query", "passage"), *zip(QUERIES, marked, strict=False)])
    assert read(path).pairs[0][1].startswith('"Yes," he said')
    assert read(path, quoting="none").pairs[0][1].startswith('"""Yes,""')


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        (['a\t"half open', 'b\tsay "yes"'], ['"half open', 'say "yes"']),
        (['a\t"a whole title"', "b\tanother"], ['"a whole title"', "another"]),
        (['a\t"one" and "two"', 'b\t"third"'], ['"one" and "two"', '"third"']),
        (['a\t"with ""doubled"" marks"', "b\tplain"], ['with "doubled" marks', "plain"]),
        (['a\t"two', 'lines"', "b\tplain"], ["two\nlines", "plain"]),
    ],
)
def test_quotation_marks_enclose_only_what_needs_them(
    lines: list[str], kept: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "p.tsv"
    path.write_text("\n".join(["query\tpassage", *lines]) + "\n")
    assert [passage for _, passage in read(path).pairs] == kept


CHAIN = [{"a": QUERIES[i], "b": QUERIES[(i + 1) % 12]} for i in range(12)]


def reverse_partners(run_dir: Path) -> int:
    """How many negatives are a text that the query was paired with, the other way round."""
    store = TextStore.open(require(RunDir(run_dir), "texts"))
    pools = Pools.open(require(RunDir(run_dir), "negatives"), store.pair_query_ids)
    passages = store.passages.column("text").to_pylist()
    queries = store.queries.column("text").to_pylist()
    known = {(row["b"], row["a"]) for row in CHAIN}
    return sum(
        (queries[query], passages[passage]) in known
        for row, query in enumerate(store.pair_query_ids.tolist())
        for passage in pools.ids_NS[row].tolist()
        if passage >= 0
    )


def test_symmetric_pairs_are_no_negatives_of_one_another(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "pairs.jsonl", CHAIN)
    found = {}
    for symmetric in (False, True):
        run_dir = tmp_path / f"run-{symmetric}"
        shared = {"run_dir": str(run_dir)}
        report = run_embed(EmbedConfig(pairs=str(path), symmetric=symmetric, **shared))
        said = "\n".join([*report.parts[0].lines, *report.parts[0].warnings])
        assert ("give --symmetric" in said) != symmetric
        assert ("12 reverse pairs are known positives" in said) == symmetric
        run_mine(MineConfig(k=4, relative_margin=None, **shared))
        found[symmetric] = reverse_partners(run_dir)
    assert found[True] == 0 < found[False]


def test_the_reverse_of_pairs_is_trained_on_where_asked(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "pairs.jsonl", CHAIN)
    found = read(path, symmetric=True, reverse_pairs=True)
    both = {(row["a"], row["b"]) for row in CHAIN} | {(row["b"], row["a"]) for row in CHAIN}
    assert set(found.pairs) == both
    lists = write_lines(tmp_path / "l.jsonl", [{"query": "q", "pos": ["x", "y"], "neg": ["z"]}])
    found = read(lists, symmetric=True, reverse_pairs=True)
    assert set(found.pairs) == {("q", "x"), ("q", "y"), ("x", "q"), ("y", "q")}
    assert found.known == {("q", "z")}
    with pytest.raises(ConfigError, match="--reverse-pairs needs --symmetric"):
        IngestConfig(pairs=str(path), reverse_pairs=True)


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=20, unique=True),
    st.data(),
)
def test_reverse_pairs_are_those_of_a_search_by_text(pairs: Any, data: Any) -> None:
    queries = data.draw(st.permutations(range(7)))
    passages = data.draw(st.permutations(range(7)))
    num_passages = data.draw(st.integers(1, 7))
    pairs = [(q, p) for q, p in pairs if p < num_passages]
    texts = [passages.index(t) if passages.index(t) < num_passages else 9 + t for t in queries]
    wanted = {
        (queries.index(passages[p]), passages.index(queries[q]))
        for q, p in pairs
        if passages.index(queries[q]) < num_passages
    } - set(pairs)
    found = reverse_of(
        np.array(pairs, np.int64).reshape(-1, 2),
        np.ones(len(pairs), bool),
        np.array(texts),
        num_passages,
    )
    assert {tuple(one) for one in found.tolist()} == wanted


# --- one table in many forms ---

# pandas writes a carriage return without quotation marks, which every reader takes for a line end.
_text = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {"question": _text, "answer": _text},
            optional={
                "id": st.integers() | _text,
                "negative": _text | st.none(),
                "url": st.integers() | st.floats() | st.none() | st.lists(_text, max_size=2),
                "language": st.sampled_from(["en", "de"]),
            },
        ),
        min_size=1,
        max_size=8,
    ),
    random=st.randoms(use_true_random=False),
)
def test_any_order_and_missing_keys_give_the_same_pairs(
    rows: list[dict[str, Any]], random: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    rows.append({"question": "a last question?", "answer": "its answer"})
    plain = [{"query": r["question"], "passage": r["answer"]} for r in rows]
    negatives = [r.get("negative") for r in rows]
    wanted = read(
        write_table(
            folder / "p.parquet", **_columns(plain), negative=pa.array(negatives, pa.string())
        )
    )

    shuffled = []
    for row in rows:
        names = list(row)
        random.shuffle(names)
        shuffled.append({name: row[name] for name in names})
    path = folder / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in shuffled))
    (folder / "p.json").write_text(json.dumps(shuffled))
    for found in (read(path), read(folder / "p.json")):
        assert _content(found) == _content(wanted)
    frame = pd.DataFrame({"n": negatives, **_columns(plain)}).rename(columns={"n": "negative"})
    frame.to_csv(folder / "p.csv", index=bool(random.getrandbits(1)))
    found = read(folder / "p.csv")
    assert _content(found) == _content(wanted)


def _columns(rows: list[dict[str, str]]) -> dict[str, list[str]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _content(found: Read) -> tuple[list[tuple[str, str]], set[tuple[str, str]], dict[str, int]]:
    return found.pairs, found.known, found.dropped


# --- values ---


def test_a_lone_surrogate_drops_its_row_and_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(
        "".join(json.dumps(row) + "\n" for row in ROWS)
        + '{"query": "broken \\ud800 text", "passage": "p"}\n'
    )
    store, report = ingest(path)
    assert store.num_pairs == 12
    assert any("1 values are no Unicode" in line for line in report.warnings)
    assert "empty_query 1" in "\n".join(report.lines)


def test_a_first_row_over_the_block_size_is_read(tmp_path: Path) -> None:
    long = "long " * 5_000_000
    path = write_lines(tmp_path / "p.jsonl", [{"query": "q", "passage": long}, *ROWS])
    assert read(path).pairs == [("q", long), *PAIRS]


def test_json_values_are_text_where_text_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(
        '{"query": "one", "passage": 1}\n{"query": 2.50, "passage": "b"}\n'
        '{"query": 12345678901234567890123, "passage": true}\n'
    )
    assert read(path).pairs == [
        ("one", "1"),
        ("2.50", "b"),
        ("12345678901234567890123", "true"),
    ]


def test_a_text_or_a_list_of_texts_in_one_column(tmp_path: Path) -> None:
    rows = [
        {"query": "a", "pos": "x"},
        {"query": "b", "pos": ["y", "z"]},
        {"query": "c", "pos": []},
    ]
    assert read(write_lines(tmp_path / "p.jsonl", rows)).pairs == [
        ("a", "x"),
        ("b", "y"),
        ("b", "z"),
    ]


# --- what looks wrong is said ---


def warned(tmp_path: Path, rows: list[dict[str, str]], **options: Any) -> str:
    return "\n".join(ingest(write_lines(tmp_path / "p.jsonl", rows), **options)[1].warnings)


def test_texts_that_cannot_be_texts_are_said(tmp_path: Path) -> None:
    many = [{"query": f"query {i}", "passage": f"passage {i}"} for i in range(200)]
    assert warned(tmp_path, many) == ""
    numbers = [{"query": str(i), "passage": f"passage {i}"} for i in range(200)]
    assert "200 (100.0%) of the queries are numbers" in warned(tmp_path, numbers)
    nothing = [*many, {"query": "x", "passage": "NULL"}, {"query": "y", "passage": "nan"}]
    assert "the positive of 2 pairs is a word for a missing value" in warned(tmp_path, nothing)
    markup = [{**row, "passage": f"<p>{row['passage']}</p>"} for row in many[:20]] + many[20:]
    assert "20 (10.0%) of the passages hold HTML tags" in warned(tmp_path, markup)
    angle = [{**row, "passage": f"if a < b and c > {i}"} for i, row in enumerate(many)]
    assert warned(tmp_path, angle) == ""
    often = [{**row, "passage": "See above."} for row in many[:12]] + many[12:]
    assert "positive of 12 (6.0%) of the pairs: 'See above.'" in warned(tmp_path, often)


@pytest.mark.parametrize("written", [str, json.dumps])
def test_lists_written_as_one_text_are_said(written: Any, tmp_path: Path) -> None:
    rows = [
        {"query": query, "pos": written([text]), "neg": written([text + "?", text + "!"])}
        for query, text in zip(QUERIES, PASSAGES, strict=True)
    ]
    said = warned(tmp_path, rows)
    assert "(100.0%) of the passages are lists written as one text" in said
    assert "(100.0%) of the negatives are lists written as one text" in said
    plain = [{"query": query, "pos": f"[{text}] of 'all'"} for query, text in PAIRS]
    (tmp_path / "plain").mkdir()
    assert "lists" not in warned(tmp_path / "plain", plain)


def test_labels_that_are_not_asked_about_are_said(tmp_path: Path) -> None:
    rows = [{**row, "label": i % 2} for i, row in enumerate(ROWS)]
    store, report = ingest(write_lines(tmp_path / "p.jsonl", rows))
    assert store.num_pairs == 6
    assert "label: 0 is a known negative, 1 is a positive" in "\n".join(report.lines) or (
        "label: 1 is a positive, 0 is a known negative" in "\n".join(report.lines)
    )
    flipped = ingest(tmp_path / "p.jsonl", positive_label=("0",))[0]
    assert flipped.num_pairs == 6
    everything = ingest(tmp_path / "p.jsonl", label_column="none")[0]
    assert everything.num_pairs == 12
    with pytest.raises(InputError, match=r"no row .* label '2'.*holds 0, 1"):
        ingest(tmp_path / "p.jsonl", positive_label=("2",))
    with pytest.raises(ConfigError, match="--min-grade needs a column of labels or scores"):
        ingest(write_lines(tmp_path / "q.jsonl", ROWS), min_grade=1.0)


def test_missing_labels_drop_their_rows(tmp_path: Path) -> None:
    rows = [{**row, "label": label} for row, label in zip(ROWS, ["1", "0", None] * 4, strict=True)]
    found = read(write_lines(tmp_path / "p.jsonl", rows))
    assert len(found.pairs) == 4
    assert found.dropped == {"no_label": 4, "known_negative": 4}


def test_parquet_floats_are_no_texts(tmp_path: Path) -> None:
    pq.write_table(pa.table({"query": [1.5], "passage": ["a"]}), tmp_path / "p.parquet")
    with pytest.raises(InputError, match=r"expected text in column 'query'.*double"):
        read(tmp_path / "p.parquet")


def test_a_run_whose_columns_were_read_as_others_is_not_continued(tmp_path: Path) -> None:
    """A version that reads another column of the same file must not go on with the texts of it."""
    path = write_table(tmp_path / "pairs.parquet", title=QUERIES, text=PASSAGES, body=PASSAGES)
    columns = {"query_column": "title", "passage_column": "text"}
    config = IngestConfig(pairs=str(path), run_dir=str(tmp_path / "run"), **columns)
    run_ingest(config)
    plan_path = tmp_path / "run/texts/plan.json"
    plan = json.loads(plan_path.read_text())
    assert "passage from text" in plan["fields"]["content"]["columns"]
    plan["fields"]["content"]["columns"] = "query from title, passage from body"
    plan_path.write_text(json.dumps(plan | {"key": "of another version"}))
    with pytest.raises(ArtifactError, match=r"passage from body.*passage from text.*--overwrite"):
        run_ingest(config)
