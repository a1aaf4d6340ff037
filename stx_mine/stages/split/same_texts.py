"""Which texts of the input count as one: equal but for case and the like, and near-duplicates.

Unlike `dedup`, which makes groups around a representative, a chain of near-duplicates is one text
here: no two of them may lie in different parts.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.inputs.pairs import PairSource
from stx_mine.stages.dedup.forms import Forms, TextBlocks
from stx_mine.stages.dedup.joins import refuse_many
from stx_mine.stages.dedup.near import shingle_sets
from stx_mine.stages.dedup.near_texts import floor_below, near_pairs
from stx_mine.stages.ingest.numbering import first_texts
from stx_mine.stages.ingest.pairs import Ingested
from stx_mine.stages.split.config import SplitConfig
from stx_mine.stages.split.core.units import connected
from stx_mine.stages.split.judgements import JudgementBlock

_SAMPLES = 3


@dataclass(frozen=True)
class JoinedTexts:
    """How many texts count as another one.

    Attributes:
        texts: Distinct texts of both roles, of pairs and known negatives.
        equal: Those that are equal to another one but for what makes no difference.
        near: Others that near-duplicates tie to another one.
        other_numbers: Pairs of near-duplicates that are apart since their numbers differ.
        crowded: Texts with more candidates than are compared.
        unknown: Texts that the run of `groups` does not have.
    """

    texts: int
    equal: int
    near: int
    other_numbers: int
    crowded: int
    unknown: int = 0


@dataclass(frozen=True)
class SameTexts:
    """Which text each text counts as.

    Attributes:
        counts_as: int64 (num texts,): passages first, then queries.
        counts: How many count as another one.
        least: The least similar near-duplicates: two texts, and their score.
    """

    counts_as: NDArray[np.int64]
    counts: JoinedTexts
    least: list[tuple[str, str, float]]


def find_same_texts(
    config: SplitConfig,
    source: PairSource,
    found: Ingested,
    judgements: Iterable[JudgementBlock],
) -> SameTexts:
    """Join texts that count as one.

    Args:
        config: What counts as one text.
        source: Where the texts stand.
        found: What was read of it.
        judgements: Pairs and known negatives; no other texts are compared.

    Raises:
        ConfigError: More texts would be joined than is allowed.
    """
    texts = _Texts(source, found, named_texts(found, judgements))
    num_ids = len(texts.wanted)
    forms = Forms.of(texts.blocks(), num_ids, config.ignored)
    left, right = forms.firsts, np.arange(num_ids)
    other_numbers = crowded = 0
    least = list[tuple[str, str, float]]()
    if config.jaccard is not None:
        ids, sets = shingle_sets(texts.blocks(), texts.wanted & forms.is_first, config)
        near = near_pairs(sets, config.jaccard, proposed=floor_below(config.jaccard))
        one, other, crowded = ids[near.left], ids[near.right], near.num_crowded
        kept = np.ones(len(one), bool)
        if "numbers" not in config.ignored:
            kept = forms.numbers[one] == forms.numbers[other]
        other_numbers = int((~kept).sum())
        left, right = np.append(left, one[kept]), np.append(right, other[kept])
        by_score = np.flatnonzero(kept)[np.argsort(near.scores[kept], kind="stable")[:_SAMPLES]]
        least = texts.samples(one[by_score], other[by_score], near.scores[by_score])
    counts_as = connected(left, right, num_ids)
    num_joined, num_texts = int((counts_as != np.arange(num_ids)).sum()), len(forms.ids)
    refuse_many(num_joined, num_texts, config.max_joined, "nothing was divided")
    num_near = num_joined - forms.num_equal
    counts = JoinedTexts(num_texts, forms.num_equal, num_near, other_numbers, crowded)
    return SameTexts(counts_as, counts, least)


def named_texts(found: Ingested, judgements: Iterable[JudgementBlock]) -> NDArray[np.bool_]:
    """Bool (num texts,): the texts of pairs and known negatives."""
    named = np.zeros(len(found.passages.digests) + len(found.queries.digests), bool)
    for block in judgements:
        named[found.query_texts[block.queries[block.queries >= 0]]] = True
        named[block.passages[block.passages >= 0]] = True
    return named


@dataclass(frozen=True)
class _Texts:
    """Some texts of the input, by the ids that `pair_graph` gives them."""

    source: PairSource
    found: Ingested
    wanted: NDArray[np.bool_]

    def blocks(self) -> TextBlocks:
        """Ids and texts; each distinct one once."""
        found, num_passages = self.found, len(self.found.passages.digests)
        yield from self._chosen(first_texts(self.source.passages(), found.passages))
        for queries, texts in first_texts(self.source.queries(), found.queries):
            ids = found.query_texts[queries]
            # The text of any other query is a passage.
            own = ids >= num_passages
            yield from self._chosen([(ids[own], texts.filter(pa.array(own)))])

    def _chosen(self, blocks: TextBlocks) -> Iterator[tuple[NDArray[np.int64], pa.Array]]:
        for ids, texts in blocks:
            kept = self.wanted[ids]
            yield ids[kept], texts.filter(pa.array(kept))

    def samples(
        self, left: NDArray[np.int64], right: NDArray[np.int64], scores: NDArray[np.float32]
    ) -> list[tuple[str, str, float]]:
        """The texts of some pairs, and their scores."""
        shown = dict[int, str]()
        wanted = np.union1d(left, right)
        for ids, texts in self.blocks() if len(wanted) else []:
            kept = np.isin(ids, wanted)
            shown |= zip(ids[kept].tolist(), texts.filter(pa.array(kept)).to_pylist(), strict=True)
        return [
            (shown[one], shown[other], round(score, 6))
            for one, other, score in zip(
                left.tolist(), right.tolist(), scores.tolist(), strict=True
            )
        ]
