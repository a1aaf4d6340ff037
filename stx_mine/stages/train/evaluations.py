"""The evaluations of a training: what is planned before it, and what is left of them after it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from stx_mine.models.encoder import SentenceTransformerEncoder
from stx_mine.models.tokenise import Tokeniser
from stx_mine.stages.evaluate.model_metrics import evaluate
from stx_mine.stages.evaluate.sets import EvaluationSet
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.cosines import RowSample, rows_to_sample, sample_rows
from stx_mine.stages.train.held_back import HeldBack
from stx_mine.stages.train.losses.embedding import MiniBatches
from stx_mine.stages.train.processes import Processes
from stx_mine.stages.train.schedule import Schedule
from stx_mine.store.batches import BatchShard
from stx_mine.store.sources import SourceInfo, prompts_differ

# Of these the mean over all sets decides which checkpoint is the best.
BEST = "ndcg@10"
# Name of a set -> metric -> value, of the model as it is now.
Evaluate = Callable[[], dict[str, dict[str, float]]]


@dataclass(frozen=True)
class EvaluationPlan:
    """What is measured while a model trains; all but the first two in process 0 only.

    Attributes:
        held_back: (shard, number within it) of batches that are not trained on.
        evaluates: Whether process 0 has evaluation sets.
        path: The training log.
        sample: Rows whose cosines are measured.
        evaluate: Evaluates on all sets; None where there are none.
        mini_batches: What of the sample goes through the network at one time.
        reporters: `tensorboard`, `wandb`: where else to log.
    """

    held_back: Sequence[tuple[BatchShard, int]] = ()
    evaluates: bool = False
    path: Path | None = None
    sample: Sequence[RowSample] = ()
    evaluate: Evaluate | None = None
    mini_batches: MiniBatches | None = None
    reporters: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        config: TrainConfig,
        model: SentenceTransformer,
        kept: HeldBack,
        schedule: Schedule,
        log: Path,
        sets: Sequence[EvaluationSet],
        processes: Processes,
    ) -> "EvaluationPlan":
        """Plan the evaluations of a run.

        Args:
            config: Says where else to log, and how many tokens go through the network at one time.
            model: The model.
            kept: The batches to train on, and those held back.
            schedule: How long and how often.
            log: The training log.
            sets: The evaluation sets; empty but in the first process.
            processes: Only the first measures and writes; the loss on what is held back they share.
        """
        held_back = kept.batches
        if not processes.is_first:
            return cls(held_back, bool(config.evaluation))
        prompts = prompts_of(kept.packings[0][0].sources)
        batches = held_back or [
            (shard, number) for shard in kept.packings[0] for number in range(shard.num_batches)
        ]
        labels = batches[0][0].texts_per_label is not None
        size, steps = batches[0][0].batch_size, schedule.num_steps(kept.packings)
        num_rows = rows_to_sample(
            steps, size, 1 + steps // schedule.steps_between_evaluations(steps)
        )
        return cls(
            held_back,
            bool(sets),
            log,
            # (text, label) batches have no anchors, positives and negatives.
            [] if labels else sample_rows(batches, num_rows, Tokeniser(model)),
            evaluator(model, sets, prompts) if sets else None,
            MiniBatches.of(config, model.device),
            config.report_to,
        )


def prompts_of(sources: Sequence[SourceInfo]) -> dict[str, str | None]:
    """Role -> prompt that evaluation data gets: that of the sources, where they agree."""
    return sources[0].prompts if sources and not prompts_differ(sources) else {}


def evaluator(
    model: SentenceTransformer, sets: Sequence[EvaluationSet], prompts: dict[str, str | None]
) -> Evaluate:
    """A function that evaluates a model, as it is when called, on all sets.

    Args:
        model: The model.
        sets: The sets.
        prompts: Role -> prompt; the model's own where there is none.
    """
    encoder = SentenceTransformerEncoder("the model in training", model)
    device = str(model.device)

    def on_all() -> dict[str, dict[str, float]]:
        return {
            one.name: {
                metric: float(values.mean())
                for metric, values in evaluate(encoder, one, device, prompts).items()
            }
            for one in sets
        }

    return on_all


@dataclass(frozen=True)
class BestEvaluation:
    """What the evaluations of a run found: the mean over its sets of the metric that decides.

    Attributes:
        sets: Names of the evaluation sets.
        untrained: Before the first step.
        best: At the step whose weights the model has.
        best_step: That step.
        last: At the last evaluation.
    """

    sets: list[str]
    untrained: float
    best: float
    best_step: int
    last: float

    @classmethod
    def of_log(
        cls, log: Sequence[Mapping[str, Any]], best_step: int | None
    ) -> "BestEvaluation | None":
        """Read it from a training log; None where there were no evaluations.

        Args:
            log: The lines of the training log.
            best_step: The step whose weights the model has; None where no best is kept.
        """
        if best_step is None:
            return None
        by_step = {line["step"]: line["evaluations"] for line in log if "evaluations" in line}
        return cls(
            list(by_step[0]),
            mean_of_sets(by_step[0]),
            mean_of_sets(by_step[best_step]),
            best_step,
            mean_of_sets(by_step[max(by_step)]),
        )


def mean_of_sets(evaluations: dict[str, dict[str, float]], metric: str = BEST) -> float:
    """The mean of a metric over evaluation sets (name -> metric -> value)."""
    return sum(evaluation[metric] for evaluation in evaluations.values()) / len(evaluations)
