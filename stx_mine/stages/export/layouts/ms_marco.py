"""Id triples as MS MARCO has them: `qid`, `pid` of a positive, `pid` of a negative, and the texts.

Source: the files `qidpidtriples.train.full.tsv`, `collection.tsv` and `queries.train.tsv` of the
passage ranking of MS MARCO, as read by `dpr/data/biencoder_data.py` of facebookresearch/DPR and
others: tab-separated, without a header line and without quotes.
"""

import numpy as np
import pyarrow as pa

from stx_mine.stages.export.core.mined_rows import MinedRows
from stx_mine.stages.export.layouts.layout import Layout, SideFile, text_lines
from stx_mine.stages.export.row_source import RowSource
from stx_mine.stages.export.text_ids import NamedTexts
from stx_mine.store.tables import tabbed_writer


def _lines(rows: MinedRows, texts: NamedTexts, k: int, scores: bool) -> pa.Table:
    """One line per (row, negative)."""
    lengths = rows.negatives.lengths()
    return pa.table(
        {
            "qid": texts.query_ids.take(np.repeat(rows.query_ids, lengths)),
            "positive": texts.passage_ids.take(np.repeat(rows.positive_ids, lengths)),
            "negative": texts.passage_ids.take(rows.negatives.values),
        }
    )


def text_files(source: RowSource) -> dict[str, SideFile]:
    """`collection.tsv` and `queries.tsv`: an id and a text a line."""
    texts = source.texts
    passages = text_lines(texts.store.passages, texts.passage_ids)
    queries = text_lines(texts.store.queries, texts.query_ids)
    return {
        "collection.tsv": SideFile(tabbed_writer(), passages),
        "queries.tsv": SideFile(tabbed_writer(), queries),
    }


MS_MARCO = Layout(
    use="What reads the triples of MS MARCO: `triples.tsv` holds the ids of a query, a positive\n"
    "and a negative, `collection.tsv` and `queries.tsv` the texts; no header lines, no quotes.",
    path="triples.tsv",
    write=tabbed_writer(),
    lines=_lines,
    id_kind="original",
    beside=text_files,
    one_line=True,
)
