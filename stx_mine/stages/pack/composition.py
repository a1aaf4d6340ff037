"""Composition: which rows may meet in a batch, and in what order the batches come."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.verdicts import NO_CANDIDATES
from stx_mine.errors import ConfigError
from stx_mine.stages.pack.clusters import topic_positions
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.core.assign import Assignment
from stx_mine.stages.pack.core.strata import (
    AssignStratum,
    assign_beside,
    blended,
    cut_strata,
    interleaved,
    places,
    rows_to_take,
    take_rows,
)
from stx_mine.store.artifact import Manifest
from stx_mine.store.batches import ragged_column
from stx_mine.store.negatives import pool_files, read_verdicts
from stx_mine.store.sources import SourceTable, prompts_differ
from stx_mine.store.texts import TextStore
from stx_mine.store.vectors import Vectors

# Batches that a row may end in: one would let no repeated text be spread.
_BATCHES_A_STRATUM = 4


@dataclass(frozen=True)
class Composition:
    """Cuts the rows of a packing into strata; one stratum of all rows where nothing was asked for.

    Attributes:
        config: The config.
        keys: float64 by row: difficulty, or position of the topic; empty where not needed.
        sources: Where rows come from; None where there is one unnamed source.
        one_source: Whether the rows of a batch are all of one source.
    """

    config: PackConfig
    keys: NDArray[np.float64]
    sources: SourceTable | None = None
    one_source: bool = False

    @classmethod
    def open(
        cls, config: PackConfig, store: TextStore, negatives: Manifest, embeddings: Manifest
    ) -> "Composition":
        """Read or make what rows are sorted by.

        Raises:
            ConfigError: An option about sources does not fit those there are.
        """
        one_source = _one_source(config, store.sources)
        keys = np.empty(0)
        if config.cluster is not None:
            topics = topic_positions(Vectors.open(embeddings, "queries"), config.seed)
            keys = topics[store.pair_query_ids]
        elif config.order != "random":
            keys = row_difficulties(negatives, store.pair_query_ids)
            keys = keys if config.order == "easy-to-hard" else -keys
        return cls(config, keys, store.sources, one_source)

    def rows_taken(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 (S,): rows of each source that one packing takes; all where there is one.

        Args:
            rows: int64, the rows there are.
        """
        if self.sources is None:
            return np.array([len(rows)])
        weights = self.sources.weights
        sizes = np.bincount(self.sources.numbers["pair"][rows], minlength=len(weights))
        return rows_to_take(sizes, weights, self.config.source_temperature)

    @property
    def words(self) -> str:
        """What a batch holds, in words; empty where there is one unnamed source."""
        if self.sources is None:
            return ""
        if self.one_source:
            return "a batch holds rows of one source"
        if self.config.cluster is not None:
            return "a packing holds rows of every source in proportion, a batch by topic"
        return "a batch holds rows of every source, in proportion"

    @property
    def cause(self) -> str:
        """What bounds the number of batches, in words."""
        if self.sources is None:
            return "the number of rows"
        return "the rows of each source" if self.one_source else "rows and weights of the sources"

    def num_batches(self, rows: NDArray[np.int64]) -> int:
        """The most batches of one packing, if no texts were in the way."""
        taken, size = self.rows_taken(rows), self.config.batch_size
        return int((taken // size).sum() if self.one_source else taken.sum() // size)

    def rows_that_may_meet(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """The rows of each source where a batch has one; else all."""
        if self.sources is None or not self.one_source:
            return [rows]
        numbers = self.sources.numbers["pair"][rows]
        return [rows[numbers == source] for source in range(len(self.sources.sources))]

    def assign(
        self,
        order: NDArray[np.int64],
        earlier: Sequence[Assignment],
        rng: np.random.Generator,
        assign: AssignStratum,
    ) -> Assignment:
        """Assign each stratum, then what their batches could not hold.

        Args:
            order: int64 (N,) rows by priority.
            earlier: The packings before; of a source that is not taken whole, the rows that they
                hold least often are.
            rng: Mixes topics with chance, and shuffles batches.
            assign: (rows, batch size) -> the batches of one stratum.
        """
        keys = self.keys
        if self.config.cluster is not None:
            keys = blended(keys, self.config.cluster, rng)
        parts = self._parts(order, earlier)
        done = [self._assign_part(rows, keys, rng, assign) for rows in parts]
        rows_PB = np.concatenate(done)
        if self.config.cluster is not None or (self.one_source and self.config.order == "random"):
            # Topics or sources in their order would teach one after the other.
            rows_PB = rng.permutation(rows_PB, axis=0)
        elif self.one_source:
            rows_PB = rows_PB[np.argsort(places([one[:, 0] for one in done]), kind="stable")]
        return Assignment(rows_PB, np.setdiff1d(order, rows_PB))

    def _parts(
        self, order: NDArray[np.int64], earlier: Sequence[Assignment]
    ) -> list[NDArray[np.int64]]:
        """Rows that may meet: all that are taken, or those of each source."""
        if self.sources is None:
            return [order]
        uses = np.zeros(len(self.sources.numbers["pair"]), np.int64)
        for packing in earlier:
            uses[packing.rows_PB] += 1
        taken = take_rows(order, self.sources.numbers["pair"], self.rows_taken(order), uses)
        return taken if self.one_source else [interleaved(taken)]

    def _assign_part(
        self,
        order: NDArray[np.int64],
        keys: NDArray[np.float64],
        rng: np.random.Generator,
        assign: AssignStratum,
    ) -> NDArray[np.int64]:
        """int64 (P, B): the batches of rows that may meet, strata in their order."""
        size = self.config.batch_size
        mixes = self.sources is not None and not self.one_source and self.config.cluster is None
        if mixes and len(keys):
            keys = self._keys_in_source(order, keys)

        def assign_stratum(rows: NDArray[np.int64]) -> Assignment:
            if mixes and self.config.policy == "merge":
                assert self.sources is not None
                return assign_beside(rows, self.sources.numbers["pair"], size, assign, rng)
            return assign(rows, size)

        if not len(keys):
            return assign_stratum(order).rows_PB
        fits = len(order) // size * size
        strata = cut_strata(order[:fits], keys, _BATCHES_A_STRATUM * size)
        parts = [assign_stratum(rows) for rows in strata if len(rows)]
        rest = np.concatenate([*(part.left_out for part in parts), order[fits:]])
        return np.concatenate([*(part.rows_PB for part in parts), assign_stratum(rest).rows_PB])

    def _keys_in_source(
        self, order: NDArray[np.int64], keys: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """By row number: where a row stands among those of its source, so that sources mix."""
        assert self.sources is not None
        numbers = self.sources.numbers["pair"][order]
        parts = [order[numbers == source] for source in range(len(self.sources.sources))]
        parts = [rows[np.argsort(keys[rows], kind="stable")] for rows in parts]
        found = np.zeros(len(keys))
        found[np.concatenate(parts)] = places(parts)
        return found


def _one_source(config: PackConfig, sources: SourceTable | None) -> bool:
    """Whether a batch holds rows of one source.

    Raises:
        ConfigError: An option about sources does not fit those there are.
    """
    if sources is None:
        for name, default in (("sources_per_batch", "auto"), ("source_temperature", 1.0)):
            if getattr(config, name) != default:
                raise ConfigError(
                    f"--{name.replace('_', '-')} composes batches of several sources, this run "
                    "was made from PAIRS; leave it out, or run `stx-mine embed --sources FILE`"
                )
        return False
    differ = prompts_differ(sources.sources)
    if config.sources_per_batch == "mixed" and differ:
        raise ConfigError(
            "--sources-per-batch mixed needs sources of equal prompts, found different ones for "
            f"{', '.join(sources.names)}: the prompt of a passage would give its source away; "
            "leave it out, or give the sources one prompt"
        )
    return differ or config.sources_per_batch == "one"


def row_difficulties(negatives: Manifest, pair_query_ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """How far the best candidate of each pair scores above its positive (below: less than 0).

    Returns:
        float64 (N pairs,); minus infinity where there is no candidate.
    """
    units = np.arange(len(pair_query_ids)) if negatives.extra["per_pair"] else pair_query_ids
    found = np.full(int(units.max(initial=-1)) + 1, -np.inf)
    for name in pool_files(negatives):
        table = read_verdicts(negatives, name)
        verdicts = ragged_column(table, "verdicts")
        scores = table.column("hit_scores").combine_chunks().flatten().to_numpy()
        candidate = ~np.isin(verdicts.values, NO_CANDIDATES)
        rows = np.repeat(np.arange(len(verdicts)), verdicts.lengths())[candidate]
        best = np.full(len(verdicts), -np.inf)
        np.maximum.at(best, rows, scores[candidate])
        found[table.column("unit_id").to_numpy()] = best - table.column("positive_score").to_numpy()
    return found[units]
