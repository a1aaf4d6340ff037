"""The documentation is true: pages, links, option tables, and every example in them."""

import csv
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import zip_longest
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import REPO_ROOT, Cli

from stx_mine.commands import COMMANDS
from stx_mine.inputs.stage_settings import load_sources
from stx_mine.pipeline import load_pipeline
from stx_mine.settings import flag
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.evaluate.results import read_results
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.stage import run_train
from stx_mine.store.run_dir import RunDir

DOCS = REPO_ROOT / "docs"
README = REPO_ROOT / "README.md"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
LINKED = [*PAGES, *sorted((REPO_ROOT / "benchmarks").glob("*.md")), REPO_ROOT / "CHANGELOG.md"]
OTHER_COMMANDS = {"run", "version"}
# Where the run directory of a page stands when its first example runs; all others begin with none.
STANDS_AFTER = {
    "index": "embed",
    "dedup": "embed",
    "mine": "embed",
    "calibrate": "embed",
    "judge": "mine",
    "audit": "mine",
    "export": "mine",
    "pack": "mine",
    "diff": "mine",
    "show": "mine",
    "estimate": "pack",
    "verify": "pack",
    "train": "pack",
    "publish": "train",
    "fetch": "train",
    "losses": "mine",
    "faq": "mine",
    "evaluate": "train",
    "merge": "train",
    "report": "train",
    "trainers": "train",
}
BATCH_SIZE = 256
# Pages whose examples train for longer; other tests run these commands too.
SLOW = {"run", "losses", "train", "tune"}
# Options of other programs that the pages name by themselves.
OPTIONS_OF_OTHERS = {
    "--corpus_config",
    "--corpus_name",
    "--dataset_name",
    "--knowledge_distillation",
    "--loss_type",
    "--num_processes",
    "--task_type",
    "--train_data",
}
# Where the pages publish to; the tests write below their own folder only.
PUBLISHED = "/tmp/stx-published"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its words after the fence, its text, where it begins."""

    info: str
    text: str
    line: int

    @property
    def language(self) -> str:
        return (self.info.split() or [""])[0]

    @property
    def exit_code(self) -> int:
        found = re.search(r"exit=(\d)", self.info)
        return int(found[1]) if found else 0

    def command_lines(self) -> list[str]:
        """The lines of a shell block, without comments."""
        joined = self.text.replace("\\\n", " ")
        lines = (shlex.split(line, comments=True) for line in joined.splitlines())
        return [shlex.join(words) for words in lines if words]


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    found = re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, flags=re.M | re.S)
    return [Block(one[1].strip(), one[2], text[: one.start()].count("\n") + 1) for one in found]


def name_of(page: Path) -> str:
    return str(page.relative_to(REPO_ROOT))


def prose_of(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """The generator of option tables."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_is_short_and_names_the_test_command():
    text = README.read_text("utf-8")
    assert len(text.splitlines()) <= 150
    assert "make test" in text


def test_every_command_has_a_page_and_every_page_a_command():
    pages = {page.stem for page in (DOCS / "commands").glob("*.md")}
    assert pages == set(COMMANDS) | OTHER_COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_option_tables_are_current(command, generate):
    text = (DOCS / "commands" / f"{command}.md").read_text("utf-8")
    renewed = generate.with_tables(text, COMMANDS[command].config)
    assert text == renewed, f"docs/commands/{command}.md is not current; run `make docs`"
    for one in fields(COMMANDS[command].config):
        assert f"| `{flag(one)}` |" in text


def test_a_table_escapes_what_markdown_would_read(generate):
    text = generate.option_tables(MineConfig)
    (row,) = (line for line in text.splitlines() if "--relative-margin" in line)
    assert r"score \<= positive - \|positive\| \* margin" in row
    assert len(re.findall(r"(?<!\\)\|", row)) == 5
    assert text.index("### Where it runs") < text.index("### Common") < text.index("`--run-dir`")


