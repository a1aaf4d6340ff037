"""Losses over a packed batch, each distinct text embedded once.

Shape letters: B rows, A distinct anchors, M distinct passages, K negatives a row, C rows of a
chunk, D dimensions.
"""

from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.nn import functional

from stx_mine.train.embedding import Features, embed
from stx_mine.train.processes import gather_shares


class _MaskedCrossEntropy(torch.autograd.Function):  # type: ignore[misc]
    """Mean cross-entropy of anchors against all passages, a chunk of rows at a time.

    The gradient of a chunk is made right after its logits, so that no more than C x M values
    exist at any time and no product is computed twice.
    """

    @staticmethod
    def forward(
        ctx: Any,
        anchors_BD: Tensor,
        passages_MD: Tensor,
        targets_B: Tensor,
        ignored: Tensor,
        scale: float,
        chunk_rows: int,
    ) -> Tensor:
        num_rows = len(anchors_BD)
        grad_anchors, grad_passages = torch.zeros_like(anchors_BD), torch.zeros_like(passages_MD)
        # A product with a contiguous right side is twice as fast as one with a transposed view.
        transposed_DM = passages_MD.T.contiguous()
        # One buffer for all chunks: fresh memory for each would cost a page fault per 4 kB.
        buffer_CM = anchors_BD.new_empty((min(chunk_rows, num_rows), len(passages_MD)))
        total = anchors_BD.new_zeros(())
        # `ignored` is sorted by row, so a chunk owns a slice of it.
        edges = torch.arange(0, num_rows + chunk_rows, chunk_rows, device=ignored.device)
        cuts = torch.searchsorted(ignored[0].contiguous(), edges.clamp(max=num_rows)).tolist()
        for number, start in enumerate(range(0, num_rows, chunk_rows)):
            chunk_CD = anchors_BD[start : start + chunk_rows]
            targets_C = targets_B[start : start + chunk_rows]
            rows_C = torch.arange(len(chunk_CD), device=chunk_CD.device)
            logits_CM = torch.mm(chunk_CD * scale, transposed_DM, out=buffer_CM[: len(chunk_CD)])
            mask = ignored[:, cuts[number] : cuts[number + 1]]
            logits_CM[mask[0] - start, mask[1]] = -torch.inf
            highest_C = logits_CM.amax(1)
            positive_C = logits_CM[rows_C, targets_C] - highest_C
            exponentials_CM = logits_CM.sub_(highest_C[:, None]).exp_()
            sums_C = exponentials_CM.sum(1)
            total += (sums_C.log() - positive_C).sum()
            # From here on the gradient of the mean with respect to the logits, in place.
            logits_CM = exponentials_CM.mul_((scale / num_rows / sums_C)[:, None])
            logits_CM[rows_C, targets_C] -= scale / num_rows
            grad_anchors[start : start + chunk_rows] = logits_CM @ passages_MD
            grad_passages.addmm_(logits_CM.T, chunk_CD)
        ctx.save_for_backward(grad_anchors, grad_passages)
        return total / num_rows

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_anchors, grad_passages = ctx.saved_tensors
        return grad * grad_anchors, grad * grad_passages, None, None, None, None


def masked_cross_entropy(
    anchors_BD: Tensor,
    passages_MD: Tensor,
    targets_B: Tensor,
    ignored: Tensor,
    scale: float,
    chunk_rows: int,
) -> Tensor:
    """Mean over rows of -log softmax(scale * anchor . passages)[target], some passages masked.

    Args:
        anchors_BD: (B, D) anchor of each row.
        passages_MD: (M, D) distinct passages; each counts once.
        targets_B: int64 (B,) the positive of each row.
        ignored: int64 (2, n) pairs (row, passage) left out of the softmax, sorted by row; never
            the row's own positive.
        scale: Inverse temperature.
        chunk_rows: Rows whose logits exist at one time; changes no result beyond rounding.

    Returns:
        A scalar.
    """
    loss: Tensor = _MaskedCrossEntropy.apply(
        anchors_BD, passages_MD, targets_B, ignored, scale, chunk_rows
    )
    return loss


