"""Counts of `judge`."""

from dataclasses import dataclass, field

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
        failures: The same by reason.
        calls: Requests that a server answered.
        tokens_read: Tokens of them, as the server counts.
        tokens_written: Tokens of the answers.
        cut: Texts that were cut for the prompt.
        unknown_answers: Imported answers to questions that are not asked.
    """

    queries: int
    candidates: int
    positives: int
    random: int
    beyond_budget: int
    judged: int
    known: int
    failed: int
    failures: dict[str, int] = field(default_factory=dict)
    calls: int = 0
    tokens_read: int = 0
    tokens_written: int = 0
    cut: int = 0
    unknown_answers: int = 0
