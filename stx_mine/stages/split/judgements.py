"""Judgements: the rows of qrels that were read, under the ids that are written."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.inputs.pairs import PairSource
from stx_mine.stages.ingest.pairs import Ingested
from stx_mine.stages.split.output_ids import OutputIds
from stx_mine.store.columns import find_rows


@dataclass(frozen=True)
class JudgementBlock:
    """Some judgements.

    Attributes:
        queries: int64 (R,) number of each query; -1 where it has no pair, or no text.
        passages: int64 (R,) number of each passage; -1 where it has no text.
        grades: float64 (R,); at most 0 for known negatives.
        positive: bool (R,) whether the passage is a positive, as the options say.
        query_ids: (R,) strings as they are written.
        passage_ids: (R,) strings as they are written.
    """

    queries: NDArray[np.int64]
    passages: NDArray[np.int64]
    grades: NDArray[np.float64]
    positive: NDArray[np.bool_]
    query_ids: pa.Array
    passage_ids: pa.Array


def judgements_of(
    source: PairSource, found: Ingested, queries: OutputIds, passages: OutputIds
) -> Iterator[JudgementBlock]:
    """Stream the judgements of qrels, or those that pairs and negatives stand for."""
    if not source.has_judgements:
        for rows, grade in ((found.pairs, 1.0), (found.negatives, 0.0)):
            yield JudgementBlock(
                rows[:, 0],
                rows[:, 1],
                np.full(len(rows), grade),
                np.full(len(rows), grade > 0),
                queries.of_texts.take(pa.array(rows[:, 0])),
                passages.of_texts.take(pa.array(rows[:, 1])),
            )
        return
    least = source.min_grade
    for query_ids, passage_ids, grades in source.judgements():
        yield JudgementBlock(
            _texts_of(query_ids, queries),
            _texts_of(passage_ids, passages),
            grades,
            grades > 0 if least is None else grades >= least,
            query_ids,
            passage_ids,
        )


def _texts_of(ids: pa.Array, known: OutputIds) -> NDArray[np.int64]:
    """int64: the text of each id; -1 for an unknown one."""
    rows = find_rows(ids, known.of_rows)
    return np.where(rows >= 0, known.texts[rows], -1)
