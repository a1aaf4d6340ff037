"""Options of `judge`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stx_mine.engine.config import EngineConfig
from stx_mine.errors import ConfigError
from stx_mine.models.config import CheckpointFields, Reading
from stx_mine.settings import MAX_SEED, WHERE, option

_DOUBT = "What is judged"


@dataclass(frozen=True, kw_only=True)
class JudgeConfig(CheckpointFields, EngineConfig):
    """Score the candidates that may be false negatives with a stronger model."""

    cross_encoder: str | None = option(
        None,
        "A CrossEncoder (hub id or folder), or package.module:function from a list of (query, "
        "passage) to floats.",
        "judgements",
        group="Judge",
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
    task_pairs: int = option(8_192, "Pairs a task.", minimum=1, group=WHERE)
    device: str | None = option(
        None,
        "cpu, cuda, cuda:0,cuda:1 ... a process each (default: all GPUs, or the best seen).",
        group=WHERE,
    )

    def __post_init__(self) -> None:
        """Check what one range alone cannot tell.

        Raises:
            ConfigError: Options of a model where a function judges.
        """
        super().__post_init__()
        if not self.is_function:
            return
        given = {
            "--max-length": self.max_length,
            "--batch-tokens": self.batch_tokens,
            "--device": self.device,
            "--precision": None if self.precision == "float32" else self.precision,
            "--revision": self.revision,
            "--trust-remote-code": self.trust_remote_code or None,
        }
        for name in (one for one, value in given.items() if value is not None):
            raise ConfigError(
                f"{name} is for models, found the function {self.cross_encoder}, which decides it "
                "itself; leave it out"
            )

    @property
    def is_function(self) -> bool:
        """Whether a function judges."""
        named = self.cross_encoder or ""
        return ":" in named and not Path(named).is_dir()

    @property
    def judge_name(self) -> str:
        """The name of the judgements."""
        if self.name is not None:
            return self.name
        named = self.cross_encoder or ""
        return named.replace(":", ".") if self.is_function else Path(named).resolve().name

    @property
    def reading(self) -> Reading:
        """How the files of the model are read."""
        return Reading(self.trust_remote_code, self.revision)
