"""Diagnoses: what the log of a training and the form of its texts say, in words with numbers.

Every diagnosis is a pure function that returns a sentence, or None where it has nothing to say.
The log is a list of entries in the order of their steps; what was not measured is absent.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from stx_mine.core.titles import TitleShares
from stx_mine.stages.evaluate.core.metrics import METRICS

Log = Sequence[Mapping[str, Any]]

METRIC = METRICS[0]
# A fall counts from one point of nDCG@10, and from 2% of the peak.
_MIN_FALL, _MIN_FALL_SHARE = 0.01, 0.02
# Validation losses of a few hundred rows wander by about so much.
_MIN_LOSS_CHANGE = 0.02
_MIN_DRIFT = 0.05
# Title-like: so many anchors stand in their passage, and so many more than evaluation queries do.
_MIN_CONTAINED, _MIN_EXCESS = 0.2, 0.15


class Fall(NamedTuple):
    """nDCG@10 that was once better than it is at the end.

    Attributes:
        name: Of the evaluation.
        peak_step: Where it was best (the first such step).
        peak: The best value.
        last_step: The last step that was evaluated.
        last: The value there.
    """

    name: str
    peak_step: int
    peak: float
    last_step: int
    last: float

    @property
    def words(self) -> str:
        """The figures, as part of a sentence."""
        return (
            f"{METRIC} of {self.name} fell from {self.peak:.4f} at step {self.peak_step:,} to "
            f"{self.last:.4f} at step {self.last_step:,}"
        )


def diagnose(
    log: Log,
    *,
    training: TitleShares | None = None,
    evaluations: Mapping[str, TitleShares] | None = None,
) -> list[str]:
    """All that can be said.

    Args:
        log: Entries with `step`, and where they were measured `learning_rate`,
            `validation_loss`, `cosine` (kind -> `mean`) and `evaluations` (name -> metric).
        training: How title-like the training pairs are, see `title_shares`.
        evaluations: How title-like the pairs of each evaluation are.

    Returns:
        Sentences with the figures and the option to change; the most telling first.
    """
    rules: tuple[Callable[[Log], str | None], ...] = (
        task_mismatch,
        over_fit,
        peak_in_warm_up,
        uniform_drift,
    )
    found = [rule(log) for rule in rules]
    if training is not None:
        found.append(title_like(training, evaluations or {}))
    return [one for one in found if one is not None]


def task_mismatch(log: Log) -> str | None:
    """Validation loss falls while retrieval falls: training and evaluation ask different things."""
    losses = _series(log, "validation_loss")
    for fall in falls(log):
        at_peak = [loss for step, loss in losses if step <= fall.peak_step]
        after = [loss for step, loss in losses if step > fall.peak_step]
        if not at_peak or not after or after[-1] > at_peak[-1] * (1 - _MIN_LOSS_CHANGE):
            continue
        return (
            f"the training task is not what is evaluated: {fall.words}, while the validation loss "
            f"went on falling from {at_peak[-1]:.4f} to {after[-1]:.4f}; train on queries like "
            "those that are evaluated (`stx-mine queries` makes some from the passages), or stop "
            "at the peak (--patience)"
        )
    return None


def over_fit(log: Log) -> str | None:
    """Validation loss rises after its best: the model memorises the training rows."""
    losses = _series(log, "validation_loss")
    if len(losses) < 2:
        return None
    best_step, best = min(losses, key=lambda one: one[1])
    last_step, last = losses[-1]
    if last <= best * (1 + _MIN_LOSS_CHANGE):
        return None
    return (
        f"over-fit: the validation loss rose from {best:.4f} at step {best_step:,} to {last:.4f} "
        f"at step {last_step:,}; stop earlier (--patience, fewer --epochs), lower "
        "--learning-rate, or add pairs"
    )


def peak_in_warm_up(log: Log) -> str | None:
    """Retrieval is best before training or at the end of warm-up, then falls: rate too high."""
    rates = _series(log, "learning_rate")
    if not rates:
        return None
    warm, rate = max(rates, key=lambda one: one[1])
    for fall in falls(log):
        evaluated = [step for step, _ in _metric(log, fall.name)]
        # The first evaluation at or after the end of warm-up still shows what warm-up did.
        reached = min((step for step in evaluated if step >= warm), default=evaluated[-1])
        if fall.peak_step > reached or reached == evaluated[-1]:
            continue
        when = (
            "before training"
            if fall.peak_step == 0
            else f"at step {fall.peak_step:,} of {evaluated[-1]:,}, no later than the end of "
            f"warm-up (step {warm:,})"
        )
        return (
            f"the learning rate {rate:.2g} is probably too high: {METRIC} of {fall.name} was best "
            f"{when}, with {fall.peak:.4f}, and is {fall.last:.4f} now; give a third of it "
            f"(--learning-rate {_rounded(rate / 3)})"
        )
    return None


def uniform_drift(log: Log) -> str | None:
    """The cosines of all kinds of pairs move the same way, without coming apart."""
    measured = [
        (entry["step"], {kind: one["mean"] for kind, one in entry["cosine"].items()})
        for entry in log
        if entry.get("cosine") and all(one["mean"] is not None for one in entry["cosine"].values())
    ]
    if len(measured) < 2:
        return None
    (first_step, first), (last_step, last) = measured[0], measured[-1]
    kinds = [kind for kind in ("positive", "hard", "random") if kind in first and kind in last]
    if not {"positive", "random"} <= set(kinds):
        return None
    changes = {kind: last[kind] - first[kind] for kind in kinds}
    least = min(map(abs, changes.values()))
    apart = changes["positive"] - changes["random"]
    same_way = len({change > 0 for change in changes.values()}) == 1
    # Positives that gain on random pairs by as much as all move are learning, not drifting.
    if not same_way or least < _MIN_DRIFT or apart > least / 2:
        return None
    figures = ", ".join(f"{kind} {first[kind]:.3f} -> {last[kind]:.3f}" for kind in kinds)
    up = changes["positive"] > 0
    return (
        f"all cosines drift {'up' if up else 'down'} together from step {first_step:,} to "
        f"{last_step:,} ({figures}), positives against random pairs by {apart:+.3f}: "
        + (
            "the embeddings collapse towards one direction; lower --learning-rate, or pack larger "
            "batches"
            if up
            else "the scale moves, not the order, and thresholds on scores no longer fit; lower "
            "--learning-rate, and see whether hard negatives are true (mine --relative-margin)"
        )
    )


def title_like(training: TitleShares, evaluations: Mapping[str, TitleShares]) -> str | None:
    """Anchors stand in their passages as titles do, and evaluation queries do not."""
    if training.contained < _MIN_CONTAINED:
        return None
    natural = {
        name: one
        for name, one in evaluations.items()
        if one.num_pairs and one.contained <= training.contained - _MIN_EXCESS
    }
    if evaluations and not natural:
        return None
    beside = "".join(
        f", but {one.contained:.0%} of the queries of {name}" for name, one in natural.items()
    )
    return (
        f"anchors look like titles: {training.contained:.0%} of {training.num_pairs:,} stand word "
        f"by word in their passage ({training.prefix:.0%} at its beginning){beside}; a model "
        "learns to find copies; `stx-mine queries` makes other queries from the passages, and "
        "cuts out what stands there (--cut-titles, --remove-share)"
    )


def falls(log: Log) -> list[Fall]:
    """The evaluations whose nDCG@10 ends clearly below its best, the deepest fall first."""
    names = dict.fromkeys(name for entry in log for name in entry.get("evaluations") or {})
    found = []
    for name in names:
        values = _metric(log, name)
        if len(values) < 2:
            continue
        # The first of equal values is the peak.
        peak_step, peak = max(values, key=lambda one: one[1])
        last_step, last = values[-1]
        if peak - last >= max(_MIN_FALL, _MIN_FALL_SHARE * peak):
            found.append(Fall(name, peak_step, peak, last_step, last))
    return sorted(found, key=lambda one: one.last - one.peak)


def _series(log: Log, name: str) -> list[tuple[int, float]]:
    """(step, value) of the entries that have it."""
    return [(entry["step"], entry[name]) for entry in log if entry.get(name) is not None]


def _metric(log: Log, name: str) -> list[tuple[int, float]]:
    """(step, nDCG@10) of one evaluation."""
    found = ((entry["step"], (entry.get("evaluations") or {}).get(name)) for entry in log)
    return [(step, one[METRIC]) for step, one in found if one is not None]


def _rounded(rate: float) -> str:
    return f"{rate:.1g}"