def slugs(page: Path) -> set[str]:
    """Anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), flags=re.M)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {word.strip().replace(" ", "-") for word in words}


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_links_between_pages_resolve(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{name_of(page)} links to {target}"
        if anchor:
            assert anchor in slugs(linked), f"{name_of(page)} links to {target}"


def test_every_page_can_be_reached_from_the_readme():
    seen, left = set(), [README]
    while left:
        page = left.pop()
        seen.add(page)
        found = re.findall(r"\]\(([^)#\s:]+\.md)", prose_of(page))
        linked = {(page.parent / target).resolve() for target in found}
        left += [one for one in linked & set(PAGES) if one not in seen]
    assert seen == set(PAGES)


def commands_named(page: Path) -> Iterator[list[str]]:
    """Every `stx-mine ...` of a page, in blocks and in lines of code, as words."""
    code = re.findall(r"`([^`]+)`", prose_of(page))
    for block in blocks_of(page):
        if block.language in ("sh", "console"):
            code += block.command_lines()
    for text in code:
        for named in re.findall(r"(?:^|/| )stx-mine ([^|&;]*)", text.replace("\n", " ")):
            yield re.sub(r"['\"<>…]", " ", named).split()


def options_of(command: str) -> set[str]:
    common = {"--help"}
    if command == "run":
        return common | {"--set", "--overwrite"}
    if command == "version":
        return common
    return common | {flag(one) for one in fields(COMMANDS[command].config)}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_options_that_are_named_exist(page):
    for words in commands_named(page):
        command = words[0] if words else "--help"
        if command in ("COMMAND", "--help"):
            continue
        assert command in {*COMMANDS, *OTHER_COMMANDS}, words
        unknown = {word for word in words[1:] if re.match(r"--\w", word)} - options_of(command)
        assert not unknown, words


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_in_lines_of_code_exist(page):
    """`--option` is one of some command, and `mine --option` is one of mine."""
    known = {one for command in [*COMMANDS, "run"] for one in options_of(command)}
    for code in re.findall(r"`([^`]+)`", prose_of(page)):
        first = code.split()[0]
        wanted = options_of(first) if first in {*COMMANDS, *OTHER_COMMANDS} else known
        if wanted is known and not first.startswith("--"):
            continue
        named = set(re.findall(r"(?<!\S)--[\w-]+", code))
        assert named - wanted <= OPTIONS_OF_OTHERS, code


def write_rows(path: Path, names: list[str], rows: list[tuple[object, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([names, *rows])


def write_lines(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages name: real rows of the quickstart, few of them."""
    whole = REPO_ROOT / "data" / "quickstart"
    folder = tmp_path_factory.mktemp("docs")
    data = folder / "data" / "quickstart"
    data.mkdir(parents=True)
    pairs = pq.read_table(whole / "pairs.parquet").slice(0, 2_400)
    dev = pq.read_table(whole / "dev.parquet").slice(0, 60)
    passages = pq.read_table(whole / "corpus.parquet").column("passage").to_pylist()
    known = [*pairs.column("passage").to_pylist(), *dev.column("passage").to_pylist()]
    pq.write_table(pairs, data / "pairs.parquet")
    pq.write_table(dev, data / "dev.parquet")
    corpus = list(dict.fromkeys([*known, *passages[:1_500]]))
    pq.write_table(pa.table({"passage": corpus}), data / "corpus.parquet")

    rows = [(row["query"], row["passage"]) for row in pairs.to_pylist()]
    write_rows(folder / "pairs.csv", ["query", "passage"], rows[:300])
    numbered = [(number, *row) for number, row in enumerate(rows[:300])]
    write_rows(folder / "with-ids.csv", ["id", "question", "answer"], numbered)
    times = Counter(passage for _, passage in rows)
    labels = [(query, passage.partition(":")[0]) for query, passage in rows if times[passage] > 2]
    write_rows(folder / "intents.csv", ["text", "label"], labels)
    tickets = [{"question": query, "answer": passage} for query, passage in rows[300:500]]
    write_lines(folder / "tickets.jsonl", tickets)
    write_lines(folder / "articles.jsonl", [{"text": text} for text in passages[2_000:2_300]])
    titles = [text.partition(": ")[::2] for text in passages[:200]]
    write_lines(folder / "titles.jsonl", [{"title": one, "text": text} for one, text in titles])
    write_beir_folder(folder / "my-beir-folder", rows[:100])
    shutil.copytree(DOCS, folder / "docs", ignore=shutil.ignore_patterns("*.py", "*.ipynb", "__*"))
    (judge,) = (one for one in blocks_of(DOCS / "commands/judge.md") if one.language == "python")
    (folder / "overlap.py").write_text(judge.text, "utf-8")
    for page in PAGES:
        for block in blocks_of(page):
            if block.language == "yaml":
                (folder / yaml_name(block)).write_text(block.text, "utf-8")
    return folder


