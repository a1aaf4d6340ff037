"""How many texts a step embeds: counted in packed batches, by a dry run, or bounded."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, offsets_of
from stx_mine.core.verdicts import Verdict
from stx_mine.stages.estimate.core.step_cost import Texts, texts_by_k
from stx_mine.stages.pack.builder import Packer
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.core.assign import assign_merge, draw_order
from stx_mine.stages.pack.hardness import BatchHardness, batch_hardness
from stx_mine.store.artifact import Manifest
from stx_mine.store.batches import BatchShard, ragged_column, slot_text_ids
from stx_mine.store.groups import TextGroups
from stx_mine.store.negatives import kept_known, pool_files, read_verdicts
from stx_mine.store.texts import TextStore

# Batches of a dry run that are counted, evenly spaced: they differ little.
_COUNTED = 16


@dataclass(frozen=True)
class StepTexts:
    """Texts per step for one batch size, by number of negatives.

    Attributes:
        num_batches: Of one packing.
        means: k -> mean over the batches counted.
        most: k -> of the batch with the most distinct texts.
        how: Where the counts are from: `batches` or `dry run`.
        num_counted: Batches counted.
        bounded: Whether nobody knows which negatives repeat, so that counts with some are the most
            that there can be.
    """

    num_batches: int
    means: dict[int, Texts]
    most: dict[int, Texts]
    how: str
    num_counted: int
    bounded: bool = False


def count_batches(packings: list[list[BatchShard]]) -> StepTexts:
    """Count every batch that was packed."""
    counts = []
    for shard in (one for packing in packings for one in packing):
        ids = shard.ids()
        for start in range(0, len(ids), shard.batch_size):
            table = ids.slice(start, shard.batch_size)
            slots = slot_text_ids(table, shard.num_negatives)
            anchors = table.column("anchor_id").to_numpy()
            counts.append([texts_by_k(anchors, slots[0], slots[1:].T)[-1]])
    per_packing = sum(shard.num_batches for shard in packings[0])
    return _collected(per_packing, [packings[0][0].num_negatives], counts, "batches")


@dataclass(frozen=True)
class TrialPacking:
    """Packs by policy merge without writing, as `pack` would.

    Attributes:
        store: Texts and pairs.
        groups: Their groups.
        packer: Assigns and knows the pools; None where nothing was mined.
        pools_NS: int32 (N, S) passage ids, best first, -1 pads: pools as deep as is asked for.
        embeddings: What was mined with; None where nothing was.
    """

    store: TextStore
    groups: TextGroups
    packer: Packer | None
    pools_NS: NDArray[np.int32]
    embeddings: Manifest | None = None

    @classmethod
    def open(
        cls,
        run_dir: str,
        store: TextStore,
        groups: TextGroups,
        negatives: Manifest | None,
        embeddings: Manifest | None,
        deepest: int,
    ) -> "TrialPacking":
        """Read pools of `deepest` negatives, from the hits where mine kept fewer."""
        if negatives is None or embeddings is None:
            return cls(store, groups, None, np.empty((store.num_pairs, 0), np.int32))
        config = PackConfig(run_dir=run_dir, k=0)
        packer = Packer.open(config, 0, store, groups, negatives, embeddings)
        pools_NS = packer.pools.ids_NS
        if deepest > pools_NS.shape[1]:
            pools_NS = deeper_pools(negatives, store.pair_query_ids, deepest)
        return cls(store, groups, packer, pools_NS, embeddings)

    @cached_property
    def num_rows(self) -> int:
        """Rows that one packing takes."""
        if self.packer is None:
            return self.store.num_pairs
        return int(self.packer.composition.rows_taken(self.packer.pools.rows).sum())

    def count(self, batch_size: int, ks: Sequence[int]) -> StepTexts | None:
        """Texts per step of one batch size; None where no batch can be filled.

        Args:
            batch_size: Rows per step.
            ks: Numbers of negatives per row, rising.
        """
        rows_PB = self._assign(batch_size)
        if not len(rows_PB):
            return None
        chosen = np.unique(
            np.linspace(0, len(rows_PB) - 1, min(_COUNTED, len(rows_PB))).astype(int)
        )
        counts = [self._count(rows_PB[number], ks) for number in chosen]
        texts = _collected(len(rows_PB), ks, counts, "dry run")
        return replace(texts, bounded=self.packer is None)

    def hardness(self, batch_size: int, k: int) -> BatchHardness | None:
        """How hard a batch is with k negatives a row; None where nothing was mined or asked for.

        Args:
            batch_size: Rows per step.
            k: Negatives per row.
        """
        if self.packer is None or self.embeddings is None or not k:
            return None
        config = replace(self.packer.config, batch_size=batch_size)
        pools = replace(self.packer.pools, ids_NS=self.pools_NS)
        return batch_hardness(
            replace(self.packer, config=config, k=k, pools=pools), self.embeddings
        )

    def _assign(self, batch_size: int) -> NDArray[np.int64]:
        store = self.store
        if self.packer is None:
            rng = np.random.default_rng(PackConfig.seed)
            order = draw_order(np.arange(store.num_pairs), np.empty(0, np.int64), rng)
            anchors = self.groups.queries[store.pair_query_ids]
            positives = self.groups.passages[store.pair_passage_ids]
            return assign_merge(anchors, positives, batch_size, order, rng).rows_PB
        config = replace(self.packer.config, batch_size=batch_size)
        composition = replace(self.packer.composition, config=config)
        return replace(self.packer, config=config, composition=composition).assign().rows_PB

    def _count(self, rows_B: NDArray[np.int64], ks: Sequence[int]) -> list[Texts]:
        store = self.store
        pools_BK = self.pools_NS[rows_B, : max(ks)]
        counts = texts_by_k(
            store.query_texts[store.pair_query_ids[rows_B]],
            store.pair_passage_ids[rows_B],
            pools_BK.astype(np.int64),
        )
        if self.packer is not None:
            return [counts[k] for k in ks]
        without, size = counts[0], len(rows_B)
        return [
            Texts(
                without.anchors,
                min(store.num_passages, without.passages + size * k),
                without.slots + size * k,
            )
            for k in ks
        ]


def deeper_pools(
    negatives: Manifest, pair_query_ids: NDArray[np.int64], slots: int
) -> NDArray[np.int32]:
    """Pools of more slots than mine kept: after the pool come the hits that found it full.

    Known negatives that mine puts first come before the others here too.

    With `--sampling top` these are the pools of `mine --pool SLOTS`.

    Args:
        negatives: Of a finished `negatives/`.
        pair_query_ids: int64 (N,).
        slots: S.

    Returns:
        int32 (N, S) passage ids; -1 pads.
    """
    units = np.arange(len(pair_query_ids)) if negatives.extra["per_pair"] else pair_query_ids
    ids_US = np.full((int(units.max(initial=-1)) + 1, slots), -1, np.int32)
    for name in pool_files(negatives):
        table = read_verdicts(negatives, name)
        pools, hits = ragged_column(table, "passage_ids"), ragged_column(table, "hit_ids")
        verdicts = table.column("verdicts").combine_chunks().flatten().to_numpy()
        beyond = verdicts == Verdict.BEYOND_POOL
        known = kept_known(negatives, table)
        rows = [np.repeat(np.arange(len(one)), one.lengths()) for one in (pools, hits)]
        parts = (beyond & known, beyond & ~known)
        joined = np.concatenate([rows[0], *(rows[1][part] for part in parts)])
        values = np.concatenate([pools.values, *(hits.values[part] for part in parts)])
        offsets = offsets_of(np.bincount(joined, minlength=len(pools)))
        deep = Ragged(offsets, values[np.argsort(joined, kind="stable")])
        first, _ = deep.take(np.arange(len(deep)), longest=slots)
        ids_US[table.column("unit_id").to_numpy()] = first.padded(slots)
    return ids_US[units]


def _collected(
    num_batches: int, ks: Sequence[int], counts: list[list[Texts]], how: str
) -> StepTexts:
    """Counts of some batches, each of every k, by k."""
    means, most = {}, {}
    for k, column in zip(ks, zip(*counts, strict=True), strict=True):
        values = np.array([(one.anchors, one.passages, one.slots) for one in column])
        means[k] = Texts(*values.mean(0).tolist())
        most[k] = max(column, key=lambda one: one.distinct)
    return StepTexts(num_batches, means, most, how, len(counts))
