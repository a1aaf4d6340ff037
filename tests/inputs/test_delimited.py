"""CSV and TSV as spreadsheets, forms and other tools write them: read right, or refused."""

import gzip
from pathlib import Path
from typing import Any

import pytest
from test_formats import (
    NEGATIVES,
    PAIRS,
    PASSAGES,
    QUERIES,
    Fields,
    raw_lines,
    read,
    write_lines,
    write_table,
    write_values,
)

from stx_mine.errors import InputError
from stx_mine.inputs.pairs import PairSource

TEXTS = [(f"what {i}?", f"it is {i}, they say") for i in range(12)]
MARKED = [(f'say "{i}" please', f'so "{i}" it is') for i in range(12)]


def lines(path: Path, rows: list[str], header: str = "query,passage") -> Path:
    path.write_text("\n".join([*([header] if header else []), *rows]) + "\n")
    return path


def said(path: Path, **options: Any) -> str:
    return "\n".join(PairSource.open(str(path), Fields(**options), "train").description())


def write_beside(folder: Path) -> dict[str, Any]:
    """The texts of q0 ... and d0 ..., as options."""
    for name, letter, texts in (("queries", "q", QUERIES), ("corpus", "d", PASSAGES)):
        rows = [{"id": f"{letter}{i}", "text": text} for i, text in enumerate(texts)]
        write_lines(folder / f"{name}.jsonl", rows)
    return {name: str(folder / f"{name}.jsonl") for name in ("queries", "corpus")}


# --- quotation marks ---


@pytest.mark.parametrize(
    "rows",
    [
        ['a,"b', *(f"q{i},p{i}" for i in range(9))],
        ['a,"b', *(f'q{i},"p{i}"' for i in range(9))],
        ['a,"b" c', 'd,"e"'],
        ["q" * 60 + f'{i},"' + "p" * 60 + '"' for i in range(140_000)] + ['a,"b'],
    ],
    ids=["to the end", "two rows in one", "text behind it", "in the second block"],
)
def test_a_value_that_is_not_closed_is_refused_with_its_line(
    rows: list[str], tmp_path: Path
) -> None:
    path = lines(tmp_path / "p.csv", rows)
    line = 2 + next(place for place, row in enumerate(rows) if row.startswith('a,"b'))
    with pytest.raises(InputError, match=rf'line {line:,} of .*p.csv \(at "b.*--quoting none'):
        read(path)
    if len(rows) < 99:
        assert len(read(path, quoting="none").pairs) == len(rows)


def test_marks_that_enclose_nothing_are_text(tmp_path: Path) -> None:
    path = lines(tmp_path / "p.csv", ['say "yes",a 5" disk', '"a, b",c"', 'x y,"z ""w"""'])
    assert read(path).pairs == [('say "yes"', 'a 5" disk'), ("a, b", 'c"'), ("x y", 'z "w"')]


def test_backslashes_that_escape_marks(tmp_path: Path) -> None:
    def escaped(more: str) -> list[str]:
        return ['"{}","{}{}"'.format(*(t.replace('"', r"\"") for t in row), more) for row in MARKED]

    path = lines(tmp_path / "p.csv", escaped(""))
    assert read(path).pairs == MARKED
    assert "backslashes escape the quotation marks" in said(path)
    lines(path, escaped(r"\n"))
    with pytest.raises(InputError, match=r"cannot tell what '\\\\n' means.*--quoting backslash"):
        read(path)
    assert read(path, quoting="backslash").pairs == [(q, p + r"\n") for q, p in MARKED]


def test_spaces_before_marks_are_left_out(tmp_path: Path) -> None:
    path = lines(tmp_path / "p.csv", [f'"{q}",  "{p}"' for q, p in TEXTS])
    assert read(path).pairs == TEXTS
    assert "spaces before a quotation mark" in said(path)
    lines(path, [*(f'"{q}","{p}"' for q, p in TEXTS * 9), 'a, "b, ""c"""'])
    assert read(path).pairs[-1] == ("a", 'b, "c"')
    lines(path, ['a, "yes" he said'])
    assert read(path).pairs == [("a", ' "yes" he said')]


def test_a_header_line_with_a_line_end_in_a_name(tmp_path: Path) -> None:
    path = lines(tmp_path / "p.csv", [f'"{q}","{p}"' for q, p in TEXTS], 'query,"passage\n"')
    assert read(path).pairs == TEXTS


# --- lines of spreadsheets and of TREC ---


