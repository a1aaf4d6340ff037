"""Cross-entropy over the texts of a batch, never all logits at one time.

Shape letters: B rows, M distinct candidates, K negatives a row, S shared candidates, N = 1 + K + S,
C rows of a chunk, D dimensions; L logits of a row, over all that it is compared with.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from stx_mine.stages.train.losses.guide import Guidance


class Compared(NamedTuple):
    """Distinct texts that every row is compared with, by one of its own two texts.

    Attributes:
        rows_BD: (B, D) that text of each row: its anchor, or its positive.
        texts_MD: (M, D) distinct texts.
        own_B: int64 (B,) which of them is the row's own.
        hidden: int64 (2, n) pairs (row, text) that are not compared, sorted by row.
        log_weights_M: (M,) logarithm of how much each text counts; None: each counts once.
        hardness: Added to the logit of a text other than the row's own, times its score, without
            a gradient of its own: harder negatives count more (Lan et al. 2025).
        guidance: Hides more, by the scores of another model; made a chunk at a time.
    """

    rows_BD: Tensor
    texts_MD: Tensor
    own_B: Tensor
    hidden: Tensor
    log_weights_M: Tensor | None = None
    hardness: float = 0.0
    guidance: Guidance | None = None


class _JointCrossEntropy(torch.autograd.Function):  # type: ignore[misc]
    """Mean cross-entropy of rows over all that they are compared with, a chunk at a time.

    The gradient of a chunk is made right after its logits, so that no more than C x L values
    exist at any time and no product is computed twice.
    """

    @staticmethod
    def forward(
        ctx: Any,
        compared: Sequence[Compared],
        scale: float,
        chunk_rows: int,
        *embeddings: Tensor,
    ) -> Tensor:
        targets_B, num_rows = compared[0].own_B, len(compared[0].own_B)
        parts = [_Part(one, scale, chunk_rows) for one in compared]
        ends = torch.tensor([len(one.texts_MD) for one in compared]).cumsum(0).tolist()
        # One buffer for all chunks: fresh memory for each would cost a page fault per 4 kB.
        buffer_CL = compared[0].rows_BD.new_empty((min(chunk_rows, num_rows), ends[-1]))
        total = buffer_CL.new_zeros(())
        for start in range(0, num_rows, chunk_rows):
            rows = slice(start, start + chunk_rows)
            targets_C = targets_B[rows]
            places_C = torch.arange(len(targets_C), device=targets_C.device)
            logits_CL = buffer_CL[: len(targets_C)]
            views = logits_CL.tensor_split(ends[:-1], 1)
            for part, view_CM in zip(parts, views, strict=True):
                part.score(rows, view_CM)
            # The row's own text has its plain logit in the numerator, whatever its weight.
            positive_C = parts[0].own_logits_C
            highest_C = logits_CL.amax(1)
            exponentials_CL = logits_CL.sub_(highest_C[:, None]).exp_()
            sums_C = exponentials_CL.sum(1)
            total += (sums_C.log() + highest_C - positive_C).sum()
            # From here on the gradient of the mean with respect to the logits, in place.
            exponentials_CL.mul_((scale / num_rows / sums_C)[:, None])
            logits_CL[places_C, targets_C] -= scale / num_rows
            for part, view_CM in zip(parts, views, strict=True):
                part.add_gradient(rows, view_CM)
        ctx.save_for_backward(*(one for part in parts for one in (part.grad_rows, part.grad_texts)))
        return total / num_rows

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, *(grad * one for one in ctx.saved_tensors)


class _Part:
    """The scores of rows with one kind of candidates, and their gradients so far."""

    def __init__(self, candidates: Compared, scale: float, chunk_rows: int) -> None:
        self.candidates, self.scale, self.chunk_rows = candidates, scale, chunk_rows
        texts_MD, hidden, num_rows = candidates.texts_MD, candidates.hidden, len(candidates.own_B)
        self.grad_rows = torch.zeros_like(candidates.rows_BD)
        self.grad_texts = torch.zeros_like(texts_MD)
        # A product with a contiguous right side is twice as fast as one with a transposed view.
        self.transposed_DM = texts_MD.T.contiguous()
        # `hidden` is sorted by row, so a chunk owns a slice of it; a single chunk has all.
        self.cuts = [0, hidden.shape[1]]
        if num_rows > chunk_rows:
            edges = torch.arange(0, num_rows + chunk_rows, chunk_rows, device=hidden.device)
            rows = hidden[0].contiguous()
            self.cuts = torch.searchsorted(rows, edges.clamp(max=num_rows)).tolist()

    def score(self, rows: slice, logits_CM: Tensor) -> None:
        """Fill the logits of some rows; what is hidden gets minus infinity."""
        one, start = self.candidates, rows.start
        torch.mm(one.rows_BD[rows] * self.scale, self.transposed_DM, out=logits_CM)
        own_C = one.own_B[rows]
        places_C = torch.arange(len(own_C), device=own_C.device)
        self.own_logits_C = logits_CM[places_C, own_C]
        if one.hardness:
            logits_CM.mul_(1 + one.hardness / self.scale)
            logits_CM[places_C, own_C] = self.own_logits_C
        if one.log_weights_M is not None:
            logits_CM.add_(one.log_weights_M)
        number = start // self.chunk_rows
        hidden = one.hidden[:, self.cuts[number] : self.cuts[number + 1]]
        logits_CM[hidden[0] - start, hidden[1]] = -torch.inf
        if one.guidance is not None:
            logits_CM.masked_fill_(one.guidance.of_rows(rows).hides(own_C), -torch.inf)

    def add_gradient(self, rows: slice, gradient_CM: Tensor) -> None:
        """Take what the gradient of the logits of some rows means for the embeddings."""
        self.grad_rows[rows] = gradient_CM @ self.candidates.texts_MD
        self.grad_texts.addmm_(gradient_CM.T, self.candidates.rows_BD[rows])


def joint_cross_entropy(compared: Sequence[Compared], scale: float, chunk_rows: int) -> Tensor:
    """Mean over rows of log(sum of weight x exp(logit)) - logit of the row's target.

    Logits are scale x product. The sum is over everything that the row is compared with, less what
    is hidden; the target is its own text of the first kind of candidates.

    Args:
        compared: Kinds of candidates, each for the same rows. Of the first, no own text is hidden.
        scale: Inverse temperature.
        chunk_rows: Rows whose logits exist at one time; changes no result beyond rounding.

    Returns:
        A scalar.
    """
    plain = [
        one._replace(
            rows_BD=one.rows_BD.detach(),
            texts_MD=one.texts_MD.detach(),
            log_weights_M=None
            if one.log_weights_M is None
            else one.log_weights_M.to(one.texts_MD.dtype),
        )
        for one in compared
    ]
    embeddings = (part for one in compared for part in (one.rows_BD, one.texts_MD))
    loss: Tensor = _JointCrossEntropy.apply(plain, scale, chunk_rows, *embeddings)
    return loss


def masked_cross_entropy(
    anchors_BD: Tensor,
    passages_MD: Tensor,
    targets_B: Tensor,
    ignored: Tensor,
    scale: float,
    chunk_rows: int,
    log_weights_M: Tensor | None = None,
    hardness: float = 0.0,
    guidance: Guidance | None = None,
) -> Tensor:
    """`joint_cross_entropy` over one kind of candidates.

    Without weights and hardness that is -log softmax(scale * anchor . passages)[target].

    Args:
        anchors_BD: (B, D) anchor of each row.
        passages_MD: (M, D) distinct passages.
        targets_B: int64 (B,) the positive of each row.
        ignored: int64 (2, n) pairs (row, passage) left out of the softmax, sorted by row; never
            the row's own positive.
        scale: Inverse temperature.
        chunk_rows: Rows whose logits exist at one time.
        log_weights_M: As in `Compared`, like all that follows.
        hardness: How much more harder negatives count.
        guidance: Hides more.

    Returns:
        A scalar.
    """
    one = Compared(anchors_BD, passages_MD, targets_B, ignored, log_weights_M, hardness, guidance)
    return joint_cross_entropy([one], scale, chunk_rows)


def own_cross_entropy(
    anchors_BD: Tensor,
    passages_MD: Tensor,
    targets_B: Tensor,
    negatives_BK: Tensor,
    shared_S: Tensor,
    ignored: Tensor,
    scale: float,
    chunk_rows: int,
    hardness: float = 0.0,
    guidance: Guidance | None = None,
) -> Tensor:
    """The same over each row's own passages and some that all rows share.

    Args:
        anchors_BD: (B, D) anchor of each row.
        passages_MD: (M, D) distinct passages.
        targets_B: int64 (B,) the positive of each row.
        negatives_BK: int64 (B, K) the negatives of each row; -1 pads.
        shared_S: int64 (S,) distinct passages that every row sees, less its own and its ignored.
        ignored: int64 (2, n) pairs (row, passage) that the row must not see.
        scale: Inverse temperature.
        chunk_rows: Rows whose logits exist at one time; they are computed again backwards.
        hardness: As in `masked_cross_entropy`.
        guidance: As in `masked_cross_entropy`; also of a row's own negatives.

    Returns:
        A scalar.
    """
    num_rows, num_passages = len(anchors_BD), len(passages_MD)
    hidden = ignored[0] * num_passages + ignored[1]

    def chunk_loss(chunk_CD: Tensor, passages_MD: Tensor, own_CN: Tensor, start: int) -> Tensor:
        rows_C = torch.arange(start, start + len(own_CN), device=own_CN.device)
        seen_CS = ~torch.isin(rows_C[:, None] * num_passages + shared_S, hidden)
        seen_CS &= (own_CN[:, :, None] != shared_S).all(1)
        all_CN = torch.cat([own_CN, torch.where(seen_CS, shared_S, -1)], 1)
        if guidance is not None:
            part = guidance.of_rows(slice(start, start + len(own_CN)))
            all_CN = all_CN.masked_fill(part.hides_of(all_CN.clamp(min=0)), -1)
        scores_CN = torch.einsum("cd,cnd->cn", chunk_CD, passages_MD[all_CN.clamp(min=0)])
        harder_CN = hardness * scores_CN.detach()
        harder_CN[:, 0] = 0
        logits_CN = (scale * scores_CN + harder_CN).masked_fill(all_CN < 0, -torch.inf)
        return (logits_CN.logsumexp(1) - logits_CN[:, 0]).sum()

    own_BN = torch.cat([targets_B[:, None], negatives_BK], 1)
    total = anchors_BD.new_zeros(())
    for start in range(0, num_rows, chunk_rows):
        part = slice(start, start + chunk_rows)
        total = total + checkpoint(
            chunk_loss, anchors_BD[part], passages_MD, own_BN[part], start, use_reentrant=False
        )
    return total / num_rows
