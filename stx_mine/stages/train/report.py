"""The closing sentences of `train`."""

from collections.abc import Sequence
from typing import Any

from stx_mine.stages.evaluate.core.shares import SeenShares
from stx_mine.stages.evaluate.counts import EvaluationCounts
from stx_mine.stages.evaluate.data_report import data_lines, seen_lines, seen_warnings
from stx_mine.stages.evaluate.results import read_shares
from stx_mine.stages.pack.core.useful_packings import useful_packings
from stx_mine.stages.pack.packings import MIN_STEPS
from stx_mine.stages.train.counts import TrainCounts
from stx_mine.stages.train.evaluations import BEST, BestEvaluation
from stx_mine.store.artifact import Artifact, Manifest
from stx_mine.store.stage_report import StageReport, make_report
from stx_mine.store.training_log import TRAINING_LOG


def train_report(
    artifact: Artifact, skipped: bool = False, removed: Sequence[str] = ()
) -> StageReport:
    """The report of a finished training.

    Args:
        artifact: The finished `model/`.
        skipped: Whether it was finished before.
        removed: Checkpoints of an earlier call that were not whole.
    """
    manifest = artifact.result
    counts, extra = TrainCounts.read(manifest), manifest.extra
    best = _best_evaluation(extra["evaluation"])
    lines = [
        f"{counts.steps:,} steps of {counts.batch_size:,} rows over {counts.passes} "
        f"passes through {counts.packings} packings, {counts.seconds:.0f} s, processes: "
        f"{counts.processes}",
        f"learning rate {counts.learning_rate:.3g} ({extra['learning_rate_reason']})",
        *_precision_lines(extra),
        f"training loss {counts.first_loss:.4f} -> {counts.last_loss:.4f}{_terms(counts)}"
        f"{_evaluated(best, counts)}",
        *_merged_lines(extra.get("merged_with_base")),
        *_set_lines(extra),
        f"weights saved as {_formats(manifest)}",
        f"how it went is in {manifest.folder / TRAINING_LOG}",
        f'load it with SentenceTransformer("{manifest.folder}")',
    ]
    compared = "(row, text)" if manifest.fields.get("interactions") else "(row, passage)"
    if counts.masked_by_guide is not None:
        lines.append(
            f"the guide masked {counts.masked_by_guide:.2%} of all {compared} of the batches"
        )
    if counts.masked_by_own_scores is not None:
        lines.append(
            f"the model itself masked {counts.masked_by_own_scores:.2%} of all {compared} of the "
            "batches"
        )
    warnings = [f"{name} was cut short or damaged, and was left out" for name in removed]
    warnings += [*extra["notes"], *_few_steps(counts, manifest), *_repeated(counts)]
    warnings += _no_gain(best)
    warnings += [*extra["diagnoses"], *_seen_warnings(extra)]
    return make_report(artifact, lines, warnings, skipped=skipped)


def _precision_lines(extra: dict[str, Any]) -> list[str]:
    """What the network computed in, where that is not the usual or was measured."""
    found = extra.get("precision", "float32"), extra.get("precision_reason", "as asked")
    if found == ("float32", "as asked"):
        return []
    return ["the network computed in {} ({})".format(*found)]


def _terms(counts: TrainCounts) -> str:
    """How the weighted terms of a sum of losses went, in brackets."""
    if counts.terms is None:
        return ""
    found = (f"{name} {first:.4f} -> {last:.4f}" for name, (first, last) in counts.terms.items())
    return f" ({', '.join(found)}, weighted)"


