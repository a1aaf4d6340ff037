"""A weighted sum of losses over a packed batch, each distinct text embedded once for all."""

from collections.abc import Mapping

from torch import Tensor, nn

from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.losses.embedding import PrefixedFeatures, embed_distinct
from stx_mine.stages.train.losses.mnr import PackedLoss
from stx_mine.store.batches import BatchShard


class LossSum(nn.Module):  # type: ignore[misc]
    """Several losses of one model; the Trainer adds what it returns, and logs each."""

    def __init__(self, terms: Mapping[str, PackedLoss], weights: Mapping[str, float]) -> None:
        """Take losses of one model.

        Args:
            terms: By name, at least one.
            weights: Of each, by name.
        """
        super().__init__()
        first = next(iter(terms.values()))
        self.model, self.mini_batches = first.model, first.mini_batches
        self.terms, self.weights = nn.ModuleDict(terms), dict(weights)

    def forward(
        self, features: list[PrefixedFeatures], labels: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The terms of the loss of one packed batch, or of this process's rows, weighted."""
        embedded = embed_distinct(self.model, features[:2], labels, self.mini_batches)
        for term in self.terms.values():
            labels = term.prepare(features, labels)
        return {
            name: self.weights[name] * term.of_embeddings(*embedded, labels)
            for name, term in self.terms.items()
        }


def faint_terms(config: TrainConfig, shard: BatchShard) -> list[str]:
    """What makes a term of a sum of losses count for less than its weight says."""
    weight = config.weight_of.get("kl")
    if weight is None or config.teacher_temperature is not None or shard.judge is not None:
        return []
    factor = config.temperature**2
    return [
        f"kl is multiplied by temperature x temperature = {factor:g}, as in DistillKLDivLoss, so "
        f"that its weight of {weight:g} is one of {weight * factor:g} beside the other term; with "
        f"--teacher-temperature {config.temperature:g} it is not multiplied"
    ]
