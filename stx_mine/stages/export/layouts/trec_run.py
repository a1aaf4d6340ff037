"""A TREC run of all hits, and the pairs as TREC judgements.

Source: the input of trec_eval: `qid Q0 docid rank score tag` and `qid 0 docid grade`, a space
between them. Scores decide the order; ranks begin with 1.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from stx_mine.stages.export.layouts.beir import pair_tables
from stx_mine.stages.export.layouts.layout import Layout, SideFile
from stx_mine.stages.export.row_source import RowSource
from stx_mine.store.tables import write_spaced


def _hits(source: RowSource) -> Iterator[pa.Table]:
    """Yield the hits of queries in order, best first, as search returned them."""
    texts = source.texts
    for query_ids, hits, scores in source.hits():
        lengths = hits.lengths()
        ranks = np.arange(len(hits.values)) - np.repeat(hits.offsets[:-1], lengths) + 1
        yield pa.table(
            {
                "qid": texts.query_ids.take(np.repeat(query_ids, lengths)),
                "Q0": pa.array(["Q0"] * len(ranks), pa.string()),
                "docid": texts.passage_ids.take(hits.values),
                "rank": ranks,
                "score": pa.array(scores, pa.float32()),
                "tag": pa.array(["stx-mine"] * len(ranks), pa.string()),
            }
        )


def _judgements(source: RowSource) -> Iterator[pa.Table]:
    for pairs in pair_tables(source):
        queries, passages, grades = pairs.columns
        zeros = pa.array(np.zeros(len(pairs), np.int64))
        yield pa.table([queries, zeros, passages, grades], names=["qid", "0", "docid", "grade"])


def _files(source: RowSource) -> dict[str, SideFile]:
    return {
        "run.trec": SideFile(write_spaced, _hits(source)),
        "qrels.trec": SideFile(write_spaced, _judgements(source)),
    }


TREC_RUN = Layout(
    use="`trec_eval DIR/qrels.trec DIR/run.trec`, pytrec_eval, ranx and others. It holds every\n"
    "hit of the search, known positives and what the rules of mine rejected too.",
    path="run.trec",
    write=write_spaced,
    lines=None,
    id_kind="original",
    beside=_files,
)
