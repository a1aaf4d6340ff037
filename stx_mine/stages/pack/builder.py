"""The packer: what tasks need to assign rows, bind negatives and build one batch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, offsets_of, ragged_union
from stx_mine.errors import ConfigError
from stx_mine.stages.pack.composition import Composition
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.core.assign import Assignment, assign_merge, assign_strict, draw_order
from stx_mine.stages.pack.core.bind import (
    bind_clean,
    bind_top,
    ignored_passages,
    pools_without,
    rotated,
)
from stx_mine.stages.pack.core.bounds import StrictBound, strict_bound
from stx_mine.stages.pack.packings import left_out_last
from stx_mine.stages.pack.shard_files import score_column
from stx_mine.stages.pack.teacher import JudgeOfPairs, Miner, Teacher
from stx_mine.store.artifact import Manifest
from stx_mine.store.batches import (
    LANGUAGE,
    PASSAGE_LANGUAGES,
    SCORES,
    id_schema,
    list_column,
    with_text_columns,
)
from stx_mine.store.groups import TextGroups
from stx_mine.store.judgements import StoredJudgements
from stx_mine.store.languages import LanguageTable
from stx_mine.store.negatives import near_positives
from stx_mine.store.pools import Pools
from stx_mine.store.texts import TextStore, take_texts
from stx_mine.store.vectors import Vectors

_ROWS_SCORED = 4_096


@dataclass(frozen=True)
class Packer:
    """Everything that tasks need to build a batch.

    Attributes:
        config: The config.
        k: Negatives a row.
        store: Texts and pairs.
        groups: The group of every text.
        pools: The pool of each pair, without what its query avoids.
        near: Groups of the near positives of each query; empty where they were not asked for.
        avoided: Groups that no row of a query may have as a negative of any kind: the forbidden
            ones, and near positives where asked for.
        composition: Decides which rows may meet, and the order of the batches.
        teacher: Whose scores are stored; None where none are.
    """

    config: PackConfig
    k: int
    store: TextStore
    groups: TextGroups
    pools: Pools
    near: Ragged
    avoided: Ragged
    composition: Composition
    teacher: Teacher | None = None

    @classmethod
    def open(
        cls,
        config: PackConfig,
        k: int,
        store: TextStore,
        groups: TextGroups,
        negatives: Manifest,
        embeddings: Manifest,
        judgements: Manifest | None = None,
    ) -> "Packer":
        """Read pools, what each query avoids, and what its batches are composed by.

        Args:
            config: The config.
            k: Negatives a row.
            store: Texts and pairs.
            groups: The group of every text.
            negatives: Of a finished `negatives/`.
            embeddings: Of a finished `embeddings/`.
            judgements: Those of `config.judge`, if it names one.
        """
        mined = config.scores is True
        pools = Pools.open(negatives, store.pair_query_ids, mined, store.num_passages)
        avoided = groups.forbidden(store)
        near = Ragged(np.zeros(store.num_queries + 1, np.int64), np.empty(0, np.int64))
        if config.near_positive_margin is not None:
            near = near_positives(
                negatives, config.near_positive_margin, groups.passages, store.num_queries
            )
            avoided = ragged_union(avoided, near)
            ids_NS = pools_without(
                pools.ids_NS, store.pair_query_ids, groups.passages, avoided, groups.num_groups
            )
            pools = replace(pools, ids_NS=ids_NS)
        composition = Composition.open(config, store, negatives, embeddings)
        teacher: Teacher | None = None
        if mined:
            roles = (Vectors.open(embeddings, role) for role in ("queries", "passages"))
            teacher = Miner(store, pools, *roles)
        elif judgements is not None:
            teacher = JudgeOfPairs(store, StoredJudgements.open(judgements, store))
        return cls(config, k, store, groups, pools, near, avoided, composition, teacher)

    @cached_property
    def anchor_groups(self) -> NDArray[np.int64]:
        """Group of each row's anchor."""
        return self.groups.queries[self.store.pair_query_ids]

    @cached_property
    def positive_groups(self) -> NDArray[np.int64]:
        """Group of each row's positive."""
        return self.groups.passages[self.store.pair_passage_ids]

    def assign(self, earlier: Sequence[Assignment] = ()) -> Assignment:
        """The batches of the packing that comes after some; what the last left out comes first."""
        rng = np.random.default_rng([self.config.seed, len(earlier)])
        order = draw_order(self.pools.rows, left_out_last(earlier), rng)
        return self.composition.assign(
            order, earlier, rng, lambda rows, size: self._assign(rows, size, rng)
        )

    def _assign(self, order: NDArray[np.int64], size: int, rng: np.random.Generator) -> Assignment:
        if self.config.policy == "merge":
            return assign_merge(self.anchor_groups, self.positive_groups, size, order, rng)
        return assign_strict(
            self.store.pair_query_ids,
            self.anchor_groups,
            self.positive_groups,
            self.avoided,
            self.groups.num_groups,
            size,
            order,
        )

    def rows_taken(self) -> tuple[list[str], list[int]]:
        """Names of the sources, and how many rows of each a packing takes."""
        sources = self.store.sources
        assert sources is not None, "one source without a name is taken whole"
        return sources.names, self.composition.rows_taken(self.pools.rows).tolist()

    def bound(self) -> StrictBound:
        """The most batches that there can be in one packing, and why."""
        rows, composition = self.pools.rows, self.composition
        composed = StrictBound(
            composition.num_batches(rows), composition.cause, np.empty(0, np.int64)
        )
        if self.config.policy == "merge":
            return composed
        parts = composition.rows_that_may_meet(rows)
        bounds = [self._strict_bound(part) for part in parts]
        total = sum(bound.batches for bound in bounds)
        if total > composed.batches or (total == composed.batches and len(parts) > 1):
            return composed
        # Of several sources the one that loses most says why.
        lost = [len(part) // self.config.batch_size for part in parts]
        worst = max(range(len(parts)), key=lambda one: lost[one] - bounds[one].batches)
        return replace(bounds[worst], batches=total)

    def _strict_bound(self, rows: NDArray[np.int64]) -> StrictBound:
        return strict_bound(
            self.store.pair_query_ids,
            self.anchor_groups,
            self.positive_groups,
            self.groups.passages,
            self.avoided,
            self.groups.num_groups,
            self.config.batch_size,
            self.k,
            rows,
        )

    def bind(
        self, rows_B: NDArray[np.int64], seed: int, packing: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Negatives of the rows of a batch (-1 pads), and how many of them are random."""
        pools = self.pools.ids_NS[rows_B]
        if self.config.rotate:
            pools = rotated(pools, packing * self.k)
        if self.config.policy == "merge":
            return bind_top(pools, self.k), np.zeros(len(rows_B), np.int64)
        negatives, num_random = bind_clean(
            pools,
            self.k,
            self.store.pair_query_ids[rows_B],
            self.anchor_groups[rows_B],
            self.positive_groups[rows_B],
            self.groups.passages,
            self.avoided,
            self.groups.num_groups,
            seed,
        )
        if (negatives < 0).any():
            raise ConfigError(
                f"the corpus has too few clean passages for strict batches of "
                f"{self.config.batch_size:,} rows with {self.k} negatives; give a smaller "
                "--batch-size or --k, or --policy merge"
            )
        return negatives, num_random

    def table(self, rows_PB: NDArray[np.int64], packing: int, seeds: Sequence[int]) -> pa.Table:
        """Some batches as ids; `with_texts` adds their texts.

        Args:
            rows_PB: int64 (P, B) rows of the batches.
            packing: Number of the packing.
            seeds: Of the random negatives, one a batch.
        """
        store = self.store
        rows = rows_PB.ravel()
        queries, passages = store.pair_query_ids[rows], store.pair_passage_ids[rows]
        bound = [self.bind(*one, packing=packing) for one in zip(rows_PB, seeds, strict=True)]
        negatives_NK, num_random = (np.concatenate(parts) for parts in zip(*bound, strict=True))
        real = negatives_NK >= 0
        ids = [
            pa.array(rows),
            pa.array(store.query_texts[queries]),
            pa.array(passages),
            list_column(Ragged(offsets_of(real.sum(1)), negatives_NK[real])),
            list_column(self._ignored(queries, passages, negatives_NK, rows_PB.shape[1])),
            pa.array(num_random),
        ]
        table = pa.table(ids, schema=id_schema())
        if store.sources is not None:
            names = pa.array(store.sources.names, pa.large_string())
            numbers = pa.array(store.sources.numbers["pair"][rows])
            table = table.append_column("source", names.take(numbers))
        if store.languages is not None:
            spoken = store.languages.named(store.languages.queries[queries])
            table = table.append_column(LANGUAGE, spoken)
            lists = _languages(store.languages, passages, negatives_NK)
            table = table.append_column(PASSAGE_LANGUAGES, lists)
        if self.teacher is not None:
            scores = self._scores(self.teacher, rows, negatives_NK)
            table = table.append_column(SCORES, scores)
        return table

    def with_texts(self, table: pa.Table) -> pa.Table:
        """Some rows of `table`, their texts before the rest, as the inline layout has them.

        Args:
            table: The rows, few of them.
        """
        store, rows = self.store, table.column("row_id").to_numpy()
        anchors = take_texts(store.queries.column("text"), store.pair_query_ids[rows])
        return with_text_columns(table, anchors, store.passages.column("text"), self.k)

    def _scores(
        self, teacher: Teacher, rows: NDArray[np.int64], negatives_NK: NDArray[np.int64]
    ) -> pa.Array:
        """Scores of rows with their positive and negatives (-1 for none)."""
        parts = []
        for start in range(0, len(rows), _ROWS_SCORED):
            block = slice(start, start + _ROWS_SCORED)
            positives = self.store.pair_passage_ids[rows[block], None]
            slots = np.concatenate([positives, negatives_NK[block]], axis=1)
            parts.append(teacher.scores(rows[block], slots)[slots >= 0])
        lengths = 1 + (negatives_NK >= 0).sum(1)
        return score_column(offsets_of(lengths), np.concatenate(parts))

    def _ignored(
        self,
        queries: NDArray[np.int64],
        positives: NDArray[np.int64],
        negatives_NK: NDArray[np.int64],
        batch_size: int,
    ) -> Ragged:
        """What each row ignores in its batch."""
        parts = [
            ignored_passages(
                queries[start : start + batch_size],
                positives[start : start + batch_size],
                negatives_NK[start : start + batch_size],
                self.groups.passages,
                self.avoided,
                self.groups.num_groups,
            )
            for start in range(0, len(queries), batch_size)
        ]
        lengths = np.concatenate([part.lengths() for part in parts])
        return Ragged(offsets_of(lengths), np.concatenate([part.values for part in parts]))


def _languages(
    languages: LanguageTable, passages: NDArray[np.int64], negatives_NK: NDArray[np.int64]
) -> pa.Array:
    """Of each row: the language of its positive, then of its negatives."""
    slots_NS = np.concatenate([passages[:, None], negatives_NK], axis=1)
    real = slots_NS >= 0
    offsets = pa.array(offsets_of(real.sum(1)), pa.int32())
    named = languages.named(languages.passages[slots_NS[real]])
    return pa.ListArray.from_arrays(offsets, named)
