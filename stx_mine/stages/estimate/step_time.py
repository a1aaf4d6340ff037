"""How long a step takes: a short timing of the model, the scores and the optimizer."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from sentence_transformers import SentenceTransformer
from torch.nn import functional

from stx_mine.core.role import Role
from stx_mine.models.limits import embedding_dim
from stx_mine.models.load import is_static
from stx_mine.models.tokenise import Tokeniser
from stx_mine.stages.estimate.core.step_cost import Texts
from stx_mine.stages.train.losses.cross_entropy import masked_cross_entropy, own_cross_entropy
from stx_mine.stages.train.losses.embedding import MiniBatches, embed, on_device

TIMED_ROLES: tuple[Role, Role] = ("query", "passage")
_REPEATS = 3
# Texts of the two timings of a role, from whose difference follows what one text costs; of a
# transformer as many as fill these numbers of mini-batches.
_STATIC_TEXTS, _MINI_BATCHES = (512, 4_096), (2, 4)
_ROWS, _PASSAGES, _NEGATIVES = 1_024, 4_096, 8
_SCALE, _MAX_NORM = 20.0, 1.0
# Of the free memory: a few mini-batches fit.
_ALL = 1.0


@dataclass(frozen=True)
class StepTime:
    """Seconds of the parts of a step, each in float32 with its gradient.

    Attributes:
        query: Of a query, from text to embedding and back.
        passage: Of a passage.
        score: Of one score of a row and a passage of the batch.
        own_score: Of one score of a row and a passage of its own.
        fixed: Of a step, whatever it holds: gradients of all parameters, optimizer.
        query_again: Of a query, the part that it does not take where its activations are kept.
        passage_again: The same of a passage.
    """

    query: float
    passage: float
    score: float
    own_score: float
    fixed: float
    query_again: float = 0.0
    passage_again: float = 0.0

    def seconds(self, texts: Texts, num_scores: float, in_batch: bool, kept: float) -> float:
        """Of a step that embeds some texts and makes so many scores.

        Args:
            texts: The texts.
            num_scores: The scores.
            in_batch: Whether rows are scored against all passages, or their own alone.
            kept: Share of the texts whose activations are kept for the backward pass.
        """
        query = self.query - kept * self.query_again
        passage = self.passage - kept * self.passage_again
        embedding = texts.anchors * query + texts.passages * passage
        return embedding + num_scores * (self.score if in_batch else self.own_score) + self.fixed


def time_step(
    model: SentenceTransformer,
    texts: Mapping[Role, list[str]],
    mean_tokens: Mapping[Role, float],
    batch_tokens: int,
) -> StepTime:
    """Time a few mini-batches of each role, the scores, and the optimizer.

    The model is changed: it makes steps of a learning rate of 0, with gradients of random
    directions.

    Args:
        model: The model.
        texts: Real texts of each role; they are repeated where they are too few.
        mean_tokens: Of these texts.
        batch_tokens: Tokens that go through a network at one time.
    """
    model.train()
    device = model.device
    each, again, fixed = {}, {}, 0.0
    for role in TIMED_ROLES:
        few, many = _sizes(model, mean_tokens[role], batch_tokens)
        short, long = (
            _median(device, partial(_embed, model, role, _some(texts[role], number), batch_tokens))
            for number in (few, many)
        )
        each[role] = max(0.0, (long - short) / (many - few))
        fixed += max(0.0, short - few * each[role])
        if not is_static(model):
            more = _some(texts[role], many)
            seconds = _median(device, partial(_embed, model, role, more, batch_tokens, kept=True))
            again[role] = max(0.0, (long - seconds) / many)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0)
    fixed += _median(device, partial(_update, model, optimizer))
    dim = embedding_dim(model)
    in_batch, own = (_median(device, partial(_score, dim, device, one)) for one in (False, True))
    model.eval()
    return StepTime(
        each["query"],
        each["passage"],
        in_batch / (_ROWS * _PASSAGES),
        own / (_ROWS * (1 + _NEGATIVES)),
        fixed,
        again.get("query", 0.0),
        again.get("passage", 0.0),
    )


def _sizes(model: SentenceTransformer, mean_tokens: float, batch_tokens: int) -> tuple[int, int]:
    """Texts of the shorter and of the longer timing of a role."""
    if is_static(model):
        return _STATIC_TEXTS
    few, many = (round(number * batch_tokens / max(1.0, mean_tokens)) for number in _MINI_BATCHES)
    return max(1, few), max(2, many)


def _some(texts: list[str], number: int) -> list[str]:
    return (texts * -(-number // len(texts)))[:number]


def _embed(
    model: SentenceTransformer,
    role: Role,
    texts: list[str],
    batch_tokens: int,
    kept: bool = False,
) -> None:
    model.zero_grad()
    features = on_device(Tokeniser(model)(texts, role), model.device)
    embeddings = embed(model, features, MiniBatches(batch_tokens, _ALL if kept else 0.0))
    embeddings.backward(torch.randn_like(embeddings))


def _score(dim: int, device: torch.device, own: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    anchors, passages = (
        functional.normalize(torch.randn((rows, dim), generator=generator), dim=1)
        .to(device)
        .requires_grad_()
        for rows in (_ROWS, _PASSAGES)
    )
    targets = torch.arange(_ROWS, device=device)
    none = torch.empty((2, 0), dtype=torch.int64, device=device)
    if own:
        negatives = torch.randint(_PASSAGES, (_ROWS, _NEGATIVES), generator=generator).to(device)
        loss = own_cross_entropy(
            anchors, passages, targets, negatives, none[0], none, _SCALE, _ROWS
        )
    else:
        loss = masked_cross_entropy(anchors, passages, targets, none, _SCALE, _ROWS)
    loss.backward()


def _update(model: SentenceTransformer, optimizer: torch.optim.Optimizer) -> None:
    torch.nn.utils.clip_grad_norm_(model.parameters(), _MAX_NORM)
    optimizer.step()


def _median(device: torch.device, work: Callable[[], None]) -> float:
    """Seconds of some work, the median of a few after one to warm up."""
    work()
    times = []
    for _ in range(_REPEATS):
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - started)
    return median(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
