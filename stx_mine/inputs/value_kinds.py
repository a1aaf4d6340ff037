"""What the values of a column without a name are: times, numbers, ids, texts ..."""

import re
from collections.abc import Sequence

_DATE = r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2}))"
_CLOCK = (
    r"\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?\s*([AaPp]\.?[Mm]\.?)?\s*(Z|[A-Z]{2,4}|[+-]\d{2}:?\d{2})?"
)
_TIME = re.compile(rf"{_DATE}([T,\s]\s*{_CLOCK})?|{_CLOCK}")
_MAIL = re.compile(r"[^@\s]+@[^@\s]+\.\w+")
_LINK = re.compile(r"\w+://\S+")
_ID = re.compile(r"[\w.:/#-]{1,64}", re.ASCII)
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
_LIKE_NUMBER = re.compile(r"[-+]?[\d.,]*\d\s*%?")
_FEWEST_VALUES = 3
_MOST_OTHERS = 0.8
# What a column may hold, by its letter.
VALUE_KINDS = {
    "T": "texts",
    "L": "lists",
    "I": "ids",
    "N": "numbers",
    "Z": "one value",
    "D": "times",
    "M": "mail addresses",
    "U": "links",
    "C": "a few values",
    "X": "mixed kinds",
    "-": "nothing",
}


def kind_of(values: Sequence[str]) -> str:
    """The kind of the values of a column that are not empty: a letter of `VALUE_KINDS`.

    One value is 0 or Q0 throughout, as TREC's iteration is.
    """
    texts = [value.strip() for value in values if value.strip()]
    if not texts:
        return "-"
    if all(text in ("0", "Q0") for text in texts):
        return "Z"
    for kind, pattern in (("N", _NUMBER), ("D", _TIME), ("M", _MAIL)):
        if all(map(pattern.fullmatch, texts)):
            return kind
    if all(_ID.fullmatch(text) and re.search(r"\d", text) for text in texts):
        return "I"
    if all(map(_LINK.fullmatch, texts)):
        return "U"
    likest = max(sum(map(bool, map(p.fullmatch, texts))) for p in (_NUMBER, _TIME, _MAIL, _LINK))
    return "X" if likest > _MOST_OTHERS * len(texts) else "T"


def is_unlike(first: str, values: Sequence[str]) -> bool:
    """Whether a value is of another kind than the others of its column, as its name is."""
    rest = [value.strip() for value in values if value.strip()]
    if len(rest) < _FEWEST_VALUES - 1 or not first.strip():
        return False
    patterns = (_LIKE_NUMBER, _TIME, _MAIL, _LINK)
    return any(all(map(p.fullmatch, rest)) and not p.fullmatch(first.strip()) for p in patterns)


def is_category(values: Sequence[str], passages: Sequence[str]) -> bool:
    """Whether a column beside passages holds something else than passages: classes, names.

    It does where few values are repeated, or all are much shorter than the passages.
    """
    texts = [value.strip() for value in values if value.strip()]
    if len(texts) < _FEWEST_VALUES:
        return False
    if 2 * len(set(texts)) <= len(texts) and len(set(texts)) < len(set(passages)):
        return True
    num_passages = max(1, sum(bool(text.strip()) for text in passages))
    length, other = sum(map(len, texts)) / len(texts), sum(map(len, passages)) / num_passages
    return 4 * length < other
