"""Whether the first line of a file of values names its columns or is a row."""

import re
from collections.abc import Sequence
from itertools import zip_longest

from stx_mine.inputs.names import is_known, plain
from stx_mine.inputs.value_kinds import is_unlike, kind_of

_ID = re.compile(r"\s*[^\s\d]*\d\S*\s*")
_MOST_WORDS_OF_A_NAME = 4
# Words of sentences that ask for a query, and for its answer, as forms have them above columns.
_ASKING = frozenset({"question", "questions", "query", "prompt", "frage", "pregunta", "domanda"})
_ANSWERING = frozenset(
    {"answer", "answers", "response", "reply", "passage", "document", "antwort", "réponse"}
    | {"respuesta", "risposta"}
)


def is_header(rows: Sequence[Sequence[str]], expected: Sequence[str]) -> bool | None:
    """Whether the first of some rows is a header line; None where it cannot be told.

    Args:
        rows: The first rows, at least one.
        expected: Names that a header line may hold.
    """
    first = rows[0]
    if any(plain(name) in map(plain, expected) for name in first):
        return True
    wordy = any(len(value.split()) > _MOST_WORDS_OF_A_NAME for value in first)
    is_above_others = is_named(rows)
    if any(map(is_known, first)):
        return True if not wordy or is_above_others else None
    if is_above_others or _asks_and_answers(first):
        return None
    # A column of ids, of which the first is one.
    has_ids = any(all(map(_ID.fullmatch, column)) for column in zip(*rows, strict=False))
    return False if wordy or has_ids else None


def is_named(rows: Sequence[Sequence[str]]) -> bool:
    """Whether a value of the first row is of another kind than those below it, as a name is."""
    first, below = rows[0], list(zip_longest(*rows[1:], fillvalue=""))
    are_places = list(first) in (_places(0, len(first)), _places(1, len(first)))
    are_texts = bool(below) and all(kind_of(column) in "TUC-" for column in below)
    return (are_places and are_texts) or any(map(is_unlike, first, below))


def _places(start: int, number: int) -> list[str]:
    return list(map(str, range(start, start + number)))


def _asks_and_answers(first: Sequence[str]) -> bool:
    # An id such as `query-7` asks nothing.
    names = ["" if _ID.fullmatch(value) else value.lower() for value in first]
    words = [set(re.findall(r"\w+", name)) for name in names]
    asking = [place for place, own in enumerate(words) if own & _ASKING]
    return any(own & _ANSWERING and asking not in ([], [place]) for place, own in enumerate(words))


def with_names(header: Sequence[str]) -> tuple[str, ...]:
    """The names of a header line; a column without one is called by its place, from 1."""
    return tuple(
        name if name.strip() else f"column {place} (no name)"
        for place, name in enumerate(header, 1)
    )
