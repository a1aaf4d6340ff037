"""Options of `dedup`."""

from dataclasses import dataclass
from typing import Literal

from stx_mine.engine.config import EngineConfig
from stx_mine.settings import option

IGNORABLE = ("case", "punctuation", "accents", "numbers")
_NOTHING = "nothing"
_SHINGLES = "Near-duplicates"


def _unlike_ignored(value: str) -> str:
    """What is wrong with a value of `ignore`."""
    names = names_in(value)
    if value == _NOTHING or (names and set(names) <= set(IGNORABLE)):
        return ""
    return (
        f"--ignore must be {_NOTHING}, or some of {','.join(IGNORABLE)} with commas between, found "
        f"{value!r}"
    )


def names_in(value: str) -> list[str]:
    """The names of a list with commas."""
    return [name.strip() for name in value.split(",") if name.strip()]


@dataclass(frozen=True, kw_only=True)
class DedupConfig(EngineConfig):
    """Find texts that count as one text, and remake groups/, which all later commands respect."""

    ignore: str = option(
        "case,punctuation",
        "What makes no difference, with commas between: case, punctuation (around words), accents, "
        "numbers (near-duplicates may differ in numbers); or nothing.",
        group="Equal texts",
        check=_unlike_ignored,
    )
    jaccard: float | None = option(
        None,
        "Join texts that share at least this much of their shingles, by MinHash (needs rensa).",
        "groups",
        above=0,
        maximum=1,
        group=_SHINGLES,
    )
    shingles: Literal["words", "characters"] = option(
        "words",
        "What a shingle is a run of; pairs of characters are words where no spaces are written.",
        group=_SHINGLES,
        needs="jaccard",
    )
    shingle_size: int | None = option(
        None,
        "Words or characters of a shingle (default: 2 words, 5 characters).",
        minimum=1,
        maximum=64,
        group=_SHINGLES,
        needs="jaccard",
    )
    cosine: float | None = option(
        None,
        "Join texts of one role whose stored vectors are at least this close.",
        "groups",
        above=0,
        maximum=1,
        group="Texts of one meaning",
    )
    drop: bool = option(
        False,
        "Keep one passage of each group in the corpus, and one pair of each query and positive.",
        "groups",
        group="Groups",
    )
    max_joined: float = option(
        0.5,
        "Refuse to join more than this share of the texts.",
        above=0,
        maximum=1,
        group="Groups",
    )

    @property
    def ignored(self) -> list[str]:
        """What makes no difference, in one order."""
        return [name for name in IGNORABLE if name in names_in(self.ignore)]

    @property
    def run_length(self) -> int:
        """Words or characters of a shingle."""
        return self.shingle_size or (2 if self.shingles == "words" else 5)
