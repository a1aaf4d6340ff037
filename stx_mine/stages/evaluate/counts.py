"""Counts of `evaluate`."""

from dataclasses import dataclass

from stx_mine.stages.ingest.counts import PairCounts
from stx_mine.store.counts import Counts


@dataclass(frozen=True, kw_only=True)
class EvaluationCounts(PairCounts):
    """What a data set holds; its pairs are those of texts, or the judgements of its qrels.

    Attributes:
        queries: Queries that are evaluated.
        passages: Passages that are ranked: documents with an id of their own, or distinct texts.
        positives: Pairs that are relevant.
        lowest_gain: Lowest gain above 0 of a pair.
        highest_gain: Highest gain of a pair.
        min_grade: Lowest grade of a relevant pair that was asked for; None: any above 0.
        queries_without_positive: Queries that are judged, and of which nothing is relevant.
        pairs_not_in_corpus: Pairs kept whose passage is missing from the corpus or empty.
        copies: Passages whose text stands under an earlier id too.
        copies_of_positives: (query, passage) that have the text of a positive and are no positive.
        own_left_out: (query, passage) not ranked because the passage is the query's own.
        own_positives: (query, passage) ranked because the own passage is a positive.
        ids_of_other_texts: Queries whose id is that of a passage of another text, which is ranked.
    """

    queries: int
    passages: int
    positives: int
    lowest_gain: float = 1.0
    highest_gain: float = 1.0
    min_grade: float | None = None
    queries_without_positive: int = 0
    pairs_not_in_corpus: int = 0
    copies: int = 0
    copies_of_positives: int = 0
    own_left_out: int = 0
    own_positives: int = 0
    ids_of_other_texts: int = 0


@dataclass(frozen=True, kw_only=True)
class OverviewCounts(Counts):
    """What an overview brings together.

    Attributes:
        data: Data sets.
    """

    data: int
