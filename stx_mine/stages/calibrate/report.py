"""The report of `calibrate`: a table of settings, and a line to paste."""

from collections.abc import Sequence

from stx_mine.settings import command_line_of
from stx_mine.stages.audit.curve import HIDDEN
from stx_mine.stages.audit.outcomes import FalseNegatives
from stx_mine.stages.calibrate.config import CalibrateConfig
from stx_mine.stages.calibrate.core.choice import Choice, RuleTrials
from stx_mine.stages.calibrate.counts import CalibrateCounts
from stx_mine.stages.calibrate.grid import FEW, RuleTrial
from stx_mine.stages.calibrate.sampled import JUDGED
from stx_mine.stages.mine.config import MineConfig
from stx_mine.store.stage_report import StageReport, plain_table, rounded


def calibrate_report(
    config: CalibrateConfig,
    counts: CalibrateCounts,
    trials: Sequence[RuleTrial],
    measured: RuleTrials,
    shown: Sequence[int],
    choice: Choice,
    judge: str | None,
    teller: str | None,
) -> StageReport:
    """The report of a calibration, of which nothing is stored.

    Args:
        config: The config.
        counts: What was tried.
        trials: All settings with what they gave.
        measured: The numbers of these that decide.
        shown: Numbers of those that stand in the table.
        choice: What is recommended.
        judge: Who judges, if somebody does.
        teller: Who told the false negatives that decide; None where nobody could.
    """
    lines = [_sample(counts, judge)]
    lines += _table(trials, shown, choice)
    lines.append(
        f"{len(shown)} of {len(trials)} settings; others have no more full rows, no harder "
        "negatives and no fewer false ones than one of these"
    )
    lines.append(
        "rank: window of ranks; full, none: rows with k negatives, without any; score: mean of the "
        "negatives" + _legend(counts, judge)
    )
    chosen, base = trials[choice.number], trials[measured.no_rule]
    lines.append(_because(config, chosen, measured, choice, _told(chosen, base, teller)))
    lines.append(f"  {_command(config, trials[choice.number])}")
    warnings = _warnings(base.false_by(teller), judge)
    return StageReport("calibrate", counts.to_json(), tuple(lines), warnings)


def _sample(counts: CalibrateCounts, judge: str | None) -> str:
    told = []
    if counts.hidden:
        told.append(
            f"{counts.hidden:,} hidden positives of {counts.queries_several:,} queries with several"
        )
    if judge:
        told.append(
            f"the judge {judge}, who knows {counts.judged:,} of the negatives without a rule"
        )
    by = f"; false negatives are told by {' and by '.join(told)}" if told else ""
    return f"{counts.settings} settings tried on {counts.queries:,} queries{by}"


def _legend(counts: CalibrateCounts, judge: str | None) -> str:
    names = [HIDDEN] * bool(counts.hidden) + [JUDGED] * bool(judge)
    return f"; {', '.join(names)}: of them false, with 95%" if names else ""


def _table(trials: Sequence[RuleTrial], shown: Sequence[int], choice: Choice) -> list[str]:
    knows = [name for name in (HIDDEN, JUDGED) if any(name in one.outcome.false for one in trials)]
    head = ["  rank", "margin", "close", "full", "none", "score"]
    rows = [[*head, *(word for name in knows for word in (name, ""))]]
    for number in shown:
        settings, outcome = trials[number].config, trials[number].outcome
        row = [
            f"{'>' if number == choice.number else ' '} {_window(settings)}",
            *("-" if one is None else f"{one:g}" for one in _thresholds(settings)),
            f"{outcome.full_share:.0%}",
            f"{outcome.rows_empty / max(1, outcome.rows):.0%}",
            f"{outcome.mean_score:.3f}",
        ]
        for name in knows:
            row += _rate(outcome.false.get(name))
        rows.append(row)
    return plain_table(rows)


def _window(settings: MineConfig) -> str:
    end = "" if settings.range_max is None else f"{settings.range_max}"
    return f"{settings.range_min}-{end}"


def _thresholds(settings: MineConfig) -> tuple[float | None, float | None]:
    return settings.relative_margin, settings.closeness


def _rate(found: FalseNegatives | None) -> list[str]:
    if found is None or not found.known:
        return ["?", ""]
    rate, low, high = found.estimate
    return [rounded(rate), f"{rounded(low)}-{rounded(high)}"]


def _told(chosen: RuleTrial, base: RuleTrial, teller: str | None) -> str:
    """The shares of false negatives that are compared; empty where nobody tells them."""
    shares = [one.false_by(teller) for one in (chosen, base)]
    rates = [rounded(one.estimate.rate) for one in shares if one is not None]
    return f"{' of '.join(rates)} {teller}" if len(rates) == len(shares) else ""


def _because(
    config: CalibrateConfig, chosen: RuleTrial, measured: RuleTrials, choice: Choice, told: str
) -> str:
    score, full = f"{chosen.outcome.mean_score:.3f}", f"{chosen.outcome.full_share:.0%}"
    among = f"of those that fill {config.min_full:.0%} of the rows"
    if not choice.fills:
        among = f"none fills {config.min_full:.0%} of the rows; of those that fill most ({full})"
    if not choice.is_told:
        return (
            "recommended, since false negatives cannot be told here (no query has several "
            f"positives, nothing is judged): {among}, over all ranks, the most cautious (mean "
            f"score {score}, {full} full):"
        )
    hardness, false = measured.hardness[choice.number], measured.false_part[choice.number]
    base = measured.score_S[measured.no_rule]
    return (
        f"recommended: {among}, it keeps most of the hardness of no rule and least of its false "
        f"negatives, together: {hardness:.0%} (mean score {score} of {base:.3f}) and {false:.0%} "
        f"({told}):"
    )


def _command(config: CalibrateConfig, trial: RuleTrial) -> str:
    settings = trial.config
    chosen = MineConfig(
        run_dir=config.run_dir,
        k=settings.k,
        depth=settings.depth,
        range_min=settings.range_min,
        range_max=settings.range_max,
        relative_margin=settings.relative_margin,
        closeness=settings.closeness,
    )
    return command_line_of("mine", chosen)


def _warnings(base: FalseNegatives | None, judge: str | None) -> tuple[str, ...]:
    if base is None:
        return (
            "false negatives cannot be told: no query has several positives, and no judge knows "
            "the candidates; `stx-mine judge` after mine, or `stx-mine audit --sheet`, would tell",
        )
    if base.false < FEW:
        more = "more --queries" if judge else "more --queries, or a judge,"
        return (
            f"only {base.false:,} false negatives are seen without a rule, so that shares of them "
            f"say little; {more} would tell",
        )
    return ()
