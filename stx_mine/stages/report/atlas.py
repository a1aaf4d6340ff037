"""A table of texts with their vectors, for a map of them: what `embedding-atlas` opens."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stx_mine.core.role import PLURALS
from stx_mine.stages.show.mined_views import MinedViews
from stx_mine.store.artifact import require
from stx_mine.store.files import atomic
from stx_mine.store.texts import take_texts
from stx_mine.store.vectors import Vectors

ATLAS = "atlas.parquet"
# Texts of each role, at most: a map of more is slow to make and says no more.
MOST_TEXTS = 50_000


def write_atlas(folder: Path, views: MinedViews, seed: int) -> int:
    """Write a row a text, with its vector and what the run has made of it.

    Args:
        folder: Where it goes.
        views: The run.
        seed: Which texts are drawn where there are more than `MOST_TEXTS` of a role.

    Returns:
        Number of rows.
    """
    store, rng = views.mined.store, np.random.default_rng(seed)
    texts = {"query": store.queries, "passage": store.passages}
    pools = {"query": np.zeros(store.num_queries, np.int64), "passage": views.pool_uses}
    pairs = {"query": store.pair_query_ids, "passage": store.pair_passage_ids}
    groups = {"query": views.mined.groups.queries, "passage": views.mined.groups.passages}
    embeddings = require(views.run, "embeddings")
    sizes = np.bincount(np.concatenate([*groups.values()]))
    tables = []
    for role, plural in PLURALS.items():
        table = texts[role]
        wanted = np.arange(len(table))
        if len(wanted) > MOST_TEXTS:
            wanted = np.sort(rng.choice(wanted, MOST_TEXTS, replace=False))
        num_pairs = np.bincount(pairs[role], minlength=len(table))
        tables.append(
            pa.table(
                {
                    "text": take_texts(table.column("text"), wanted).dictionary_decode(),
                    "role": pa.repeat(role, len(wanted)),
                    "original_id": table.column("original_id").take(pa.array(wanted)),
                    "pairs": num_pairs[wanted],
                    "pools": pools[role][wanted],
                    "texts_of_group": sizes[groups[role][wanted]],
                    "vector": _lists(Vectors.open(embeddings, plural), wanted),
                }
            )
        )
    whole = pa.concat_tables(tables)
    with atomic(folder / ATLAS) as temporary:
        pq.write_table(whole, temporary, compression="zstd")
    return int(whole.num_rows)


def _lists(vectors: Vectors, wanted: NDArray[np.int64]) -> pa.Array:
    """Vectors as lists of float32."""
    taken = np.ascontiguousarray(vectors.take(wanted), np.float32)
    return pa.FixedSizeListArray.from_arrays(pa.array(taken.reshape(-1)), vectors.dim)
