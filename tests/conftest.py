"""Fixtures that all tests share: the real data, a small real run, the command line."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

from stx_mine import cli as command_line
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.stage import run_train
from stx_mine.store.artifact import MANIFEST, require
from stx_mine.store.files import read_json, write_json
from stx_mine.store.intact import file_entry
from stx_mine.store.manifest import sealed
from stx_mine.store.negatives import pool_files, read_verdicts
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

REPO_ROOT = Path(__file__).resolve().parent.parent
# What was checked is remembered for as long as the tests run.
_REMEMBERED = tempfile.TemporaryDirectory(prefix="stx-mine-")
os.environ.setdefault("STX_MINE_CACHE", _REMEMBERED.name)
SMALL_PAIRS, SMALL_CORPUS = 600, 500
SEVERAL_QUERIES = 150
# The files that take longest: they begin, so that no process is left alone with one at the end.
_LONGEST = ("test_ray.py", "test_docs.py", "test_hostile.py", "test_processes.py", "test_kills.py")
_CLI = "import sys; sys.argv[0] = 'stx-mine'; from stx_mine.__main__ import program; program()"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files (`--no-loadscope-reorder`)."""
    items.sort(key=lambda item: item.path.name not in _LONGEST)


@dataclass(frozen=True)
class Finished:
    """A finished subprocess of the command line."""

    code: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The one line on stderr of a user's mistake."""
        assert self.code == 2, self
        assert "Traceback" not in self.stderr, self
        lines = self.stderr.splitlines()
        assert len(lines) == 1, self
        assert lines[0].startswith("stx-mine: error: "), self
        return lines[0].removeprefix("stx-mine: error: ")


Cli = Callable[..., Finished]


@pytest.fixture(scope="session", autouse=True)
def _signals_at_first() -> dict[signal.Signals, object]:
    return {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}


@pytest.fixture(scope="module", autouse=True)
def _no_handler_stays(_signals_at_first: dict[signal.Signals, object]) -> Iterator[None]:
    """Processes that later tests fork would have it too, and may never end."""
    yield
    for number, handler in _signals_at_first.items():
        assert signal.getsignal(number) is handler, number


