"""The monitor of a run: measures the model at evaluations, writes the training log."""

import time
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator

from stx_mine import progress
from stx_mine.stages.train.batch_collator import BatchCollator
from stx_mine.stages.train.cosines import measure_cosines
from stx_mine.stages.train.evaluations import BEST, EvaluationPlan, mean_of_sets
from stx_mine.stages.train.processes import of_first
from stx_mine.store.training_log import TrainingLog


class TrainingMonitor(BaseEvaluator):  # type: ignore[misc]
    """Measures a model at evaluations and writes the training log; each process has one."""

    def __init__(self, plan: EvaluationPlan, collator: BatchCollator) -> None:
        """Monitor a run whose batches, and those held back, the collator reads."""
        super().__init__()
        self.plan, self.collator = plan, collator
        self._log: TrainingLog | None = None
        self._line: dict[str, Any] = {}

    def begin(self, steps_done: int, num_steps: int) -> None:
        """Start the clock, after `steps_done` steps of `num_steps` that a checkpoint has."""
        self._log = TrainingLog(self.plan.path, steps_done) if self.plan.path else None
        kept = self._log.kept if self._log else []
        self._earlier = kept[-1]["seconds"] if kept else 0.0
        self._first_step, self._num_steps = steps_done, num_steps
        self._last_step = steps_done
        self._started = self._last_time = time.monotonic()
        self._measuring = 0.0

    def logged(self, step: int, facts: dict[str, float], more_follows: bool) -> None:
        """Record a logged step; its line is written later where an evaluation of it follows."""
        now = time.monotonic()
        steps = step - self._last_step
        trained = now - self._last_time - self._measuring
        per_step = (now - self._started) / (step - self._first_step)
        self._line = {
            "step": step,
            "seconds": self._seconds(),
            **facts,
            "samples_per_second": steps * self.collator.shards[0].batch_size / trained,
            "eta_seconds": per_step * (self._num_steps - step),
            **_peaks(),
        }
        self._last_step, self._last_time, self._measuring = step, now, 0.0
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
            What was measured, by the names that trackers show; the metric that decides which
            checkpoint is the best is the same in all processes.
        """
        started = time.monotonic()
        measured: dict[str, Any] = {}
        if validation_loss is not None:
            measured["validation_loss"] = validation_loss
        if self.plan.sample and self.plan.mini_batches:
            measured["cosine"] = measure_cosines(model, self.plan.sample, self.plan.mini_batches)
        if self.plan.evaluate:
            measured["evaluations"] = self.plan.evaluate()
        self._line = {"step": steps, "seconds": self._seconds(), **self._line, **measured}
        self._write()
        metrics = flat(measured)
        if self.plan.evaluates:
            own = mean_of_sets(measured["evaluations"]) if self.plan.evaluate else None
            metrics[f"eval_{BEST}"] = of_first(own, model.device)
        self._measuring += time.monotonic() - started
        return metrics

    def _seconds(self) -> float:
        return self._earlier + time.monotonic() - self._started

    def _write(self) -> None:
        if self._log:
            self._log.append(self._line)
        self._line = {}


def flat(measured: dict[str, Any]) -> dict[str, float]:
    """What was measured as one level of numbers, without deciles."""
    metrics = {}
    if "validation_loss" in measured:
        metrics["eval_loss"] = measured["validation_loss"]
    for kind, one in measured.get("cosine", {}).items():
        metrics[f"eval_cosine_{kind}"] = one["mean"]
    for name, values in measured.get("evaluations", {}).items():
        metrics |= {f"eval_{name}_{metric}": value for metric, value in values.items()}
    return metrics


def step_facts(inputs: dict[str, Any]) -> dict[str, torch.Tensor | int]:
    """What the batch of a step holds; tensors stay on their device, so that nothing waits.

    Returns:
        `tokens` of this process; `slots` (anchors, positives and negatives of all rows) and
        `distinct` (distinct anchors and distinct passages) of the whole batch, where its label
        says so (the losses of sentence-transformers over rows have none).
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
    peaks = {"peak_rss_bytes": progress.peak_memory()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        peaks["peak_device_bytes"] = torch.cuda.max_memory_allocated()
    return peaks
