"""A BEIR folder: corpus, queries and the pairs as judgements of the split `train`.

Source: `beir/datasets/data_loader.py` of beir-cellar/beir (2.2): JSON lines of `_id`, `title` and
`text`, and tab-separated `query-id`, `corpus-id`, `score` below a header line.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from stx_mine.stages.export.layouts.layout import Layout, SideFile, text_tables
from stx_mine.stages.export.row_source import RowSource
from stx_mine.store.tables import tabbed_writer, write_json_lines

_PAIRS_AT_ONCE = 65_536


def pair_tables(source: RowSource) -> Iterator[pa.Table]:
    """Yield (query id, passage id) of every pair, also of those that mine dropped."""
    texts, store = source.texts, source.texts.store
    for start in range(0, max(store.num_pairs, 1), _PAIRS_AT_ONCE):
        some = slice(start, start + _PAIRS_AT_ONCE)
        queries, passages = store.pair_query_ids[some], store.pair_passage_ids[some]
        yield pa.table(
            {
                "query-id": texts.query_ids.take(queries),
                "corpus-id": texts.passage_ids.take(passages),
                "score": np.ones(len(queries), np.int64),
            }
        )


def _files(source: RowSource) -> dict[str, SideFile]:
    texts = source.texts
    corpus = text_tables(texts.store.passages, texts.passage_ids, "_id", title="")
    queries = text_tables(texts.store.queries, texts.query_ids, "_id")
    return {
        "corpus.jsonl": SideFile(write_json_lines, corpus),
        "queries.jsonl": SideFile(write_json_lines, queries),
        "qrels/train.tsv": SideFile(tabbed_writer(header=True), pair_tables(source)),
    }


BEIR = Layout(
    use='BEIR: `GenericDataLoader(DIR).load("train")`. It holds the whole corpus and all pairs,\n'
    "also those that mine dropped, and no negatives; titles are empty, since the texts hold them.",
    path="qrels/train.tsv",
    write=tabbed_writer(header=True),
    lines=None,
    id_kind="original",
    beside=_files,
)
