"""Judgements: how relevant a passage is for a query, as some judge says; known by the texts.

A judgement is kept under the digests of its two texts, so that it holds whatever else a run has.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from stx_mine.store.artifact import Manifest
from stx_mine.store.columns import find_rows
from stx_mine.store.digests import text_digests
from stx_mine.store.files import write_table
from stx_mine.store.texts import TextStore, take_texts

JUDGEMENTS = "judgements.arrow"
_PAIR = pa.binary(32)
SCHEMA = pa.schema([("pair", _PAIR), ("score", pa.float32()), ("is_random", pa.bool_())])
_ROWS = 65_536


def pair_digests(
    store: TextStore, query_ids: NDArray[np.int64], passage_ids: NDArray[np.int64]
) -> pa.Array:
    """Binary (N,) of 32 bytes: the digests of the query and of the passage of each pair."""
    halves = [
        _digests(table, ids)
        for table, ids in ((store.queries, query_ids), (store.passages, passage_ids))
    ]
    both = np.concatenate(halves, axis=1)
    return pa.Array.from_buffers(_PAIR, len(both), [None, pa.py_buffer(both.tobytes())])


def _digests(table: pa.Table, ids: NDArray[np.int64]) -> NDArray[np.uint8]:
    """uint8 (N, 16): digests of texts by id; each distinct text is read once."""
    distinct, numbers = np.unique(ids, return_inverse=True)
    raw = np.empty((len(distinct), 16), np.uint8)
    for first in range(0, len(distinct), _ROWS):
        some = distinct[first : first + _ROWS]
        texts = take_texts(table.column("text"), some)
        digests = pc.fill_null(text_digests(texts.dictionary.take(texts.indices)), bytes(16))
        values = np.frombuffer(digests.buffers()[1], np.uint8, 16 * len(some), 16 * digests.offset)
        raw[first : first + len(some)] = values.reshape(-1, 16)
    return raw[numbers]


def sorted_judgements(table: pa.Table) -> pa.Table:
    """Judgements by rising digests; of a pair that stands twice the first one counts."""
    order = pc.sort_indices(table, [("pair", "ascending")])
    pairs = table["pair"].take(order).combine_chunks()
    kept = np.ones(len(pairs), bool)
    raw = np.frombuffer(pairs.buffers()[1], "V32", len(pairs), 32 * pairs.offset)
    kept[1:] = raw[1:] != raw[:-1]
    return table.take(order).filter(pa.array(kept)).combine_chunks()


def digest_of_pairs(pairs: pa.Array) -> str:
    """The xxh3-128 digest of a list of pairs, in hex."""
    whole = pa.concat_arrays([pairs])
    return xxhash.xxh3_128_hexdigest(whole.buffers()[1] or b"")


def write_judgements(folder: Path, table: pa.Table) -> None:
    """Write all judgements of an artifact."""
    write_table(folder / JUDGEMENTS, table)


@dataclass(frozen=True)
class StoredJudgements:
    """The judgements of one judge about the texts of a run.

    Attributes:
        keys: int64 (J,) query_id times the number of passages, plus passage_id; rising.
        scores: float32 (J,) in [0, 1].
        random_keys: int64 (R,) keys of passages that were drawn at random; rising.
        random_scores: float32 (R,) of these.
        num_passages: Passages of the run.
    """

    keys: NDArray[np.int64]
    scores: NDArray[np.float32]
    random_keys: NDArray[np.int64]
    random_scores: NDArray[np.float32]
    num_passages: int

    @classmethod
    def open(cls, manifest: Manifest, store: TextStore) -> "StoredJudgements":
        """Read finished judgements; those about other texts are left out.

        Raises:
            ArtifactError: The file is damaged.
        """
        table = manifest.table(JUDGEMENTS)
        scores, is_random = (table.column(name).to_numpy() for name in ("score", "is_random"))
        pairs = table.column("pair").combine_chunks()
        raw = np.frombuffer(pairs.buffers()[1], np.uint8, 32 * len(pairs), 32 * pairs.offset)
        halves = raw.reshape(-1, 2, 16)
        ids = [
            find_rows(_binary(halves[:, half]), _all_digests(texts))
            for half, texts in enumerate((store.queries, store.passages))
        ]
        known = (ids[0] >= 0) & (ids[1] >= 0)
        keys, is_random = (ids[0] * store.num_passages + ids[1])[known], is_random[known]
        order = np.argsort(keys)
        keys, scores, is_random = keys[order], scores[known][order], is_random[order]
        return cls(
            keys[~is_random],
            scores[~is_random],
            keys[is_random],
            scores[is_random],
            store.num_passages,
        )

    @cached_property
    def floor(self) -> float:
        """What half of the random passages score below; minus infinity where there is none."""
        return float(np.median(self.random_scores)) if len(self.random_scores) else -np.inf

    def find(
        self, query_ids: NDArray[np.int64], passage_ids: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """float32 (N,): the score of each pair; NaN where it is not judged."""
        wanted = query_ids * self.num_passages + passage_ids
        return _scores_of(wanted, self.keys, self.scores)

    def find_random(
        self, query_ids: NDArray[np.int64], passage_ids: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """float32 (N,): the score of each pair that was drawn at random; NaN for others."""
        wanted = query_ids * self.num_passages + passage_ids
        return _scores_of(wanted, self.random_keys, self.random_scores)


def _scores_of(
    wanted: NDArray[np.int64], keys: NDArray[np.int64], scores: NDArray[np.float32]
) -> NDArray[np.float32]:
    places = np.searchsorted(keys, wanted)
    found = np.full(len(wanted), np.nan, np.float32)
    inside = places < len(keys)
    inside[inside] = keys[places[inside]] == wanted[inside]
    found[inside] = scores[places[inside]]
    return found


def _binary(digests: NDArray[np.uint8]) -> pa.Array:
    raw = np.ascontiguousarray(digests)
    return pa.Array.from_buffers(pa.binary(16), len(raw), [None, pa.py_buffer(raw.tobytes())])


def _all_digests(table: pa.Table) -> pa.Array:
    """Binary (texts,): the digest of every text of a role."""
    batches: list[Any] = table.select(["text"]).to_batches(max_chunksize=_ROWS)
    return pa.concat_arrays(
        [pa.array([], pa.binary(16)), *(text_digests(one.column("text")) for one in batches)]
    )
