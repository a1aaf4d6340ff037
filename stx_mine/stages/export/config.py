"""Options of `export`."""

from dataclasses import dataclass
from typing import Literal

from stx_mine.settings import ReadingConfig, option


@dataclass(frozen=True, kw_only=True)
class ExportConfig(ReadingConfig):
    """Write the rows in the layout of another trainer, loadable without stx-mine."""

    to: Literal[
        "triplet",
        "n-tuple",
        "labeled-pair",
        "labeled-list",
        "flagembedding",
        "three-table",
        "tevatron",
        "tevatron-ids",
        "colbert",
        "ms-marco",
        "nemo",
        "ms-swift",
        "dpr",
        "beir",
        "trec-run",
    ] = option(
        "triplet",
        "The layout; the first four are the columns of sentence-transformers.",
        "exports",
        group="Rows",
    )
    k: int | None = option(
        None,
        "Negatives per row (default: the k of mine).",
        "exports",
        minimum=1,
        group="Rows",
        conflicts="to=beir|trec-run",
        because="which holds no negatives",
    )
    short_rows: Literal["keep", "drop"] = option(
        "keep",
        "What becomes of rows with fewer than k negatives; an n-tuple holds none of them.",
        "exports",
        group="Rows",
        conflicts="to=beir|trec-run",
        because="which holds no negatives",
    )
    include_positives: bool = option(
        False,
        "One list per query, all its positives in it, best first: for rerankers.",
        "exports",
        group="Rows",
        needs="to=labeled-list",
        conflicts="scores",
        because="since scores would stand where the labels do",
    )
    scores: bool = option(
        False,
        "Scores where a layout may have them: as sentence-transformers, Tevatron or ColBERT do.",
        "exports",
        group="Rows",
        conflicts="to=flagembedding|three-table|trec-run|tevatron-ids|ms-marco|nemo|ms-swift|dpr|beir",
        because="which has them always or never",
    )
