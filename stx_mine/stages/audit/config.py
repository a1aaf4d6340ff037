"""Options of `audit`."""

from dataclasses import dataclass

from stx_mine.errors import ConfigError
from stx_mine.settings import MAX_SEED, WHERE, ReadingConfig, given_fields, option, option_words

_HIDING, _SAMPLING = "By hidden positives", "By a sample"
# What is without effect where others than hidden positives tell, and the other way round.
_OF_HIDING, _OF_SAMPLING = ("hide", "queries"), ("sample",)


@dataclass(frozen=True, kw_only=True)
class AuditConfig(ReadingConfig):
    """Measure how many of the mined negatives are false."""

    hide: float = option(
        0.5,
        "Share of the positives of a query with several that is hidden from mining.",
        "audits",
        above=0,
        maximum=1,
        group=_HIDING,
    )
    queries: int = option(
        5_000,
        "Queries whose positives are hidden, at most.",
        "audits",
        minimum=1,
        group=_HIDING,
    )
    judge: str | None = option(
        None,
        "Name of judgements (`stx-mine judge`), which say what is false of a sample.",
        "audits",
        group=_SAMPLING,
        conflicts="sheet answers",
        because="where a person says it",
    )
    sheet: str | None = option(
        None,
        "Write a sample as CSV, for a person to fill in what is false.",
        group=_SAMPLING,
        conflicts="answers",
        because="which reads one that is filled in",
    )
    answers: str | None = option(
        None,
        "Read such a sheet that is filled in; with the --sample and --seed that it was written by.",
        group=_SAMPLING,
    )
    sample: int = option(
        400,
        "Negatives of the sample.",
        "audits",
        minimum=1,
        group=_SAMPLING,
    )
    seed: int = option(
        42,
        "Seed of what is hidden, or of the sample.",
        "audits",
        minimum=0,
        maximum=MAX_SEED,
        group="What is drawn",
    )
    device: str | None = option(
        None,
        "cpu, cuda, mps ... for searches that are missing (default: the best one seen).",
        group=WHERE,
    )

    def __post_init__(self) -> None:
        """Refuse what has no effect.

        Raises:
            ConfigError: An option of the other way to audit.
        """
        super().__post_init__()
        asked = self.asked
        idle = _OF_SAMPLING if asked is None else _OF_HIDING
        who = "hidden positives" if asked is None else f"--{asked}"
        for one in given_fields(self):
            if one.name in idle:
                words = option_words(one, getattr(self, one.name))
                ways = "--judge, --sheet or --answers" if asked is None else "hidden positives"
                raise ConfigError(
                    f"{words} is for audits by {ways}, found one by {who}; leave it out"
                )

    @property
    def asked(self) -> str | None:
        """The option that says who tells what is false; None for hidden positives."""
        names = ("judge", "sheet", "answers")
        return next((name for name in names if getattr(self, name) is not None), None)
