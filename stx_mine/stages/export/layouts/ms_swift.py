"""Training data of ms-swift for embedding models: messages of the anchor, positive and negatives.

Source: `docs/source_en/BestPractices/Embedding.md` of modelscope/ms-swift (4.6): `messages` is the
anchor; `positive_messages` and `negative_messages` are lists of messages, exactly one positive; the
loss `infonce` takes lines without negatives too.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.stages.export.core.mined_rows import MinedRows
from stx_mine.stages.export.layouts.layout import Layout, lists, structs
from stx_mine.stages.export.text_ids import NamedTexts
from stx_mine.store.tables import write_json_lines


def _lines(rows: MinedRows, texts: NamedTexts, k: int, scores: bool) -> pa.Table:
    """One line per row."""
    ones = np.arange(len(rows) + 1)
    negatives = _messages(texts.passages(rows.negatives.values))
    positives = _messages(texts.passages(rows.positive_ids))
    return pa.table(
        {
            "messages": _messages(texts.queries(rows.query_ids)),
            "positive_messages": lists(ones, positives),
            "negative_messages": lists(rows.negatives.offsets, negatives),
        }
    )


def _messages(texts: pa.DictionaryArray) -> pa.Array:
    """Each text as a list of one message."""
    roles: NDArray[np.int32] = np.zeros(len(texts), np.int32)
    role = pa.DictionaryArray.from_arrays(pa.array(roles), pa.array(["user"]))
    return lists(np.arange(len(texts) + 1), structs(role=role, content=texts))


MS_SWIFT = Layout(
    use="ms-swift: `swift sft --task_type embedding --loss_type infonce --dataset FILES`, with\n"
    "the files of `DIR/data`.",
    path="data/train-*.jsonl",
    write=write_json_lines,
    lines=_lines,
    fewest=0,
)
