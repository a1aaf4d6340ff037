"""Known positives that are hidden: a run as if nobody had labelled them."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.forbidden import positive_groups
from stx_mine.core.ragged import Ragged
from stx_mine.stages.audit.core.hiding import choose_hidden
from stx_mine.store.groups import TextGroups
from stx_mine.store.texts import TextStore


@dataclass(frozen=True)
class HiddenPositives:
    """What is left of the pairs of a run, and what was hidden.

    Attributes:
        store: The texts, with the pairs that are left.
        groups: The groups, by the numbers of the pairs that are left.
        forbidden: (num queries,) groups that are forbidden to each query without what is hidden.
        query_ids: int64 (Q,) queries with a hidden positive, rising.
        keys: int64 (N,) query_id times the number of groups, plus the hidden group; rising.
    """

    store: TextStore
    groups: TextGroups
    forbidden: Ragged
    query_ids: NDArray[np.int64]
    keys: NDArray[np.int64]

    @classmethod
    def draw(
        cls,
        store: TextStore,
        groups: TextGroups,
        share: float,
        seed: int,
        max_queries: int,
        among: NDArray[np.int64] | None = None,
    ) -> "HiddenPositives":
        """Hide a share of the positives of queries that have several texts as positives.

        A positive is a group: texts that count as one text are hidden together.

        Args:
            store: The texts and all pairs.
            groups: The group of every text.
            share: Of each query's positives, in (0, 1]; at least one is hidden and one stays.
            seed: Of the draw.
            max_queries: Queries to draw of, at most.
            among: int64, rising: the queries to draw of; None for all.
        """
        is_row = np.ones(store.num_pairs, np.bool_)
        is_row[groups.dropped_pairs] = False
        queries, passages = store.pair_query_ids[is_row], store.pair_passage_ids[is_row]
        if among is not None:
            asked = np.isin(queries, among)
            queries, passages = queries[asked], passages[asked]
        found = positive_groups(queries, passages, groups.passages, store.num_queries)
        owners = np.repeat(np.arange(store.num_queries), found.lengths())
        # What is forbidden as the query's own text cannot come back.
        may_be = found.values != groups.queries[owners]
        owners, of_owners = owners[may_be], found.values[may_be]
        hidden = choose_hidden(owners, of_owners, share, seed, max_queries)
        keys = owners[hidden] * groups.num_groups + of_owners[hidden]
        return cls._without(store, groups, np.sort(keys))

    @classmethod
    def _without(
        cls, store: TextStore, groups: TextGroups, keys: NDArray[np.int64]
    ) -> "HiddenPositives":
        def is_kept(queries: NDArray[np.int64], passages: NDArray[np.int64]) -> NDArray[np.bool_]:
            return ~np.isin(queries * groups.num_groups + groups.passages[passages], keys)

        kept = is_kept(store.pair_query_ids, store.pair_passage_ids)
        others = store.other_positives
        left = replace(
            store,
            pair_query_ids=store.pair_query_ids[kept],
            pair_passage_ids=store.pair_passage_ids[kept],
            other_positives=others[:, is_kept(others[0], others[1])],
            # Sources number all pairs, and decide nothing about negatives.
            sources=None,
        )
        dropped = groups.dropped_pairs[kept[groups.dropped_pairs]]
        renumbered = replace(groups, dropped_pairs=(np.cumsum(kept) - 1)[dropped])
        query_ids = np.unique(keys // groups.num_groups)
        return cls(left, renumbered, renumbered.forbidden(left), query_ids, keys)

    def are_hidden(
        self, query_ids: NDArray[np.int64], passage_ids: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Bool (N,): whether each passage is a hidden positive of its query."""
        groups = self.groups.passages[passage_ids]
        return np.isin(query_ids * self.groups.num_groups + groups, self.keys)
