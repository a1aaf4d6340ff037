"""Options of `split`."""

import math
from dataclasses import dataclass
from typing import Literal

from stx_mine.errors import ConfigError
from stx_mine.inputs.config import LanguageFields, SourceFields
from stx_mine.settings import MAX_SEED, StageConfig, option
from stx_mine.stages.dedup.config import LikenessFields, unlike_ignored


def _unlike_size(size: float) -> str:
    """The error of a value of `test` or `dev`; empty where it is valid."""
    if math.isfinite(size) and 0 <= size and (size < 1 or size == int(size)):
        return ""
    return (
        "--test and --dev must be a share of the pairs from 0 to below 1, or a whole number of "
        f"pairs, found {size:g}; give 0.1 or 500, for example"
    )


@dataclass(frozen=True, kw_only=True)
class SplitConfig(LikenessFields, LanguageFields, SourceFields, StageConfig):
    """Hold out test and development pairs that share no text with training; a BEIR folder."""

    ignore: str | None = option(
        None,
        "What makes no difference between texts, with commas between: case, punctuation (around "
        "words), accents, numbers (near-duplicates may differ in numbers); or nothing (default: "
        "case,punctuation with --jaccard, else nothing).",
        "split",
        group="Equal texts",
        check=unlike_ignored,
    )

    pairs: str | None = option(
        None,
        "Pairs: Parquet, JSONL, CSV or TSV (also .gz, .zst), or a BEIR folder.",
        "split",
        argument=True,
        group="Input",
    )
    test: float = option(
        0.1,
        "Test pairs: their share of all pairs, or from 1 on their number; 0: none.",
        "split",
        group="Parts",
        check=_unlike_size,
    )
    dev: float = option(
        0.05,
        "Development pairs, as --test; 0: none.",
        "split",
        group="Parts",
        check=_unlike_size,
    )
    unit: Literal["component", "query", "pair"] = option(
        "component",
        "What stays in one part: all pairs that texts tie together, the pairs of a query, or one "
        "pair; the last two leak, and the report says how much.",
        "split",
        group="Parts",
    )
    seed: int = option(
        42,
        "Seed; the part of a text depends on it and on texts, not on the order of the rows.",
        "split",
        minimum=0,
        maximum=MAX_SEED,
        group="Parts",
    )

    groups: str | None = option(
        None,
        "A run directory, whose dedup says which texts count as one, by their vectors too.",
        group="Groups",
        conflicts="jaccard ignore",
        because="which decides that too",
    )

    @property
    def ignored(self) -> list[str]:
        """What makes no difference, in one order."""
        if self.ignore is None and self.jaccard is None:
            return []
        return super().ignored

    @property
    def joins_alike(self) -> bool:
        """Whether texts are looked for that count as one and are not equal to ingest."""
        return bool(self.ignored) or self.jaccard is not None

    def __post_init__(self) -> None:
        """Check that something is held out, and something is left.

        Raises:
            ConfigError: Both parts are empty, or they take everything.
        """
        super().__post_init__()
        if self.test == self.dev == 0:
            raise ConfigError(
                "expected --test or --dev above 0, found 0 for both; give 0.1, for example"
            )
        shares = [size for size in (self.test, self.dev) if size < 1]
        if sum(shares) >= 1:
            raise ConfigError(
                f"--test {self.test:g} and --dev {self.dev:g} leave nothing to train on; give "
                "shares that sum up to less than 1"
            )
