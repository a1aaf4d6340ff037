"""How a model is trained: its learning rate and schedule, what is looked at, what is said of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer
from torch import nn

from stx_mine.models.encoder import SentenceTransformerEncoder
from stx_mine.models.load import is_static
from stx_mine.models.token_batches import default_tokens
from stx_mine.models.tokenise import Tokeniser
from stx_mine.stages.evaluate.model_metrics import evaluate
from stx_mine.stages.evaluate.sets import EvaluationSet
from stx_mine.stages.train.batch_collator import BatchCollator
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.cosines import rows_to_sample, sample_rows
from stx_mine.stages.train.diagnose import diagnose, measure_titles
from stx_mine.stages.train.held_back import HeldBack
from stx_mine.stages.train.learning_rate import default_learning_rate
from stx_mine.stages.train.probe import probe
from stx_mine.stages.train.processes import Processes
from stx_mine.stages.train.schedule import Schedule
from stx_mine.stages.train.trainer import count_parameters, count_steps
from stx_mine.stages.train.watch import BEST, Evaluate, EvaluationPlan, mean_of_sets
from stx_mine.store.artifact import require
from stx_mine.store.batches import BatchShard
from stx_mine.store.run_dir import RunDir
from stx_mine.store.sources import prompts_differ
from stx_mine.store.texts import TextStore
from stx_mine.store.training_log import TRAINING_LOG


def make_schedule(
    config: TrainConfig, packings: list[list[BatchShard]], learning_rate: float
) -> Schedule:
    """The schedule that the config asks for, with the rate that was chosen."""
    return Schedule(
        num_passes=config.epochs or len(packings),
        learning_rate=learning_rate,
        warmup=config.warmup,
        seed=config.seed,
        checkpoint_steps=config.checkpoint_steps,
        shape=config.schedule,
        floor=config.floor,
        evaluation_steps=config.evaluation_steps,
        patience=config.patience,
    )


def choose_rate(
    config: TrainConfig,
    model: SentenceTransformer,
    loss: nn.Module,
    packings: list[list[BatchShard]],
    collator: BatchCollator,
    processes: Processes,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """The peak rate and why, which the plan keeps for a run that goes on.

    Returns:
        `learning_rate` and `learning_rate_reason`.

    Raises:
        ConfigError: A probe is asked for and there are too few batches, or no rate is any good.
    """
    size = packings[0][0].batch_size
    rate, reason = default_learning_rate(size, count_parameters(model), is_static(model))
    if not isinstance(config.learning_rate, str):
        rate, reason = config.learning_rate, "as asked"
    elif config.learning_rate == "probe":
        schedule = make_schedule(config, packings, rate)
        rate, reason = probe(
            model, loss, packings, collator, schedule, processes.size, options
        ).choose()
    return {"learning_rate": rate, "learning_rate_reason": reason}


def make_looks(
    config: TrainConfig,
    model: SentenceTransformer,
    kept: HeldBack,
    schedule: Schedule,
    folder: Path,
    sets: Sequence[EvaluationSet],
    processes: Processes,
) -> EvaluationPlan:
    """What to look at while the model trains.

    Args:
        config: Says where else to log, and how many tokens go through the network at one time.
        model: The model.
        kept: The batches to train on, and those held back.
        schedule: How long and how often.
        folder: Where the training log goes.
        sets: The evaluation sets; empty but in the first process.
        processes: Only the first measures and writes; the loss on what is held back they share.
    """
    held_back = kept.batches
    if not processes.is_first:
        return EvaluationPlan(held_back, bool(config.evaluation))
    own = kept.packings[0][0].sources
    prompts = own[0].prompts if own and not prompts_differ(own) else {}
    batches = held_back or [
        (shard, number) for shard in kept.packings[0] for number in range(shard.num_batches)
    ]
    labels = batches[0][0].texts_per_label is not None
    size, steps = batches[0][0].batch_size, count_steps(kept.packings, schedule.num_passes)
    num_rows = rows_to_sample(steps, size, 1 + steps // schedule.steps_between_evaluations(steps))
    return EvaluationPlan(
        held_back,
        bool(sets),
        folder / TRAINING_LOG,
        # (text, label) batches have no anchors, positives and negatives.
        [] if labels else sample_rows(batches, num_rows, Tokeniser(model)),
        evaluator(model, sets, prompts) if sets else None,
        config.batch_tokens or default_tokens(model.device.type),
        config.report_to,
    )


def evaluator(
    model: SentenceTransformer, sets: Sequence[EvaluationSet], prompts: dict[str, str | None]
) -> Evaluate:
    """What evaluates a model, as it is when called, on all sets.

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
                for metric, values in evaluate(
                    encoder, one.texts, one.relevant, device, prompts
                ).items()
            }
            for one in sets
        }

    return on_all


def kept_best(log: list[dict[str, Any]], best_step: int | None) -> dict[str, Any] | None:
    """What is said of the evaluations of a run; None where there were none.

    Args:
        log: The lines of the training log.
        best_step: The step whose weights the model has.

    Returns:
        `sets`, and the mean over them of the metric that decides: `untrained`, `best` (at
        `best_step`), `last`.
    """
    found = {one["step"]: one["evaluations"] for one in log if "evaluations" in one}
    if best_step is None:
        return None
    return {
        "sets": list(found[0]),
        "untrained": mean_of_sets(found[0]),
        "best": mean_of_sets(found[best_step]),
        "best_step": best_step,
        "last": mean_of_sets(found[max(found)]),
    }


def how_evaluated(found: dict[str, Any] | None, counts: dict[str, Any]) -> str:
    """How the evaluations went, and whether they stopped the run, to end a sentence."""
    if found is None:
        return (
            "; no evaluation data in training, so no early stopping: judge with `stx-mine evaluate`"
        )
    stopped = (
        f"; stopped before step {counts['steps_planned']:,}: no new best"
        if counts["steps"] < counts["steps_planned"]
        else ""
    )
    return (
        f"; {BEST} on {', '.join(found['sets'])}: {found['untrained']:.4f} untrained, "
        f"{found['best']:.4f} at step {found['best_step']:,} (the best, which is kept), "
        f"{found['last']:.4f} at the end{stopped}"
    )


def diagnose_run(
    run: RunDir, log: list[dict[str, Any]], labels: bool, sets: Sequence[EvaluationSet]
) -> list[str]:
    """What the log and the texts of a finished run say.

    Args:
        run: The run.
        log: The lines of the training log.
        labels: Whether the batches are of (text, label) rows, which are no queries and passages.
        sets: The evaluation sets.
    """
    training = None
    if not labels:
        store = TextStore.open(require(run, "texts"))
        texts = store.queries.column("text"), store.passages.column("text")
        pairs = np.stack([store.pair_query_ids, store.pair_passage_ids], axis=1)
        training = measure_titles(*texts, pairs)
    return diagnose(
        log,
        training=training,
        evaluations={
            one.name: measure_titles(one.texts["query"], one.texts["passage"], one.relevant.pairs)
            for one in sets
        },
    )


def warn_of_evaluation(found: dict[str, Any] | None) -> list[str]:
    """A warning where the best that was kept is no better than the untrained model."""
    if found is None or found["best"] > found["untrained"]:
        return []
    return [
        f"training never made {BEST} better: {found['best']:.4f} at its best, "
        f"{found['untrained']:.4f} untrained; give a lower --learning-rate, or mend the data"
    ]
