"""Examples of what differs between two runs: the texts, and where each run has them."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.core.verdicts import candidate_ranks
from stx_mine.stages.diff.comparison import Example, Placement
from stx_mine.stages.diff.core.diff import REASONS
from stx_mine.stages.diff.sides import Matched
from stx_mine.store.mined_run import MinedRun
from stx_mine.store.texts import take_texts

LOST, GAINED = 0, 1
CHANGES = ("lost", "gained")
# Examples whose hits are in memory at one time.
_BLOCK = 4_096


def examples_of(matched: Matched, changes_C4: NDArray[np.int64]) -> list[Example]:
    """Changes with their texts, and where both runs have the passage.

    Args:
        matched: The two runs.
        changes_C4: int64 (C, 4): place among the matched pairs, `LOST` or `GAINED`, number of the
            passage, place in `REASONS`.

    Returns:
        An example per change, in the same order.
    """
    examples: list[Example] = []
    for first in range(0, len(changes_C4), _BLOCK):
        examples += _examples(matched, changes_C4[first : first + _BLOCK])
    return examples


def _examples(matched: Matched, changes_C4: NDArray[np.int64]) -> Iterator[Example]:
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
    changes = zip(
        kinds.tolist(),
        reasons.tolist(),
        queries.to_pylist(),
        positives,
        _placements(a, pairs_a, ids_a),
        _placements(b, pairs_b, ids_b),
        strict=True,
    )
    for kind, reason, query, positive, in_a, in_b in changes:
        negative = next(of_a if kind == LOST else of_b)
        yield Example(CHANGES[kind], REASONS[reason], query, positive, negative, in_a, in_b)


def _passage_texts(side: MinedRun, ids: NDArray[np.int64]) -> list[str]:
    if not len(ids):
        return []
    texts: pa.Array = take_texts(side.store.passages.column("text"), ids)
    return list(texts.to_pylist())


def _placements(
    side: MinedRun, pairs: NDArray[np.int64], ids: NDArray[np.int64]
) -> Iterator[Placement]:
    """Where a run has passages as negatives of pairs."""
    judged = side.units.take(side.units_of(pairs))
    for row, passage in enumerate(ids.tolist()):
        in_pool = np.flatnonzero(judged.pools.row(row) == passage)
        slot = int(in_pool[0]) if len(in_pool) else None
        first, last = judged.hits.offsets[row : row + 2]
        in_hits = np.flatnonzero(judged.hits.values[first:last] == passage)
        rank = score = verdict = None
        if len(in_hits):
            place = int(in_hits[0])
            candidate = int(candidate_ranks(judged.verdicts[first:last])[place])
            rank = None if candidate < 0 else candidate
            score = float(judged.hit_scores[first + place])
            verdict = REASONS[judged.verdicts[first + place]]
        yield Placement(slot, rank, score, verdict, float(judged.positive_scores[row]))
