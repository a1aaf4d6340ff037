"""Composition: which rows may meet in a batch, and in what order the batches come."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stx_mine.artifacts.artifact import Manifest
from stx_mine.artifacts.batches import ragged_column
from stx_mine.artifacts.files import read_table
from stx_mine.artifacts.pools import pool_files
from stx_mine.artifacts.texts import TextStore
from stx_mine.artifacts.vectors import Vectors
from stx_mine.config import PackConfig
from stx_mine.core.assign import Assignment
from stx_mine.core.select import Verdict
from stx_mine.core.strata import blended, cut_strata
from stx_mine.search.clusters import topic_positions

# Batches that a row may end in: one would let no repeated text be spread.
_BATCHES_A_STRATUM = 4
_NO_CANDIDATES = (Verdict.OWN_TEXT, Verdict.KNOWN_POSITIVE, Verdict.DUPLICATE_GROUP)


@dataclass(frozen=True)
class Composition:
    """Cuts the rows of a packing into strata; one stratum of all rows where nothing was asked for.

    Attributes:
        config: The config.
        keys: float64 by row: difficulty, or position of the topic; empty where not needed.
    """

    config: PackConfig
    keys: NDArray[np.float64]

    @classmethod
    def open(
        cls, config: PackConfig, store: TextStore, negatives: Manifest, embeddings: Manifest
    ) -> "Composition":
        """Read or make what rows are sorted by."""
        if config.cluster is not None:
            topics = topic_positions(Vectors.open(embeddings, "queries"), config.seed)
            return cls(config, topics[store.pair_query_ids])
        if config.order == "random":
            return cls(config, np.empty(0))
        difficulties = row_difficulties(negatives, store.pair_query_ids)
        return cls(config, difficulties if config.order == "easy-to-hard" else -difficulties)

    def assign(
        self,
        order: NDArray[np.int64],
        rng: np.random.Generator,
        assign: Callable[[NDArray[np.int64]], Assignment],
    ) -> Assignment:
        """Assign each stratum, then what their batches could not hold.

        Args:
            order: int64 (N,) rows by priority.
            rng: Mixes topics with chance, and shuffles batches of topics.
            assign: Assigns rows of one stratum.
        """
        if not len(self.keys):
            return assign(order)
        size = self.config.batch_size
        fits = len(order) // size * size
        keys = self.keys
        if self.config.cluster is not None:
            keys = blended(keys, self.config.cluster, rng)
        strata = cut_strata(order[:fits], keys, _BATCHES_A_STRATUM * size)
        parts = [assign(rows) for rows in strata if len(rows)]
        rest = np.concatenate([*(part.left_out for part in parts), order[fits:]])
        last = assign(rest)
        rows_PB = np.concatenate([*(part.rows_PB for part in parts), last.rows_PB])
        if self.config.cluster is not None:
            # Topics in their order would teach one after the other.
            rows_PB = rng.permutation(rows_PB, axis=0)
        return Assignment(rows_PB, last.left_out)


def row_difficulties(negatives: Manifest, pair_query_ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """How far the best candidate of each pair scores above its positive (below: less than 0).

    Returns:
        float64 (N pairs,); minus infinity where there is no candidate.
    """
    units = np.arange(len(pair_query_ids)) if negatives.extra["per_pair"] else pair_query_ids
    found = np.full(int(units.max(initial=-1)) + 1, -np.inf)
    for name in pool_files(negatives):
        table = read_table(negatives.folder / name)
        verdicts = ragged_column(table, "verdicts")
        scores = table.column("hit_scores").combine_chunks().flatten().to_numpy()
        candidate = ~np.isin(verdicts.values, _NO_CANDIDATES)
        rows = np.repeat(np.arange(len(verdicts)), verdicts.lengths())[candidate]
        best = np.full(len(verdicts), -np.inf)
        np.maximum.at(best, rows, scores[candidate])
        found[table.column("unit_id").to_numpy()] = best - table.column("positive_score").to_numpy()
    return found[units]
