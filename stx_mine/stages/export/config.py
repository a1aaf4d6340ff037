"""Options of `export`."""

from dataclasses import dataclass
from typing import Literal

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
        group="Rows",
    )
    k: int | None = option(
        None, "Negatives per row (default: the k of mine).", "exports", minimum=1, group="Rows"
    )
    scores: bool = option(
        False,
        "Scores as sentence-transformers' layouts hold them (the others always do).",
        "exports",
        group="Rows",
        conflicts="to=flagembedding|three-table",
        because="which always has scores",
    )
