"""Ingest: readers, columns, BEIR folders, exact groups, and a reason for every dropped row."""

import gzip
import json
import re
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stx_mine.errors import ConfigError, InputError
from stx_mine.inputs.pairs import PairSource
from stx_mine.stages.ingest.config import IngestConfig
from stx_mine.stages.ingest.pairs import read_source
from stx_mine.stages.ingest.stage import run_ingest
from stx_mine.store.artifact import require
from stx_mine.store.digests import normalise
from stx_mine.store.groups import TextGroups
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

# Text that breaks naive readers: quotes, separators, line ends, other scripts, an emoji.
ROWS = [
    ("plain query", "plain passage"),
    ('a "quoted" query, with comma', "first line\nsecond line"),
    ("tabs\tinside", 'ends with quote"'),
    ("Grüße aus Köln", "日本語の文章"),
    ("emoji 🙂 query", "back\\slash"),
]
NO_TABS = [(q.replace("\t", " "), p.replace("\n", " ")) for q, p in ROWS]
# The characters of Unicode's White_Space property.
WHITE_SPACE = re.compile(
    "[\t\n\x0b\x0c\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+"
)


def ingest(run_dir: Path, pairs: Path, **options: object) -> TextStore:
    run_ingest(IngestConfig(pairs=str(pairs), run_dir=str(run_dir), **options))
    return TextStore.open(require(RunDir(run_dir), "texts"))


def counts_of(pairs: Path, **options: object) -> dict[str, object]:
    config = IngestConfig(pairs=str(pairs), **options)
    return read_source(PairSource.open(str(pairs), config, "train")).counts.to_json()


def stored_pairs(store: TextStore) -> list[tuple[str, str]]:
    queries = store.queries.column("text").take(pa.array(store.pair_query_ids)).to_pylist()
    passages = store.passages.column("text").take(pa.array(store.pair_passage_ids)).to_pylist()
    return list(zip(queries, passages, strict=True))


