"""Pairs of texts that share most of their shingles: `duplicates/jaccard/`."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, offsets_of
from stx_mine.stages.dedup.config import DedupConfig, LikenessFields
from stx_mine.stages.dedup.core.shingles import shingles
from stx_mine.stages.dedup.forms import TextBlocks, buffers_of, comparable, stored_texts
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
    ids, sets = shingle_sets(stored_texts(store), firsts == np.arange(len(firsts)), config)
    found = near_pairs(sets, floor)
    table = pairs_table(ids[found.left], ids[found.right], found.scores)
    write_table(artifact.folder / NEAR_PAIRS, table)
    counts = SearchCounts(pairs=len(found.left), crowded=found.num_crowded)
    return artifact.finish([NEAR_PAIRS], counts=counts)


def shingle_sets(
    blocks: TextBlocks, wanted: NDArray[np.bool_], fields: LikenessFields
) -> tuple[NDArray[np.int64], Ragged]:
    """Ids, in the order of the blocks, and shingles of texts.

    Args:
        blocks: The texts.
        wanted: Bool (T,) by id, which of them.
        fields: What a shingle is, and what makes no difference.
    """
    parts = [(np.empty(0, np.int64),) * 3]
    of_words = fields.shingles == "words"
    for block, texts in blocks:
        kept = wanted[block]
        forms = comparable(texts.filter(pa.array(kept)), fields.ignored)
        sets = shingles(*buffers_of(forms), of_words=of_words, size=fields.run_length)
        parts.append((block[kept], sets.lengths(), sets.values))
    ids, lengths, values = (np.concatenate(one) for one in zip(*parts, strict=True))
    return ids, Ragged(offsets_of(lengths), values)