def yaml_name(block: Block) -> str:
    """The file that a YAML block shows, which its first line names."""
    found = re.match(r"# ([\w-]+\.yaml)\n", block.text)
    assert found, f"a YAML block begins with the name of its file: {block.text[:80]}"
    return found[1]


def write_beir_folder(folder: Path, rows: list[tuple[str, str]]) -> None:
    """Documents of several sentences, each made of the passages of five rows."""
    (folder / "qrels").mkdir(parents=True)
    documents = [rows[first : first + 5] for first in range(0, len(rows), 5)]
    texts = [" ".join(f"{passage}." for _, passage in document) for document in documents]
    write_lines(
        folder / "corpus.jsonl",
        [{"_id": f"d{i}", "title": f"page {i}", "text": text} for i, text in enumerate(texts)],
    )
    queries = [{"_id": f"q{i}", "text": query} for i, (query, _) in enumerate(rows)]
    write_lines(folder / "queries.jsonl", queries)
    lines = [f"q{i}\td{i // 5}\t1\n" for i in range(len(rows))]
    header = "query-id\tcorpus-id\tscore\n"
    (folder / "qrels" / "test.tsv").write_text(header + "".join(lines), "utf-8")


@pytest.fixture(scope="session")
def stands(files: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run directory after each of the four commands, a copy each."""
    folder = tmp_path_factory.mktemp("stands")
    run, data = str(folder / "run"), files / "data" / "quickstart"
    found = {}
    pairs, corpus = str(data / "pairs.parquet"), str(data / "corpus.parquet")
    stages = {
        "embed": lambda: run_embed(
            EmbedConfig(run_dir=run, pairs=pairs, corpus=corpus, device="cpu")
        ),
        "mine": lambda: run_mine(MineConfig(run_dir=run, device="cpu")),
        "pack": lambda: run_pack(PackConfig(run_dir=run, batch_size=BATCH_SIZE, packings=1)),
        "train": lambda: run_train(TrainConfig(run_dir=run, device="cpu")),
    }
    for name, stage in stages.items():
        stage()
        found[name] = folder / name
        shutil.copytree(run, found[name])
    return found


@pytest.fixture
def workplace(request, files, tmp_path, monkeypatch) -> Path:
    """The current directory of a page: its files, and the run directory that it starts from."""
    name = request.node.callspec.params["page"].stem if "callspec" in dir(request.node) else ""
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    if name in STANDS_AFTER:
        stands = request.getfixturevalue("stands")
        shutil.copytree(stands[STANDS_AFTER[name]], tmp_path / "stx-run")
    monkeypatch.chdir(tmp_path)
    return tmp_path


NUMBER = r"[+-]?\d[\d,.:]*(?:e[+-]\d+)?"


def says(shown: str, printed: str) -> bool:
    """Whether a program printed a line of a page.

    Numbers and quoted texts may differ, `…` stands for anything.
    """
    words = re.split(rf"(…|'[^']* [^']*'|{NUMBER}|\s+)", shown.strip())
    pattern = "".join(_pattern_of(word) for word in words)
    return re.search(pattern, printed) is not None


def _pattern_of(word: str) -> str:
    if word == "…" or (word.startswith("'") and " " in word):
        return ".*"
    if word.isspace():
        return r"\s+"
    return NUMBER if re.fullmatch(NUMBER, word) else re.escape(word)


def runnable(page: Path) -> list[tuple[Block, str]]:
    """The shell blocks of a page that are run, each with the output that follows it."""
    blocks = blocks_of(page)
    pairs = zip_longest(blocks, blocks[1:])
    return [
        (one, after.text if after and after.language == "text" else "")
        for one, after in pairs
        if one and one.language == "sh"
    ]


SHELL_PAGES = [
    pytest.param(page, marks=pytest.mark.slow) if page.stem in SLOW else page
    for page in PAGES
    if page != README and runnable(page)
]


@pytest.mark.parametrize("page", SHELL_PAGES, ids=name_of)
def test_the_examples_of_a_page_run(page, workplace, cli_here: Cli):
    for block, shown in runnable(page):
        printed = ""
        for line in block.command_lines():
            words = shlex.split(line.replace(PUBLISHED, str(workplace / "published")))
            if words[0] != "stx-mine":
                subprocess.run(words, cwd=workplace, check=True)
                continue
            done = cli_here(*words[1:])
            printed += done.stdout + done.stderr
            where = f"{name_of(page)}:{block.line}: {line}\n{done.stdout}{done.stderr}"
            assert done.code == block.exit_code, where
        printed = printed.replace(str(workplace / "published"), PUBLISHED)
        missing = [one for one in shown.splitlines() if not says(one, printed)]
        assert not missing, f"{where}\ndoes not print what the page shows:\n" + "\n".join(missing)


def test_the_commands_of_the_readme_leave_a_better_model(tmp_path, files, cli_here, monkeypatch):
    """As typed, but on a part of the data and with a batch that fits it."""
    blocks = runnable(README)
    (first, *others) = (block.command_lines() for block, _ in blocks)
    names = [line.split()[1] for line in first]
    assert names == ["embed", "mine", "pack", "train", "evaluate", "verify"]
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    data = tmp_path / "data" / "quickstart"
    for name, rows in (("pairs", 6_000), ("dev", 500), ("corpus", 40_000)):
        table = pq.read_table(REPO_ROOT / "data" / "quickstart" / f"{name}.parquet")
        pq.write_table(table.slice(0, rows), data / f"{name}.parquet")
    monkeypatch.chdir(tmp_path)
    printed = ""
    for line in first:
        arguments = ["256" if word == "2048" else word for word in line.split()[1:]]
        done = cli_here(*arguments)
        assert done.code == 0, done
        printed += done.stdout
    missing = [line for line in blocks[0][1].splitlines() if not says(line, printed)]
    assert not missing, f"README.md shows what is not printed: {missing}"
    base, trained = read_results(RunDir(tmp_path / "stx-run"), "dev").values()
    assert trained["ndcg@10"] > base["ndcg@10"] + 0.02
    for line in (line for block in others for line in block):
        done = cli_here(*line.split()[1:])
        assert done.code == 0, done


YAML_BLOCKS = {
    f"{name_of(page)}:{block.line}": block
    for page in PAGES
    for block in blocks_of(page)
    if block.language == "yaml"
}


@pytest.mark.parametrize("where", YAML_BLOCKS)
def test_yaml_blocks_are_files_that_the_product_reads(where, tmp_path):
    block = YAML_BLOCKS[where]
    path = tmp_path / yaml_name(block)
    path.write_text(block.text, "utf-8")
    if isinstance(yaml.safe_load(block.text), list):
        assert load_sources(str(path))
    else:
        assert load_pipeline(str(path), []).settings


PYTHON_PAGES = [
    page for page in PAGES if any(block.language == "python" for block in blocks_of(page))
]


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=name_of)
def test_python_blocks_run(page, workplace, cli_here):
    """In order, in one namespace, shell blocks between them; a training takes two steps."""
    names: dict[str, object] = {}
    for block in blocks_of(page):
        if block.language == "sh" and page.stem in STANDS_AFTER:
            for line in block.command_lines():
                assert cli_here(*shlex.split(line)[1:]).code == 0, line
        if block.language == "python":
            code = block.text.replace('output_dir="out",', 'output_dir="out", max_steps=2,')
            exec(compile(code, f"{name_of(page)}:{block.line}", "exec"), names)


def test_every_block_says_what_it_is():
    known = {"sh", "console", "text", "yaml", "python", "mermaid"}
    for page in PAGES:
        for block in blocks_of(page):
            assert block.language in known, f"{name_of(page)}:{block.line}"
            if block.language == "sh":
                assert "stx-mine" in block.text
