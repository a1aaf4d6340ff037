"""Training data of NeMo AutoModel: one JSON document of ids, and a folder with the corpus.

Source: `nemo_automodel/components/datasets/llm/retrieval_dataset.py` and
`docs/guides/llm/retrieval-dataset.md` of NVIDIA-NeMo/Automodel (0.7): `corpus` lists folders,
relative to the document, that hold `merlin_metadata.json` and a table of `id` and `text`; `data`
lists `question_id`, `question`, `corpus_id`, and `pos_doc` and `neg_doc`, lists of `id`.
"""

import pyarrow as pa

from stx_mine.stages.export.core.mined_rows import MinedRows
from stx_mine.stages.export.layouts.layout import (
    Layout,
    SideFile,
    lists,
    query_offsets,
    structs,
    text_tables,
)
from stx_mine.stages.export.row_source import RowSource
from stx_mine.stages.export.text_ids import NamedTexts
from stx_mine.store.tables import json_writer, write_json_lines, write_parquet

_CORPUS = "corpus"


def _lines(rows: MinedRows, texts: NamedTexts, k: int, scores: bool) -> pa.Table:
    """One line per query with the ids of all its passages."""
    queries, ids = rows.take(rows.firsts()), texts.passage_ids
    negatives = structs(id=ids.take(queries.negatives.values))
    return pa.table(
        {
            "question_id": texts.query_ids.take(queries.query_ids),
            "question": texts.queries(queries.query_ids),
            "corpus_id": pa.array([_CORPUS] * len(queries)),
            "pos_doc": lists(query_offsets(rows), structs(id=ids.take(rows.positive_ids))),
            "neg_doc": lists(queries.negatives.offsets, negatives),
        }
    )


def _corpus(source: RowSource) -> dict[str, SideFile]:
    texts = source.texts
    metadata = pa.table({"class": ["TextQADataset"], "corpus_id": [_CORPUS]})
    return {
        f"{_CORPUS}/train.parquet": SideFile(
            write_parquet, text_tables(texts.store.passages, texts.passage_ids, "id")
        ),
        f"{_CORPUS}/merlin_metadata.json": SideFile(write_json_lines, iter([metadata])),
    }


NEMO = Layout(
    use="NeMo AutoModel: list the files `DIR/train-*.json` as `data_dir_list` of\n"
    "`make_retrieval_dataset`; `n_passages` counts the positive and its negatives. The corpus is\n"
    "found beside them.",
    path="train-*.json",
    write=json_writer(f'{{"corpus": [{{"path": "{_CORPUS}"}}], "data": [', "]}\n"),
    lines=_lines,
    per_query=True,
    id_kind="original",
    beside=_corpus,
)