def write_parquet(path: Path, **columns: list[object]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def json_lines(rows: list[dict[str, object]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def csv_bytes(rows: list[tuple[str, str]]) -> bytes:
    quoted = ['"' + text.replace('"', '""') + '"' for row in rows for text in row]
    lines = [f"{quoted[i]},{quoted[i + 1]}" for i in range(0, len(quoted), 2)]
    return ("query,passage\n" + "\n".join(lines) + "\n").encode()


def tsv_bytes(rows: list[tuple[str, str]]) -> bytes:
    return ("query\tpassage\n" + "".join(f"{q}\t{p}\n" for q, p in rows)).encode()


def write_format(folder: Path, name: str) -> tuple[Path, list[tuple[str, str]]]:
    """Write ROWS in the format that the name tells; the rows that the file then holds."""
    path = folder / name
    if name.endswith(".parquet"):
        return write_parquet(path, query=[q for q, _ in ROWS], passage=[p for _, p in ROWS]), ROWS
    rows = NO_TABS if ".tsv" in name else ROWS
    if ".tsv" in name:
        content = tsv_bytes(rows)
    elif ".csv" in name:
        content = csv_bytes(rows)
    else:
        content = json_lines([{"query": q, "passage": p} for q, p in rows])
    if name.endswith(".gz"):
        content = gzip.compress(content)
    elif name.endswith(".zst"):
        content = zstandard.compress(content)
    path.write_bytes(content)
    return path, rows


@pytest.mark.parametrize(
    "name",
    [
        "pairs.parquet",
        "pairs.jsonl",
        "pairs.ndjson",
        "pairs.jsonl.gz",
        "pairs.jsonl.zst",
        "pairs.csv",
        "pairs.csv.gz",
        "pairs.csv.zst",
        "pairs.tsv",
        "pairs.tsv.gz",
        "pairs.v2.with.dots.jsonl.gz",
    ],
)
def test_every_format_gives_the_same_texts(tmp_path: Path, name: str) -> None:
    path, rows = write_format(tmp_path, name)
    assert stored_pairs(ingest(tmp_path / "run", path)) == rows


def test_tsv_keeps_quotation_marks_as_text(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_bytes(tsv_bytes([('"half quoted', "one"), ('say "yes"', '"'), ("third", "three")]))
    assert stored_pairs(ingest(tmp_path / "run", path)) == [
        ('"half quoted', "one"),
        ('say "yes"', '"'),
        ("third", "three"),
    ]


def test_csv_written_by_another_library_round_trips(tmp_path: Path) -> None:
    table = pa.table({"query": [q for q, _ in ROWS], "passage": [p for _, p in ROWS]})
    pa_csv.write_csv(table, tmp_path / "pairs.csv")
    assert stored_pairs(ingest(tmp_path / "run", tmp_path / "pairs.csv")) == ROWS


def test_a_quoted_line_end_at_the_border_of_two_blocks_is_text(tmp_path: Path) -> None:
    # The reader takes 16 MiB at a time; every border falls into a quoted value.
    rows = [(f"query {i}", f"passage {i}\n" * 80_000) for i in range(20)]
    path = tmp_path / "p.csv"
    path.write_bytes(csv_bytes(rows))
    assert path.stat().st_size > 1 << 24
    assert stored_pairs(ingest(tmp_path / "run", path)) == rows


def test_columns_are_found_by_name_and_never_by_place(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "p.parquet", id=["7", "8"], answer=["a1", "a2"], question=["q1", "q2"]
    )
    by_name = ingest(tmp_path / "named", path, query_column="question", passage_column="answer")
    assert stored_pairs(by_name) == [("q1", "a1"), ("q2", "a2")]
    assert stored_pairs(ingest(tmp_path / "unnamed", path)) == [("q1", "a1"), ("q2", "a2")]
    one_named = ingest(tmp_path / "one", path, query_column="question")
    assert stored_pairs(one_named) == [("q1", "a1"), ("q2", "a2")]


def test_a_json_line_without_the_column_is_an_empty_text(tmp_path: Path) -> None:
    rows = [{"query": "q1", "passage": "p1"}, {"query": "q2"}, {"passage": "p3", "query": None}]
    (tmp_path / "p.jsonl").write_bytes(json_lines(rows))
    counts = counts_of(tmp_path / "p.jsonl")
    assert counts["pairs_kept"] == 1
    assert counts["pairs_dropped"]["empty_passage"] == 1
    assert counts["pairs_dropped"]["empty_query"] == 1


def test_numbers_are_read_as_text_and_lists_are_refused(tmp_path: Path) -> None:
    numbers = write_parquet(tmp_path / "n.parquet", query=[1, 2], passage=["one", "two"])
    assert stored_pairs(ingest(tmp_path / "run", numbers)) == [("1", "one"), ("2", "two")]
    lists = write_parquet(tmp_path / "l.parquet", query=[["a"], ["b"]], passage=["one", "two"])
    with pytest.raises(InputError, match=r"expected one query a row in column 'query'.*lists"):
        counts_of(lists)


def test_dictionary_columns_are_texts(tmp_path: Path) -> None:
    table = pa.table(
        {"query": pa.array(["a", "b", "a"]).dictionary_encode(), "passage": ["x", "y", "z"]}
    )
    pq.write_table(table, tmp_path / "p.parquet")
    store = ingest(tmp_path / "run", tmp_path / "p.parquet")
    assert stored_pairs(store) == [("a", "x"), ("b", "y"), ("a", "z")]


def test_a_misspelt_column_names_the_columns_there_are(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "p.parquet", query=["q"], passage=["p"])
    with pytest.raises(InputError, match=r"'qeury'.*query, passage"):
        counts_of(path, query_column="qeury")
    with pytest.raises(InputError, match=r"--corpus-column 'txt'.*query, passage"):
        counts_of(path, corpus=str(path), corpus_column="txt")


def test_the_default_column_of_a_corpus_is_text_or_the_first(tmp_path: Path) -> None:
    pairs = write_parquet(tmp_path / "p.parquet", query=["q"], passage=["p"])
    named = write_parquet(tmp_path / "c.parquet", id=["c1"], text=["from text"])
    first = write_parquet(tmp_path / "d.parquet", body=["from body"], id=["d1"])
    for path, expected in ((named, "from text"), (first, "from body")):
        store = ingest(tmp_path / path.stem, pairs, corpus=str(path))
        assert store.passages.column("text").to_pylist() == [expected, "p"]


def test_options_that_do_not_fit_the_kind_of_input_are_refused(tmp_path: Path) -> None:
    beir = write_beir(tmp_path / "beir", {"train": [("q1", "c1", "1")]})
    pairs = write_parquet(tmp_path / "p.parquet", query=["q"], passage=["p"])
    with pytest.raises(ConfigError, match=r"--split.*leave it out"):
        counts_of(pairs, split="train")
    with pytest.raises(ConfigError, match=r"--query-column.*leave it out"):
        counts_of(beir, query_column="text")


# --- corpus and pairs ---


def test_passages_are_those_of_the_corpus_then_those_only_in_pairs(tmp_path: Path) -> None:
    pairs = write_parquet(
        tmp_path / "p.parquet", query=["q1", "q2", "q3"], passage=["new 1", "c2", "new 1"]
    )
    corpus = write_parquet(tmp_path / "c.parquet", text=["c1", "c2", None, "c1", " "])
    store = ingest(tmp_path / "run", pairs, corpus=str(corpus))
    assert store.passages.column("text").to_pylist() == ["c1", "c2", "new 1"]
    assert TextGroups.of_texts(store).passages.tolist() == [0, 1, 2]
    assert store.pair_passage_ids.tolist() == [2, 1, 2]
    counts = require(RunDir(tmp_path / "run"), "texts").counts
    assert counts["corpus_rows"] == 5
    assert counts["corpus_empty"] == 2
    assert counts["passages"] == 3
    assert counts["passages_only_in_pairs"] == 1


# --- exact groups ---


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a  b", "a b", True),
        (" a b\n", "a\tb", True),
        ("a\u00a0b", "a b", True),
        ("a\u3000b", "a b", True),
        ("a\u0085b", "a b", True),
        ("a\x0bb", "a b", True),
        ("a\u2028b", "a b", True),
        ("ﬁne", "fine", True),
        ("Ａ１", "A1", True),
        ("e\u0301", "\u00e9", True),
        ("Case", "case", False),
        ("ab", "a b", False),
        ("a.", "a", False),
        ("straße", "strasse", False),
    ],
)
def test_what_counts_as_the_same_text(one: str, other: str, same: bool) -> None:
    first, second = normalise(pa.array([one, other])).to_pylist()
    assert (first == second) == same


@pytest.mark.parametrize("form", ["{}", "a{}b", "{0} {0}", "a {}"])
def test_white_space_of_every_character(form: str) -> None:
    characters = [chr(one) for one in range(0x20000) if not 0xD800 <= one <= 0xDFFF]
    texts = pa.array([form.format(one) for one in characters], pa.large_string())
    composed = pc.utf8_normalize(texts, form="NFKC")
    collapsed = pc.replace_substring_regex(composed, r"[\s\x{0B}\p{Z}\x{85}]+", " ")
    assert normalise(texts).equals(pc.utf8_trim(collapsed, characters=" "))


def test_the_first_raw_occurrence_is_the_one_that_is_kept(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "p.parquet",
        query=["  Two  words ", "Two words", "two words"],
        passage=["ﬁrst\u00a0one", "other", "first one"],
    )
    store = ingest(tmp_path / "run", path)
    assert store.queries.column("text").to_pylist() == ["  Two  words ", "two words"]
    assert store.passages.column("text").to_pylist() == ["ﬁrst\u00a0one", "other"]
    assert store.pair_query_ids.tolist() == [0, 0, 1]
    assert store.pair_passage_ids.tolist() == [0, 1, 0]


def test_a_query_with_the_text_of_a_passage_shares_its_group(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "p.parquet", query=["q1", "p  1", "P 1"], passage=["p 1", "p 2", "p 3"]
    )
    store = ingest(tmp_path / "run", path)
    assert TextGroups.of_texts(store).passages.tolist() == [0, 1, 2]
    # Queries without a passage of equal text come after all passages.
    assert TextGroups.of_texts(store).queries.tolist() == [3, 0, 5]
    assert len(set(TextGroups.of_texts(store).queries.tolist())) == store.num_queries


# --- drop counts ---


def test_each_reason_to_drop_a_row_is_counted_once(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "p.parquet",
        query=["q1", None, "q2", "", "same", " q1", "q1", "\u00a0"],
        passage=["p1", "p2", None, "", "same ", "p1\n", "p3", "p9"],
    )
    counts = counts_of(path)
    assert counts["pairs_in"] == 8
    assert counts["pairs_kept"] == 2
    assert counts["pairs_dropped"] == {
        "empty_query": 3,
        "empty_passage": 1,
        "query_is_its_passage": 1,
        "repeated_pair": 1,
    }


WORDS = ["a", "A", "b", "ﬁ", "fi", "é", "e\u0301", ""]
SPACES = [" ", "  ", "\t", "\u00a0", "\n", "\u3000", ""]
TEXTS = st.one_of(
    st.none(),
    st.lists(st.sampled_from(WORDS + SPACES), max_size=4).map("".join),
)


def plain_normal(text: str | None) -> str:
    return WHITE_SPACE.sub(" ", unicodedata.normalize("NFKC", text or "")).strip(" ")


def plain_ingest(
    rows: list[tuple[str | None, str | None]], corpus: list[str | None]
) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """What ingest has to find, row by row: normal forms of kept pairs, and drop counts."""
    kept: dict[tuple[str, str], None] = {}
    dropped = dict.fromkeys(
        ("empty_query", "empty_passage", "query_is_its_passage", "repeated_pair"), 0
    )
    for query, passage in rows:
        pair = plain_normal(query), plain_normal(passage)
        if not pair[0]:
            dropped["empty_query"] += 1
        elif not pair[1]:
            dropped["empty_passage"] += 1
        elif pair[0] == pair[1]:
            dropped["query_is_its_passage"] += 1
        elif pair in kept:
            dropped["repeated_pair"] += 1
        else:
            kept[pair] = None
    return list(kept), dropped


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(rows=st.lists(st.tuples(TEXTS, TEXTS), max_size=12), corpus=st.lists(TEXTS, max_size=5))
def test_ingest_equals_a_plain_loop_over_the_rows(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str | None, str | None]],
    corpus: list[str | None],
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    rows = [*rows, ("always", "kept")]
    text = pa.string()
    pairs = write_parquet(
        folder / "p.parquet",
        query=pa.array([q for q, _ in rows], text),
        passage=pa.array([p for _, p in rows], text),
    )
    corpus_file = write_parquet(folder / "c.parquet", text=pa.array([*corpus, "one"], text))
    store = ingest(folder / "run", pairs, corpus=str(corpus_file))
    counts = require(RunDir(folder / "run"), "texts").counts
    kept, dropped = plain_ingest(rows, corpus)

    assert counts["pairs_in"] == len(rows)
    assert counts["pairs_in"] == counts["pairs_kept"] + sum(counts["pairs_dropped"].values())
    assert counts["pairs_dropped"] == dropped
    assert [(plain_normal(q), plain_normal(p)) for q, p in stored_pairs(store)] == kept

    for table, groups in (
        (store.queries, TextGroups.of_texts(store).queries),
        (store.passages, TextGroups.of_texts(store).passages),
    ):
        normal = [plain_normal(one) for one in table.column("text").to_pylist()]
        assert len(set(normal)) == len(normal) == len(set(groups.tolist()))
        assert "" not in normal
    every = {plain_normal(one) for one in [*corpus, "one", *(p for _, p in rows)]} - {""}
    passages = [plain_normal(one) for one in store.passages.column("text").to_pylist()]
    assert set(passages) == every
    for query, group in zip(
        store.queries.column("text").to_pylist(),
        TextGroups.of_texts(store).queries.tolist(),
        strict=True,
    ):
        is_passage = plain_normal(query) in passages
        assert is_passage == (group < store.num_passages)
        if is_passage:
            assert passages[group] == plain_normal(query)


def test_more_rows_than_one_batch_of_the_reader_are_numbered_alike(tmp_path: Path) -> None:
    total = 70_000
    queries = [f"query {i % 41_000}" for i in range(total)]
    passages = [f"passage {i % 67_000}" for i in range(total)]
    path = write_parquet(tmp_path / "p.parquet", query=queries, passage=passages)
    store = ingest(tmp_path / "run", path)
    assert store.num_queries == 41_000
    assert store.num_passages == 67_000
    assert store.num_pairs == total
    assert stored_pairs(store) == list(zip(queries, passages, strict=True))


# --- BEIR folders ---

CORPUS = [
    {"_id": "c1", "title": "A title", "text": "the text"},
    {"_id": "c2", "title": "", "text": "only text"},
    {"_id": "c3", "title": "Only title", "text": ""},
    {"_id": "c4", "title": "", "text": ""},
]
QUERIES = [
    {"_id": "q1", "text": "first"},
    {"_id": "q2", "text": "second"},
    {"_id": "q3", "text": "third"},
]


def write_beir(
    folder: Path,
    splits: dict[str, list[tuple[str, str, str]]],
    corpus: list[dict[str, object]] = CORPUS,
) -> Path:
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_bytes(json_lines(corpus))
    (folder / "queries.jsonl").write_bytes(json_lines(QUERIES))
    for split, rows in splits.items():
        lines = ["query-id\tcorpus-id\tscore", *("\t".join(row) for row in rows)]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


TRAIN = [("q1", "c1", "1"), ("q2", "c2", "2"), ("q2", "c3", "0"), ("q1", "c3", "-1")]


def test_beir_joins_title_and_text_and_keeps_original_ids(tmp_path: Path) -> None:
    store = ingest(tmp_path / "run", write_beir(tmp_path / "beir", {"train": TRAIN}))
    assert store.passages.column("text").to_pylist() == [
        "A title the text",
        "only text",
        "Only title",
    ]
    assert store.passages.column("original_id").to_pylist() == ["c1", "c2", "c3"]
    assert store.queries.column("original_id").to_pylist() == ["q1", "q2"]
    assert stored_pairs(store) == [("first", "A title the text"), ("second", "only text")]


def test_beir_without_titles_and_with_compressed_files(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "beir", {"train": TRAIN})
    corpus = json_lines([{"_id": row["_id"], "text": f"text of {row['_id']}"} for row in CORPUS])
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(corpus))
    (folder / "corpus.jsonl").unlink()
    store = ingest(tmp_path / "run", folder)
    assert stored_pairs(store) == [("first", "text of c1"), ("second", "text of c2")]


