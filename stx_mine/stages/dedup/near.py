"""Pairs of texts that share most of their shingles: `duplicates/jaccard/`."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, offsets_of
from stx_mine.stages.dedup.config import DedupConfig
from stx_mine.stages.dedup.core.shingles import shingles
from stx_mine.stages.dedup.forms import all_texts, buffers_of
from stx_mine.stages.dedup.near_texts import near_pairs
from stx_mine.store.artifact import Artifact, Manifest
from stx_mine.store.counts import Counts
from stx_mine.store.files import write_table
from stx_mine.store.texts import TextStore

NEAR_PAIRS = "pairs.arrow"


@dataclass(frozen=True, kw_only=True)
class SearchCounts(Counts):
    """Counts of a search for pairs.

    Attributes:
        pairs: Pairs above the floor; one of vectors may be found from both ends.
        crowded: Texts with more candidates than are compared.
    """

    pairs: int
    crowded: int


def pairs_table(
    left: NDArray[np.int64], right: NDArray[np.int64], scores: NDArray[np.float32]
) -> pa.Table:
    """A file of pairs: ids of texts, the smaller one first, and their score."""
    return pa.table({"left": left, "right": right, "score": pa.array(scores, pa.float32())})


def write_near(
    artifact: Artifact,
    store: TextStore,
    firsts: NDArray[np.int64],
    config: DedupConfig,
    floor: float,
) -> Manifest:
    """Search all pairs of texts of different form that share at least `floor` of their shingles."""
    artifact.begin([NEAR_PAIRS])
    ids, sets = _shingle_sets(store, firsts, config)
    found = near_pairs(sets, floor)
    table = pairs_table(ids[found.left], ids[found.right], found.scores)
    write_table(artifact.folder / NEAR_PAIRS, table)
    counts = SearchCounts(pairs=len(found.left), crowded=found.num_crowded)
    return artifact.finish([NEAR_PAIRS], counts=counts)


def _shingle_sets(
    store: TextStore, firsts: NDArray[np.int64], config: DedupConfig
) -> tuple[NDArray[np.int64], Ragged]:
    """Ids, rising, and shingles of the first text of each form."""
    parts = list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]()
    of_words = config.shingles == "words"
    for block, forms in all_texts(store, config.ignored):
        first = firsts[block] == block
        kept = forms.filter(pa.array(first))
        sets = shingles(*buffers_of(kept), of_words=of_words, size=config.run_length)
        parts.append((block[first], sets.lengths(), sets.values))
    ids, lengths, values = (np.concatenate(one) for one in zip(*parts, strict=True))
    return ids, Ragged(offsets_of(lengths), values)
