"""Diagnoses of a finished run: its log, and how title-like the texts of its pairs are."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.core.titles import TitleShares, title_shares
from stx_mine.stages.evaluate.sets import EvaluationSet
from stx_mine.stages.train.core.diagnoses import Log, diagnose
from stx_mine.store.artifact import require
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore, take_texts

_PAIRS_AT_ONCE, _MOST_PAIRS = 4_096, 5_000


def diagnose_run(run: RunDir, log: Log, labels: bool, sets: Sequence[EvaluationSet]) -> list[str]:
    """What the log and the texts of a finished run say, as warnings.

    Args:
        run: The run.
        log: The lines of the training log.
        labels: Whether the batches are of (text, label) rows, which are no queries and passages.
        sets: The evaluation sets.
    """
    training = None
    if not labels:
        store = TextStore.open(require(run, "texts"))
        texts = store.queries.column("text"), store.passages.column("text")
        pairs = np.stack([store.pair_query_ids, store.pair_passage_ids], axis=1)
        training = measure_titles(*texts, pairs)
    return diagnose(
        log,
        training=training,
        evaluations={
            one.name: measure_titles(one.texts["query"], one.texts["passage"], one.positives)
            for one in sets
        },
    )


def measure_titles(
    queries: pa.ChunkedArray,
    passages: pa.ChunkedArray,
    pairs_N2: NDArray[np.integer[Any]],
    max_pairs: int = _MOST_PAIRS,
    seed: int = 42,
) -> TitleShares:
    """How title-like some pairs are.

    Args:
        queries: Texts by query_id.
        passages: Texts by passage_id.
        pairs_N2: (N, 2) query_id, passage_id.
        max_pairs: Of more pairs a random sample is read.
        seed: Seed of the sample.
    """
    if len(pairs_N2) > max_pairs:
        chosen = np.random.default_rng(seed).choice(len(pairs_N2), max_pairs, replace=False)
        pairs_N2 = pairs_N2[np.sort(chosen)]

    def texts() -> Iterator[tuple[str, str]]:
        for start in range(0, len(pairs_N2), _PAIRS_AT_ONCE):
            some = pairs_N2[start : start + _PAIRS_AT_ONCE].astype(np.int64)
            anchors, positives = take_texts(queries, some[:, 0]), take_texts(passages, some[:, 1])
            yield from zip(anchors.to_pylist(), positives.to_pylist(), strict=True)

    return title_shares(texts())
