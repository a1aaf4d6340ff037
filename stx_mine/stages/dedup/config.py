"""Options of `dedup`."""

from dataclasses import dataclass
from typing import Literal

from stx_mine.engine.config import EngineConfig
from stx_mine.errors import ConfigError
from stx_mine.inputs.config import SourceFields
from stx_mine.settings import WHERE, given_fields, names_of, option, option_words

IGNORABLE = ("case", "punctuation", "accents", "numbers")
_IGNORED, _NOTHING = ("case", "punctuation"), "nothing"
_SHINGLES, _LEAKS = "Near-duplicates", "Evaluation sets"


def unlike_ignored(value: str | None) -> str:
    """What is wrong with a value of `ignore`."""
    names = _names_in(value or "")
    if value == _NOTHING or (names and set(names) <= set(IGNORABLE)):
        return ""
    return (
        f"--ignore must be {_NOTHING}, or some of {','.join(IGNORABLE)} with commas between, found "
        f"{value!r}"
    )


def _names_in(value: str) -> list[str]:
    """The names of a list with commas."""
    return [name.strip() for name in value.split(",") if name.strip()]


@dataclass(frozen=True, kw_only=True)
class LikenessFields:
    """Which texts count as one by their letters; shared by the stages that join texts."""

    ignore: str | None = option(
        None,
        "What makes no difference, with commas between: case, punctuation (around words), accents, "
        "numbers (near-duplicates may differ in numbers); or nothing (default: case,punctuation).",
        group="Equal texts",
        check=unlike_ignored,
    )
    jaccard: float | None = option(
        None,
        "Join texts that share at least this much of their shingles, by MinHash (needs rensa).",
        "groups split",
        above=0,
        maximum=1,
        group=_SHINGLES,
    )
    shingles: Literal["words", "characters"] = option(
        "words",
        "What a shingle is a run of; pairs of characters are words where no spaces are written.",
        "split",
        group=_SHINGLES,
        needs="jaccard",
    )
    shingle_size: int | None = option(
        None,
        "Words or characters of a shingle (default: 2 words, 5 characters).",
        "split",
        minimum=1,
        maximum=64,
        group=_SHINGLES,
        needs="jaccard",
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
        given = _IGNORED if self.ignore is None else _names_in(self.ignore)
        return [name for name in IGNORABLE if name in given]

    @property
    def ignored_in_forms(self) -> list[str]:
        """What makes no difference to whether two texts are equal: numbers always do."""
        return [name for name in self.ignored if name != "numbers"]

    @property
    def run_length(self) -> int:
        """Words or characters of a shingle."""
        return self.shingle_size or (2 if self.shingles == "words" else 5)


@dataclass(frozen=True, kw_only=True)
class DuplicateFields(LikenessFields):
    """What is looked for in a run, and what is done about it."""

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
    against: tuple[str, ...] = option(
        (),
        "Evaluation sets, files of pairs or BEIR folders: which training pairs hold a text of "
        "theirs, or one like it; repeatable.",
        group=_LEAKS,
    )
    drop_leaks: Literal["queries", "texts"] | None = option(
        None,
        "Train on no pair whose query is in an evaluation set (queries), or whose query or "
        "positive is (texts).",
        "groups",
        group=_LEAKS,
        needs="against",
    )
    trust_remote_code: bool = option(
        False,
        "Run the code that the model of the run brings in its files, to embed evaluation sets.",
        group=_LEAKS,
        needs="against cosine",
    )


@dataclass(frozen=True, kw_only=True)
class DedupConfig(SourceFields, DuplicateFields, EngineConfig):
    """Find texts that count as one text, and remake groups/, which all later commands respect."""

    device: str | None = option(
        None, "cpu, cuda, mps ... (default: the best one seen).", group=WHERE, needs="cosine"
    )

    def __post_init__(self) -> None:
        """Check that what says how sets are read has some to read.

        Raises:
            ConfigError: It has none, or a set is named twice.
        """
        super().__post_init__()
        of_sets = names_of(SourceFields)
        for one in given_fields(self):
            if one.name in of_sets and not self.against:
                raise ConfigError(
                    f"{option_words(one, getattr(self, one.name))} says how evaluation sets are "
                    "read, found no --against; give it, or leave this out"
                )
        for path in self.against:
            if self.against.count(path) > 1:
                raise ConfigError(f"--against {path} is named twice; name it once")
