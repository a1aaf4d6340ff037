"""What is shown, JSON-ready: queries, passages, pairs, batches."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class TextView:
    """A text.

    Attributes:
        id: Its id of the run.
        original_id: Its id of the input; None where that has none.
        text: It.
        group: The group of texts that count as one with it.
    """

    id: int
    original_id: str | None
    text: str
    group: int


@dataclass(frozen=True)
class PositiveView(TextView):
    """A positive of a query.

    Attributes:
        score: Its score for the query; None where it is no pair of the input.
        judged: What each judge scores it, by the name of the judge.
        is_row: Whether the pair is a row to train on.
        source: Where the pair came from: input or judges.
    """

    score: float | None = None
    judged: dict[str, float] = field(default_factory=dict)
    is_row: bool = True
    source: str = "input"


@dataclass(frozen=True)
class CandidateView(TextView):
    """A hit of a query.

    Attributes:
        rank: 0-based among the candidates; None for what is none.
        slot: 0-based place in the pool; None for what is in none.
        score: Its score for the query.
        sources: Who proposed it.
        verdict: The rule that decided about it, in words.
        judged: What each judge scores it.
    """

    rank: int | None = None
    slot: int | None = None
    score: float = 0.0
    sources: tuple[str, ...] = ()
    verdict: str = ""
    judged: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class QueryView(TextView):
    """A query with what was found for it.

    Attributes:
        positives: Its positives.
        limit_score: The positive score that margins count from; None without hits.
        candidates: Its hits, best first.
        num_hits: How many hits it has.
        verdicts: How many hits each rule decided about.
    """

    positives: tuple[PositiveView, ...] = ()
    limit_score: float | None = None
    candidates: tuple[CandidateView, ...] = ()
    num_hits: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class UseView(TextView):
    """A query that has a passage as a negative.

    Attributes:
        slot: 0-based place in its pool.
        score: The score of the passage for it.
    """

    slot: int = 0
    score: float = 0.0


@dataclass(frozen=True)
class PassageView(TextView):
    """A passage with the queries that it stands beside.

    Attributes:
        positive_of: Queries that it is a positive of.
        negative_of: Queries that have it in their pool, by slot.
        num_uses: How many pools have it.
    """

    positive_of: tuple[TextView, ...] = ()
    negative_of: tuple[UseView, ...] = ()
    num_uses: int = 0


@dataclass(frozen=True)
class SuspectView:
    """A pair whose positive scores low.

    Attributes:
        query: Its query.
        positive: Its positive.
        percentile: Percent of random passages that score below the positive.
    """

    query: TextView
    positive: PositiveView
    percentile: float


@dataclass(frozen=True)
class RowView:
    """A row of a batch.

    Attributes:
        anchor: Its query.
        positive: Its positive.
        negatives: Its negatives, in their order.
        num_ignored: Texts that its loss leaves out.
    """

    anchor: str
    positive: str
    negatives: tuple[str, ...]
    num_ignored: int


@dataclass(frozen=True)
class BatchView:
    """A batch.

    Attributes:
        epoch: Its packing, from 0.
        batch: Its number, from 0.
        num_rows: Rows.
        num_slots: Texts in all places of its rows.
        num_texts: Distinct texts.
        num_random: Negatives that were drawn, since pools were short.
        num_ignored: Texts that losses of rows leave out, together.
        rows: The first rows.
    """

    epoch: int
    batch: int
    num_rows: int
    num_slots: int
    num_texts: int
    num_random: int
    num_ignored: int
    rows: tuple[RowView, ...]


@dataclass(frozen=True)
class Shown:
    """All that a call shows.

    Attributes:
        notes: What was guessed, as sentences.
        queries: Queries.
        passages: Passages.
        suspects: Pairs, the most suspect first.
        batches: Batches.
        num_more: Entries that --limit leaves out.
    """

    notes: tuple[str, ...] = ()
    queries: tuple[QueryView, ...] = ()
    passages: tuple[PassageView, ...] = ()
    suspects: tuple[SuspectView, ...] = ()
    batches: tuple[BatchView, ...] = ()
    num_more: int = 0
