"""Options of `export`."""

from dataclasses import dataclass
from typing import Literal

from stx_mine.errors import ConfigError
from stx_mine.settings import StageConfig, option


@dataclass(frozen=True, kw_only=True)
class ExportConfig(StageConfig):
    """Write the rows in the layout of another trainer, loadable without stx-mine."""

    to: Literal[
        "triplet", "n-tuple", "labeled-pair", "labeled-list", "flagembedding", "three-table"
    ] = option(
        "triplet",
        "Columns of sentence-transformers, JSONL of FlagEmbedding, or tables for distillation.",
        "exports",
    )
    k: int | None = option(None, "Negatives a row (default: the k of mine).", "exports", minimum=1)
    scores: bool = option(
        False,
        "Scores as sentence-transformers' layouts hold them (the others always do).",
        "exports",
    )

    def __post_init__(self) -> None:
        """Check what one range alone cannot tell.

        Raises:
            ConfigError: `scores` for a layout that always has them.
        """
        super().__post_init__()
        if self.scores and self.to in ("flagembedding", "three-table"):
            raise ConfigError(
                f"--scores changes the layouts of sentence-transformers, found --to {self.to}, "
                "which always has scores; leave --scores out"
            )
