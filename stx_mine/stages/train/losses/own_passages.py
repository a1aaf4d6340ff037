"""Losses over own passages: triplet; margin-mse and kl, which distil the scores of a teacher.

A row has its positive and up to K negatives; a missing negative does not count. The teacher is the
model that mined, or a judge, which has no score of some: what it has none of teaches nothing, nor
does a row whose positive has none. Each distinct passage of the batch is embedded once, whatever
rows have it.

Shape letters: B rows, A distinct anchors, M distinct passages, N = 1 + K, C rows of a chunk,
D dimensions.
"""

from abc import abstractmethod
from typing import Literal

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from stx_mine.stages.train.losses.embedding import MiniBatches
from stx_mine.stages.train.losses.mnr import PackedLoss

Metric = Literal["cosine", "dot", "euclidean"]
# A judge's score this near to 0 or 1 counts as so much: what it is sure of has no infinite logit.
_LEAST_DOUBT = 1e-6


class PackedOwnLoss(PackedLoss):
    """A loss of the scores of each row's own passages."""

    def __init__(
        self,
        model: SentenceTransformer,
        metric: Metric,
        chunk_rows: int,
        mini_batches: MiniBatches,
        dims: tuple[int, ...] = (),
    ) -> None:
        """Wrap a model.

        Args:
            model: The model to train.
            metric: How an anchor and a passage are scored; euclidean: the negative distance.
            chunk_rows: Rows whose passages' embeddings are gathered at one time.
            mini_batches: What goes through the network at one time.
            dims: As in `PackedLoss`.
        """
        super().__init__(model, mini_batches, cosine=metric == "cosine", dims=dims)
        self.metric, self.chunk_rows = metric, chunk_rows

    def score(self, anchors_AD: Tensor, passages_MD: Tensor, labels: dict[str, Tensor]) -> Tensor:
        """Rows against their own passages.

        The mean over processes of what they return is the loss of the batch. A batch without any
        negative teaches nothing, yet its loss must have a gradient.
        """
        own_BN = torch.cat([labels["targets"][:, None], labels["negatives"]], 1)
        anchors_BD = anchors_AD[labels["anchors"]]
        scores_BN = own_scores(
            anchors_BD, passages_MD, own_BN, self.metric == "euclidean", self.chunk_rows
        )
        num_processes = int(labels["num_rows"]) / len(own_BN)
        total, count = self.total(scores_BN, own_BN >= 0, labels)
        return total * num_processes / max(1, int(count)) + 0 * scores_BN.sum()

    @abstractmethod
    def total(
        self, scores_BN: Tensor, real_BN: Tensor, labels: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The sum of the loss over this process's rows, and how many terms the batch has.

        Args:
            scores_BN: Scores of the positive and the negatives.
            real_BN: bool, which of them exist.
            labels: What the collator gave.
        """


class PackedTripletLoss(PackedOwnLoss):
    """The positive must be closer than each negative by a margin (Schroff et al. 2015).

    The mean over all (row, negative). Distance is 1 - cosine, or Euclidean. TripletLoss of
    sentence-transformers on one row a (row, negative).
    """

    def __init__(
        self,
        model: SentenceTransformer,
        margin: float,
        metric: Metric,
        chunk_rows: int,
        mini_batches: MiniBatches,
        dims: tuple[int, ...] = (),
    ) -> None:
        """Wrap a model.

        Args:
            model: The model to train.
            margin: How much closer the positive must be.
            metric: As in `PackedOwnLoss`, like all that follows.
            chunk_rows: Rows at one time.
            mini_batches: What goes through the network at one time.
            dims: Dimensions.
        """
        super().__init__(model, metric, chunk_rows, mini_batches, dims)
        self.margin = margin

    def total(
        self, scores_BN: Tensor, real_BN: Tensor, labels: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Over all (row, negative)."""
        losses = functional.relu(scores_BN[:, 1:] - scores_BN[:, :1] + self.margin)
        return losses[real_BN[:, 1:]].sum(), labels["num_negatives"]


class PackedMarginMSELoss(PackedOwnLoss):
    """How far positives score above negatives must be as the teacher has it.

    The mean squared difference over all (row, negative) that the teacher scored (Hofstätter et al.
    2020): MarginMSELoss of sentence-transformers on rows that lack nothing.
    """

    def total(
        self, scores_BN: Tensor, real_BN: Tensor, labels: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Over all (row, negative) with scores."""
        teacher_BN, scored_BN = _scored(labels["scores"].to(scores_BN.dtype), real_BN)
        off_BN = (scores_BN[:, :1] - scores_BN) - (teacher_BN[:, :1] - teacher_BN)
        return (off_BN[:, 1:][scored_BN[:, 1:]] ** 2).sum(), labels["num_scored_negatives"]


class PackedKLLoss(PackedOwnLoss):
    """The softmax over a row's passages must be as the teacher has it (Lin et al. 2020).

    KL(teacher || model), the mean over rows with a negative: over one passage alone every softmax
    is the same. With one temperature for both the loss is multiplied by its square (Hinton et al.
    2015): DistillKLDivLoss of sentence-transformers on rows that lack nothing. With a temperature
    of the teacher's own it is not: to a model of cosines the other one is no softening, but the
    scale of its scores.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        temperature: float,
        metric: Metric,
        chunk_rows: int,
        mini_batches: MiniBatches,
        dims: tuple[int, ...] = (),
        *,
        teacher_temperature: float | None = None,
        probabilities: bool = False,
    ) -> None:
        """Wrap a model.

        Args:
            model: The model to train.
            temperature: Scores of the model, and by default of the teacher, are divided by it.
            metric: As in `PackedOwnLoss`, like all that follows.
            chunk_rows: Rows at one time.
            mini_batches: What goes through the network at one time.
            dims: Dimensions.
            teacher_temperature: What the teacher's scores are divided by; None: `temperature`, or
                1 for probabilities.
            probabilities: Whether the teacher's scores are a judge's, in [0, 1]; the softmax is
                over their logits.
        """
        super().__init__(model, metric, chunk_rows, mini_batches, dims)
        self.temperature, self.probabilities = temperature, probabilities
        own = 1.0 if probabilities else None
        self.teacher_temperature = own if teacher_temperature is None else teacher_temperature

    def total(
        self, scores_BN: Tensor, real_BN: Tensor, labels: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Over all rows with scores."""
        teacher_BN, scored_BN = _scored(labels["scores"].to(scores_BN.dtype), real_BN)
        if self.probabilities:
            teacher_BN = torch.logit(teacher_BN, eps=_LEAST_DOUBT)
        # Over nothing at all a softmax is not a number, and so is its gradient.
        seen_BN = scored_BN | (torch.arange(scored_BN.shape[1], device=scored_BN.device) == 0)
        ours_BN, theirs_BN = (
            (one / temperature).masked_fill(~seen_BN, -torch.inf).log_softmax(1)
            for one, temperature in (
                (scores_BN, self.temperature),
                (teacher_BN, self.teacher_temperature or self.temperature),
            )
        )
        # Minus infinity on both sides would leave 0 x nan.
        gaps_BN = theirs_BN.masked_fill(~scored_BN, 0) - ours_BN.masked_fill(~scored_BN, 0)
        factor = 1.0 if self.teacher_temperature else self.temperature**2
        return (theirs_BN.exp() * gaps_BN).sum() * factor, labels["num_scored_rows"]


def _scored(teacher_BN: Tensor, real_BN: Tensor) -> tuple[Tensor, Tensor]:
    """The teacher's scores, 0 for none, and where it has one: nowhere in a row without positive."""
    scored_BN = real_BN & ~teacher_BN.isnan()
    scored_BN = scored_BN & scored_BN[:, :1]
    return teacher_BN.nan_to_num(nan=0.0), scored_BN


def own_scores(
    anchors_BD: Tensor, passages_MD: Tensor, own_BN: Tensor, euclidean: bool, chunk_rows: int
) -> Tensor:
    """Scores of each row's own passages, some rows at a time; they are gathered again backwards.

    Args:
        anchors_BD: (B, D) anchor of each row.
        passages_MD: (M, D) distinct passages.
        own_BN: int64 (B, N) passages of each row; -1 pads.
        euclidean: Whether a score is the negative distance, else the product.
        chunk_rows: Rows whose N x D values exist at one time.

    Returns:
        (B, N); what is padded has some score.
    """

    def chunk(anchors_CD: Tensor, passages_MD: Tensor, own_CN: Tensor) -> Tensor:
        passages_CND = passages_MD[own_CN.clamp(min=0)]
        if euclidean:
            # Its gradient at distance 0 is 0, that of a square root of squares is not a number.
            return -torch.linalg.vector_norm(anchors_CD[:, None] - passages_CND, dim=2)
        return torch.einsum("cd,cnd->cn", anchors_CD, passages_CND)

    parts = [
        checkpoint(
            chunk,
            anchors_BD[start : start + chunk_rows],
            passages_MD,
            own_BN[start : start + chunk_rows],
            use_reentrant=False,
        )
        for start in range(0, len(own_BN), chunk_rows)
    ]
    return torch.cat(parts)
