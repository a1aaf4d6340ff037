"""Watch a run: what is measured while it trains, and what is written of it."""

import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator

from stx_mine.stages.train.batch_collator import BatchCollator
from stx_mine.stages.train.cosines import RowSample, measure_cosines
from stx_mine.stages.train.processes import of_first
from stx_mine.store.batches import BatchShard
from stx_mine.store.training_log import TrainingLog

# Of these the mean over all sets decides which checkpoint is the best.
BEST = "ndcg@10"
# Name of a set -> metric -> value, of the model as it is now.
Evaluate = Callable[[], dict[str, dict[str, float]]]


@dataclass(frozen=True)
class EvaluationPlan:
    """What there is to look at; the last three in process 0 only.

    Attributes:
        held_back: (shard, number within it) of batches that are not trained on.
        evaluates: Whether process 0 has evaluation sets.
        path: The training log.
        sample: Rows whose cosines are measured.
        evaluate: Evaluates on all sets; None where there are none.
        batch_tokens: Tokens that go through the network at one time.
        reporters: `tensorboard`, `wandb`: where else to log.
    """

    held_back: Sequence[tuple[BatchShard, int]] = ()
    evaluates: bool = False
    path: Path | None = None
    sample: Sequence[RowSample] = ()
    evaluate: Evaluate | None = None
    batch_tokens: int = 2_048
    reporters: tuple[str, ...] = ()


class TrainingMonitor(BaseEvaluator):  # type: ignore[misc]
    """Measures a model at evaluations, and writes the training log; one for each process."""

    def __init__(self, looks: EvaluationPlan, collator: BatchCollator) -> None:
        """Watch a run whose batches, and those held back, the collator reads."""
        super().__init__()
        self.looks, self.collator = looks, collator
        self._log: TrainingLog | None = None
        self._line: dict[str, Any] = {}

    def begin(self, steps_done: int, num_steps: int) -> None:
        """Start the clock, after `steps_done` steps of `num_steps` that a checkpoint has."""
        self._log = TrainingLog(self.looks.path, steps_done) if self.looks.path else None
        kept = self._log.kept if self._log else []
        self._earlier = kept[-1]["seconds"] if kept else 0.0
        self._first_step, self._num_steps = steps_done, num_steps
        self._last_step = steps_done
        self._started = self._last_time = time.monotonic()
        self._looking = 0.0

    def logged(self, step: int, facts: dict[str, float], more_follows: bool) -> None:
        """Take down a logged step; the line waits where an evaluation of it follows."""
        now = time.monotonic()
        steps = step - self._last_step
        trained = now - self._last_time - self._looking
        a_step = (now - self._started) / (step - self._first_step)
        self._line = {
            "step": step,
            "seconds": self._seconds(),
            **facts,
            "samples_per_second": steps * self.collator.shards[0].batch_size / trained,
            "eta_seconds": a_step * (self._num_steps - step),
            **_peaks(),
        }
        self._last_step, self._last_time, self._looking = step, now, 0.0
        if not more_follows:
            self._write()

    def __call__(
        self,
        model: SentenceTransformer,
        output_path: str | None = None,
        epoch: float = -1,
        steps: int = -1,
        validation_loss: float | None = None,
    ) -> dict[str, float]:
        """Measure the model after `steps` steps and write the line of that step.

        Args:
            model: The model, on its device.
            output_path: Not used.
            epoch: Not used.
            steps: Steps that it was trained.
            validation_loss: The loss on what is held back.

        Returns:
            What was measured by name, as trackers show it; the metric that decides which
            checkpoint is the best is the same in all processes.
        """
        started = time.monotonic()
        found: dict[str, Any] = {}
        if validation_loss is not None:
            found["validation_loss"] = validation_loss
        if self.looks.sample:
            found["cosine"] = measure_cosines(model, self.looks.sample, self.looks.batch_tokens)
        if self.looks.evaluate:
            found["evaluations"] = self.looks.evaluate()
        self._line = {"step": steps, "seconds": self._seconds(), **self._line, **found}
        self._write()
        metrics = flat(found)
        if self.looks.evaluates:
            own = mean_of_sets(found["evaluations"]) if self.looks.evaluate else None
            metrics[f"eval_{BEST}"] = of_first(own, model.device)
        self._looking += time.monotonic() - started
        return metrics

    def _seconds(self) -> float:
        return self._earlier + time.monotonic() - self._started

    def _write(self) -> None:
        if self._log:
            self._log.append(self._line)
        self._line = {}


def mean_of_sets(evaluations: dict[str, dict[str, float]], metric: str = BEST) -> float:
    """The mean of a metric over evaluation sets."""
    return sum(one[metric] for one in evaluations.values()) / len(evaluations)


def flat(found: dict[str, Any]) -> dict[str, float]:
    """What was measured as one level of numbers, without deciles."""
    metrics = {}
    if "validation_loss" in found:
        metrics["eval_loss"] = found["validation_loss"]
    for kind, one in found.get("cosine", {}).items():
        metrics[f"eval_cosine_{kind}"] = one["mean"]
    for name, values in found.get("evaluations", {}).items():
        metrics |= {f"eval_{name}_{metric}": value for metric, value in values.items()}
    return metrics


def step_facts(inputs: dict[str, Any]) -> dict[str, torch.Tensor | int]:
    """What the batch of a step holds; tensors are left where they are, so that none waits.

    Returns:
        `tokens` of this process; `slots` (anchors, positives and negatives of all rows) and
        `distinct` (distinct anchors and distinct passages) of the whole batch, where its label
        tells (the library's losses over rows have none).
    """
    label, tokens = inputs.get("label"), []
    for name, value in inputs.items():
        if name.startswith("guide_"):
            continue
        if name.endswith("_attention_mask"):
            tokens.append(value.sum())
        elif name.endswith("_input_ids") and name[:-9] + "attention_mask" not in inputs:
            tokens.append(value.numel())
    facts = {"tokens": sum(tokens)}
    if isinstance(label, dict) and "num_negatives" in label:
        facts["slots"] = 2 * label["num_rows"] + label["num_negatives"]
        facts["distinct"] = label["num_anchors"] + label["num_passages"]
    return facts


def _peaks() -> dict[str, int]:
    """Peak memory of this process in bytes."""
    # Linux counts in units of 1,024 bytes, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1_024
    peaks = {"peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        peaks["peak_device_bytes"] = torch.cuda.max_memory_allocated()
    return peaks
