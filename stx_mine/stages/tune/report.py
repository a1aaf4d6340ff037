"""The closing sentences of `tune`."""

from shlex import quote

from stx_mine.progress import duration
from stx_mine.stages.tune.core.policies import TunedPolicy
from stx_mine.stages.tune.counts import TuneCounts
from stx_mine.stages.tune.results import TUNED_PIPELINE, Finalist, TuningResults
from stx_mine.store.artifact import Artifact
from stx_mine.store.stage_report import StageReport, make_report, plain_table

_SHOWN = 5
# Fewer queries leave most differences open.
_FEW_QUERIES = 300


def tune_report(
    artifact: Artifact,
    results: TuningResults,
    warnings: list[str],
    skipped: bool = False,
) -> StageReport:
    """The report of a finished tuning.

    Args:
        artifact: `tuning/`.
        results: What it found.
        warnings: What to warn of.
        skipped: Whether it was finished before.
    """
    counts, file = TuneCounts.read(artifact.result), artifact.target / TUNED_PIPELINE
    words = results.winner.changes
    lines = [
        *results.notes,
        f"{counts.policies} policies in {counts.trials} trials, {duration(counts.seconds)}, on "
        f"{results.queries:,} queries of {', '.join(results.sets)}; untrained {results.metric} "
        f"{results.untrained:.4f}",
        *_table(results),
        "[95% interval of the difference to the one that is taken, over queries and seeds]",
        *_verdict(results),
        f"wrote {file}; `stx-mine run {quote(str(file))}` makes its model"
        + (", with --overwrite where that run is there already" if words else ""),
    ]
    return make_report(artifact, lines, [*warnings, *_warnings(results)], skipped=skipped)


def _table(results: TuningResults) -> list[str]:
    rows = [["policy", results.metric, "to the one taken", "seeds", "steps", "takes"]]
    for one in results.finalists:
        apart = "taken" if one.name == results.taken else _apart(one)
        rows.append(
            [
                one.name,
                f"{one.mean:.4f}",
                apart,
                f"{len(one.by_seed)}",
                f"{one.steps:,}",
                duration(one.seconds),
            ]
        )
    return plain_table(rows)


def _apart(one: Finalist) -> str:
    return f"{one.gap:+.4f} [{one.low:+.3f}, {one.high:+.3f}]"


def _verdict(results: TuningResults) -> list[str]:
    """What is taken, and what it cannot be told from."""
    winner, best = results.winner, results.finalists[0]
    alike = [one.name for one in results.finalists if one is not winner and not one.tells]
    words = ", ".join(f"`{word}`" for word in TunedPolicy(winner.changes).overrides)
    lines = [f"taken: {winner.name}" + (f" ({words})" if words else "")]
    if winner is not best:
        lines[0] += f", which is cheaper than {best.name} and cannot be told from it"
    if alike:
        lines.append(f"not to be told from it: {'; '.join(alike)}")
    without = next((one for one in results.finalists if one.k == 0), None)
    if winner.k and without is not None and without.tells:
        lines.append(
            f"mining pays here: {-without.gap:+.4f} over the best without negatives, which takes "
            f"{duration(without.seconds)}"
        )
    mined = next((one for one in results.finalists if one.k), None)
    if winner.k == 0 and mined is not None:
        found = "cost more than they give" if mined.tells else "cannot be told to help"
        lines.append(
            f"mined negatives {found} here: {mined.gap:+.4f} [{mined.low:+.4f}, {mined.high:+.4f}] "
            f"by {mined.name}; the negatives of a batch are enough"
        )
    return lines


def _warnings(results: TuningResults) -> list[str]:
    warnings = [
        "what was chosen by these queries looks better on them than it is: judge the model on "
        "others, with `stx-mine evaluate`"
    ]
    if results.queries < _FEW_QUERIES:
        warnings.append(
            f"{results.queries:,} queries tell little apart; hold out {_FEW_QUERIES} or more"
        )
    failed = [one for one in results.trials if one.failure]
    warnings += [f"{one.policy.name} could not be run: {one.failure}" for one in failed[:_SHOWN]]
    if len(failed) > _SHOWN:
        warnings.append(f"{len(failed) - _SHOWN} more could not be run; results.json says why")
    if results.skipped:
        named = "; ".join(results.skipped[:_SHOWN])
        more = f" and {len(results.skipped) - _SHOWN} more" if len(results.skipped) > _SHOWN else ""
        warnings.append(f"the budget had no room for {named}{more}; give a larger --budget")
    return warnings
