"""Trained weights merged with those of the base: what tuning lost elsewhere comes back.

Robust fine-tuning by weight-space ensembles (Wortsman et al. 2022).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from stx_mine import progress
from stx_mine.errors import ModelError
from stx_mine.models.adapter import has_adapter
from stx_mine.models.encoder import SentenceTransformerEncoder, weights_digest
from stx_mine.stages.evaluate.model_metrics import evaluate
from stx_mine.stages.evaluate.sets import EvaluationSet
from stx_mine.stages.merge.core.weights import linear
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.core.best_share import pooled_queries, smallest_as_good
from stx_mine.stages.train.evaluation_sets import SetsOfTraining
from stx_mine.stages.train.evaluations import BEST, prompts_of
from stx_mine.stages.train.lora import merge_adapters
from stx_mine.stages.train.outcome import refuse_infinite
from stx_mine.stages.train.student import load_base
from stx_mine.store.artifact import Artifact, require
from stx_mine.store.run_dir import RunDir
from stx_mine.store.sources import SourceInfo

# Shares of the trained weights that auto tries, the smallest first.
_ALPHAS = tuple(number / 10 for number in range(1, 11))


@dataclass(frozen=True)
class MergedBase:
    """A trained model that was merged with its base.

    Attributes:
        alpha: Share of the trained weights, in (0, 1]; the base has the rest.
        by_alpha: (share, mean of the metric over the evaluation sets) of all that were tried.
        best: The share of the highest mean; None where none was tried.
        scores: Name of a set -> metric of `base`, `trained` and `merged`.
        checks: Names of the sets that chose nothing.
    """

    alpha: float
    by_alpha: Sequence[tuple[float, float]] = ()
    best: float | None = None
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    checks: Sequence[str] = ()


class _Mixture:
    """A model whose weights are set to any share of two."""

    def __init__(self, model: SentenceTransformer, base: SentenceTransformer) -> None:
        self.model = model
        of_base = base.state_dict()
        self._both = {
            name: (weight.detach().cpu().numpy().copy(), of_base[name].numpy())
            for name, weight in model.state_dict().items()
            if weight.is_floating_point()
        }

    def set(self, alpha: float) -> None:
        """Give the model base + alpha (trained - base)."""
        weights = self.model.state_dict()
        with torch.no_grad():
            for name, both in self._both.items():
                weights[name].copy_(torch.from_numpy(linear(both, [alpha, 1 - alpha])))


@dataclass
class _Judged:
    """The metric of every query, by set and share; each is measured once.

    Attributes:
        mixture: The model.
        sets: The sets.
        prompts: Role -> prompt.
        found: (set, share) -> float64 (queries,).
    """

    mixture: _Mixture
    sets: Sequence[EvaluationSet]
    prompts: dict[str, str | None]
    found: dict[tuple[str, float], NDArray[np.float64]] = field(default_factory=dict)

    def measure(self, sets: Sequence[EvaluationSet], alpha: float) -> None:
        """Measure one share on sets that it was not measured on."""
        missing = [one for one in sets if (one.name, alpha) not in self.found]
        if not missing:
            return
        self.mixture.set(alpha)
        encoder = SentenceTransformerEncoder(f"{alpha:g} of the trained", self.mixture.model)
        device = str(self.mixture.model.device)
        for one in missing:
            metrics = evaluate(encoder, one, device, self.prompts)
            self.found[one.name, alpha] = metrics[BEST]

    def columns(self) -> NDArray[np.float64]:
        """float64 (queries, shares) of all that auto tries, over all sets."""
        with progress.step("merging with the base", len(_ALPHAS), "shares") as counted:
            for alpha in _ALPHAS:
                self.measure(self.sets, alpha)
                counted.advance()
        names = [one.name for one in self.sets]
        found = [pooled_queries([self.found[name, alpha] for name in names]) for alpha in _ALPHAS]
        return np.stack(found, axis=1)


def merge_with_base(
    config: TrainConfig,
    run: RunDir,
    student: SentenceTransformerEncoder,
    artifact: Artifact,
    sources: Sequence[SourceInfo],
    held_out: SetsOfTraining,
) -> MergedBase | None:
    """Merge a trained model with its base, as the config asks for.

    Args:
        config: Says the share, or that the evaluation chooses it.
        run: The run.
        student: The trained model, without adapters; changed in place.
        artifact: The model that is made; its key says what the base was.
        sources: Of the batches, whose prompts the data takes.
        held_out: The data that chooses the share, and other data to compare on.

    Returns:
        What was done; None where it is not asked for.

    Raises:
        ModelError: The base is no longer what training began with.
        TrainingError: Trained weights are no numbers.
    """
    if config.merge_with_base is None:
        return None
    refuse_infinite(student.model)
    mixture = _Mixture(student.model, _base(config, run, artifact))
    judged = _Judged(mixture, held_out.watched, prompts_of(sources))
    by_alpha: list[tuple[float, float]] = []
    best: float | None = None
    if config.merge_with_base == "auto":
        values = judged.columns()
        means = values.mean(0).tolist()
        by_alpha = list(zip(_ALPHAS, means, strict=True))
        best = _ALPHAS[int(np.argmax(means))]
        alpha = _ALPHAS[smallest_as_good(values, config.seed)]
    else:
        alpha = config.merge_with_base
    scores = {
        one.name: _scores(judged, one, alpha) for one in (*held_out.watched, *held_out.checked)
    }
    mixture.set(alpha)
    return MergedBase(alpha, by_alpha, best, scores, [one.name for one in held_out.checked])


def _scores(judged: _Judged, data: EvaluationSet, alpha: float) -> dict[str, float]:
    """The metric of base, trained and merged model on one set."""
    shares = {"base": 0.0, "trained": 1.0, "merged": alpha}
    for share in shares.values():
        judged.measure([data], share)
    return {name: float(judged.found[data.name, one].mean()) for name, one in shares.items()}


def _base(config: TrainConfig, run: RunDir, artifact: Artifact) -> SentenceTransformer:
    """The model that training began with.

    Raises:
        ModelError: Its files have changed since.
    """
    base = load_base(config, run, require(run, "batches"))
    began: dict[str, Any] = artifact.plan["fields"]["model"]
    if weights_digest(base) != began["weights"]:
        raise ModelError(
            "expected the base that training began with, found other weights at its place; put it "
            "back there, then run the same command again: the trained weights are kept"
        )
    if has_adapter(base):
        merge_adapters(base)
    return base