def test_beir_drops_and_counts_scores_of_zero_and_less(tmp_path: Path) -> None:
    rows = [*TRAIN, ("q1", "c4", "1"), ("q1", "c1", "3"), ("q3", "c1", "0.0")]
    counts = counts_of(write_beir(tmp_path / "beir", {"train": rows}))
    assert counts["pairs_in"] == 7
    assert counts["pairs_kept"] == 2
    assert counts["pairs_dropped"] == {
        "not_relevant": 3,
        "empty_query": 0,
        "empty_passage": 1,
        "query_is_its_passage": 0,
        "repeated_pair": 1,
    }


def test_beir_prefers_train_and_keeps_only_its_queries(tmp_path: Path) -> None:
    folder = write_beir(
        tmp_path / "beir", {"dev": [("q3", "c1", "1")], "train": TRAIN, "test": [("q3", "c2", "1")]}
    )
    store = ingest(tmp_path / "train", folder)
    assert store.queries.column("text").to_pylist() == ["first", "second"]
    other = ingest(tmp_path / "test", folder, split="test")
    assert stored_pairs(other) == [("third", "only text")]
    assert other.queries.column("text").to_pylist() == ["third"]


def test_beir_takes_the_only_split_whatever_its_name(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "beir", {"test": TRAIN})
    assert PairSource.open(str(folder), IngestConfig(), "train").split == "test"
    assert len(stored_pairs(ingest(tmp_path / "run", folder))) == 2


