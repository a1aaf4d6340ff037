"""Cross-entropy over the passages (or anchors) of a batch, never all logits at one time.

Shape letters: B rows, M distinct candidates, K negatives a row, S shared candidates, N = 1 + K + S,
C rows of a chunk, D dimensions.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from stx_mine.stages.train.losses.guide import Guidance


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
        log_weights_M: Tensor | None,
        hardness: float,
        guidance: Guidance | None,
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
            positive_C = logits_CM[rows_C, targets_C]
            if hardness:
                logits_CM.mul_(1 + hardness / scale)
                logits_CM[rows_C, targets_C] = positive_C
            if log_weights_M is not None:
                logits_CM.add_(log_weights_M)
            mask = ignored[:, cuts[number] : cuts[number + 1]]
            logits_CM[mask[0] - start, mask[1]] = -torch.inf
            if guidance is not None:
                part = guidance.of_rows(slice(start, start + chunk_rows))
                logits_CM.masked_fill_(part.hides(targets_C), -torch.inf)
            highest_C = logits_CM.amax(1)
            exponentials_CM = logits_CM.sub_(highest_C[:, None]).exp_()
            sums_C = exponentials_CM.sum(1)
            total += (sums_C.log() + highest_C - positive_C).sum()
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
        return grad * grad_anchors, grad * grad_passages, *[None] * 7


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
    """Mean over rows of log(sum of weight x exp(logit)) - logit of the target, some masked.

    Without weights and hardness that is -log softmax(scale * anchor . passages)[target].

    Args:
        anchors_BD: (B, D) anchor of each row.
        passages_MD: (M, D) distinct passages.
        targets_B: int64 (B,) the positive of each row.
        ignored: int64 (2, n) pairs (row, passage) left out of the softmax, sorted by row; never
            the row's own positive.
        scale: Inverse temperature.
        chunk_rows: Rows whose logits exist at one time; changes no result beyond rounding.
        log_weights_M: (M,) logarithm of how much each passage counts; None: each counts once.
        hardness: Added to the logit of a negative, times its score, without a gradient of its
            own: harder negatives count more (Lan et al. 2025).
        guidance: Masks more, by the scores of another model; made a chunk at a time.

    Returns:
        A scalar.
    """
    if log_weights_M is not None:
        log_weights_M = log_weights_M.to(passages_MD.dtype)
    loss: Tensor = _MaskedCrossEntropy.apply(
        anchors_BD,
        passages_MD,
        targets_B,
        ignored,
        scale,
        chunk_rows,
        log_weights_M,
        hardness,
        guidance,
    )
    return loss


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
