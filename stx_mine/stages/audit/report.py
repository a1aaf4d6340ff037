"""The closing report of `audit`."""

from collections.abc import Sequence
from typing import Any

from stx_mine.settings import command_line_of
from stx_mine.stages.audit.config import AuditConfig
from stx_mine.stages.audit.counts import AuditCounts
from stx_mine.stages.audit.sample import SampledNegatives
from stx_mine.store.artifact import Artifact
from stx_mine.store.audits import AUDIT, AuditFinding
from stx_mine.store.stage_report import StageReport, make_report, percent, plain_table, rounded

_LONGEST_RULE = 26
# Below this share of negatives that a judge knows, its word is of few of them.
_MOST = 0.9


def audit_report(artifact: Artifact, config: AuditConfig, skipped: bool = False) -> StageReport:
    """The report of a finished audit.

    Args:
        artifact: `audits/NAME/`.
        config: The config.
        skipped: Whether it was finished before.
    """
    counts, content = AuditCounts.read(artifact.result), artifact.result.json(AUDIT)
    lines = [AuditFinding.read(artifact.result).sentence]
    if "curve" in content:
        lines += _curve_lines(counts, content["curve"])
    else:
        lines += _strata_lines(counts, config, content["strata"])
    return make_report(artifact, lines, _warnings(counts, config), skipped=skipped)


def sheet_report(config: AuditConfig, sample: SampledNegatives, cut: int) -> StageReport:
    """What was written for a person to fill in."""
    total = int(sample.sizes.sum())
    again = command_line_of("audit", config, ("sheet", "overwrite", "check"))
    lines = [
        f"{len(sample):,} of {total:,} negatives in {config.sheet}: write yes into its column "
        "false_negative where the negative answers the query, no where it does not",
        f"then run `{again} --answers {config.sheet}`; what is left empty counts as unknown",
    ]
    warnings = [f"{cut:,} texts are cut, as no cell takes them whole"] if cut else []
    counts = {"sampled": len(sample), "negatives": total, "cut": cut}
    return StageReport("audit", counts, tuple(lines), tuple(warnings))


def _curve_lines(counts: AuditCounts, curve: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        f"{counts.hidden:,} positives of {counts.queries:,} queries were hidden, "
        f"{percent(counts.returned, counts.hidden)} of them came back as negatives; by rule, on "
        "these queries:"
    ]
    rows = [["", "full", "none", "score", "rank", "back", "false", "(95%)"]]
    for one in curve:
        total = max(1, one["rows_full"] + one["rows_ragged"] + one["rows_empty"])
        rule = one["rule"]
        rows.append(
            [
                rule if len(rule) <= _LONGEST_RULE else f"{rule[: _LONGEST_RULE - 3]}...",
                f"{one['rows_full'] / total:.0%}",
                f"{one['rows_empty'] / total:.0%}",
                f"{one['mean_score']:.3f}",
                f"{one['mean_rank']:.1f}",
                rounded(one["returned"]),
                rounded(one["rate"]),
                f"{rounded(one['low'])}-{rounded(one['high'])}",
            ]
        )
    lines += plain_table(rows)
    lines.append(
        "full, none: rows with k negatives, without any; score, rank: means of the negatives; "
        "back: of what was hidden; false: of the negatives"
    )
    lines.append(
        "compare rules by it: how many answers nobody has labelled it does not tell; --judge, or a "
        "--sheet for a person, measures how many negatives are false"
    )
    return lines


def _strata_lines(
    counts: AuditCounts, config: AuditConfig, strata: Sequence[dict[str, Any]]
) -> list[str]:
    rows = [["rank", "negatives", "audited", "false", "share", "(95%)"]]
    for one in strata:
        first, last = one["first_rank"], one["last_rank"]
        ranks = f"{first}" if first == last else f"{first} and more"
        ranks = ranks if last is None or first == last else f"{first}-{last}"
        found = [rounded(one["rate"]), f"{rounded(one['low'])}-{rounded(one['high'])}"]
        rows.append(
            [
                ranks,
                *(f"{one[name]:,}" for name in ("negatives", "audited", "false")),
                *(found if one["audited"] else ["unknown", ""]),
            ]
        )
    lines = plain_table(rows)
    if config.judge and counts.close:
        lines.append(f"{counts.close:,} more are judged nearly as relevant as the positive")
    return lines


def _warnings(counts: AuditCounts, config: AuditConfig) -> list[str]:
    if not counts.unknown:
        return []
    if config.judge:
        return [
            f"{counts.unknown:,} negatives are not judged by {config.judge}, or their positive is "
            "not, and the share says nothing of them; `stx-mine judge` with a wider --band judges "
            "more"
        ]
    return [f"{counts.unknown:,} rows of the sample have no answer: the share is of the others"]
