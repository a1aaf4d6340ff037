"""Options of `judge`."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from stx_mine.engine.config import EngineConfig
from stx_mine.errors import ConfigError
from stx_mine.models.config import CheckpointFields, Reading, ServerFields
from stx_mine.settings import MAX_SEED, WHERE, flag, given_fields, option

_DOUBT, _SERVER = "What is judged", "Judge behind a server"
_ONE_JUDGE = "each judges on its own, under its name"
_OF_LLM = "llm|export_questions|import_answers"
_TASK_PAIRS, _TASK_PAIRS_OF_SERVERS = 8_192, 256
# What only a model in this process heeds, and what only a server does.
_OF_MODELS = (
    "max_length",
    "precision",
    "batch_tokens",
    "device",
    "revision",
    "trust_remote_code",
)
_OF_SERVERS = ("server_model", "requests", "requests_per_minute")


@dataclass(frozen=True, kw_only=True)
class JudgeConfig(CheckpointFields, ServerFields, EngineConfig):
    """Score the candidates that may be false negatives with a stronger model."""

    cross_encoder: str | None = option(
        None,
        "A CrossEncoder (hub id or folder), or package.module:function from a list of (query, "
        "passage) to floats.",
        "judgements",
        group="Judge",
        conflicts="reranker llm export_questions import_answers",
        because=_ONE_JUDGE,
    )
    reranker: str | None = option(
        None,
        "A server with a reranker (POST rerank), such as http://localhost:8000/v1.",
        group="Judge",
        conflicts="llm export_questions import_answers",
        because=_ONE_JUDGE,
    )
    llm: str | None = option(
        None,
        "A server with a language model (POST chat/completions), such as http://localhost:8000/v1.",
        group="Judge",
        conflicts="export_questions import_answers",
        because="which stand in for it",
    )
    name: str | None = option(
        None,
        "Name of the judgements, for `mine --judges` (default: that of the model).",
        group="Judge",
    )
    max_length: int | None = option(
        None,
        "Tokens kept of a pair (default: the model's own).",
        "judgements",
        minimum=1,
        group="Judge",
    )
    precision: Literal["float32", "bfloat16", "float16"] = option(
        "float32", "Number format of the network.", "judgements", group="Judge"
    )
    prompt: str = option(
        "compare",
        "What a language model is asked: compare (with the positives), relevance, or a Jinja file.",
        "judgements",
        group=_SERVER,
        needs=_OF_LLM,
    )
    score_scale: Literal["unit", "logit"] = option(
        "unit",
        "Scale of a reranker's scores: unit (0 to 1), or logit, which goes through a sigmoid.",
        "judgements",
        group=_SERVER,
        needs="reranker",
    )
    call_passages: int = option(
        20,
        "Passages of a question to a language model, at most.",
        minimum=1,
        maximum=200,
        group=_SERVER,
        needs=_OF_LLM,
    )
    max_calls: int | None = option(
        None,
        "Ask at most so many questions, each of a query; which ones, the seed says.",
        "judgements",
        minimum=1,
        group=_SERVER,
        needs="reranker|" + _OF_LLM,
    )
    price_read: float | None = option(
        None,
        "Price of a million tokens that the model reads, to say what judging costs.",
        minimum=0,
        group=_SERVER,
        needs=_OF_LLM,
    )
    price_written: float | None = option(
        None,
        "Price of a million tokens that it writes.",
        minimum=0,
        group=_SERVER,
        needs="price_read",
    )
    export_questions: str | None = option(
        None,
        "Write the questions to this file for a batch job (JSON lines), and judge nothing.",
        group=_SERVER,
        needs="server_model",
        conflicts="import_answers dry_run",
    )
    import_answers: str | None = option(
        None,
        "Take the answers from this file that a batch job left, and ask nobody.",
        group=_SERVER,
        needs="server_model",
        conflicts="dry_run",
    )
    band: float = option(
        0.1,
        "Judge candidates that score within this share of their positive's score of it.",
        "judgements",
        above=0,
        group=_DOUBT,
    )
    max_pairs: int | None = option(
        None,
        "Judge at most so many pairs: the best candidates of every query first.",
        "judgements",
        minimum=1,
        group=_DOUBT,
    )
    after: str | None = option(
        None,
        "Judge only what these judgements find ambiguous: near their score of the positive.",
        "judgements",
        group=_DOUBT,
    )
    after_band: float = option(
        0.1,
        "How near: within this share of it.",
        "judgements",
        above=0,
        group=_DOUBT,
        needs="after",
    )
    seed: int = option(
        42,
        "Seed of the random passages that scores are compared with.",
        "judgements",
        minimum=0,
        maximum=MAX_SEED,
        group=_DOUBT,
    )
    dry_run: bool = option(
        False, "Only say how many pairs and tokens there are, and how long they take.", group=_DOUBT
    )
    batch_tokens: int | None = option(
        None, "Tokens of a forward pass (default: measured).", minimum=1, group=WHERE
    )
    task_pairs: int | None = option(
        None, "Pairs a task (default: 8192, and 256 of a server).", minimum=1, group=WHERE
    )
    device: str | None = option(
        None,
        "cpu, cuda, cuda:0,cuda:1 ... a process each (default: all GPUs, or the best seen).",
        group=WHERE,
    )

    def __post_init__(self) -> None:
        """Check what one range alone cannot tell.

        Raises:
            ConfigError: Options of another kind of judge, or an address that is none.
        """
        super().__post_init__()
        for name, url in (("--reranker", self.reranker), ("--llm", self.llm)):
            if url is not None:
                self.check_server(name, url)
        unheeded: tuple[str, ...] = _OF_SERVERS
        judge = f"the model {self.cross_encoder}"
        if self.is_function:
            unheeded, judge = _OF_MODELS + _OF_SERVERS, f"the function {self.cross_encoder}"
        elif self.cross_encoder is None:
            unheeded, judge = _OF_MODELS, f"the server {self.reranker or self.llm}"
        for one in given_fields(self):
            if one.name in unheeded and (self.cross_encoder or self.reranker or self.llm):
                kind = "servers" if one.name in _OF_SERVERS else "models"
                raise ConfigError(
                    f"{flag(one)} is for {kind}, found {judge}, "
                    "which decides it itself; leave it out"
                )

    @property
    def is_function(self) -> bool:
        """Whether a function judges."""
        named = self.cross_encoder or ""
        return ":" in named and not Path(named).is_dir()

    @property
    def runs_here(self) -> bool:
        """Whether a network judges in this process."""
        return self.cross_encoder is not None and not self.is_function

    @property
    def asks_llm(self) -> bool:
        """Whether a language model judges, asked here or by a batch job."""
        return bool(self.llm or self.export_questions or self.import_answers)

    @property
    def judge(self) -> str:
        """What judges, as it was named; empty where nothing is."""
        asked = self.cross_encoder or self.reranker or self.llm
        return asked or (self.server_model if self.asks_llm else None) or ""

    def price(self, tokens_read: float, tokens_written: float) -> float | None:
        """What tokens cost; None where no price is known."""
        if self.price_read is None:
            return None
        return (tokens_read * self.price_read + tokens_written * (self.price_written or 0)) / 1e6

    @property
    def judge_name(self) -> str:
        """The name of the judgements."""
        if self.name is not None:
            return self.name
        if self.is_function:
            return self.judge.replace(":", ".")
        if url := self.reranker or self.llm:
            host = url.partition("://")[2].partition("/")[0]
            return PurePosixPath(self.server_model or host.replace(":", "-")).name
        return PurePosixPath(self.judge).name if self.asks_llm else Path(self.judge).resolve().name

    @property
    def pairs_a_task(self) -> int:
        """Pairs a task: few of a server, whose answers cost."""
        return self.task_pairs or (_TASK_PAIRS if self.cross_encoder else _TASK_PAIRS_OF_SERVERS)

    @property
    def reading(self) -> Reading:
        """How the files of the model are read."""
        return Reading(self.trust_remote_code, self.revision)
