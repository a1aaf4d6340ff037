"""How much of evaluation data is in the training pairs of a run: by text, by positive, by group."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stx_mine.stages.evaluate.core.shares import InTraining, Share
from stx_mine.stages.evaluate.sets import EvaluationSet
from stx_mine.store.artifact import Manifest
from stx_mine.store.columns import number_values
from stx_mine.store.digests import text_digests
from stx_mine.store.groups import TextGroups
from stx_mine.store.texts import TextStore

_ROWS = 65_536


def find_in_training(texts: Manifest, groups: Manifest, data: EvaluationSet) -> InTraining:
    """Look evaluation data up in the training pairs of a run.

    Args:
        texts: The `texts/` of the run; its pairs count as trained on, but for those that `dedup`
            dropped.
        groups: Its `groups/`.
        data: The evaluation data.
    """
    return in_training(TextStore.open(texts), TextGroups.open(groups), data)


def in_training(store: TextStore, groups: TextGroups, data: EvaluationSet) -> InTraining:
    """As `find_in_training` says, of what is open."""
    positives, rows = np.unique(data.positives[:, 1], return_inverse=True)
    wanted = pa.concat_arrays(
        [_whole(data.digests["query"]), _whole(data.digests["passage"]).take(pa.array(positives))]
    )
    numbers, digests = number_values(wanted)
    found = _Found.of(store, groups, digests)
    num_queries = len(data.query_ids)
    queries, passages = numbers[:num_queries], numbers[num_queries:]

    kept = groups.kept_pairs(store.num_pairs)
    pair_queries, pair_passages = store.pair_query_ids[kept], store.pair_passage_ids[kept]
    of_positives = np.isin(found.passages, pair_passages)
    of_positives[found.documents[np.isin(found.chunks, pair_passages)]] = True
    by_text = np.isin(found.queries, pair_queries)[queries]

    known_queries = np.unique(groups.queries[pair_queries])
    known_positives = np.unique(groups.passages[pair_passages])
    seen = np.isin(found.groups[queries], known_queries)
    known = np.isin(found.groups[passages], known_positives)
    seen[data.positives[known[rows], 0]] = True
    return InTraining(
        Share(int(by_text.sum()), num_queries),
        Share(int(of_positives[passages].sum()), len(positives)),
        seen,
    )


class _Found:
    """Where some texts stand in a run.

    Attributes:
        queries: int64 (T,) query_id of each text; -1 for none.
        passages: int64 (T,) passage_id of each text; -1 for none.
        documents: int64 (C,) the text of a document that the run has cut.
        chunks: int64 (C,) a chunk of it.
        groups: int64 (T,) the group of each text; -1 for a text that the run does not have. A
            document that was cut has the group of its chunks.
    """

    def __init__(self, num_texts: int) -> None:
        self.queries, self.passages, self.groups = np.full((3, num_texts), -1, np.int64)
        self.documents, self.chunks = np.empty((2, 0), np.int64)

    @classmethod
    def of(cls, store: TextStore, groups: TextGroups, digests: pa.Array) -> "_Found":
        """Find distinct texts by their digests."""
        found = cls(len(digests))
        for table, ids, of_ids in (
            (store.queries, found.queries, groups.queries),
            (store.passages, found.passages, groups.passages),
        ):
            start = 0
            for batch in table.select(["text"]).to_batches(max_chunksize=_ROWS):
                places = pc.index_in(text_digests(batch.column("text")), value_set=digests)
                here = np.flatnonzero(places.is_valid().to_numpy(zero_copy_only=False))
                ids[places.drop_null().to_numpy()] = start + here
                start += batch.num_rows
            found.groups = np.where(ids >= 0, np.append(of_ids, -1)[ids], found.groups)
        if store.documents is not None:
            found.documents, found.chunks = store.documents.chunks_named(digests, by_digest=True)
            # What a document shares with earlier ones is of their groups, whose names are smaller.
            np.maximum.at(found.groups, found.documents, groups.passages[found.chunks])
        return found


def _whole(digests: pa.Array | pa.ChunkedArray) -> pa.Array:
    return digests.combine_chunks() if isinstance(digests, pa.ChunkedArray) else digests
