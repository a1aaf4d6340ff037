"""Per-query metrics of a model on held-out data: texts encoded once, passages searched exactly."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.core.ragged import ragged_sets
from stx_mine.models.encoder import SentenceTransformerEncoder
from stx_mine.models.tokenise import Role
from stx_mine.stages.evaluate.block_top import BlockTop
from stx_mine.stages.evaluate.core.metrics import retrieval_metrics
from stx_mine.stages.ingest.pairs import Ingested

_ENCODE_ROWS, _DEPTH = 65_536, 100


def evaluate(
    encoder: SentenceTransformerEncoder,
    texts: dict[Role, pa.Array],
    held_out: Ingested,
    device: str | None = None,
    prompts: Mapping[str, str | None] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Per-query metrics of one model.

    Args:
        encoder: The model.
        texts: Distinct texts of each role, by id.
        held_out: The pairs that are relevant.
        device: Where the search runs.
        prompts: Role -> prompt; the model's own where there is none.

    Returns:
        Metric -> float64 (queries with a relevant passage,).
    """
    return evaluate_dims(encoder, texts, held_out, device, prompts)[None]


def evaluate_dims(
    encoder: SentenceTransformerEncoder,
    texts: dict[Role, pa.Array],
    held_out: Ingested,
    device: str | None = None,
    prompts: Mapping[str, str | None] | None = None,
    dims: Sequence[int] = (),
) -> dict[int | None, dict[str, NDArray[np.float64]]]:
    """Per-query metrics of one model, and of the first dimensions of its embeddings.

    Every text is encoded once. Passages are encoded and searched a block at a time, so that memory
    follows the block, the queries and the texts.

    Args:
        encoder: The model.
        texts: Distinct texts of each role, by id.
        held_out: The pairs that are relevant.
        device: Where the search runs.
        prompts: Role -> prompt; the model's own where there is none.
        dims: Numbers of first dimensions; for cosine what is left is of unit length again.

    Returns:
        Number of dimensions (None: all) -> metric -> float64 (queries with a relevant passage,).
    """
    asked, rows = np.unique(held_out.pairs[:, 0], return_inverse=True)
    relevant = ragged_sets(rows, held_out.pairs[:, 1], len(asked))
    prompts, similarity = prompts or {}, encoder.similarity()
    asked_texts = texts["query"].take(pa.array(asked))
    queries_QD = np.concatenate([*_encoded(encoder, asked_texts, "query", prompts)])
    tops = {dim: BlockTop(queries_QD[:, :dim], _DEPTH, similarity, device) for dim in (None, *dims)}
    for block_PD in _encoded(encoder, texts["passage"], "passage", prompts):
        for dim, top in tops.items():
            top.offer(block_PD[:, :dim])
    return {dim: retrieval_metrics(top.ids_QK, relevant) for dim, top in tops.items()}


def _encoded(
    encoder: SentenceTransformerEncoder,
    texts: pa.ChunkedArray,
    role: Role,
    prompts: Mapping[str, str | None],
) -> Iterator[NDArray[np.float32]]:
    """Vectors of texts, a block of them at a time."""
    for start in range(0, len(texts), _ENCODE_ROWS):
        block = texts.slice(start, _ENCODE_ROWS).to_pylist()
        yield encoder.encode(block, role, prompts.get(role))
