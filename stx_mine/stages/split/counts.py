"""Counts of `split`: pairs in, kept and dropped, what each part holds, and what leaks."""

from dataclasses import dataclass, replace
from typing import Any, Self

from stx_mine.stages.split.core.parts import Leaks
from stx_mine.stages.split.same_texts import JoinedTexts
from stx_mine.store.artifact import Manifest
from stx_mine.store.counts import Counts


@dataclass(frozen=True)
class PartCounts:
    """What one part holds.

    Attributes:
        target: Pairs that it should have.
        pairs: Distinct pairs.
        queries: Distinct queries.
        passages: Distinct passages of pairs.
        components: Components that have a pair in it.
        rows: Lines of its qrels.
        not_relevant: Those of them that are no positive: grade 0, known negatives.
    """

    target: int
    pairs: int
    queries: int
    passages: int
    components: int
    rows: int
    not_relevant: int


@dataclass(frozen=True)
class SplitCounts(Counts):
    """Counts of `split/`.

    Attributes:
        pairs_in: Pairs read.
        pairs_kept: Distinct pairs that can be trained on.
        pairs_dropped: Reason -> pairs dropped for it.
        queries: Lines of `queries.jsonl`.
        queries_left_out: Queries of the input that have no pair.
        passages: Lines of `corpus.jsonl`.
        corpus_empty: Rows of the corpus without text, which are left out.
        passages_without_pair: Those of them that no pair names.
        components: Components of the graph of pairs.
        largest_component: Pairs of the largest one.
        not_relevant_dropped: Reason -> judgements of grade 0 and known negatives left out:
            `held_out_text` are those of training queries with a text of dev or test.
        parts: `train`, `dev`, `test` -> what it holds.
        leaks: Unit -> held-out pairs that share a text with training, if it is split by this unit;
            of the units that can make such parts.
        joined: Texts that count as another one; None where only equal texts do.
    """

    pairs_in: int
    pairs_kept: int
    pairs_dropped: dict[str, int]
    queries: int
    queries_left_out: int
    passages: int
    corpus_empty: int
    passages_without_pair: int
    components: int
    largest_component: int
    not_relevant_dropped: dict[str, int]
    parts: dict[str, PartCounts]
    leaks: dict[str, Leaks]
    joined: JoinedTexts | None = None

    def __post_init__(self) -> None:
        """Check that every pair is kept or dropped for one reason, and every kept one in a part."""
        assert self.pairs_in == self.pairs_kept + sum(self.pairs_dropped.values()), self

    @classmethod
    def read(cls, manifest: Manifest) -> Self:
        """The counts of a finished `split/`.

        Raises:
            ArtifactError: The manifest lacks a count.
        """
        counts = super().read(manifest)
        parts: dict[str, Any] = manifest.counts["parts"]
        leaks: dict[str, Any] = manifest.counts["leaks"]
        joined = manifest.counts.get("joined")
        return replace(
            counts,
            parts={name: PartCounts(**part) for name, part in parts.items()},
            leaks={unit: Leaks(**found) for unit, found in leaks.items()},
            joined=None if joined is None else JoinedTexts(**joined),
        )