def test_beir_refuses_to_guess_between_splits(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "beir", {"test": TRAIN, "dev": TRAIN})
    with pytest.raises(InputError, match=r"--split with one of: dev, test"):
        counts_of(folder)
    with pytest.raises(InputError, match=r"no split 'trian'.*dev, test"):
        counts_of(folder, split="trian")


def test_beir_prefers_test_where_models_are_evaluated(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "beir", {"test": TRAIN, "train": TRAIN})
    assert PairSource.open(str(folder), IngestConfig(), "test").split == "test"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("q9", "c1", "1"), "unknown_query_id"),
        (("q1", "c9", "1"), "unknown_passage_id"),
        (("q9", "c9", "1"), "unknown_query_id"),
    ],
)
def test_beir_drops_and_counts_unknown_ids(
    tmp_path: Path, row: tuple[str, str, str], reason: str
) -> None:
    counts = counts_of(write_beir(tmp_path / "beir", {"train": [*TRAIN, row]}))
    assert counts["pairs_kept"] == 2
    assert counts["pairs_dropped"][reason] == 1
    with pytest.raises(InputError, match=f"no usable pair.*{reason} 1"):
        counts_of(write_beir(tmp_path / "only", {"train": [row]}))


def test_two_texts_under_one_id_are_refused_and_both_are_shown(tmp_path: Path) -> None:
    corpus = [*CORPUS, {"_id": "c2", "title": "", "text": "another text"}]
    with pytest.raises(InputError, match="'c2': 'only text' and 'another text'"):
        counts_of(write_beir(tmp_path / "beir", {"train": TRAIN}, corpus))
    same = [*CORPUS, {"_id": "c2", "title": "", "text": "only text"}]
    assert counts_of(write_beir(tmp_path / "same", {"train": TRAIN}, same))["pairs_kept"] == 2


