"""Readers of `negatives/`: pools, the verdict of every hit, the pairs that are no rows."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, offsets_of, ragged_sets
from stx_mine.core.verdicts import ELIGIBLE
from stx_mine.errors import ConfigError
from stx_mine.store.artifact import MANIFEST, Manifest, read_manifest
from stx_mine.store.batches import ragged_column
from stx_mine.store.hits import HitBlock, HitLayers, HitSource, merge_sources, read_hits
from stx_mine.store.texts import TextStore, pair_ids

DROPPED_PAIRS = "dropped_pairs.npy"
# What judges say is a positive of its query: pairs that were made, and pairs no loss may compare.
MADE_PAIRS, MASKED_PAIRS = "made_pairs.arrow", "masked_pairs.arrow"
_NO_IDS = np.empty(0, np.int64)


def negatives_per_row(negatives: Manifest, k: int | None) -> int:
    """The k that a reader of `negatives/` binds: the one asked for, or the k of mine.

    Raises:
        ConfigError: The pools are smaller.
    """
    slots = int(negatives.extra["slots"])
    k = int(negatives.extra["k"]) if k is None else k
    if k > slots:
        raise ConfigError(
            f"--k {k} needs pools of {k} negatives, mine kept {slots}; run "
            f"`stx-mine mine --k {k}` first, or give a smaller --k"
        )
    return k


def pool_files(negatives: Manifest) -> list[str]:
    """Names of the files that hold pools, in the order of their queries."""
    return negatives.names("negatives-")


def with_judged(store: TextStore, negatives: Manifest) -> TextStore:
    """The texts of a run, with the pairs that judges made beside those of the input.

    Raises:
        DamagedError: A file of pairs is damaged, or names texts that are not there.
    """
    sizes = store.num_queries, store.num_passages
    found = [
        pair_ids(negatives, name, *sizes) if negatives.has(name) else (_NO_IDS, _NO_IDS)
        for name in (MADE_PAIRS, MASKED_PAIRS)
    ]
    return store.with_pairs(found[0], np.stack(found[1]))


def rows_of(negatives: Manifest, num_pairs: int) -> NDArray[np.int64]:
    """Numbers of the pairs that mine kept as rows to train on, rising."""
    dropped = negatives.array(DROPPED_PAIRS)
    negatives.refuse_beyond(DROPPED_PAIRS, dropped, num_pairs)
    return np.setdiff1d(np.arange(num_pairs), dropped, assume_unique=True)


def read_verdicts(negatives: Manifest, name: str) -> pa.Table:
    """One file of a finished `negatives/`, with the hits that its verdicts are about.

    Returns:
        A row per unit, in the order of the file: its columns, and `hit_ids`, `hit_scores` and
        `hit_sources` (`HitSource` bits), lists aligned with `verdicts`, best first.
    """
    table = negatives.table(name)
    searches, units = _searches(table)
    hits = _read_searches(negatives, name, searches).take(units)
    offsets = pa.array(hits.hits.offsets, pa.int64())
    for column, values, kind in (
        ("hit_ids", hits.hits.values, pa.int32()),
        ("hit_scores", hits.scores, pa.float32()),
        ("hit_sources", hits.sources, pa.uint8()),
    ):
        lists = pa.LargeListArray.from_arrays(offsets, pa.array(values, kind))
        table = table.append_column(column, lists)
    return table


def read_all_hits(
    negatives: Manifest, name: str, wanted: NDArray[np.int64], depth: int
) -> HitBlock:
    """The hits of all queries of one file of a finished `negatives/`, also of those without a unit.

    Args:
        negatives: The negatives.
        name: The file.
        wanted: int64 (num queries,) dense hits that a search at `depth` asked for of each query.
        depth: Where queries without a unit are read.
    """
    searches, _ = _searches(negatives.table(name))
    size = int(negatives.content["config"]["query_block"])
    first = pool_files(negatives).index(name) * size
    others = np.setdiff1d(np.arange(first, min(first + size, len(wanted))), searches.query_ids)
    query_ids = np.concatenate([searches.query_ids, others])
    order = np.argsort(query_ids)
    depths = np.concatenate([searches.depths, np.full(len(others), depth)])
    asked = np.concatenate([searches.wanted, wanted[others]])
    both = _Searches(query_ids[order], depths[order], asked[order])
    return _read_searches(negatives, name, both)


@dataclass(frozen=True)
class _Searches:
    """How deep some queries were read.

    Attributes:
        query_ids: int64 (Q,), rising.
        depths: int64 (Q,) of the dense hits.
        wanted: int64 (Q,) dense hits that were asked for.
    """

    query_ids: NDArray[np.int64]
    depths: NDArray[np.int64]
    wanted: NDArray[np.int64]


def _searches(table: pa.Table) -> tuple[_Searches, NDArray[np.int64]]:
    """The searches of a file of `negatives/`, and int64 (U,) which one each unit has."""
    query_ids, rows, units = np.unique(
        table.column("query_id").to_numpy(), return_index=True, return_inverse=True
    )
    depths, wanted = (
        table.column(column).to_numpy()[rows].astype(np.int64)
        for column in ("depth", "hits_wanted")
    )
    return _Searches(query_ids, depths, wanted), units.ravel()


def _read_searches(negatives: Manifest, name: str, searches: _Searches) -> HitBlock:
    """The hits of searches, of all sources that the negatives have."""
    number, query_ids, blocks = pool_files(negatives).index(name), searches.query_ids, []
    for source in HitSource:
        if f"hits/{source.folder}" not in negatives.content["inputs"]:
            continue
        folder = negatives.folder.parent / "hits" / source.folder
        manifest = _manifest_at(folder, (folder / MANIFEST).stat().st_mtime_ns)
        if source == HitSource.DENSE:
            layers = HitLayers(manifest)
            found = layers.read_at(number, query_ids, searches.depths, searches.wanted)
            blocks.append(found)
        else:
            blocks.append(read_hits(manifest, number, source).of(query_ids))
    return merge_sources(blocks or [HitBlock.without_hits(query_ids)])


@lru_cache(maxsize=8)
def _manifest_at(folder: Path, _changed_ns: int) -> Manifest:
    """A manifest, which many files are read by, as it was at a time."""
    return read_manifest(folder)


def kept_known(negatives: Manifest, table: pa.Table) -> NDArray[np.bool_]:
    """Which hits are negatives because the input says so, whatever their score.

    Args:
        negatives: Of a finished `negatives/`.
        table: What `read_verdicts` gives of a file of it.

    Returns:
        bool (H,), aligned with its hits.
    """
    sources, verdicts = (
        table.column(name).combine_chunks().flatten().to_numpy()
        for name in ("hit_sources", "verdicts")
    )
    kept: NDArray[np.bool_] = (sources & HitSource.KNOWN > 0) & np.isin(verdicts, ELIGIBLE)
    return kept if negatives.extra.get("known_first") else np.zeros_like(kept)


def near_positives(
    negatives: Manifest, margin: float, passage_groups: NDArray[np.int64], num_queries: int
) -> Ragged:
    """Groups of the hits that score above their query's lowest positive - margin.

    Known negatives that mine keeps whatever their score are none.

    Args:
        negatives: Of a finished `negatives/`.
        margin: In units of the score; below 0, only what scores that much above the positive.
        passage_groups: int64 (num passages,).
        num_queries: Number of queries.

    Returns:
        (num_queries,) groups, rising; known positives are among them.
    """
    queries, groups = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    num_groups = int(passage_groups.max(initial=-1)) + 1
    for name in pool_files(negatives):
        table = read_verdicts(negatives, name)
        hits = ragged_column(table, "hit_ids")
        negatives.refuse_beyond(name, hits.values, len(passage_groups))
        units = np.repeat(np.arange(len(hits)), hits.lengths())
        scores = table.column("hit_scores").combine_chunks().flatten().to_numpy()
        limits = table.column("positive_score").to_numpy() - np.float32(margin)
        hit_queries = table.column("query_id").to_numpy()[units]
        hit_groups = passage_groups[hits.values]
        keys = hit_queries * num_groups + hit_groups
        near = (scores > limits[units]) & ~np.isin(keys, keys[kept_known(negatives, table)])
        queries.append(hit_queries[near])
        groups.append(hit_groups[near])
    return ragged_sets(np.concatenate(queries), np.concatenate(groups), num_queries)


@dataclass(frozen=True)
class UnitVerdicts:
    """Pools and hits of U units.

    Attributes:
        positive_scores: float32 (U,) the positive score that margins count from.
        pools: (U,) passage ids, in the order of the pool.
        hits: (U,) passage ids of all hits, best first.
        hit_scores: float32 (H,), aligned with `hits.values`.
        hit_sources: uint8 (H,) `HitSource` bits, aligned with `hits.values`.
        verdicts: uint8 (H,), aligned with `hits.values`.
    """

    positive_scores: NDArray[np.float32]
    pools: Ragged
    hits: Ragged
    hit_scores: NDArray[np.float32]
    hit_sources: NDArray[np.uint8]
    verdicts: NDArray[np.uint8]


@dataclass(frozen=True)
class StoredVerdicts:
    """Reader of the units of a finished `negatives/`, in any order; files are mapped when read.

    Attributes:
        manifest: Of `negatives/`.
    """

    manifest: Manifest

    @cached_property
    def _files(self) -> list[str]:
        return pool_files(self.manifest)

    @cached_property
    def _places(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """All unit ids, rising, with the file and the row of each."""
        ids_of = []
        for name in self._files:
            table = self.manifest.table(name)
            # Copied, so that no file stays mapped.
            ids_of.append(table.column("unit_id").to_numpy().copy())
        sizes = [len(one) for one in ids_of]
        ids = np.concatenate([np.empty(0, np.int64), *ids_of])
        files = np.repeat(np.arange(len(sizes)), sizes)
        rows = np.arange(len(ids)) - offsets_of(sizes)[files]
        order = np.argsort(ids, kind="stable")
        return ids[order], files[order], rows[order]

    @property
    def unit_ids(self) -> NDArray[np.int64]:
        """int64 (units,): those that are there, rising."""
        return self._places[0]

    def pools(self, unit_ids: NDArray[np.int64]) -> Ragged:
        """The pools of units, as `take` gives them, without reading their hits."""
        return ragged_column(self._table(unit_ids, _read_pools), "passage_ids")

    def take(self, unit_ids: NDArray[np.int64]) -> UnitVerdicts:
        """The units of these ids, in their order, also repeated.

        Args:
            unit_ids: int64 (U,), at least one: query ids, or numbers of pairs where each has a
                pool of its own. All of them are there, as those of kept rows are.
        """
        table = self._table(unit_ids, read_verdicts)
        return UnitVerdicts(
            table.column("positive_score").to_numpy(),
            ragged_column(table, "passage_ids"),
            ragged_column(table, "hit_ids"),
            table.column("hit_scores").combine_chunks().flatten().to_numpy(),
            table.column("hit_sources").combine_chunks().flatten().to_numpy(),
            table.column("verdicts").combine_chunks().flatten().to_numpy(),
        )

    def _table(
        self, unit_ids: NDArray[np.int64], read: Callable[[Manifest, str], pa.Table]
    ) -> pa.Table:
        known, files, rows = self._places
        distinct, back = np.unique(unit_ids, return_inverse=True)
        places = np.searchsorted(known, distinct)
        assert (known[places] == distinct).all(), "a kept row has a unit"
        files, rows = files[places], rows[places]
        parts = []
        for file in np.unique(files):
            table = read(self.manifest, self._files[file])
            parts.append(table.take(pa.array(rows[files == file])))
        # The parts are in the order of their files.
        place_of = np.argsort(np.argsort(files, kind="stable"))
        return pa.concat_tables(parts).take(pa.array(place_of[back]))


def _read_pools(negatives: Manifest, name: str) -> pa.Table:
    return negatives.table(name).select(["passage_ids"])
