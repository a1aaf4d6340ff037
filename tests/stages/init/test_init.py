"""`init`: what it tells of data is so, and what it writes loads and runs."""

import csv
import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from conftest import Cli
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stx_mine.errors import ConfigError, InputError
from stx_mine.pipeline import load_pipeline
from stx_mine.stages.ingest.config import IngestConfig
from stx_mine.stages.ingest.stage import run_ingest
from stx_mine.stages.init.config import InitConfig
from stx_mine.stages.init.core.recipe import batch_size_of, held_out_sizes, propose_recipe
from stx_mine.stages.init.peek import PairPeek, PassagePeek, open_peek
from stx_mine.stages.init.pipeline_file import Section, Setting, pipeline_text
from stx_mine.stages.init.proposals import propose_pipeline
from stx_mine.stages.init.stage import run_init
from stx_mine.stages.split.config import SplitConfig
from stx_mine.stages.split.stage import run_split


@pytest.fixture
def here(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_csv(path: Path, rows: list[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def write_lines(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def pairs_of(small_input: Path, number: int) -> list[tuple[str, str]]:
    rows = pq.read_table(small_input / "pairs.parquet").slice(0, number).to_pylist()
    return [(row["query"], row["passage"]) for row in rows]


def written(path: str | Path, **options) -> tuple[dict, object]:
    """The stages of the file that init writes, as the pipeline loads them; and the report."""
    report = run_init(InitConfig(path=str(path), device="cpu", overwrite=True, **options))
    file = options.get("file", "pipeline.yaml")
    return load_pipeline(file, []).settings, report


# --- what it writes ---


@pytest.mark.parametrize(
    "name",
    [
        "xquad-en",
        "xquad-zh",
        "nl2bash",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("banking77", "clinc150")),
    ],
)
def test_the_split_that_is_proposed_for_real_data_leaks_nothing(
    name: str, shared_data: Path, here: Path
) -> None:
    stages, report = written(shared_data / name)
    assert list(stages) == ["split", "embed", "mine", "pack", "show", "train", "evaluate"]
    assert stages["embed"]["pairs"] == "stx-run/split" == stages["evaluate"]["data"][0]
    found = run_split(SplitConfig(**stages["split"]))
    assert found.counts["leaks"]["component"] == {"held_out": 0, "positives": 0, "texts": 0} | {
        "held_out": found.counts["leaks"]["component"]["held_out"]
    }
    train = found.counts["parts"]["train"]["pairs"]
    size = stages["pack"]["batch_size"]
    assert train // size >= 20
    assert size == 2_048 or train // (2 * size) < 20
    texts = Path("pipeline.yaml").read_text("utf-8")
    assert f"{train:,} pairs to train on make {train // size:,} steps" in texts
    assert ("It learned from English" in texts) == (name == "xquad-zh")
    assert report.stage == "init"


def test_the_file_runs_from_pairs_to_numbers(here: Path, small_input: Path, cli_here: Cli) -> None:
    write_csv(here / "pairs.csv", [("query", "passage"), *pairs_of(small_input, 400)])
    done = cli_here("init", "pairs.csv", "--device", "cpu", run_dir=Path("run"))
    assert done.code == 0, done
    assert "run `stx-mine run pipeline.yaml`" in done.stdout
    ran = cli_here("run", "pipeline.yaml", "--set", "train.epochs=1")
    assert ran.code == 0, ran
    assert (here / "run/evaluations/split/results.json").is_file()
    assert "0 (0.0%)" in ran.stdout


def test_passages_alone_get_queries_and_the_file_runs(
    here: Path, small_input: Path, cli_here: Cli
) -> None:
    passages = pq.read_table(small_input / "corpus.parquet").column(0).to_pylist()[:200]
    write_lines(here / "articles.jsonl", [{"text": text} for text in passages])
    stages, report = written("articles.jsonl", run_dir="run")
    assert list(stages)[:3] == ["queries", "split", "embed"]
    assert stages["queries"]["corpus"] == "articles.jsonl"
    assert stages["split"]["pairs"] == "run/queries/pairs.parquet"
    assert f"{len(set(passages)):,} distinct" in " ".join(report.lines)
    ran = cli_here("run", "pipeline.yaml", "--set", "train.epochs=1")
    assert ran.code == 0, ran
    assert (here / "run/model/manifest.json").is_file()


def test_a_folder_of_documents_gets_queries(here: Path, small_input: Path, cli_here: Cli) -> None:
    passages = pq.read_table(small_input / "corpus.parquet").column(0).to_pylist()
    (here / "notes").mkdir()
    for number in range(40):
        text = ". ".join(passages[3 * number : 3 * number + 3])
        (here / "notes" / f"{number}.{'md' if number % 2 else 'txt'}").write_text(text, "utf-8")
    stages, report = written("notes")
    assert stages["queries"]["corpus"] == "notes"
    assert "each of its 40 text and Markdown files is one passage" in " ".join(report.lines)
    assert "40 passages are too few" in report.warnings[0]
    made = cli_here("queries", "--corpus", "notes", "--method", "crop")
    assert made.code == 0, made
    rows = pq.read_table(here / "stx-run/queries/pairs.parquet").to_pylist()
    assert {row["passage_id"] for row in rows} <= {one.name for one in (here / "notes").iterdir()}
    assert len(rows) > 30


def test_titles_are_told_from_queries(here: Path, small_input: Path) -> None:
    pairs = pairs_of(small_input, 300)
    titled = [
        {"title": passage.partition(": ")[0], "text": passage} for passage in {p for _, p in pairs}
    ]
    write_lines(here / "titles.jsonl", titled)
    stages, report = written("titles.jsonl")
    assert stages["queries"]["cut_titles"] is True
    assert stages["split"]["pairs"] == "stx-run/queries/pairs.parquet"
    assert "other queries will be made" in " ".join(report.lines)
    assert report.warnings == ()
    write_csv(here / "pairs.csv", [("query", "passage"), *pairs])
    stages, report = written("pairs.csv")
    assert "queries" not in stages
    assert "all are taken as queries" in " ".join(report.lines)
    mixed = [(passage.partition(": ")[0], passage) for _, passage in pairs[:100]]
    write_csv(here / "mixed.csv", [("query", "passage"), *dict.fromkeys(mixed), *pairs[100:]])
    stages, report = written("mixed.csv")
    assert "queries" not in stages
    assert any("anchors look like titles" in one for one in report.warnings)


def test_splits_that_the_data_have_are_taken(here: Path, small_input: Path, cli_here: Cli) -> None:
    pairs = pairs_of(small_input, 160)
    folder = here / "beir"
    write_lines(
        folder / "corpus.jsonl", [{"_id": f"d{n}", "text": p} for n, (_, p) in enumerate(pairs)]
    )
    write_lines(
        folder / "queries.jsonl", [{"_id": f"q{n}", "text": q} for n, (q, _) in enumerate(pairs)]
    )
    (folder / "qrels").mkdir()
    parts = {"train": range(100), "dev": range(100, 130), "test": range(130, 160)}
    for part, numbers in parts.items():
        lines = "".join(f"q{n}\td{n}\t1\n" for n in numbers)
        (folder / "qrels" / f"{part}.tsv").write_text("query-id\tcorpus-id\tscore\n" + lines)
    stages, _ = written("beir")
    assert "split" not in stages
    assert stages["embed"]["pairs"] == "beir"
    assert stages["train"]["evaluation"] == ("beir",)
    assert (stages["evaluate"]["data"], stages["evaluate"]["split"]) == (("beir",), "test")
    ran = cli_here("run", "pipeline.yaml", "--set", "train.epochs=1")
    assert ran.code == 0, ran
    assert "30 queries" in ran.stdout


@pytest.mark.parametrize("on_gpu", [False, True])
def test_what_is_left_open_can_be_opened(here: Path, small_input: Path, on_gpu: bool) -> None:
    """Of pairs that hold both ways, of long passages."""
    pairs = [(a, f"{b} " * 50) for a, b in pairs_of(small_input, 300)]
    write_csv(here / "pairs.csv", [("query", "passage"), *pairs, *((b, a) for a, b in pairs)])
    config = InitConfig(path="pairs.csv")
    peek = open_peek("pairs.csv", config)
    proposal = propose_pipeline(peek, config, on_gpu)
    text = pipeline_text("run", [], proposal.sections)
    (here / "p.yaml").write_text(text, "utf-8")
    before = load_pipeline("p.yaml", []).settings
    assert ("package:" in before["embed"]["model"]) != on_gpu
    # A static model has no network to compute in another precision.
    assert before["train"].get("precision") == ("auto" if on_gpu else None)
    opened = re.sub(r"^  # (\w+): ", r"  \1: ", text, flags=re.MULTILINE)
    (here / "p.yaml").write_text(opened, "utf-8")
    stages = load_pipeline("p.yaml", []).settings
    assert stages["embed"] == before["embed"] | {"symmetric": True, "chunk": (256, 32)}
    assert stages["split"] == before["split"] | {"ignore": "case,punctuation"}


def test_documents_can_be_cut_and_asked_about(here: Path) -> None:
    """Where nothing but long passages is there, queries are made of their chunks."""
    (here / "notes").mkdir()
    for number in range(8):
        (here / f"notes/{number}.md").write_text(f"# Page {number}\n\n" + f"word{number} " * 400)
    stages, _ = written("notes")
    assert "chunk" not in stages["embed"]
    text = Path("pipeline.yaml").read_text("utf-8")
    opened = re.sub(r"^  # (\w+): ", r"  \1: ", text, flags=re.MULTILINE)
    Path("p.yaml").write_text(opened, "utf-8")
    found = load_pipeline("p.yaml", []).settings
    more = {"chunk": (256, 32), "generator": "http://localhost:8000/v1"}
    assert found["queries"] == stages["queries"] | more
    assert found["embed"] == stages["embed"]


def test_how_files_are_read_goes_into_the_file(here: Path, small_input: Path) -> None:
    rows = [f"{q};{p.replace(';', ',')};x" for q, p in pairs_of(small_input, 200)]
    (here / "odd name #1: pairs.csv").write_text("wanted;found;note\n" + "\n".join(rows), "utf-8")
    stages, _ = written(
        "odd name #1: pairs.csv", query_column="wanted", passage_column="found", delimiter=";"
    )
    assert stages["split"] == {
        "pairs": "odd name #1: pairs.csv",
        "query_column": "wanted",
        "passage_column": "found",
        "delimiter": ";",
        "test": 0.1,
        "dev": 0.0,
    }
    assert stages["train"]["device"] == "cpu"


# --- what it tells ---


def test_the_sample_is_of_the_pairs_and_begins_with_three_that_are_shown(small_input: Path) -> None:
    path = str(small_input / "pairs.parquet")
    peek = open_peek(path, InitConfig(path=path))
    assert isinstance(peek, PairPeek)
    rows = list(dict.fromkeys(pairs_of(small_input, 600)))
    assert peek.num_pairs == len(rows)
    assert peek.sample[:3] == [rows[0], rows[len(rows) // 2], rows[-1]]
    assert sorted(peek.sample) == sorted(rows)
    lengths = sorted(len(query.split()) for query, _ in rows)
    assert abs(peek.lengths["queries"].median - lengths[len(lengths) // 2]) <= 1
    assert peek.num_of_most_frequent == max(
        [passage for _, passage in rows].count(passage) for _, passage in rows
    )


def test_passages_are_counted_with_what_repeats_and_what_is_empty(here: Path) -> None:
    write_lines(here / "a.jsonl", [{"text": text} for text in ("one", "two ", "two", "", "three")])
    peek = open_peek("a.jsonl", InitConfig(path="a.jsonl"))
    assert isinstance(peek, PassagePeek)
    assert (peek.num_rows, peek.num_distinct, peek.num_empty) == (5, 3, 1)
    assert sorted(peek.sample) == ["one", "three", "two "]


MESSY = {
    "semicolons.csv": "sep=;\nid;Question;Answer\n1;how is it?;it is good\n2;who?;a man\n",
    "quotes.csv": 'query,passage\n"a ""b"" c","d, e"\n\n"x y","z\nz"\nq,\nq,q\nx y,"z z"\n',
    "labels.csv": "q1,q2,is_duplicate\nhow is it?,is it good?,1\nwho?,why me?,0\nwhen?,at six,1\n",
    "lists.jsonl": '{"query": "a", "pos": ["c", "e"], "neg": ["f"]}\n{"query": "g", "pos": []}\n',
    "short.jsonl": '{"query": "a"}\n{"query": "c", "passage": "d"}\n{"passage": "e"}\n',
}


@pytest.mark.parametrize("name", MESSY)
def test_what_is_told_is_what_ingest_tells(here: Path, name: str) -> None:
    (here / name).write_text(MESSY[name], "utf-8")
    refuse_another_reading(name)


@pytest.mark.parametrize(
    "name", ["id-first/pairs.jsonl", "no-header/triples.tsv", "qrels-four-columns", "tsv-quotes"]
)
def test_what_is_told_of_cases_of_people_is_what_ingest_tells(
    here: Path, shared_data: Path, name: str
) -> None:
    path = shared_data.parent / "cases" / name
    if not path.exists():
        pytest.skip(f"no {path}")
    refuse_another_reading(path)


def refuse_another_reading(path: str | Path) -> None:
    _, report = written(path)
    ingested = run_ingest(IngestConfig(pairs=str(path), run_dir="ingested"))
    told = [one for one in ingested.lines if not one.startswith(("pair ", "texts:"))]
    told = [one for one in told if not one.endswith("known negatives")]
    assert list(report.lines[: len(told)]) == told
    counts = ingested.counts
    distinct = f"{counts['queries']} distinct queries, {counts['passages']} distinct passages"
    assert report.lines[len(told)] == f"texts: {distinct}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty; give a file with at least one row"),
        ("query,passage\n", "no usable pair"),
        ("question\nhow?\nwhy?\n", r"found queries \(question\) and no passages; write the"),
        ("text,label\na b c,x\nd e f,y\n", r"found texts \(text\) with labels \(label\)"),
        ("query,passage\na b c,d e f\n", "found one distinct text"),
        (
            "url,text\na b c,d e f\n",
            "--query-column; or, if there are no queries, give passages as",
        ),
        ("left,right\nhow is it?,it is good\n", "--query-column and --passage-column"),
    ],
)
def test_data_that_cannot_be_used_are_refused_with_what_to_do(
    here: Path, content: str, message: str
) -> None:
    (here / "data.csv").write_text(content, "utf-8")
    with pytest.raises(InputError, match=message):
        run_init(InitConfig(path="data.csv", device="cpu"))
    assert not (here / "pipeline.yaml").exists()


def test_few_and_repeated_pairs_are_warned_of(here: Path, small_input: Path) -> None:
    rows = pairs_of(small_input, 12) * 5
    write_csv(here / "pairs.csv", [("query", "passage"), *rows])
    stages, report = written("pairs.csv")
    few, repeated = report.warnings
    assert few.startswith("12 pairs are too few")
    assert repeated.startswith("48 (80.0%) of the rows repeat a pair")
    assert stages["pack"]["batch_size"] <= 12
    assert stages["mine"]["k"] < 12
    assert "# Warning: 12 pairs are too few" in (here / "pipeline.yaml").read_text("utf-8")


def test_columns_the_wrong_way_round_are_warned_of(here: Path, small_input: Path) -> None:
    pairs = pairs_of(small_input, 150)
    rows = [(f"{passage} {passage} {passage}", query.split()[0]) for query, passage in pairs]
    write_csv(here / "pairs.csv", [("query", "passage"), *rows])
    _, report = written("pairs.csv")
    assert any("the wrong way round" in one for one in report.warnings)


def test_without_a_path_the_files_that_are_here_are_named(here: Path) -> None:
    (here / "mine.csv").write_text("query,passage\na,b\n")
    with pytest.raises(ConfigError, match=r"expected PATH, found none; .* here are mine\.csv"):
        run_init(InitConfig())


def test_a_run_that_is_there_already_is_told_of(
    run_copy: Path, small_input: Path, here: Path
) -> None:
    _, report = written(small_input / "pairs.parquet", run_dir=str(run_copy))
    assert any(one.startswith(f"{run_copy}/ holds a run already") for one in report.warnings)


# --- nothing is overwritten ---


def test_nothing_is_overwritten_unless_asked(here: Path, small_input: Path) -> None:
    pairs = str(small_input / "pairs.parquet")
    (here / "pipeline.yaml").write_text("mine\n")
    with pytest.raises(InputError, match="is there already; give --overwrite"):
        run_init(InitConfig(path=pairs, device="cpu"))
    assert (here / "pipeline.yaml").read_text() == "mine\n"
    (here / "link.yaml").symlink_to(here / "pipeline.yaml")
    (here / "folder.yaml").mkdir()
    for name in ("link.yaml", "folder.yaml"):
        with pytest.raises(InputError, match="give another --file"):
            run_init(InitConfig(path=pairs, device="cpu", file=name, overwrite=True))
    with pytest.raises(ConfigError, match=r"must end in \.yaml or \.yml, found pairs\.csv"):
        InitConfig(path=pairs, file="pairs.csv", overwrite=True)
    run_init(InitConfig(path=pairs, device="cpu", overwrite=True))
    assert load_pipeline("pipeline.yaml", []).settings
    assert sorted(one.name for one in here.iterdir()) == [
        "folder.yaml",
        "link.yaml",
        "pipeline.yaml",
    ]


# --- pure parts ---


@given(st.integers(1, 5_000_000), st.sampled_from([1_024, 2_048, 32_768]))
def test_a_batch_is_the_largest_that_leaves_twenty_steps(num_rows: int, most: int) -> None:
    size = batch_size_of(num_rows, most)
    assert size & (size - 1) == 0 and 2 <= size <= most
    assert size <= max(num_rows, 2)
    if size > 16:
        assert num_rows // size >= 20
    if 16 <= size < most:
        assert num_rows // (2 * size) < 20


@given(st.integers(20, 10_000_000))
def test_held_out_parts_leave_most_for_training(num_pairs: int) -> None:
    test, dev = (size if size >= 1 else size * num_pairs for size in held_out_sizes(num_pairs))
    assert test + dev <= 0.2 * num_pairs
    assert test <= 5_000 and (dev == 0 or 100 <= dev <= 2_000)


def test_the_model_follows_the_device_the_language_and_the_wish() -> None:
    def recipe(**changes):
        usual = {"num_rows": 45_000, "num_passages": 9_999, "num_texts": 80_000, "asked": None}
        return propose_recipe(**{**usual, "on_gpu": False, "is_english": True, **changes})

    assert recipe().model == "package:wordllama"
    assert recipe(on_gpu=True).model == "sentence-transformers/all-MiniLM-L6-v2"
    assert "multilingual" in recipe(on_gpu=True, is_english=False).model
    assert recipe(asked="my/model").model == "my/model"
    assert (recipe().batch_size, recipe(on_gpu=True).batch_size) == (2_048, 1_024)
    large = recipe(on_gpu=True, num_rows=2_000_000)
    assert (large.batch_size, large.k, large.is_large) == (32_768, 2, True)
    assert recipe(num_passages=5).k == 4
    assert [recipe(num_rows=rows).passes for rows in (999, 1_000, 200_001)] == [None, 10, None]
    assert recipe(on_gpu=True).passes is None


@settings(deadline=None, max_examples=50)
@example("0\n", "")
@example("a\x85", "")
@example("\ufffe\x85\u2028#: '\n", "\ufffe\x85\u2028\nrun_dir: other\n")
@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(
        str.strip
    ),
    st.text(),
)
def test_no_path_and_no_comment_breaks_the_file(path: str, reason: str) -> None:
    sections = [Section("split", SplitConfig, reason, (Setting("pairs", path, reason),))]
    text = pipeline_text("run", [reason], sections)
    assert yaml.safe_load(text) == {"run_dir": "run", "split": {"pairs": path}}
    assert {line.split()[0] for line in text.split("\n") if line} <= {
        "#",
        "run_dir:",
        "split:",
        "pairs:",
    }
