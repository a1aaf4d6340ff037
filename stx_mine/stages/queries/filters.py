"""Filters of made queries: near-duplicates, the round trip by an embedding model, a judge.

Shape letters: N pairs, Q distinct queries, P distinct passages, D dimensions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.stages.dedup.config import LikenessFields
from stx_mine.stages.dedup.forms import Forms
from stx_mine.stages.dedup.near import shingle_sets
from stx_mine.stages.dedup.near_texts import near_pairs
from stx_mine.stages.queries.config import QueriesConfig
from stx_mine.stages.queries.core.near import later_of_near
from stx_mine.stages.queries.counts import FilterCounts

if TYPE_CHECKING:
    from stx_mine.stages.queries.judging import PairFilter
    from stx_mine.stages.queries.round_trip import RoundTrip

# Yields the texts of passages that no pair has, as large strings.
UnpairedTexts = Callable[[NDArray[np.int64]], pa.Array]


@dataclass(frozen=True)
class QueryFilters:
    """What is dropped of the pairs that were made.

    Attributes:
        config: The config.
        round_trip: Tells whether passages are found; None for no such filter.
        judge: Tells whether passages answer; None for no such filter.
    """

    config: QueriesConfig
    round_trip: "RoundTrip | None"
    judge: "PairFilter | None"

    @property
    def any(self) -> bool:
        """Whether there is a filter."""
        return bool(self.config.near or self.round_trip or self.judge)

    def keep(
        self, pairs: pa.Table, others: UnpairedTexts, folder: Path
    ) -> tuple[NDArray[np.bool_], FilterCounts]:
        """Which pairs are kept.

        Args:
            pairs: Of all blocks, as `PairMaker` makes them.
            others: Gives the texts of all passages but those of some rows of the input.
            folder: Where the judge keeps what it has said.

        Returns:
            bool (N,), and the counts; a pair counts for the first filter that drops it.
        """
        kept = np.ones(len(pairs), bool)
        dropped = dict[str, int]()

        def drop(reason: str, bad: NDArray[np.bool_]) -> None:
            dropped[reason] = int((kept & bad).sum())
            kept[bad] = False

        if self.config.near:
            near = self._of_methods(pairs, "jaccard")
            drop("near_duplicate", near & near_duplicates(pairs, near, self.config.near))
        if self.round_trip is not None:
            asked = np.flatnonzero(kept & self._of_methods(pairs, "round_trip"))
            found = self.round_trip.finds(pairs, asked, others)
            drop("not_in_top", _at(len(pairs), asked[~found]))
        num_judged = 0
        if self.judge is not None:
            asked = np.flatnonzero(kept)
            num_judged = len(asked)
            scores = self.judge.scores(pairs.take(pa.array(asked)), folder)
            drop("not_judged", _at(len(pairs), asked[np.isnan(scores)]))
            low = scores < np.float32(self.config.min_judge_score)
            drop("not_answered", _at(len(pairs), asked[low]))
        return kept, FilterCounts(len(pairs), int(kept.sum()), dropped, num_judged)

    def _of_methods(self, pairs: pa.Table, name: str) -> NDArray[np.bool_]:
        """Bool (N,): the pairs of the methods that a filter is for."""
        methods = [one for one in self.config.method if self.config.filters(name, one)]
        wanted = pc.is_in(pairs["method"], pa.array(methods, pa.large_string()))
        return np.asarray(wanted.combine_chunks().to_numpy(zero_copy_only=False))


def near_duplicates(
    pairs: pa.Table, wanted: NDArray[np.bool_], threshold: float
) -> NDArray[np.bool_]:
    """Pairs whose query is equal, or nearly, to an earlier one.

    The pairs of one query about several passages stay together. Queries that differ in their
    numbers are different ones.

    Args:
        pairs: Columns `query`, `block`, `item`.
        wanted: bool (N,) which pairs are compared.
        threshold: Least Jaccard similarity of pairs of words, in (0, 1]; at 1 queries have to be
            equal but for case and punctuation.

    Returns:
        bool (N,).
    """
    rows = np.flatnonzero(wanted)
    keys = np.stack([pairs["block"].to_numpy()[rows], pairs["item"].to_numpy()[rows]], axis=1)
    # In the order of their first pair: the earlier one stays.
    _, first, items = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    texts = pairs["query"].combine_chunks().take(pa.array(rows[first[order]]))
    fields = LikenessFields(jaccard=threshold)
    blocks = [(np.arange(len(texts)), texts)]
    forms = Forms.of(blocks, len(texts), fields.ignored_in_forms)
    left = right = np.empty(0, np.int64)
    if threshold < 1:
        ids, sets = shingle_sets(blocks, forms.is_first, fields)
        near = near_pairs(sets, threshold)
        left, right = ids[near.left], ids[near.right]
    same = forms.numbers[left] == forms.numbers[right]
    equal = np.flatnonzero(~forms.is_first)
    later = later_of_near(
        np.concatenate([left[same], forms.firsts[equal]]),
        np.concatenate([right[same], equal]),
        len(texts),
    )
    bad = np.zeros(len(pairs), bool)
    bad[rows] = later[places[items.reshape(-1)]]
    return bad


def _at(number: int, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Bool (number,): true at some rows."""
    found = np.zeros(number, bool)
    found[rows] = True
    return found
