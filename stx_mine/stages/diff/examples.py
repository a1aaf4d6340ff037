"""Examples of what differs between two runs: the texts, and what each run says of them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.stages.diff.core.diff import REASONS, candidate_ranks
from stx_mine.stages.diff.sides import Matched, Side
from stx_mine.store.texts import take_texts

LOST, GAINED = 0, 1
CHANGES = ("lost", "gained")
# Examples whose hits are in memory at one time.
_BLOCK = 4_096


def examples_of(matched: Matched, changes_C4: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Changes with their texts, and slot, rank, score and verdict in both runs.

    Args:
        matched: The two runs.
        changes_C4: int64 (C, 4): place among the matched pairs, `LOST` or `GAINED`, number of the
            passage, place in `REASONS`.
    """
    examples: list[dict[str, Any]] = []
    for first in range(0, len(changes_C4), _BLOCK):
        examples += _examples(matched, changes_C4[first : first + _BLOCK])
    return examples


def _examples(matched: Matched, changes_C4: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
    a, b, passages = matched.a, matched.b, matched.passages
    places, kinds, numbers, reasons = changes_C4.T
    pairs_a, pairs_b = matched.pairs_a[places], matched.pairs_b[places]
    ids_a, ids_b = passages.ids_a[numbers], passages.ids_b[numbers]
    lost = kinds == LOST
    # The run that has the negative has its text.
    of_a = iter(_passage_texts(a, ids_a[lost]))
    of_b = iter(_passage_texts(b, ids_b[~lost]))
    queries = take_texts(a.store.queries.column("text"), a.store.pair_query_ids[pairs_a])
    positives = _passage_texts(a, a.store.pair_passage_ids[pairs_a])
    said = zip(
        kinds.tolist(),
        reasons.tolist(),
        queries.to_pylist(),
        positives,
        _said(a, pairs_a, ids_a),
        _said(b, pairs_b, ids_b),
        strict=True,
    )
    for kind, reason, query, positive, in_a, in_b in said:
        yield {
            "change": CHANGES[kind],
            "reason": REASONS[reason],
            "query": query,
            "positive": positive,
            "negative": next(of_a if kind == LOST else of_b),
            "a": in_a,
            "b": in_b,
        }


def _passage_texts(side: Side, ids: NDArray[np.int64]) -> list[str]:
    if not len(ids):
        return []
    texts: pa.Array = take_texts(side.store.passages.column("text"), ids)
    return list(texts.to_pylist())


def _said(side: Side, pairs: NDArray[np.int64], ids: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
    """What a run says of passages as negatives of pairs; None where a passage is no hit.

    `slot` is the place in the pool, `rank` that among the candidates, both from 0.
    """
    judged = side.units.take(side.units_of(pairs))
    for row, passage in enumerate(ids.tolist()):
        said: dict[str, Any] = dict.fromkeys(("slot", "rank", "score", "verdict"))
        said["positive_score"] = float(judged.positive_scores[row])
        in_pool = np.flatnonzero(judged.pools.row(row) == passage)
        if len(in_pool):
            said["slot"] = int(in_pool[0])
        first, last = judged.hits.offsets[row : row + 2]
        found = np.flatnonzero(judged.hits.values[first:last] == passage)
        if len(found):
            place = int(found[0])
            rank = int(candidate_ranks(judged.verdicts[first:last])[place])
            said["rank"] = None if rank < 0 else rank
            said["score"] = float(judged.hit_scores[first + place])
            said["verdict"] = REASONS[judged.verdicts[first + place]]
        yield said
