"""A user's mistake: one line that names it and the way out, exit code 2, nothing damaged."""

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Cli, Finished

from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.store.artifact import require
from stx_mine.store.files import checksum, read_json
from stx_mine.store.run_dir import RunDir

BEIR_CORPUS = '{"_id": "c1", "title": "", "text": "one"}\n{"_id": "c2", "title": "t", "text": ""}\n'
BEIR_QUERIES = '{"_id": "q1", "text": "first"}\n{"_id": "q2", "text": "second"}\n'
HEADER = "query-id\tcorpus-id\tscore\n"


def write_beir(folder: Path, **qrels: str) -> None:
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(BEIR_CORPUS)
    (folder / "queries.jsonl").write_text(BEIR_QUERIES)
    for split, content in qrels.items():
        (folder / "qrels" / f"{split}.tsv").write_text(content)


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of inputs that are wrong, each in its own way."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty.jsonl").touch()
    (folder / "empty.csv").touch()
    (folder / "empty.jsonl.gz").write_bytes(gzip.compress(b""))
    (folder / "blank_lines.jsonl").write_text("\n\n\n")
    (folder / "header_only.csv").write_text("query,passage\n")
    (folder / "empty_texts.jsonl").write_text('{"query": "", "passage": " "}\n' * 3)
    nulls = pa.table({"query": pa.nulls(3, pa.string()), "passage": ["a", "b", "c"]})
    pq.write_table(nulls, folder / "nulls.parquet")
    pq.write_table(pa.table({"query": [1.5], "passage": ["a"]}), folder / "floats.parquet")
    (folder / "text.parquet").write_text("this is not Parquet")
    (folder / "pairs.txt").write_text("query passage\n")
    (folder / "one_column.csv").write_text("query\nq1\n")
    (folder / "broken.jsonl").write_text('{"query": "a", "passage": "b"}\n{"query": "c", \n')
    (folder / "words.jsonl").write_text('"a"\n"b"\n')
    (folder / "broken.csv").write_text("query,passage\na,b\na,b,c\n")
    (folder / "latin1.csv").write_bytes("query,passage\nGrüße,b\n".encode("latin-1"))
    (folder / "latin1.jsonl").write_bytes('{"query": "Grüße", "passage": "b"}\n'.encode("latin-1"))
    whole = gzip.compress(b"query,passage\n" + b"".join(b"q%d,p%d\n" % (i, i) for i in range(9999)))
    (folder / "truncated.csv.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "not_gzip.csv.gz").write_text("query,passage\na,b\n")
    (folder / "no_beir").mkdir()
    write_beir(folder / "unknown_query", train=HEADER + "q9\tc1\t1\n")
    write_beir(folder / "unknown_passage", train=HEADER + "q1\tc9\t1\n")
    write_beir(folder / "two_texts", train=HEADER + "q1\tc1\t1\n")
    with (folder / "two_texts" / "corpus.jsonl").open("a") as corpus:
        corpus.write('{"_id": "c1", "title": "", "text": "other"}\n')
    write_beir(folder / "ambiguous", dev=HEADER + "q1\tc1\t1\n", test=HEADER + "q1\tc1\t1\n")
    write_beir(folder / "word_score", train=HEADER + "q1\tc1\tyes\n")
    write_beir(folder / "odd_qrels", train="a\tb\tscore\nq1\tc1\t1\n")
    write_beir(folder / "no_positive", train=HEADER + "q1\tc1\t0\n")
    write_beir(folder / "no_corpus", train=HEADER + "q1\tc1\t1\n")
    (folder / "no_corpus" / "corpus.jsonl").unlink()
    (folder / "regular_file").write_text("in the way")
    (folder / "no_model").mkdir()
    return folder


@pytest.fixture(scope="module")
def packed_run(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run with batches of 64; copy it to change it."""
    run_dir = tmp_path_factory.mktemp("packed") / "run"
    shutil.copytree(small_run, run_dir)
    run_pack(PackConfig(batch_size=64, packings=1, run_dir=str(run_dir)))
    return run_dir


@pytest.fixture
def run_dir(packed_run: Path, tmp_path: Path) -> Path:
    """A finished run of one's own."""
    shutil.copytree(packed_run, tmp_path / "run")
    return tmp_path / "run"


def finished_files(run_dir: Path) -> dict[str, str]:
    """Checksums of all files of finished artifacts."""
    folders = {manifest.parent for manifest in run_dir.rglob("manifest.json")}
    return {
        str(path.relative_to(run_dir)): checksum(path)
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file()
    }


def words(line: str, folder: Path) -> list[str]:
    return [word.replace("BAD", str(folder)) for word in line.split()]


# Command, and what its message has to hold: the value that is wrong, then the way out.
INPUT_MISTAKES = [
    # Input files.
    ("ingest BAD/no_such.jsonl", ["no_such.jsonl", "check the path"]),
    ("ingest BAD/pairs.txt", ["pairs.txt", ".parquet", ".jsonl", "convert"]),
    ("ingest BAD/empty.jsonl", ["empty.jsonl", "empty", "at least one row"]),
    ("ingest BAD/empty.csv", ["empty.csv", "empty", "at least one row"]),
    ("ingest BAD/empty.jsonl.gz", ["empty.jsonl.gz"]),
    ("ingest BAD/blank_lines.jsonl", ["blank_lines.jsonl"]),
    ("ingest BAD/header_only.csv", ["header_only.csv", "no usable pair", "no rows"]),
    ("ingest BAD/empty_texts.jsonl", ["no usable pair", "empty_query 3", "check its columns"]),
    ("ingest BAD/nulls.parquet", ["no usable pair", "empty_query 3", "check its columns"]),
    ("ingest BAD/floats.parquet", ["'query'", "double", "expected text"]),
    ("ingest BAD/text.parquet", ["text.parquet", "expected parquet"]),
    ("ingest BAD/one_column.csv", ["one_column.csv", "holds the passages", "--passage-column"]),
    ("ingest BAD/broken.jsonl", ["broken.jsonl", "fix that row"]),
    ("ingest BAD/words.jsonl", ["words.jsonl", "line 1", "no JSON object"]),
    ("ingest BAD/broken.csv", ["broken.csv", "Expected 2 columns, got 3", "a,b,c"]),
    ("ingest BAD/latin1.csv", ["latin1.csv"]),
    ("ingest BAD/latin1.jsonl", ["latin1.jsonl"]),
    ("ingest BAD/truncated.csv.gz", ["truncated.csv.gz"]),
    ("ingest BAD/not_gzip.csv.gz", ["not_gzip.csv.gz"]),
    ("ingest", ["PAIRS", "name a file"]),
    ("evaluate", ["DATA", "name held-out pairs"]),
    # BEIR folders.
    ("ingest BAD/no_beir", ["no_beir", "qrels", "right folder"]),
    ("ingest BAD/no_corpus", ["corpus.jsonl", "check the path"]),
    ("ingest BAD/unknown_query", ["no usable pair", "train.tsv", "unknown_query_id 1"]),
    ("ingest BAD/unknown_passage", ["no usable pair", "train.tsv", "unknown_passage_id 1"]),
    ("ingest BAD/two_texts", ["corpus.jsonl", "'c1'", "'one'", "'other'"]),
    ("ingest BAD/ambiguous", ["'train'", "--split", "dev, test"]),
    ("ingest BAD/ambiguous --split tset", ["'tset'", "--split", "dev, test"]),
    ("evaluate BAD/ambiguous --split tset", ["'tset'", "--split", "dev, test"]),
    ("ingest BAD/word_score", ["train.tsv", "yes"]),
    ("ingest BAD/odd_qrels", ["train.tsv", "query-id, corpus-id, score", "found a, b, score"]),
    ("ingest BAD/no_positive", ["no usable pair", "not_relevant 1"]),
]
SIZE_MISTAKES = [
    ("pack --batch-size 601", ["--batch-size 601", "600 rows", "give --batch-size 30"]),
    (
        "pack --batch-size 500 --policy strict",
        ["500 rows", "distinct passages", "--policy merge", "--batch-size"],
    ),
]
MISTAKES = [
    # Ranges.
    ("mine --k -1", ["--k", "at least 0", "found -1"]),
    ("mine --depth 3 --k 4", ["--depth", "k=4", "found 3"]),
    ("mine --range-min 5 --range-max 5", ["--range-max", "5", "half-open"]),
    ("mine --min-score 0.5 --max-score 0.1", ["--min-score", "0.5", "0.1", "swap"]),
    ("mine --relative-margin -0.1", ["--relative-margin", "-0.1", "at least 0"]),
    ("pack --batch-size 1", ["--batch-size", "at least 2", "found 1"]),
    ("train --temperature 0", ["--temperature", "found 0"]),
    # Sizes that do not fit the data.
    ("mine --k 5000 --depth 5000", ["--k 5000", "smaller k", "--corpus"]),
    ("mine --max-depth 50", ["--max-depth must be at least --depth 100", "found 50"]),
    ("mine --sources dense,splade", ["dense,bm25", "'dense,splade'", "--candidates"]),
    ("mine --candidates BAD/none.trec", ["found nothing", "none.trec"]),
    ("mine --min-positive-percentile 101", ["every one of the", "--min-positive-percentile"]),
    ("mine --k 4 --max-score -1", ["no candidate is left", "--max-score -1", "without it"]),
    ("pack --batch-size 64 --k 31", ["--k 31", "mine kept 30", "stx-mine mine --k 31"]),
    # Models.
    ("embed --model package:nope", ["package:nope", "not installed", "pip install nope"]),
    ("embed --model package:no_such", ["package:no_such", "pip install no-such"]),
    ("embed --model package:numpy", ["'numpy'", "package:wordllama"]),
    ("embed --model BAD/no_such_model", ["no_such_model", "package:wordllama"]),
    ("embed --model BAD/no_model", ["no_model", "package:wordllama"]),
    ("embed --model no-such-org/no-such", ["'no-such-org/no-such'", "package:wordllama"]),
    ("train --model package:nope", ["package:nope", "pip install nope"]),
    ("evaluate PAIRS --models package:nope", ["package:nope", "pip install nope"]),
    # Search.
    ("mine --search faiss", ["index/ is missing", "stx-mine index"]),
    ("index --factory Nonsense", ["--factory 'Nonsense'", "Flat"]),
    ("index --factory IVF4096,Flat", ["--factory 'IVF4096,Flat'", "fewer IVF cells"]),
    ("index --factory Flat --min-recall 1.5", ["--min-recall 1.5", "--nprobe"]),
    # Other settings than those that made what is there.
    ("embed --dtype float16", ["dtype was 'float32' and is 'float16' now", "--overwrite"]),
    ("mine --query-block 50", ["query_block was 4096 and is 50 now", "--overwrite"]),
    ("pack --batch-size 32", ["batch_size was 64 and is 32 now", "--overwrite", "--run-dir"]),
    ("ingest PAIRS --language en", ["language was None and is 'en' now"]),
    # Names.
    ("embed PAIRS --query-column qeury", ["'qeury'", "--query-column", "query, passage"]),
    ("ingest PAIRS --passage-column psg", ["'psg'", "--passage-column", "query, passage"]),
    ("ingest PAIRS --corpus CORPUS --corpus-column x", ["'x'", "--corpus-column", "passage"]),
    ("ingest PAIRS --split train", ["--split", "leave it out"]),
    ("ingest PAIRS --query-column passage", ["holds the passages", "--passage-column"]),
    ("ingest BAD/ambiguous --split dev --corpus CORPUS", ["--corpus", "leave it out"]),
    ("verify BAD/no_model", ["no_model", "pack"]),
    ("verify BAD/no_such_folder", ["no_such_folder", "stx-mine pack"]),
]


def ids(mistakes: list[tuple[str, list[str]]]) -> list[str]:
    return [line for line, _ in mistakes]


@pytest.mark.parametrize(("line", "said"), INPUT_MISTAKES, ids=ids(INPUT_MISTAKES))
def test_a_wrong_input_is_one_line_and_makes_nothing(
    line: str, said: list[str], tmp_path: Path, bad: Path, cli_here: Cli
) -> None:
    error = cli_here(*words(line, bad), run_dir=tmp_path / "run").error
    for part in said:
        assert part in error
    assert finished_files(tmp_path / "run") == {}


@pytest.mark.parametrize(("line", "said"), SIZE_MISTAKES, ids=ids(SIZE_MISTAKES))
def test_batches_that_do_not_fit_are_one_line_and_make_nothing(
    line: str, said: list[str], small_run: Path, tmp_path: Path, cli_here: Cli
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(small_run, run_dir)
    before = finished_files(run_dir)
    error = cli_here(*line.split(), run_dir=run_dir).error
    for part in said:
        assert part in error
    assert finished_files(run_dir) == before
    assert not (run_dir / "batches").exists()


@pytest.mark.parametrize(("line", "said"), MISTAKES, ids=ids(MISTAKES))
def test_a_mistake_is_one_line_and_damages_nothing(
    line: str, said: list[str], run_dir: Path, bad: Path, small_input: Path, cli_here: Cli
) -> None:
    known = {"PAIRS": small_input / "pairs.parquet", "CORPUS": small_input / "corpus.parquet"}
    args = [known.get(word, word) for word in words(line, bad)]
    before = finished_files(run_dir)
    assert len(before) > 20
    error = cli_here(*args, run_dir=run_dir).error
    for part in said:
        assert part in error
    after = finished_files(run_dir)
    assert {name: after.get(name) for name in before} == before


@pytest.mark.parametrize(
    "line",
    [
        "ingest BAD/empty_texts.jsonl --overwrite",
        "ingest BAD/unknown_query --overwrite",
        "embed BAD/nulls.parquet --overwrite",
        "embed --model package:nope --overwrite",
        "mine --k 5000 --depth 5000 --overwrite",
        "mine --search faiss --overwrite",
        "mine --k 4 --max-score -1 --overwrite",
        "pack --batch-size 601 --overwrite",
        "pack --k 31 --overwrite",
        "pack --policy strict --batch-size 500 --overwrite",
        "train --model package:nope --overwrite",
    ],
)
def test_a_mistake_with_overwrite_replaces_nothing(
    line: str, run_dir: Path, bad: Path, cli_here: Cli
) -> None:
    before = finished_files(run_dir)
    assert cli_here(*words(line, bad), run_dir=run_dir).error
    assert finished_files(run_dir) == before


def test_an_index_survives_a_misspelt_factory_with_overwrite(run_dir: Path, cli_here: Cli) -> None:
    assert cli_here("index", "--factory", "Flat", run_dir=run_dir).code == 0
    before = finished_files(run_dir)
    assert "Falt" in cli_here("index", "--factory", "Falt", "--overwrite", run_dir=run_dir).error
    assert finished_files(run_dir) == before


def test_the_corrected_command_works_after_a_misspelt_factory(run_dir: Path, cli_here: Cli) -> None:
    assert "Falt" in cli_here("index", "--factory", "Falt", run_dir=run_dir).error
    done = cli_here("index", "--factory", "Flat", run_dir=run_dir)
    assert done.code == 0, done.stderr


def test_the_corrected_command_works_after_an_empty_file(
    tmp_path: Path, bad: Path, small_input: Path, cli_here: Cli
) -> None:
    run_dir = tmp_path / "run"
    assert cli_here("ingest", bad / "empty_texts.jsonl", run_dir=run_dir).error
    assert cli_here("ingest", small_input / "pairs.parquet", run_dir=run_dir).code == 0


def test_strict_batches_that_need_more_passages_than_there_are(
    small_run: Path, tmp_path: Path, cli_here: Cli
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(small_run, run_dir)
    counts = require(RunDir(run_dir), "texts").counts
    size = counts["passages"] // 5 + 5
    assert size * 6 <= counts["passages"] + counts["queries"], "the first bound would refuse it"
    args = ("pack", "--policy", "strict", "--k", "4", "--batch-size")
    error = cli_here(*args, str(size), run_dir=run_dir).error
    assert str(size) in error
    assert "--batch-size" in error
    done = cli_here(*args, "16", run_dir=run_dir)
    assert done.code == 0, done.stderr


STAGES = [
    "ingest PAIRS",
    "embed PAIRS",
    "embed",
    "index",
    "mine",
    "export",
    "pack",
    "train",
    "evaluate PAIRS",
]


@pytest.mark.parametrize("line", STAGES)
def test_a_run_directory_below_a_regular_file(
    line: str, bad: Path, small_input: Path, cli_here: Cli
) -> None:
    args = [small_input / "pairs.parquet" if word == "PAIRS" else word for word in line.split()]
    where = bad / "regular_file" / "run"
    error = cli_here(*args, run_dir=where).error
    assert str(where) in error
    assert "--run-dir" in error
    assert (bad / "regular_file").read_text() == "in the way"


@pytest.mark.parametrize(
    ("line", "needed", "command"),
    [
        ("embed", "texts", "stx-mine embed PAIRS"),
        ("index", "embeddings", "stx-mine embed"),
        ("mine", "texts", "stx-mine embed PAIRS"),
        ("export", "texts", "stx-mine embed PAIRS"),
        ("pack", "texts", "stx-mine embed PAIRS"),
        ("train", "batches", "stx-mine pack"),
    ],
)
def test_a_stage_too_early_names_the_one_before(
    line: str, needed: str, command: str, tmp_path: Path, cli_here: Cli
) -> None:
    error = cli_here(line, run_dir=tmp_path).error
    assert f"{needed}/ is missing" in error
    assert f"`{command}`" in error


@pytest.mark.parametrize(
    "line",
    ["embed", "index", "mine", "export", "pack", "pack --layout labels", "estimate", "train"],
)
def test_a_mistyped_run_directory_is_said_and_not_made(
    line: str, tmp_path: Path, cli_here: Cli
) -> None:
    error = cli_here(*line.split(), run_dir=tmp_path / "typo").error
    assert f"expected a run directory at {tmp_path / 'typo'}, found nothing" in error
    assert "`stx-mine embed PAIRS --run-dir" in error
    assert not (tmp_path / "typo").exists()


# --- pipeline files ---

PIPELINES = [
    ("mnie:\n  k: 4\n", ["'mnie'", "mine", "pack"]),
    ("mine:\n  kk: 4\n", ["mine.kk", "relative_margin"]),
    ("mine:\n  k: four\n", ["mine.k", "'four'", "a whole number"]),
    ("mine:\n  k: 4.5\n", ["mine.k", "4.5"]),
    ("mine:\n  k: true\n", ["mine.k", "True"]),
    ("mine:\n  k: -1\n", ["--k", "at least 0"]),
    ("pack:\n  policy: mrege\n", ["pack.policy", "'mrege'", "merge"]),
    ("mine: 4\n", ["mine", "4"]),
    ("mine: k\n", ["mine", "k"]),
    ("mine: [k, 4]\n", ["mine"]),
    ("mine:\n  run_dir: elsewhere\n", ["mine.run_dir"]),
    ("rounds: 0\n", ["rounds", "0"]),
    ("rounds: two\n", ["rounds", "'two'"]),
    ("- mine\n- pack\n", ["stage names"]),
    ("mine: {k: 4\n", ["expected a pipeline file in YAML at"]),
]


@pytest.mark.parametrize(("content", "said"), PIPELINES, ids=[repr(one) for one, _ in PIPELINES])
def test_a_mistake_in_a_pipeline_file(
    content: str, said: list[str], tmp_path: Path, cli_here: Cli
) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(f"{content}")
    error = cli_here("run", path, "--set", f"run_dir={tmp_path / 'run'}").error
    for part in said:
        assert part in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("mine.kk=4", ["mine.kk"]),
        ("mnie.k=4", ["'mnie'", "mine"]),
        ("mine.k", ["'mine.k'", "STAGE.FIELD=VALUE"]),
        ("k=4", ["'k'", "STAGE.FIELD"]),
        ("mine.k=four", ["mine.k", "'four'"]),
        ("mine.k=[", ["mine.k"]),
        ("rounds=0", ["rounds", "0"]),
    ],
)
def test_a_misspelt_override(override: str, said: list[str], tmp_path: Path, cli_here: Cli) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text("mine:\n  k: 4\n")
    error = cli_here("run", path, "--set", override).error
    for part in said:
        assert part in error


def test_a_missing_or_binary_pipeline_file(tmp_path: Path, cli_here: Cli) -> None:
    assert "no_such.yaml" in cli_here("run", tmp_path / "no_such.yaml").error
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    assert "binary.yaml" in cli_here("run", tmp_path / "binary.yaml").error


def test_later_rounds_need_training_before_any_work_is_done(
    tmp_path: Path, small_input: Path, cli_here: Cli
) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(f"rounds: 2\nembed:\n  pairs: {small_input}/pairs.parquet\nmine: {{}}\n")
    error = cli_here("run", path, "--set", f"run_dir={tmp_path / 'run'}").error
    assert "train" in error
    assert not (tmp_path / "run").exists()


# --- what typer answers, and a real process ---


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("mine --no-such-option 4", "--no-such-option"),
        ("mine --k four", "--k"),
        ("pack --policy mrege", "mrege"),
        ("mnie", "mnie"),
        ("embed one two", "two"),
    ],
)
def test_usage_errors_of_the_command_line(
    line: str, said: str, run_dir: Path, cli_here: Cli
) -> None:
    before = finished_files(run_dir)
    where = None if line == "mnie" else run_dir
    done = cli_here(*line.split(), run_dir=where)
    assert done.code == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert finished_files(run_dir) == before


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("pack --k 31", "--k 31"),
        ("embed --model package:nope", "package:nope"),
    ],
)
def test_a_process_of_its_own_says_the_same(
    line: str, said: str, run_dir: Path, cli: Callable[..., Finished]
) -> None:
    done = cli(*line.split(), run_dir=run_dir)
    assert said in done.error
    assert done.stdout == ""


def test_a_changed_shard_is_a_violation_not_a_usage_error(run_dir: Path, cli_here: Cli) -> None:
    first = read_json(run_dir / "batches" / "manifest.json")["files"][0]["file"]
    path = run_dir / "batches" / first
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    done = cli_here("verify", run_dir=run_dir)
    assert done.code == 1
    assert first in done.stderr
    assert "checksum" in done.stderr
    assert "Traceback" not in done.stderr
