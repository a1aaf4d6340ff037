"""JSON lines that FlagEmbedding trains embedding models and rerankers on.

Source: `FlagEmbedding/abc/finetune/*/AbsDataset.py` of FlagOpen/FlagEmbedding (1.4): `query`, lists
`pos` and `neg`, and with `--knowledge_distillation True` lists of scores.
"""

import pyarrow as pa

from stx_mine.stages.export.core.mined_rows import MinedRows
from stx_mine.stages.export.layouts.layout import Layout, lists, query_offsets
from stx_mine.stages.export.text_ids import NamedTexts
from stx_mine.store.tables import write_json_lines


def _lines(rows: MinedRows, texts: NamedTexts, k: int, scores: bool) -> pa.Table:
    """One line per query with all its positives."""
    queries = rows.take(rows.firsts())
    positives, negatives = query_offsets(rows), queries.negatives.offsets
    return pa.table(
        {
            "query": texts.queries(queries.query_ids),
            "pos": lists(positives, texts.passages(rows.positive_ids)),
            "neg": lists(negatives, texts.passages(queries.negatives.values)),
            "pos_scores": lists(positives, pa.array(rows.positive_scores, pa.float64())),
            "neg_scores": lists(negatives, pa.array(queries.negative_scores, pa.float64())),
        }
    )


FLAGEMBEDDING = Layout(
    use="FlagEmbedding, embedding models and rerankers: `--train_data DIR/data`;\n"
    "`--knowledge_distillation True` uses the scores.",
    path="data/train-*.jsonl",
    write=write_json_lines,
    lines=_lines,
    per_query=True,
    configs={"default": "data/*.jsonl"},
)
