"""How queries are made of a block of passages: one maker per method; why a passage gets none."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stx_mine.core.terms import num_words, same_text, without
from stx_mine.core.titles import cut_title
from stx_mine.stages.queries.config import QueriesConfig
from stx_mine.stages.queries.core.crop import crop, is_removed
from stx_mine.stages.queries.core.keywords import TermStatistics, keywords
from stx_mine.stages.queries.counts import CropCounts, TitleCounts

if TYPE_CHECKING:
    from stx_mine.stages.queries.generator import QueryGenerator


@dataclass(frozen=True)
class Made:
    """The queries of a passage, or why there are none.

    Attributes:
        queries: The queries.
        reason: Why there are none; empty where there are some.
        kinds: The kind of each query; empty where its method has one.
        items: Numbers that the same query has at all of its passages in a block, below 0; 0 for a
            query of this passage alone. Empty where all are.
    """

    queries: tuple[str, ...] = ()
    reason: str = ""
    kinds: tuple[str, ...] = ()
    items: tuple[int, ...] = ()


@dataclass
class Passage:
    """A row of the input, on its way to pairs.

    Attributes:
        row: Its place in the block.
        text: The passage; cropping and cutting titles shorten it.
        title: Its title or query; empty where it has none.
        key: Number that its draws depend on, of the text as it was read.
        first: Whether no earlier row has the same text.
        crops: What was cropped from it.
        written: What a server wrote for it.
    """

    row: int
    text: str
    title: str
    key: int
    first: bool
    crops: tuple[str, ...] = ()
    written: Made = Made()


Maker = Callable[[list[Passage]], list[Made]]


def cut_titles(passages: list[Passage]) -> TitleCounts:
    """Cut the title out of each passage; count where it stood."""
    counts = {"prefix": 0, "inside": 0, "absent": 0}
    for passage in passages:
        if passage.title:
            passage.text, place = cut_title(passage.title, passage.text)
            counts[place] += 1
    return TitleCounts(sum(counts.values()), **counts)


def crop_passages(passages: list[Passage], config: QueriesConfig) -> CropCounts:
    """Draw the crops, and remove those of a fraction of the passages; count both, each text once.

    All queries of a passage, whatever their method, get the same text: if each crop were removed
    alone, the passage of one would hold the other, and answer it as a false negative.
    """
    cropped = removed = too_short_without = 0
    for passage in passages:
        spans = crop(
            passage.text,
            config.per_passage,
            config.min_words,
            config.max_words,
            config.seed,
            passage.key,
        )
        passage.crops = tuple(dict.fromkeys(passage.text[start:end] for start, end in spans))
        if not spans:
            continue
        cropped += passage.first
        if is_removed(config.remove_share, config.seed, passage.key):
            rest = without(passage.text, spans)
            if num_words(rest) >= config.min_words:
                passage.text = rest
                removed += passage.first
            else:
                too_short_without += passage.first
    return CropCounts(cropped, removed, too_short_without)


def make_crops(passages: list[Passage]) -> list[Made]:
    """What was cropped, as queries."""
    return [Made(passage.crops, "" if passage.crops else "too_short") for passage in passages]


def make_keywords(statistics: TermStatistics, config: QueriesConfig) -> Maker:
    """A maker of keyword queries."""

    def make(passages: list[Passage]) -> list[Made]:
        found = [
            tuple(
                keywords(
                    passage.text, statistics, config.terms, config.per_passage, config.min_words
                )
            )
            for passage in passages
        ]
        return [Made(queries, "" if queries else "too_few_terms") for queries in found]

    return make


def make_generated(generator: "QueryGenerator", config: QueriesConfig) -> Maker:
    """A maker of written queries; equal ones of a passage count once."""

    def make(passages: list[Passage]) -> list[Made]:
        texts, keys = (
            [passage.text for passage in passages],
            [passage.key ^ config.seed for passage in passages],
        )
        written = generator.generate(texts, keys, config.per_passage)
        return [
            _checked(passage, queries) for passage, queries in zip(passages, written, strict=True)
        ]

    return make


def make_written(passages: list[Passage]) -> list[Made]:
    """What a server wrote, as queries."""
    return [passage.written for passage in passages]


def make_titles(passages: list[Passage]) -> list[Made]:
    """The titles, or queries, that the passages came with."""
    return [
        _checked(passage, [passage.title]) if passage.title else Made(reason="no_title")
        for passage in passages
    ]


def _checked(passage: Passage, queries: list[str]) -> Made:
    filled = tuple(dict.fromkeys(query for query in queries if query))
    kept = tuple(one for one in filled if not same_text(one, passage.text))
    reason = "query_is_its_passage" if filled else "empty_answer"
    return Made(kept, "" if kept else reason)