def test_the_line_of_a_spreadsheet_that_names_its_separator(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    body = "".join(f'{q};"{p}"\r\n' for q, p in TEXTS)
    path.write_text(f"\ufeffsep=;\r\nquestion;answer\r\n{body}", "utf-8", newline="")
    assert read(path).pairs == TEXTS
    assert "its first line names its separator, ';'" in said(path)


def test_columns_without_a_name_are_listed_by_their_place(tmp_path: Path) -> None:
    path = lines(tmp_path / "p.csv", ["0,a,b,,", "1,c,d,,"], ",query,passage,,")
    assert read(path).pairs == [("a", "b"), ("c", "d")]
    assert "not read: column 1 (no name), column 4 (no name), column 5 (no name)" in said(path)
    rows = [(*pair, "", "") for pair in PAIRS]
    assert read(write_values(tmp_path / "n.csv", rows, ",", lineterminator="\n")).pairs == PAIRS


@pytest.mark.parametrize("name", ["r.tsv", "r.qrels", "r.trec", "r.txt", "r.qrels.gz"])
@pytest.mark.parametrize("between", [" ", "  ", "\t"])
def test_judgements_as_trec_writes_them(name: str, between: str, tmp_path: Path) -> None:
    beside = write_beside(tmp_path)
    text = "".join(between.join((f"q{i}", "0", f"d{i}", "1")) + "\n" for i in range(12))
    content = gzip.compress(text.encode()) if name.endswith("gz") else text.encode()
    (tmp_path / name).write_bytes(content)
    assert read(tmp_path / name, **beside).pairs == PAIRS
    if between == " ":
        assert read(tmp_path / name, delimiter=" ", **beside).pairs == PAIRS


def test_a_separator_is_one_character(tmp_path: Path) -> None:
    path = write_values(tmp_path / "p.csv", [("query", "passage"), *PAIRS], "\t")
    assert read(path, delimiter="tab").pairs == read(path, delimiter="\\t").pairs == PAIRS
    with pytest.raises(InputError, match="one character for --delimiter, found '::'"):
        read(path, delimiter="::")
    raw_lines(path, [(f"q{i} d{i} 1",) for i in range(12)])
    with pytest.raises(InputError, match="--delimiter if it has several columns"):
        read(path)
    with pytest.raises(InputError, match="found one without a name; say with --delimiter"):
        read(path, no_header=True)
    assert len(read(path, delimiter="space", **write_beside(tmp_path)).pairs) == 12


# --- header lines, and columns without names ---

TIMES = [f"2024/01/{i + 1:02} 10:00:00" for i in range(12)]
MAILS = [f"a{i}@example.org" for i in range(12)]
ASKED, ANSWERED = "Please type your question here", "Please type your answer here"


@pytest.mark.parametrize(
    ("header", "beside"),
    [
        (("Timestamp", ASKED, ANSWERED), (TIMES,)),
        (("Zeitstempel", "Wie lautet Ihre Frage an uns?", "Was darauf zu sagen ist"), (TIMES,)),
        (("Was this of any use?", "Your words to us, please", "Ours"), (["3,5"] * 12,)),
        (("Timestamp", "Email Address", ASKED, ANSWERED), (TIMES, MAILS)),
        ((ASKED, ANSWERED), ()),
    ],
)
def test_a_header_line_of_sentences_is_no_row(
    header: tuple[str, ...], beside: tuple[list[str], ...], tmp_path: Path
) -> None:
    rows = list(zip(*beside, QUERIES, PASSAGES, strict=True))
    path = write_values(tmp_path / "p.csv", [header, *rows], ",")
    with pytest.raises(InputError, match=r"expected a header line.*--query-column.*--no-header"):
        read(path)
    named = {"query_column": header[-2], "passage_column": header[-1]}
    assert read(path, **named).pairs == PAIRS


@pytest.mark.parametrize(
    ("columns", "kinds"),
    [
        ((TIMES, QUERIES, PASSAGES), "times, texts, texts"),
        ((["When", *TIMES[1:]], QUERIES, PASSAGES), "mixed kinds, texts, texts"),
        ((MAILS, QUERIES, PASSAGES), "mail addresses, texts, texts"),
        ((QUERIES, PASSAGES, ["billing"] * 12), "texts, texts, a few values"),
        ((QUERIES, PASSAGES, ["Rechnung und Zahlung", "Versand"] * 6), "texts, texts, a few val"),
        ((QUERIES, PASSAGES, [f"Ann {c}" for c in "abcdefghijkl"]), "texts, texts, a few values"),
        ((QUERIES, PASSAGES, TIMES), "texts, texts, times"),
        (
            (["财务？"] * 12, [f"打开账单页面{i}" for i in range(12)], ["财务"] * 12),
            "texts, texts, a",
        ),
    ],
)
def test_columns_of_other_things_have_no_role(
    columns: tuple[list[str], ...], kinds: str, tmp_path: Path
) -> None:
    path = write_values(tmp_path / "p.csv", list(zip(*columns, strict=True)), ",")
    with pytest.raises(InputError, match=rf"{kinds}.*--columns query,passage,x"):
        read(path, no_header=True)
    places = [columns.index(one) for one in columns if one in (QUERIES, PASSAGES)]
    if len(places) == 2:
        names = ["x"] * 3
        names[places[0]], names[places[1]] = "query", "passage"
        assert read(path, columns=(",".join(names),), no_header=True).pairs == PAIRS


def test_negatives_without_names_are_read_where_they_are_passages(tmp_path: Path) -> None:
    path = raw_lines(tmp_path / "p.tsv", list(zip(QUERIES, PASSAGES, NEGATIVES, strict=True)))
    assert len(read(path).known) == 12
    # The passages of few queries, each with several negatives.
    rows = [(QUERIES[i // 6], PASSAGES[i // 6], NEGATIVES[i]) for i in range(12)]
    assert len(read(raw_lines(path, rows)).known) == 12


@pytest.mark.parametrize(
    "header", [("query", "passage"), ("question", "answer"), ("query", "x"), ("0", "1")]
)
def test_names_that_are_given_take_the_place_of_a_header_line(
    header: tuple[str, str], tmp_path: Path
) -> None:
    path = write_values(tmp_path / "p.csv", [header, *PAIRS], ",")
    assert read(path, columns=("query,passage",)).pairs == PAIRS
    assert "its first line is a header line" in said(path, columns=("query,passage",))
    kept = read(path, columns=("query,passage",), no_header=True).pairs
    assert kept == [header, *PAIRS]
    rows = [(time, *pair) for time, pair in zip(TIMES, PAIRS, strict=True)]
    write_values(path, [("Wann", "Frage", "Antwort"), *rows], ",")
    assert read(path, columns=("when,query,passage",)).pairs == PAIRS


def test_a_run_is_no_table_of_grades(tmp_path: Path) -> None:
    beside = write_beside(tmp_path)
    run = [(f"q{i}", f"d{(i + rank) % 12}", rank + 1) for i in range(12) for rank in range(4)]
    path = raw_lines(tmp_path / "run.tsv", run)
    with pytest.raises(InputError, match=r"found 1, 2, 3 .*mine --candidates.*--columns query_id"):
        read(path, **beside)
    assert len(read(path, columns=("query_id,corpus_id,grade",), **beside).pairs) == len(run)
    graded = [(q, d, 5 - grade) for q, d, grade in run]
    assert len(read(raw_lines(path, graded), **beside).pairs) == len(run)


# --- messages that name the way out ---


def test_a_column_that_is_written_otherwise_is_suggested(tmp_path: Path) -> None:
    path = write_values(tmp_path / "p.csv", [("Frage", "Antwort"), *PAIRS], ",")
    with pytest.raises(InputError, match=r"'frage' is not a column.*did you mean 'Frage'"):
        read(path, query_column="frage", passage_column="Antwort")
    with pytest.raises(InputError, match=r"'Antwrt' is not a column.*did you mean 'Antwort'"):
        read(path, query_column="Frage", passage_column="Antwrt")
    with pytest.raises(InputError, match=r"expected a header line in .* with 'foo'"):
        read(path, query_column="foo")


CONTENT = "query,passage\n" + "".join(f"what {i}?,it is \u00e4 {i}\n" for i in range(20))


@pytest.mark.parametrize(
    ("name", "content", "way"),
    [
        (
            "p.csv",
            gzip.compress(CONTENT.encode(), mtime=0),
            r"found gz; rename it to end in \.csv\.gz",
        ),
        ("p.csv", b"PK\x03\x04 of a workbook", "found zip; .*save a spreadsheet as CSV"),
        ("p.jsonl", b"PAR1\x15\x04 and more", r"found parquet; rename it to end in \.parquet"),
        ("p.parquet", CONTENT.encode(), r"found text; rename it to end in \.csv"),
        ("p.csv", CONTENT.encode("utf-16-le"), "give --encoding utf-16-le"),
        ("p.csv", CONTENT.encode("utf-16-be"), "give --encoding utf-16-be"),
        ("p.csv.gz", gzip.compress(CONTENT.encode(), mtime=0)[:60], "cut short.*fetch it again"),
    ],
)
def test_content_that_is_not_what_its_name_says(
    name: str, content: bytes, way: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=way):
        read(tmp_path / name)
    if "--encoding" in way:
        assert len(read(tmp_path / name, encoding=way.split()[-1]).pairs) == 20
        with pytest.raises(InputError, match="another --encoding than ascii"):
            read(tmp_path / name, encoding="ascii")


def test_text_that_begins_as_another_kind_does(tmp_path: Path) -> None:
    path = write_values(tmp_path / "p.csv", [("PAR1", "query", "passage"), ("x", "a", "b")], ",")
    assert read(path).pairs == [("a", "b")]


@pytest.mark.parametrize(
    ("path", "way"),
    [
        ("https://example.org/p.csv", "the address https://example.org/p.csv.*download it first"),
        ("s3://bucket/p.csv", "the address s3://bucket/p.csv.*download it first"),
        ("file:///data/p.csv", "give the path /data/p.csv"),
    ],
)
def test_an_address_is_no_path(path: str, way: str) -> None:
    with pytest.raises(InputError, match=way):
        read(path)


@pytest.mark.parametrize(
    ("query_id", "passage_id", "shown"),
    [
        ("q{} ", "d{}", r"queries.jsonl has the id 'q0 ' .*its ids in 'id' are 'q0'"),
        ("q{}", "{}.0", r"corpus.jsonl has the id '0.0' .*its ids in 'id' are 'd0'"),
    ],
)
def test_ids_that_match_none_are_shown_with_those_there_are(
    query_id: str, passage_id: str, shown: str, tmp_path: Path
) -> None:
    rows = [(query_id.format(i), passage_id.format(i)) for i in range(12)]
    path = write_values(tmp_path / "p.csv", [("query_id", "passage_id"), *rows], ",")
    with pytest.raises(InputError, match=rf"no usable pair.*{shown}"):
        read(path, **write_beside(tmp_path))


def test_ids_that_name_their_role_are_no_header(tmp_path: Path) -> None:
    rows = [(f"query-{i}", f"passage-{i}", f"passage-{i + 1}") for i in range(11)]
    beside = {}
    for role, count in (("query", 11), ("passage", 12)):
        lines = [f"{role}-{i}\tthe {role} numbered {i}\n" for i in range(count)]
        path = tmp_path / f"{role}.tsv"
        path.write_text("".join(lines))
        beside[{"query": "queries", "passage": "corpus"}[role]] = str(path)
    found = read(write_values(tmp_path / "triples.tsv", rows, "\t"), **beside)
    assert found.pairs[0] == ("the query numbered 0", "the passage numbered 0")
    assert len(found.pairs) == len(found.known) == 11


@pytest.mark.parametrize("score", ["3,5", "50%"])
def test_numbers_are_written_with_a_decimal_point(score: str, tmp_path: Path) -> None:
    rows = [("query", "passage", "score"), *((*pair, score) for pair in PAIRS)]
    with pytest.raises(InputError, match=rf"'{score}'.*decimal points and no %"):
        read(write_values(tmp_path / "p.csv", rows, ";"), min_grade=2.0)


# --- several files ---


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    for part in (0, 2):
        name = f"train-{part:05}-of-00003.parquet"
        write_table(tmp_path / name, query=QUERIES, passage=PASSAGES)
    with pytest.raises(
        InputError, match=r"expected the part train-00001-of-00003\.parquet.*pattern"
    ):
        read(tmp_path)
    assert len(read(tmp_path / "train-*").pairs) == 12
    assert "the part train-00001-of-00003.parquet is not among" in said(tmp_path / "train-*")
    write_table(tmp_path / "train-00001-of-00003.parquet", query=["a"], passage=["b"])
    assert len(read(tmp_path).pairs) == 13


def test_parts_without_a_byte_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    write_values(tmp_path / "part-1.csv", [("query", "passage"), *PAIRS], ",")
    (tmp_path / "part-0.csv").touch()
    (tmp_path / "._part-1.csv").write_bytes(b"\0\5\x16\7")
    for path in (tmp_path, tmp_path / "*.csv"):
        assert read(path).pairs == PAIRS
        assert "1 of its 2 files without a byte" in said(path)
    (tmp_path / "part-1.csv").write_text("")
    with pytest.raises(InputError, match="is empty"):
        read(tmp_path)


def test_files_of_other_columns_are_told_from_another(tmp_path: Path) -> None:
    write_values(tmp_path / "a.csv", [("query", "passage"), *PAIRS], ",")
    write_values(tmp_path / "b.csv", [("question", "answer"), *PAIRS], ",")
    with pytest.raises(InputError, match=r"differ in their columns.*give one of them.*-\*\.csv"):
        read(tmp_path)