def test_beir_ids_that_are_numbers_still_join(tmp_path: Path) -> None:
    corpus: list[dict[str, object]] = [{"_id": 1, "title": "", "text": "number one"}]
    folder = write_beir(tmp_path / "beir", {"train": [("q1", "1", "1")]}, corpus)
    assert stored_pairs(ingest(tmp_path / "run", folder)) == [("first", "number one")]


def test_columns_that_are_missing_are_told(tmp_path: Path) -> None:
    one = write_parquet(tmp_path / "one.parquet", query=["q"])
    with pytest.raises(InputError, match=r"which column of .* holds the passages.* 'query'"):
        counts_of(one)
    with pytest.raises(InputError, match=r"--query-column 'x' is not a column .* are query"):
        counts_of(one, query_column="x")


# --- the same input, the same bytes ---


def test_two_ingests_of_one_input_have_one_digest(tmp_path: Path, small_input: Path) -> None:
    digests = set()
    for name in ("one", "two"):
        ingest(
            tmp_path / name, small_input / "pairs.parquet", corpus=f"{small_input}/corpus.parquet"
        )
        digests.add(require(RunDir(tmp_path / name), "texts").digest)
    assert len(digests) == 1


# --- real data ---


NL2BASH_COUNTS = {
    "pairs_in": 12_607,
    "pairs_kept": 12_606,
    "pairs_dropped": {
        "not_relevant": 0,
        "empty_query": 0,
        "empty_passage": 0,
        "query_is_its_passage": 0,
        "repeated_pair": 1,
    },
    "queries": 11_341,
    "passages": 10_594,
    "corpus_rows": 10_624,
    "corpus_empty": 0,
    "known_negatives": 0,
    "passages_only_in_pairs": 0,
}
NL2BASH_FIRST = (
    "(BSD specific) Display process information twice, waiting one second between each, "
    "filtering out the header line.",
    "top -b -d2 -s1 | sed -e '1,/USERNAME/d' | sed -e '1,/^$/d'",
)
NL2BASH_LAST = (
    'when using vi-insert keymap bind command "\\C-v{}\\ei" to key "{"',
    """bind -m vi-insert '"{" "\\C-v{}\\ei"'""",
)


