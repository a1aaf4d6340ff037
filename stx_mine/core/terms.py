"""Terms and sentences of a text in any script, as places in it: no word lists, no language.

A term is a word; where a script writes no spaces (Han, kana, Thai, Lao, Burmese, Khmer) it is a
pair of neighbouring characters, which overlaps the next one, and counts as half a word.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from enum import IntEnum
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

# Half-open places in a text.
Span = tuple[int, int]

_UNSPACED = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u1000-\u103f\u1050-\u108f\u109a-\u109d\u1780-\u17d3"
    "\u3005-\u3007\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003fffd"
)
# Joiners stand inside words of Persian and of Indic scripts.
_JOINERS = "\u200c\u200d"
_LAST_OF_WORDS, _LAST_UNSPACED, _NUM_CHARACTERS = 0x1FFFF, 0x3FFFD, 0x110000
# Those that end a sentence wherever they stand, and those that need white space after them.
_STOPS, _SPACED_STOPS = "。！？｡．؟۔।॥։።៕", ".!?…"
_CLOSERS = "\"'”’»)\\]）」』】〉》"
_BOUNDARY = re.compile(
    rf"(?P<spaced>(?<![{_SPACED_STOPS}])[{_SPACED_STOPS}]++[{_CLOSERS}]*+(?=\s|$))"
    rf"|[{_STOPS}][{_STOPS}{_SPACED_STOPS}{_CLOSERS}]*|[\n\r\u2028\u2029]+"
)
_BLANKS = re.compile(r"[^\S\n\r\u2028\u2029]*")


def terms(text: str) -> list[Span]:
    """Places of the terms, in order."""
    found: list[Span] = []
    for match in _pattern().finditer(text):
        start, end = match.span()
        if match.lastgroup == "unspaced" and end - start > 2:
            found += [(place, place + 2) for place in range(start, end - 1)]
        else:
            found.append((start, end))
    return found


def word_counts(text: str, spans: Iterable[Span]) -> list[float]:
    """How many words each term stands for: one, or half of one where no spaces are written."""
    unspaced = _unspaced()
    return [0.5 if unspaced.match(text, start) else 1.0 for start, _ in spans]


def num_words(text: str) -> float:
    """Length of a text in words."""
    return sum(word_counts(text, terms(text)))


def term_of(text: str, span: Span) -> str:
    """The form in which two terms are the same: NFKC, case folded."""
    raw = text[span[0] : span[1]]
    return raw.lower() if raw.isascii() else unicodedata.normalize("NFKC", raw).casefold()


def sentences(text: str) -> list[Span]:
    """Places of the sentences, in order, without the white space around them.

    A sentence ends after `.!?…` before white space, after the full stops of other scripts
    wherever they stand, and at the end of a line. A dot before a small letter ends none ("e.g.
    this"). Whatever is not white space is in exactly one sentence.
    """
    cuts = [0]
    for match in _BOUNDARY.finditer(text):
        after = _BLANKS.match(text, match.end())
        assert after is not None
        if match["spaced"] is None or not text[after.end() : after.end() + 1].islower():
            cuts.append(match.end())
    cuts.append(len(text))
    found = []
    for start, end in pairwise(cuts):
        piece = text[start:end]
        bare = piece.strip()
        if bare:
            first = start + len(piece) - len(piece.lstrip())
            found.append((first, first + len(bare)))
    return found


def merged_spans(spans: Sequence[Span]) -> list[Span]:
    """The same places in order, those that overlap as one."""
    found: list[Span] = []
    for first, last in sorted(spans):
        if found and first < found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def without(text: str, spans: Sequence[Span]) -> str:
    """A text without some places of it; what remains keeps its order.

    Where white space stood on both sides of a hole, that before it goes. The ends of the text
    are stripped.
    """
    kept, start = "", 0
    for first, last in [*merged_spans(spans), (len(text), len(text))]:
        piece = text[start:first]
        kept = (kept.rstrip() if piece[:1].isspace() else kept) + piece
        start = last
    return kept.strip()


def same_text(one: str, other: str) -> bool:
    """Whether two texts are equal after NFKC, white space collapsed."""
    left, right = (" ".join(unicodedata.normalize("NFKC", it).split()) for it in (one, other))
    return left == right


def unspaced_places(text: str) -> NDArray[np.bool_]:
    """Bool (len(text),): where a text may be cut before or after a character without spaces.

    Not before a mark that belongs to the character before it, nor before punctuation.
    """
    found = np.zeros(len(text), np.bool_)
    for match in _unspaced_runs().finditer(text):
        start, end = match.span()
        found[start:end] = [unicodedata.category(one)[0] in "LN" for one in text[start:end]]
        found[end : end + 1] = text[end : end + 1].isalnum()
    return found


class Class(IntEnum):
    """What a character is to a text that is cut into terms."""

    SEPARATOR = 0
    LETTER = 1
    DIGIT = 2
    UNSPACED = 3


@cache
def character_classes() -> NDArray[np.uint8]:
    """uint8 (num characters,): the `Class` of each character, by its number."""
    classes = np.zeros(_NUM_CHARACTERS, np.uint8)
    for match in _pattern().finditer("".join(map(chr, range(_LAST_OF_WORDS + 1)))):
        of_match = Class.UNSPACED if match.lastgroup == "unspaced" else Class.LETTER
        classes[match.start() : match.end()] = of_match
    classes[_LAST_OF_WORDS + 1 : _LAST_UNSPACED + 1] = Class.UNSPACED
    digits = [one for one in range(_LAST_OF_WORDS + 1) if unicodedata.category(chr(one)) == "Nd"]
    classes[digits] = Class.DIGIT
    return classes


@cache
def _unspaced_runs() -> re.Pattern[str]:
    return re.compile(f"[{_UNSPACED}]+[{_STOPS}{_CLOSERS}，、；：]*")


@cache
def _unspaced() -> re.Pattern[str]:
    return re.compile(f"[{_UNSPACED}]")


@cache
def _pattern() -> re.Pattern[str]:
    """Runs of letters, marks and digits; a script without spaces makes runs of its own."""
    unspaced = _unspaced()
    ranges: list[list[int]] = []
    for code in range(_LAST_OF_WORDS + 1):
        letter = chr(code)
        if unicodedata.category(letter)[0] in "LMN" and not unspaced.match(letter):
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    spaced = "".join(f"{re.escape(chr(a))}-{re.escape(chr(b))}" for a, b in ranges)
    return re.compile(f"(?P<unspaced>[{_UNSPACED}]+)|(?P<spaced>[{spaced}{_JOINERS}]+)")
