"""Per-query metrics of a model on an evaluation set: texts encoded once, searched exactly."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine import progress
from stx_mine.core.role import PLURALS, Role
from stx_mine.models.encoder import SentenceTransformerEncoder
from stx_mine.stages.evaluate.block_top import BlockTop
from stx_mine.stages.evaluate.core.metrics import retrieval_metrics
from stx_mine.stages.evaluate.core.ranking import ranked_documents
from stx_mine.stages.evaluate.sets import EvaluationSet

_DEPTH, _RANKED_ROWS = 100, 4_096
# Texts that are embedded at once: so many, of so many bytes on average.
_ENCODE_ROWS, _ENCODE_BYTES = 65_536, 1 << 26
# The own passages of a query are of two texts at most: its own, and that of its id.
_OWN_TEXTS = 2


def evaluate(
    encoder: SentenceTransformerEncoder,
    data: EvaluationSet,
    device: str | None = None,
    prompts: Mapping[str, str | None] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Per-query metrics of one model.

    Args:
        encoder: The model.
        data: The evaluation set.
        device: Where the search runs.
        prompts: Role -> prompt; the model's own where there is none.

    Returns:
        Metric -> float64 (queries,).
    """
    return evaluate_dims(encoder, data, device, prompts)[None]


def evaluate_dims(
    encoder: SentenceTransformerEncoder,
    data: EvaluationSet,
    device: str | None = None,
    prompts: Mapping[str, str | None] | None = None,
    dims: Sequence[int] = (),
) -> dict[int | None, dict[str, NDArray[np.float64]]]:
    """Per-query metrics of one model, and of the first dimensions of its embeddings.

    Every text is encoded once. Passages are encoded and searched a block at a time, so that memory
    follows the block, the queries and the texts.

    Args:
        encoder: The model.
        data: The evaluation set.
        device: Where the search runs.
        prompts: Role -> prompt; the model's own where there is none.
        dims: Numbers of first dimensions; for cosine what is left is of unit length again.

    Returns:
        Number of dimensions (None: all) -> metric -> float64 (queries,).
    """
    prompts, similarity = prompts or {}, encoder.similarity()
    queries_QD = np.concatenate([*_encoded(encoder, data.texts["query"], "query", prompts)])
    tops = {
        dim: BlockTop(queries_QD[:, :dim], _DEPTH + _OWN_TEXTS, similarity, device)
        for dim in (None, *dims)
    }
    for block_PD in _encoded(encoder, data.texts["passage"], "passage", prompts):
        for dim, top in tops.items():
            top.offer(block_PD[:, :dim])
    return {dim: retrieval_metrics(_ranked(top, data), data.judged) for dim, top in tops.items()}


def _ranked(top: BlockTop, data: EvaluationSet) -> NDArray[np.int64]:
    """int64 (queries, depth): the documents of the closest texts."""
    parts = []
    for start in range(0, len(top.ids_QK), _RANKED_ROWS):
        block = slice(start, start + _RANKED_ROWS)
        ids_QK, scores_QK = top.ids_QK[block], top.scores_QK[block]
        away, _ = data.left_out.take(np.arange(start, start + len(ids_QK)))
        parts.append(ranked_documents(ids_QK, scores_QK, data.documents, away, _DEPTH))
    return np.concatenate(parts)


def _encoded(
    encoder: SentenceTransformerEncoder,
    texts: pa.ChunkedArray,
    role: Role,
    prompts: Mapping[str, str | None],
) -> Iterator[NDArray[np.float32]]:
    """Vectors of texts, a block of them at a time."""
    num_rows = min(_ENCODE_ROWS, len(texts) * _ENCODE_BYTES // max(1, texts.nbytes) + 1)
    with progress.step(f"{encoder.name}: encoding", len(texts), PLURALS[role]) as counted:
        for start in range(0, len(texts), num_rows):
            block = texts.slice(start, num_rows).to_pylist()
            yield encoder.encode(block, role, prompts.get(role))
            counted.advance(len(block))
