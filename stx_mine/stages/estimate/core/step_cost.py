"""What one training step costs: distinct texts, scores, memory; arithmetic on counts.

Shape letters: B rows, A distinct anchors, M distinct passages, K negatives per row.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

# Bytes of float32 values: a parameter has its weight, its gradient and two moments of Adam.
_FLOAT, _PARAMETER, _TOKEN_ID = 4, 16, 8
# Matrices of the shape of the embeddings that are alive at the end of the loss: as embedded, of
# unit length, gathered or transposed, and the gradients of these three.
_EMBEDDING_COPIES = 6
# Bytes that a layer keeps for its gradient: per token and hidden unit (Korthikanti et al. 2022 have
# 34 in half precision with masks of one byte), and per token, head and other token where attention
# weights are kept.
_LAYER, _ATTENTION = 66, 9


@dataclass(frozen=True)
class Texts:
    """Texts that one step embeds; a text that is anchor and passage is embedded in both roles.

    Attributes:
        anchors: A.
        passages: M.
        slots: Anchors, positives and negatives of all rows, repeats counted: what is embedded by a
            trainer that shares nothing.
    """

    anchors: float
    passages: float
    slots: float

    @property
    def distinct(self) -> float:
        """Texts embedded where repeats are shared."""
        return self.anchors + self.passages

    def candidates(self, interactions: Collection[str]) -> float:
        """Texts that a row is scored against: all passages, and what `interactions` adds."""
        added = {
            "query-query": self.anchors,
            "passage-query": self.anchors,
            "passage-passage": self.passages,
        }
        return self.passages + sum(added[one] for one in interactions)


def texts_by_k(
    anchors_B: NDArray[np.int64], positives_B: NDArray[np.int64], negatives_BK: NDArray[np.int64]
) -> list[Texts]:
    """The texts of a batch with its first 0, 1, ... K negatives per row.

    Args:
        anchors_B: int64 (B,) groups.
        positives_B: int64 (B,) groups.
        negatives_BK: int64 (B, K) groups, best first; -1 where there is none.

    Returns:
        K + 1 counts.
    """
    num_rows, num_negatives = negatives_BK.shape
    slots_BS = np.concatenate([positives_B[:, None], negatives_BK], axis=1)
    filled_S = (slots_BS >= 0).sum(0)
    # The first slot that a passage stands in is the least k that needs it.
    keys = (slots_BS * (num_negatives + 1) + np.arange(num_negatives + 1))[slots_BS >= 0]
    groups, slots = np.divmod(np.sort(keys), num_negatives + 1)
    new = np.ones(len(groups), bool)
    new[1:] = groups[1:] != groups[:-1]
    passages_S = np.cumsum(np.bincount(slots[new], minlength=num_negatives + 1))
    num_anchors = len(np.unique(anchors_B))
    return [
        Texts(num_anchors, int(passages), num_rows + int(filled))
        for passages, filled in zip(passages_S, np.cumsum(filled_S), strict=True)
    ]


@dataclass(frozen=True)
class ModelShape:
    """What memory depends on.

    Attributes:
        parameters: That are trained.
        dim: Dimensions of an embedding.
        query_tokens: Mean tokens of a query.
        passage_tokens: Mean tokens of a passage.
        longest_tokens: Most tokens of a text.
        layers: Of the network; 0 for a static model.
        hidden: Hidden units of a layer.
        heads: Attention heads whose weights are kept for the gradient; 0 where they are not.
    """

    parameters: int
    dim: int
    query_tokens: float
    passage_tokens: float
    longest_tokens: int
    layers: int = 0
    hidden: int = 0
    heads: int = 0


@dataclass(frozen=True)
class Memory:
    """Bytes of one step, in float32, beside inputs, code and what allocators keep.

    Attributes:
        parameters: Weights, gradients and two moments: 16 per parameter.
        embeddings: 6 copies of all embeddings of the step: 24 x dim x texts.
        activations: Transformers: 66 x hidden x layers per token of a mini-batch, and where
            attention weights are kept 9 x heads x layers x its longest text per token; static
            models: 8 per token of the step.
        scores: Of a chunk of rows.
    """

    parameters: int
    embeddings: int
    activations: int
    scores: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(asdict(self).values())


def step_memory(
    texts: Texts,
    model: ModelShape,
    num_rows: int,
    num_negatives: int,
    *,
    in_batch: bool,
    chunk_rows: int,
    batch_tokens: int,
    interactions: Collection[str] = (),
) -> Memory:
    """Estimated memory of one step of `stx-mine train`.

    Args:
        texts: That the step embeds.
        model: The model.
        num_rows: B.
        num_negatives: K.
        in_batch: Whether rows are scored against all passages, or their own alone.
        chunk_rows: Rows whose scores exist at one time.
        batch_tokens: Tokens that go through a network at one time.
        interactions: What else rows are scored against where they are against all passages.
    """
    chunk = min(chunk_rows, num_rows)
    tokens = _tokens(texts, model)
    if model.layers:
        taken = max(min(batch_tokens, tokens), model.longest_tokens)
        activations = taken * _token_bytes(model, model.longest_tokens)
    else:
        activations = _TOKEN_ID * tokens
    # Own passages are gathered for every row of the chunk, forwards and for the gradient.
    own = 2 * (1 + num_negatives) * model.dim
    return Memory(
        parameters=_PARAMETER * model.parameters,
        embeddings=round(_EMBEDDING_COPIES * _FLOAT * model.dim * texts.distinct),
        activations=round(activations),
        scores=round(_FLOAT * chunk * (texts.candidates(interactions) if in_batch else own)),
    )


def kept_share(texts: Texts, model: ModelShape, room: float) -> float:
    """Estimated share of the texts of a step whose activations are kept, so that they go once.

    Args:
        texts: That the step embeds.
        model: The model.
        room: Bytes that activations may take.
    """
    if not model.layers:
        return 1.0
    tokens = _tokens(texts, model)
    return min(1.0, room / (tokens * _token_bytes(model, tokens / texts.distinct)))


def _tokens(texts: Texts, model: ModelShape) -> float:
    return texts.anchors * model.query_tokens + texts.passages * model.passage_tokens


def _token_bytes(model: ModelShape, length: float) -> float:
    """Bytes of the activations of a token, in a text of so many tokens."""
    return model.layers * (_LAYER * model.hidden + _ATTENTION * model.heads * length)
