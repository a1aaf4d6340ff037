"""Titles that stand inside their passages: finding them, cutting them out, how common they are."""

from collections.abc import Iterable
from dataclasses import dataclass

from stx_mine.core.terms import Span, num_words, term_of, terms, without

# What ties a title to the text after it, as in "Title: text" or "Title - text".
_TIES = " \t\r\n:;,.-–—|/_*#\"'”’»)]。：、）」』】"


def find_title(title: str, passage: str) -> list[Span]:
    """Places where the words of a title stand in a passage one after the other, in order.

    Words are compared after NFKC and case folding; what stands between them does not matter
    ("Super_Bowl_50" is found in "Super Bowl 50"). Places do not overlap.
    """
    wanted = [term_of(title, span) for span in terms(title)]
    spans = terms(passage)
    words = [term_of(passage, span) for span in spans]
    found, place = list[Span](), 0
    while wanted and place + len(wanted) <= len(words):
        if words[place] == wanted[0] and words[place : place + len(wanted)] == wanted:
            found.append((spans[place][0], spans[place + len(wanted) - 1][1]))
            place += len(wanted)
        else:
            place += 1
    return found


def is_prefix(places: list[Span], passage: str) -> bool:
    """Whether the first place found is the beginning of the passage."""
    return bool(places) and places[0][0] == terms(passage)[0][0]


def cut_title(title: str, passage: str) -> tuple[str, str]:
    """A passage without its title.

    Returns:
        The passage, and how the title stood there: "prefix" (it may stand elsewhere too),
        "inside", or "absent". What tied the first words to the rest, such as a colon, goes too.
        Empty where nothing but the title was there.
    """
    places = find_title(title, passage)
    if not places:
        return passage, "absent"
    prefix = is_prefix(places, passage)
    rest = without(passage, places)
    if prefix:
        rest = rest.lstrip(_TIES)
    return (rest if terms(rest) else ""), "prefix" if prefix else "inside"


@dataclass(frozen=True)
class TitleShares:
    """How title-like the anchors of some pairs are.

    Attributes:
        num_pairs: Pairs looked at.
        prefix: Share of the anchors whose words begin their passage, in [0, 1].
        contained: Share of the anchors whose words stand in their passage in this order, at the
            beginning or elsewhere.
        words: Mean length of the anchors, in words.
    """

    num_pairs: int
    prefix: float
    contained: float
    words: float


def title_shares(pairs: Iterable[tuple[str, str]]) -> TitleShares:
    """Measure a stream of (anchor, positive)."""
    num_pairs, prefixes, contained, words = 0, 0, 0, 0.0
    for anchor, positive in pairs:
        places = find_title(anchor, positive)
        num_pairs += 1
        prefixes += is_prefix(places, positive)
        contained += bool(places)
        words += num_words(anchor)
    whole = max(num_pairs, 1)
    return TitleShares(num_pairs, prefixes / whole, contained / whole, words / whole)
