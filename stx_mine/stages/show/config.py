"""Options of `show`."""

from dataclasses import dataclass

from stx_mine.errors import ConfigError
from stx_mine.settings import MAX_SEED, ReadingConfig, flag, given_fields, option

_WHAT = "What is shown"
_CHOICES = ("query", "passage", "suspects", "without_negatives", "most_used", "random", "batch")


def _batch_problem(words: str | None) -> str:
    parts = str(words).split(":")
    if len(parts) == 2 and all(part.isdecimal() for part in parts):
        return ""
    return f"--batch must be EPOCH:BATCH, such as 0:0, found {words}; give two numbers from 0"


@dataclass(frozen=True, kw_only=True)
class ShowConfig(ReadingConfig):
    """Look at queries with their negatives, at passages, and at batches."""

    query: str | None = option(
        None, "A query, by its text or original id; else the most alike by words.", group=_WHAT
    )
    passage: str | None = option(
        None,
        "A passage: whose positive and whose negative it is; by its text or original id.",
        group=_WHAT,
    )
    suspects: bool = option(
        False, "Pairs whose positive scores lowest among random passages.", group=_WHAT
    )
    without_negatives: bool = option(False, "Queries whose pool is empty.", group=_WHAT)
    most_used: bool = option(False, "Passages that are negatives of most queries.", group=_WHAT)
    random: int | None = option(
        None, "So many queries, drawn (default: 3, where nothing is named).", minimum=1, group=_WHAT
    )
    seed: int = option(
        42, "Which ones are drawn.", minimum=0, maximum=MAX_SEED, group=_WHAT, needs="random"
    )
    batch: str | None = option(
        None,
        "The make-up of a packed batch: EPOCH:BATCH, from 0:0.",
        group=_WHAT,
        check=_batch_problem,
    )
    limit: int = option(
        20, "Candidates of a query, or entries of a list, at most.", minimum=1, group="Output"
    )
    full: bool = option(False, "Show texts in full; else a line each.", group="Output")
    json: bool = option(False, "Print JSON for a program.", group="Output")

    def __post_init__(self) -> None:
        """Check that one thing is named.

        Raises:
            ConfigError: There are several.
        """
        super().__post_init__()
        given = [one for one in given_fields(self) if one.name in _CHOICES]
        if len(given) > 1:
            raise ConfigError(
                f"expected one thing to show, found {' and '.join(map(flag, given))}; show one "
                "after the other"
            )

    @property
    def num_random(self) -> int | None:
        """Queries to draw; None where something else is named."""
        others = [one.name for one in given_fields(self) if one.name in _CHOICES]
        return 3 if not others else self.random
