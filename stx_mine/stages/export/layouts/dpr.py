"""Training data of DPR: JSON arrays of questions with their passages.

Source: `README.md` and `dpr/data/biencoder_data.py` of facebookresearch/DPR: `question`,
`answers`, and lists `positive_ctxs`, `negative_ctxs` and `hard_negative_ctxs` of `title` and
`text`; a title may be empty, a question without hard negatives takes from the other negatives.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.stages.export.core.mined_rows import MinedRows
from stx_mine.stages.export.layouts.layout import Layout, lists, query_offsets, structs
from stx_mine.stages.export.text_ids import NamedTexts
from stx_mine.store.tables import json_writer


def _lines(rows: MinedRows, texts: NamedTexts, k: int, scores: bool) -> pa.Table:
    """One line per query with the texts of all its passages."""

    def passages(ids: NDArray[np.int64]) -> pa.Array:
        untitled = pa.array([""] * len(ids))
        return structs(title=untitled, text=texts.passages(ids))

    queries = rows.take(rows.firsts())
    none = lists(np.zeros(len(queries) + 1, np.int64), pa.array([], pa.string()))
    negatives = passages(queries.negatives.values)
    return pa.table(
        {
            "question": texts.queries(queries.query_ids),
            "answers": none,
            "positive_ctxs": lists(query_offsets(rows), passages(rows.positive_ids)),
            "negative_ctxs": none,
            "hard_negative_ctxs": lists(queries.negatives.offsets, negatives),
        }
    )


DPR = Layout(
    use="DPR: `file: DIR/train-*.json` in `conf/datasets/encoder_train_default.yaml`.\n"
    "The negatives are `hard_negative_ctxs`; titles are empty, since the texts hold them.",
    path="train-*.json",
    write=json_writer("[", "]\n"),
    lines=_lines,
    fewest=0,
    per_query=True,
)
