"""Losses of sentence-transformers over packed batches: batch-* on labels, and two on rows.

Those over labels get the embeddings of the whole batch, which several processes share. Those over
rows embed every slot of every row themselves, whatever repeats, in one process.
"""

from typing import Literal

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    BatchAllTripletLoss,
    BatchHardSoftMarginTripletLoss,
    BatchHardTripletLoss,
    BatchHardTripletLossDistanceFunction,
    BatchSemiHardTripletLoss,
    CachedGISTEmbedLoss,
    CachedMultipleNegativesRankingLoss,
)
from sentence_transformers.util import cos_sim, dot_score
from torch import Tensor, nn

from stx_mine.errors import ConfigError
from stx_mine.stages.train.losses.embedding import MiniBatches, PrefixedFeatures, embed
from stx_mine.stages.train.losses.guide import Guide
from stx_mine.stages.train.processes import gather_shares

_WITH_MARGIN = {
    "batch-all": BatchAllTripletLoss,
    "batch-hard": BatchHardTripletLoss,
    "batch-semi-hard": BatchSemiHardTripletLoss,
}
_DISTANCES = {
    "cosine": BatchHardTripletLossDistanceFunction.cosine_distance,
    "euclidean": BatchHardTripletLossDistanceFunction.euclidean_distance,
}


class LabelLoss(nn.Module):  # type: ignore[misc]
    """A loss of the library over the texts of a batch and their labels.

    Texts are embedded as in all our losses: in mini-batches with gradient caching, each process its
    share. Every process has the same loss, that of the whole batch.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        name: str,
        metric: Literal["cosine", "euclidean"],
        margin: float,
        mini_batches: MiniBatches,
        dims: tuple[int, ...] = (),
    ) -> None:
        """Wrap a model.

        Args:
            model: The model to train.
            name: batch-all, batch-hard, batch-semi-hard or batch-hard-soft-margin.
            metric: The distance: 1 - cosine, or Euclidean.
            margin: How much closer texts of one label must be; batch-hard-soft-margin has none.
            mini_batches: What goes through the network at one time.
            dims: First dimensions that are scored, the sum over them; none: all.
        """
        super().__init__()
        self.model, self.mini_batches, self.dims = model, mini_batches, dims
        distance = _DISTANCES[metric]
        self.loss = (
            _WITH_MARGIN[name](model, distance, margin)
            if name in _WITH_MARGIN
            else BatchHardSoftMarginTripletLoss(model, distance)
        )

    def forward(self, features: list[PrefixedFeatures], labels: dict[str, Tensor]) -> Tensor:
        """The loss of one batch, as `LabelCollator` gives it."""
        own = embed(self.model, features[0], self.mini_batches)
        embeddings_BD = gather_shares(own, labels["num_rows"])
        losses = [
            self.loss.compute_loss_from_embeddings([embeddings_BD[:, :dim]], labels["labels"])
            for dim in self.dims or (None,)
        ]
        return torch.stack(losses).sum()


def cached_mnr(model: SentenceTransformer, temperature: float, batch_tokens: int) -> nn.Module:
    """The library's CachedMultipleNegativesRankingLoss over `RowCollator`'s columns."""
    return CachedMultipleNegativesRankingLoss(
        model,
        scale=1 / temperature,
        similarity_fct=cos_sim if str(model.similarity_fn_name) == "cosine" else dot_score,
        mini_batch_num_tokens=batch_tokens,
    )


def gist(model: SentenceTransformer, guide: Guide, temperature: float) -> nn.Module:
    """The library's CachedGISTEmbedLoss over `RowCollator`'s columns.

    Raises:
        ConfigError: It cannot read what the guide or the model reads.
    """
    try:
        return CachedGISTEmbedLoss(
            model,
            guide.model,
            temperature=temperature,
            mini_batch_num_tokens=guide.mini_batches.tokens,
            margin=guide.margin,
        )
    except ValueError as error:
        raise ConfigError(
            f"--loss gist cannot use this pair of models ({error}); give --loss mnr --guide"
        ) from error