def _merged_lines(merged: dict[str, Any] | None) -> list[str]:
    """With what share the base was merged, why, and what that did on each set."""
    if merged is None:
        return []
    alpha, why = merged["alpha"], ""
    if merged["best"] is not None:
        why = (
            f": the best by {BEST}"
            if alpha == merged["best"]
            else f": not to be told from the best, {merged['best']:g} (paired bootstrap of {BEST})"
        )
    lines = [f"merged with the base: {alpha:g} trained + {1 - alpha:g} base{why}"]
    if merged["by_alpha"]:
        table = ", ".join(f"{one:.1f} {value:.4f}" for one, value in merged["by_alpha"])
        lines.append(f"{BEST} by the share of the trained: {table}")
    for name, scores in merged["scores"].items():
        beside = " (chose nothing)" if name in merged["checks"] else ""
        found = ", ".join(f"{value:.4f} {one}" for one, value in scores.items())
        lines.append(f"{BEST} on {name}{beside}: {found}")
    if not merged["scores"]:
        lines.append(
            "no data was given to compare base, trained and merged model on (--evaluation, "
            "--merge-check): judge with `stx-mine evaluate`"
        )
    return lines


def _set_lines(extra: dict[str, Any]) -> list[str]:
    """How each evaluation set counts, and how much of it is in training."""
    lines = []
    for name, counts in extra.get("evaluation_sets", {}).items():
        lines += [f"{name}: {line}" for line in extra["evaluation_read"][name]]
        lines += [f"{name}: {line}" for line in data_lines(EvaluationCounts(**counts))]
        lines += seen_lines(_seen(extra, name), name)
    return lines


def _seen_warnings(extra: dict[str, Any]) -> list[str]:
    return [
        warning
        for name in extra.get("evaluation_sets", {})
        for warning in seen_warnings(_seen(extra, name), name)
    ]


def _seen(extra: dict[str, Any], name: str) -> SeenShares | None:
    content = extra["seen_in_training"][name]
    return None if content is None else read_shares(content)


def _best_evaluation(content: dict[str, Any] | None) -> BestEvaluation | None:
    return None if content is None else BestEvaluation(**content)


def _formats(manifest: Manifest) -> str:
    """The number format of the published weights, and that of the files of the base model."""
    saved, stored = manifest.fields["save_dtype"], manifest.extra["reading"]["stored"]
    if saved == stored:
        return f"{saved}, like those of the base model"
    return f"{saved} (those of the base model: {stored}; --save-dtype chooses)"


def _evaluated(best: BestEvaluation | None, counts: TrainCounts) -> str:
    """How the evaluations went, and whether they stopped the run, to end a sentence."""
    if best is None:
        return (
            "; no evaluation data in training, so no early stopping: judge with `stx-mine evaluate`"
        )
    stopped = (
        f"; stopped before step {counts.steps_planned:,}: no new best"
        if counts.steps < counts.steps_planned
        else ""
    )
    return (
        f"; {BEST} on {', '.join(best.sets)}: {best.untrained:.4f} untrained, "
        f"{best.best:.4f} at step {best.best_step:,} (the best, which is kept), "
        f"{best.last:.4f} at the end{stopped}"
    )


def _few_steps(counts: TrainCounts, manifest: Manifest) -> list[str]:
    # What is asked for by number is meant.
    if counts.steps >= MIN_STEPS or manifest.fields.get("steps") is not None:
        return []
    return [
        f"{counts.steps} steps are few; a smaller `pack --batch-size` or `--epochs "
        f"{-(-MIN_STEPS * counts.passes // counts.steps)}` would make {MIN_STEPS} or more"
    ]


def _repeated(counts: TrainCounts) -> list[str]:
    """Advice where batches repeat that could be made anew."""
    wanted = useful_packings(counts.passes)
    if counts.packings >= wanted or counts.passes < 2 * counts.packings:
        return []
    return [
        f"{counts.passes} passes see each batch {counts.passes / counts.packings:.3g} times; "
        f"`pack --packings {wanted}` makes others: with ten instead of two, ten passes were 0.8 "
        "points of nDCG@10 better on two sets"
    ]


def _no_gain(best: BestEvaluation | None) -> list[str]:
    """A warning where the best that was kept is no better than the untrained model."""
    if best is None or best.best > best.untrained:
        return []
    return [
        f"training never made {BEST} better: {best.best:.4f} at its best, "
        f"{best.untrained:.4f} untrained; give a lower --learning-rate, or fix the data"
    ]