def test_nl2bash(shared_data: Path, tmp_path: Path) -> None:
    store = ingest(tmp_path / "run", shared_data / "nl2bash")
    counts = require(RunDir(tmp_path / "run"), "texts").counts
    assert {name: counts[name] for name in NL2BASH_COUNTS} == NL2BASH_COUNTS
    pairs = stored_pairs(store)
    assert pairs[0] == NL2BASH_FIRST
    assert pairs[-1] == NL2BASH_LAST


def test_quickstart_counts(repo_root: Path, tmp_path: Path) -> None:
    folder = repo_root / "data/quickstart"
    store = ingest(
        tmp_path / "run", folder / "pairs.parquet", corpus=str(folder / "corpus.parquet")
    )
    counts = require(RunDir(tmp_path / "run"), "texts").counts
    assert counts["pairs_in"] == counts["pairs_kept"] == store.num_pairs == 45_297
    assert sum(counts["pairs_dropped"].values()) == 0
    assert counts["corpus_rows"] == counts["passages"] == store.num_passages == 32_890
    assert counts["passages_only_in_pairs"] == 0
    first = (
        "it was full of rackets, balls and other objects",
        "object: a tangible and visible entity; an entity that can cast a shadow",
    )
    assert stored_pairs(store)[0] == first


def test_no_held_out_text_of_the_quickstart_is_trained_on(repo_root: Path) -> None:
    folder = repo_root / "data/quickstart"

    def texts(name: str) -> set[str]:
        table = pq.read_table(folder / name)
        return {one for column in table.columns for one in normalise_all(column)}

    dev, train = texts("dev.parquet"), texts("pairs.parquet")
    assert len(dev) > 3_000
    assert len(train) > 60_000
    assert not dev & train
    corpus = texts("corpus.parquet")
    dev_passages = set(normalise_all(pq.read_table(folder / "dev.parquet").column("passage")))
    assert dev_passages <= corpus


def normalise_all(column: pa.ChunkedArray) -> list[str]:
    return normalise(column.combine_chunks()).to_pylist()
