"""Counts of packings that were assigned."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stx_mine.stages.pack.builder import Packer
from stx_mine.stages.pack.core.assign import Assignment
from stx_mine.stages.pack.counts import PackCounts, PackedSource, ScoredRows
from stx_mine.stages.pack.shards import hash_seed
from stx_mine.stages.pack.teacher import band_of_pools
from stx_mine.store.artifact import Manifest
from stx_mine.store.batches import SCORES, ragged_scores


def count_packings(packer: Packer, packings: list[Assignment]) -> PackCounts:
    """Count the rows and batches of some packings; all have as many batches."""
    size, num_batches = packer.config.batch_size, len(packings[0].rows_PB)
    rows = len(packer.pools.rows)
    filled = (packer.pools.ids_NS[:, : packer.k] >= 0).sum(1)
    strict = packer.config.policy == "strict"
    first = packings[0].rows_PB.ravel()
    bound = packer.bound()
    return PackCounts(
        rows_in=rows,
        rows_packed=num_batches * size,
        rows_left_out=rows - num_batches * size,
        batches=num_batches,
        batches_composed=packer.composition.num_batches(packer.pools.rows),
        batches_bound=bound.batches,
        batches_bound_cause=bound.cause,
        packings=len(packings),
        steps=num_batches * len(packings),
        rows_ragged=0 if strict else int((filled[packer.pools.rows] < packer.k).sum()),
        k_of_every_row=packer.k if strict else int(filled[first].min(initial=packer.k)),
        distinct_passages_of_first_batch=_num_distinct(packer, packings[0].rows_PB[0]),
        composition=packer.composition.words,
        sources={
            name: asdict(one) for name, one in _source_counts(packer, packings[0].rows_PB).items()
        },
    )


def _source_counts(packer: Packer, rows_PB: NDArray[np.int64]) -> dict[str, PackedSource]:
    """Of each source: its rows, those in a packing, why others are not, and its batches."""
    sources = packer.store.sources
    if sources is None:
        return {}
    numbers, counts = sources.numbers["pair"], {}
    sizes = np.bincount(numbers[packer.pools.rows], minlength=len(sources.names))
    for source, (name, taken) in enumerate(zip(*packer.rows_taken(), strict=True)):
        in_batch_P = (numbers[rows_PB] == source).sum(1)
        packed = int(in_batch_P.sum())
        batches_P = in_batch_P[in_batch_P > 0]
        counts[name] = PackedSource(
            rows_in=int(sizes[source]),
            rows_packed=packed,
            rows_left_out={
                "down_weighted": int(sizes[source]) - taken,
                "no_full_batch": taken - packed,
            },
            batches=len(batches_P),
            rows_a_batch=[int(batches_P.min()), int(batches_P.max())] if packed else [0, 0],
        )
    return counts


def _num_distinct(packer: Packer, rows_B: NDArray[np.int64]) -> int:
    negatives, _ = packer.bind(rows_B, hash_seed(packer.config.seed, 0, 0), 0)
    positives = packer.store.pair_passage_ids[rows_B]
    return len(np.union1d(negatives[negatives >= 0], positives))


def count_scored(folder: Path, packer: Packer, negatives: Manifest) -> dict[str, Any]:
    """What a judge has scores of in the first packing, as it was written."""
    counts, different = np.zeros(5, np.int64), np.empty(0, np.float32)
    for path in sorted(folder.glob("epoch-000/*.parquet")):
        offsets, scores = ragged_scores(pq.read_table(path, columns=[SCORES]))
        has = ~np.isnan(scores)
        different = np.union1d(different, scores[has])
        positives = has[offsets[:-1]]
        of_rows = np.add.reduceat(has, offsets[:-1], dtype=np.int64) - positives
        scored = positives & (of_rows > 0)
        bound = len(scores) - len(scored)
        counts += len(scored), scored.sum(), (~positives).sum(), bound, of_rows[scored].sum()
    rows, rows_scored, no_positive, num_negatives, negatives_scored = counts.tolist()
    unscored = {"no_positive": no_positive, "no_negative": rows - rows_scored - no_positive}
    found = ScoredRows(
        rows_in=rows,
        rows_scored=rows_scored,
        rows_unscored=unscored,
        negatives_in=num_negatives,
        negatives_scored=negatives_scored,
        different_scores=len(different),
        band=band_of_pools(negatives, max(1, packer.k)),
    )
    return asdict(found)
