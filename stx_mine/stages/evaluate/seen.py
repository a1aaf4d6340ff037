"""Which queries of held-out data the run has trained on."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.stages.ingest.pairs import Ingested
from stx_mine.store.digests import text_digests
from stx_mine.store.groups import TextGroups
from stx_mine.store.texts import TextStore

_ROWS = 65_536


def seen_queries(store: TextStore, groups: TextGroups, held_out: Ingested) -> NDArray[np.bool_]:
    """Queries that the training pairs of a run know, by their text or by a positive.

    Args:
        store: Texts and pairs of the run; all its pairs count as trained on.
        groups: Their groups.
        held_out: The held-out data.

    Returns:
        Bool (queries with a relevant passage,): whether a relevant passage of the query is of the
        group of a training positive, or the query is of the group of a training query.
    """
    known_queries = np.unique(groups.queries[store.pair_query_ids])
    known_positives = np.unique(groups.passages[store.pair_passage_ids])
    asked, rows = np.unique(held_out.pairs[:, 0], return_inverse=True)
    seen = np.isin(_groups(store, groups, held_out.queries.digests), known_queries)[asked]
    positives = np.isin(_groups(store, groups, held_out.passages.digests), known_positives)
    seen[rows[positives[held_out.pairs[:, 1]]]] = True
    return seen


def _groups(store: TextStore, known: TextGroups, digests: pa.Array) -> NDArray[np.int64]:
    """int64: the group in the run of each text; -1 for a text that the run does not have.

    A passage that the run has cut has the group of its chunks.
    """
    groups = np.full(len(digests), -1, np.int64)
    for table, of_ids in (
        (store.queries, known.queries),
        (store.passages, known.passages),
    ):
        start = 0
        for batch in table.select(["text"]).to_batches(max_chunksize=_ROWS):
            places = pc.index_in(text_digests(batch.column("text")), value_set=digests)
            here = np.flatnonzero(places.is_valid().to_numpy(zero_copy_only=False))
            groups[places.drop_null().to_numpy()] = of_ids[start + here]
            start += batch.num_rows
    if store.documents is not None:
        rows, chunks = store.documents.chunks_named(digests, by_digest=True)
        # What a document shares with earlier ones is of their groups, whose names are smaller.
        np.maximum.at(groups, rows, known.passages[chunks])
    return groups
