"""Counts of `judge`."""

from dataclasses import dataclass

from stx_mine.store.counts import Counts


@dataclass(frozen=True, kw_only=True)
class JudgeCounts(Counts):
    """Counts of `judgements/NAME/`.

    Attributes:
        queries: Queries with a candidate in doubt.
        candidates: Candidates in doubt.
        positives: Positives of those queries that are judged, to compare with.
        random: Random passages that are judged, to compare with.
        beyond_budget: Candidates in doubt that --max-pairs leaves out.
        judged: Pairs that this command judged.
        known: Pairs that were judged before.
        failed: Pairs that got no score, which count as not judged.
    """

    queries: int
    candidates: int
    positives: int
    random: int
    beyond_budget: int
    judged: int
    known: int
    failed: int