def cli_environment(**extra: str) -> dict[str, str]:
    """The environment of a subprocess: offline, and not the parent's hash seed."""
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONHASHSEED"}
    return {**inherited, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", **extra}


def cli_command(*args: str | Path) -> list[str]:
    """The argv that runs `stx-mine ARGS` with this interpreter."""
    return [sys.executable, "-c", _CLI, *map(str, args)]


def reseal(folder: Path) -> None:
    """Have the manifest of an artifact say what its files are now, as if they were made so."""
    content = read_json(folder / MANIFEST)
    files = [file_entry(folder, one["file"]) for one in content["files"]]
    write_json(folder / MANIFEST, sealed({**content, "files": files}))


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The root of the repository."""
    return REPO_ROOT


@pytest.fixture(scope="session")
def shared_data(repo_root: Path) -> Path:
    """The BEIR folders beside the repository; skips where they are not."""
    folder = Path(os.environ.get("STX_DATA", repo_root / "../shared/data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set STX_DATA")
    return folder


@pytest.fixture(scope="session")
def cli() -> Cli:
    """Run `stx-mine ARGS` in a subprocess: `cli("mine", "--k", "4", run_dir=..., cwd=...)`."""

    def run(
        *args: str | Path, run_dir: Path | None = None, cwd: Path | None = None, **env: str
    ) -> Finished:
        where = () if run_dir is None else ("--run-dir", run_dir)
        done = subprocess.run(
            cli_command(*args, *where),
            capture_output=True,
            text=True,
            cwd=cwd,
            env=cli_environment(**env),
            timeout=240,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def cli_here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Run `stx-mine ARGS` in this process, without the seconds that a new one needs for torch."""

    def run(*args: str | Path, run_dir: Path | None = None) -> Finished:
        where = () if run_dir is None else ("--run-dir", run_dir)
        monkeypatch.setattr(sys, "argv", ["stx-mine", *map(str, args), *map(str, where)])
        capfd.readouterr()
        try:
            command_line.main()
            code = 0
        except SystemExit as left:
            code = int(left.code or 0)
        out, err = capfd.readouterr()
        return Finished(code, out, err)

    return run


@pytest.fixture(scope="session")
def small_input(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `pairs.parquet` (600 rows) and `corpus.parquet` (500) of the quickstart."""
    folder = tmp_path_factory.mktemp("small_input")
    quickstart = REPO_ROOT / "data/quickstart"
    for name, rows in (("pairs", SMALL_PAIRS), ("corpus", SMALL_CORPUS)):
        table: pa.Table = pq.read_table(quickstart / f"{name}.parquet")
        # The head of the pairs, but the tail of the corpus: most passages are of no pair.
        first = 0 if name == "pairs" else table.num_rows - rows
        pq.write_table(table.slice(first, rows), folder / f"{name}.parquet")
    return folder


@pytest.fixture(scope="session")
def small_run(small_input: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory, embedded with package:wordllama and mined with k=4. Copy it to change it."""
    run_dir = tmp_path_factory.mktemp("small_run") / "run"
    run_embed(
        EmbedConfig(
            pairs=str(small_input / "pairs.parquet"),
            corpus=str(small_input / "corpus.parquet"),
            model="package:wordllama",
            device="cpu",
            run_dir=str(run_dir),
        )
    )
    run_mine(MineConfig(k=4, device="cpu", run_dir=str(run_dir)))
    return run_dir


@pytest.fixture(scope="session")
def several_run(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, embedded only, whose queries have several positives, which search would find."""
    folder = tmp_path_factory.mktemp("several")
    negatives = require(RunDir(small_run), "negatives")
    store = TextStore.open(require(RunDir(small_run), "texts"))
    queries, passages = (one.column("text").to_pylist() for one in (store.queries, store.passages))
    rows = [
        (queries[query], passages[passage])
        for query, passage in zip(store.pair_query_ids, store.pair_passage_ids, strict=True)
        if query < SEVERAL_QUERIES
    ]
    for row in read_verdicts(negatives, pool_files(negatives)[0]).to_pylist()[:SEVERAL_QUERIES]:
        some = row["hit_ids"][1 : 2 + row["query_id"] % 6 : 2]
        rows += [(queries[row["query_id"]], passages[one]) for one in some]
    table = pa.table(dict(zip(("query", "passage"), zip(*rows, strict=True), strict=True)))
    pq.write_table(table, folder / "pairs.parquet")
    pq.write_table(pa.table({"passage": passages}), folder / "corpus.parquet")
    run_dir = folder / "run"
    run_embed(
        EmbedConfig(
            pairs=str(folder / "pairs.parquet"),
            corpus=str(folder / "corpus.parquet"),
            model="package:wordllama",
            device="cpu",
            run_dir=str(run_dir),
        )
    )
    return run_dir


@pytest.fixture
def run_copy(small_run: Path, tmp_path: Path) -> Path:
    """A copy of the small run that a test may change."""
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    return run


@pytest.fixture(scope="session")
def trained_run(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run with batches of 32 rows in two packings, and a model. Copy it to change it."""
    run = tmp_path_factory.mktemp("trained_run") / "run"
    shutil.copytree(small_run, run)
    run_pack(PackConfig(run_dir=str(run), batch_size=32, k=2, packings=2))
    run_train(TrainConfig(run_dir=str(run), device="cpu", epochs=1))
    return run


@pytest.fixture
def trained_copy(trained_run: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    return run


@pytest.fixture(scope="session")
def tiny_transformer(tmp_path_factory) -> Path:
    """A folder with a real BERT of random weights and a vocabulary of characters."""
    folder = tmp_path_factory.mktemp("tiny")
    sizes = save_tiny_tokenizer(folder / "bert")
    BertModel(BertConfig(**sizes)).save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"))
    model = SentenceTransformer(modules=[transformer, Pooling(32)], device="cpu")
    model.save_pretrained(str(folder / "model"))
    return folder / "model"


@pytest.fixture(scope="session")
def tiny_cross_encoder(tmp_path_factory) -> Path:
    """A folder with a real cross-encoder of random weights that tells pairs apart."""
    folder = tmp_path_factory.mktemp("tiny-cross")
    sizes = save_tiny_tokenizer(folder / "bert")
    # With weights as small as usual, all pairs would score nearly the same.
    config = BertConfig(num_labels=1, initializer_range=0.3, **sizes)
    network = BertForSequenceClassification(config)
    network.save_pretrained(folder / "bert")
    model = CrossEncoder(str(folder / "bert"), device="cpu")
    model.save_pretrained(str(folder / "reranker"))
    return folder / "reranker"


def save_tiny_tokenizer(folder: Path) -> dict[str, int]:
    """Save a tokenizer of characters; returns the sizes of a BERT that it fits.

    Seeds torch, so that the network that is made next is always the same.
    """
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,;:()'-"
    vocabulary = [*special, *letters, *(f"##{letter}" for letter in letters)]
    numbers = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=128,
    ).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 64, "max_position_embeddings": 128}
    return {**sizes, "vocab_size": len(vocabulary)}
