"""Options of `calibrate`."""

from dataclasses import dataclass

from stx_mine.settings import MAX_SEED, WHERE, ReadingConfig, option

_SAMPLE, _WANTED = "Sample", "What is wanted"


@dataclass(frozen=True, kw_only=True)
class CalibrateConfig(ReadingConfig):
    """Try rules of mine on a sample of queries, and recommend some; nothing is written."""

    k: int = option(8, "Negatives per row.", minimum=1, group=_WANTED)
    min_full: float = option(
        0.9, "Share of the rows that shall have k negatives.", minimum=0, maximum=1, group=_WANTED
    )
    queries: int = option(
        1_000,
        "Queries of the sample, and at most as many with several positives, which tell false "
        "negatives.",
        minimum=1,
        group=_SAMPLE,
    )
    depth: int = option(
        100, "Candidates searched per query, as for mine.", minimum=1, group=_SAMPLE
    )
    hide: float = option(
        0.5,
        "Share of the positives of a query with several that is hidden.",
        above=0,
        maximum=1,
        group=_SAMPLE,
    )
    judge: str | None = option(
        None,
        "Name of judgements that tell false negatives too (default: the first one there is).",
        group=_SAMPLE,
    )
    seed: int = option(42, "Seed of the sample.", minimum=0, maximum=MAX_SEED, group=_SAMPLE)
    passage_block: int = option(16_384, "Passages per matrix product.", minimum=1, group=WHERE)
    device: str | None = option(
        None, "cpu, cuda, mps ... (default: the best one seen).", group=WHERE
    )
