"""What `mine` counts."""

from dataclasses import dataclass, field

from stx_mine.store.counts import Counts

# Why a known negative is in no pool although no rule dropped it: no pair of its query is a row.
NO_POOL = "no_pool"


@dataclass(frozen=True, kw_only=True)
class MineCounts(Counts):
    """Counts of a selection.

    Attributes:
        hits_in: Hits of all units.
        pooled: Hits that are in a pool.
        dropped: Verdict -> hits that have it, for every verdict but pooled.
        pairs_in: Pairs of the run.
        pairs_made: Pairs of a query and a passage that judges say is a positive of it.
        pairs_dropped: Reason -> pairs that are no rows to train on.
        pairs_suspect: Pairs whose positive scores below most random passages.
        rows: Pairs that are rows to train on.
        rows_full: Rows with k negatives or more.
        rows_ragged: Rows with fewer than k negatives, but some.
        rows_empty: Rows without a negative.
        known_in: Known negatives of the input; once for each pair of their query, where pairs have
            pools of their own.
        known_pooled: Those of them that are in a pool.
        known_dropped: Verdict -> those that have it, for every verdict but pooled; and `NO_POOL`.
        known_above_positive: Those in a pool that score above the positive.
        random_judged: Random passages that the judges have an opinion about.
        random_judged_positive: Those of them that they find no worse than the positive.
        queries_deepened: Queries that were searched deeper because they lacked negatives.
        queries_to_deepen: Queries that lack negatives and may find some deeper.
        unknown_languages: `queries` and `passages` -> texts of unknown language; empty where the
            input names no languages.
    """

    hits_in: int
    pooled: int
    dropped: dict[str, int]
    pairs_in: int
    pairs_dropped: dict[str, int]
    pairs_suspect: int
    rows: int
    rows_full: int
    rows_ragged: int
    rows_empty: int
    pairs_made: int = 0
    known_in: int = 0
    known_pooled: int = 0
    known_dropped: dict[str, int] = field(default_factory=dict)
    known_above_positive: int = 0
    random_judged: int = 0
    random_judged_positive: int = 0
    queries_deepened: int = 0
    queries_to_deepen: int = 0
    unknown_languages: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.known_in == self.known_pooled + sum(self.known_dropped.values())
        assert self.hits_in == self.pooled + sum(self.dropped.values())
        assert self.pairs_in + self.pairs_made == self.rows + sum(self.pairs_dropped.values())
        assert self.rows == self.rows_full + self.rows_ragged + self.rows_empty


@dataclass(frozen=True, kw_only=True)
class CandidateCounts(Counts):
    """Counts of a file of candidates.

    Attributes:
        queries: Queries of the run.
        queries_named: Those of them with a candidate.
        candidates: Distinct (query, passage) of the run.
        lines: Lines of the file.
        lines_unknown: Lines that name a text that the run does not have.
        unknown_queries: Those of them whose query is unknown.
        unknown_passages: Those whose passage alone is unknown.
    """

    queries: int
    queries_named: int
    candidates: int
    lines: int
    lines_unknown: int
    unknown_queries: int
    unknown_passages: int

    def __post_init__(self) -> None:
        assert self.lines_unknown == self.unknown_queries + self.unknown_passages
