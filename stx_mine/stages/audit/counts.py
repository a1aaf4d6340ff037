"""Counts of `audit`."""

from dataclasses import dataclass

from stx_mine.store.counts import Counts


@dataclass(frozen=True, kw_only=True)
class AuditCounts(Counts):
    """Counts of `audits/NAME/`.

    Attributes:
        audited: Negatives of which it is known whether they are false.
        false: Those of them that are.
        close: Those that a judge finds nearly as relevant as the positive; 0 without a judge.
        unknown: Negatives of which nothing is known: the judge has no score, the person no answer.
        hidden: Positives that were hidden; 0 where others tell what is false.
        returned: Those of them that came back as negatives.
        queries: Queries whose positives were hidden; 0 where others tell.
    """

    audited: int
    false: int
    close: int = 0
    unknown: int = 0
    hidden: int = 0
    returned: int = 0
    queries: int = 0