class PackedMNRLoss(nn.Module):  # type: ignore[misc]
    """Multiple negatives ranking over a packed batch (InfoNCE; van den Oord et al. 2018).

    Every distinct passage of the batch is one candidate of every row, less those that are known
    to be positives of the row. Where no text repeats this is the MultipleNegativesRankingLoss of
    sentence-transformers.
    """

    def __init__(
        self, model: SentenceTransformer, temperature: float, chunk_rows: int, batch_tokens: int
    ) -> None:
        """Wrap a model.

        Args:
            model: The model to train.
            temperature: Scores are divided by it.
            chunk_rows: Rows whose logits exist at one time.
            batch_tokens: Tokens that go through the network at one time.
        """
        super().__init__()
        self.model, self.temperature = model, temperature
        self.chunk_rows, self.batch_tokens = chunk_rows, batch_tokens
        self.cosine = str(model.similarity_fn_name) == "cosine"

    def forward(self, features: list[Features], labels: dict[str, Tensor]) -> Tensor:
        """The loss of one packed batch, or of this process's rows, as `PackedCollator` gives it."""
        anchors_AD, passages_MD = embed_distinct(
            self.model, features, labels, self.batch_tokens, self.cosine
        )
        return masked_cross_entropy(
            anchors_AD[labels["anchors"]],
            passages_MD,
            labels["targets"],
            labels["ignored"],
            1 / self.temperature,
            self.chunk_rows,
        )


class PackedTripletLoss(nn.Module):  # type: ignore[misc]
    """Triplet loss of each row with its own negatives, in cosine distance.

    Source: Schroff et al. 2015, with distance 1 - cosine; averaged over all (row, negative).
    """

    def __init__(self, model: SentenceTransformer, margin: float, batch_tokens: int) -> None:
        """Wrap a model.

        Args:
            model: The model to train.
            margin: How much closer the positive must be, in cosine.
            batch_tokens: Tokens that go through the network at one time.
        """
        super().__init__()
        self.model, self.margin, self.batch_tokens = model, margin, batch_tokens

    def forward(self, features: list[Features], labels: dict[str, Tensor]) -> Tensor:
        """The loss of one packed batch, or of this process's rows, as `PackedCollator` gives it."""
        anchors_AD, passages_MD = embed_distinct(
            self.model, features, labels, self.batch_tokens, cosine=True
        )
        rows, slots = torch.nonzero(labels["negatives"] >= 0, as_tuple=True)
        anchors_BD = anchors_AD[labels["anchors"]]
        positive_B = (anchors_BD * passages_MD[labels["targets"]]).sum(1)
        negative = (anchors_BD[rows] * passages_MD[labels["negatives"][rows, slots]]).sum(1)
        # The mean over processes of what they return is the mean over all negatives of the batch.
        # A batch without any negative teaches nothing, yet its loss must have a gradient.
        num_processes = int(labels["num_rows"]) / len(anchors_BD)
        mean_negatives = max(1, int(labels["num_negatives"])) / num_processes
        losses = functional.relu(negative - positive_B[rows] + self.margin)
        return losses.sum() / mean_negatives + 0 * positive_B.sum()


def embed_distinct(
    model: nn.Module,
    features: list[Features],
    labels: dict[str, Tensor],
    batch_tokens: int,
    cosine: bool,
) -> tuple[Tensor, Tensor]:
    """Embeddings of the distinct anchors (A, D) and passages (M, D), of unit length if cosine.

    Each process embeds its share, and all of them have all.
    """
    own = [embed(model, one, batch_tokens) for one in features]
    if cosine:
        own = [functional.normalize(one, dim=1) for one in own]
    anchors = gather_shares(own[0], int(labels["num_anchors"]))
    return anchors, gather_shares(own[1], int(labels["num_passages"]))
