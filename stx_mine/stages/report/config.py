"""Options of `report`."""

from dataclasses import dataclass

from stx_mine.settings import MAX_SEED, ReadingConfig, option

_SHOWN = "What is shown"


@dataclass(frozen=True, kw_only=True)
class ReportConfig(ReadingConfig):
    """Write a page about a run: counts, plots, and queries to read with their negatives."""

    queries: int = option(
        30,
        "Queries to read: a third with the worst positives, a third with suspect negatives, the "
        "others drawn.",
        "report",
        minimum=0,
        maximum=100,
        group=_SHOWN,
    )
    atlas: bool = option(
        False,
        "Also write atlas.parquet: a row a text with its vector, which embedding-atlas maps.",
        "report",
        group=_SHOWN,
    )
    seed: int = option(
        42,
        "Which queries and samples are drawn.",
        "report",
        minimum=0,
        maximum=MAX_SEED,
        group=_SHOWN,
    )
