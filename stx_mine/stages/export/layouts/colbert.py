"""Training data of ColBERT: rows of ids, and tables of texts.

Source: `colbert/data/examples.py`, `colbert/evaluation/loaders.py` and
`colbert/training/lazy_batcher.py` of stanford-futuredata/ColBERT: a line is `[qid, pid, pid, ...]`,
the positive first, a pid being `[pid, score]` where scores are distilled; the number of a passage
is that of its line in `collection.tsv`, and a batch holds `nway` passages per query.
"""

import json

import numpy as np
import pyarrow as pa

from stx_mine.stages.export.core.mined_rows import MinedRows
from stx_mine.stages.export.layouts.layout import Joined, Layout
from stx_mine.stages.export.layouts.ms_marco import text_files
from stx_mine.stages.export.text_ids import NamedTexts
from stx_mine.store.tables import tabbed_writer


def _lines(rows: MinedRows, texts: NamedTexts, k: int, scores: bool) -> pa.Table:
    """One line per row, a JSON list."""
    joined = Joined.of(np.arange(len(rows)), rows, rows)
    passages: list[object] = joined.passage_ids.tolist()
    if scores:
        passages = [list(one) for one in zip(passages, joined.scores.tolist(), strict=True)]
    bounds = joined.offsets.tolist()
    examples = [
        json.dumps([query, *passages[first:last]])
        for query, first, last in zip(rows.query_ids.tolist(), bounds, bounds[1:], strict=False)
    ]
    return pa.table({"example": pa.array(examples, pa.large_string())})


COLBERT = Layout(
    use="ColBERT: `Trainer(triples=DIR/triples.jsonl, queries=DIR/queries.tsv,\n"
    "collection=DIR/collection.tsv)`, with `nway` of `ColBERTConfig` at most the passages of a\n"
    "row (the positive and its negatives; a batch fails on a shorter row: `--short-rows drop`).",
    path="triples.jsonl",
    write=tabbed_writer(),
    lines=_lines,
    id_kind="number",
    beside=text_files,
    one_line=True,
    equal_for="ColBERT",
)
