"""What audits hold: a finding, and the curve or the strata that it is of."""

from dataclasses import asdict, dataclass
from typing import Any

from stx_mine.core.intervals import EstimatedRate, stratified_rate, wilson_interval
from stx_mine.stages.audit.core.strata import FIRST_OF_STRATUM
from stx_mine.stages.audit.counts import AuditCounts
from stx_mine.stages.audit.curve import HIDDEN, CurvePoint
from stx_mine.stages.audit.hidden import HiddenPositives
from stx_mine.stages.audit.sample import SampledNegatives
from stx_mine.stages.audit.sheet import Answers
from stx_mine.store.audits import AuditFinding


@dataclass(frozen=True)
class Audit:
    """One audit.

    Attributes:
        finding: The share of false negatives.
        counts: What it was counted from.
        details: For the file: `curve`, a rule each; or `strata`, a stratum of ranks each.
    """

    finding: AuditFinding
    counts: AuditCounts
    details: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As the file holds it."""
        return {"finding": self.finding.to_json(), **self.details}


def hidden_audit(name: str, hidden: HiddenPositives, curve: list[CurvePoint]) -> Audit:
    """What hidden positives tell; the first point is of the settings that mined."""
    points = [_point(one, len(hidden.keys)) for one in curve]
    found = curve[0].outcome.false[HIDDEN]
    finding = AuditFinding(
        name,
        "the negatives of queries with several positives",
        "positives that were hidden",
        False,
        found.known,
        found.false,
        *found.estimate,
    )
    counts = AuditCounts(
        audited=found.known,
        false=found.false,
        hidden=len(hidden.keys),
        returned=found.distinct,
        queries=len(hidden.query_ids),
    )
    return Audit(finding, counts, {"curve": points})


def sampled_audit(
    name: str, who: str, sample: SampledNegatives, answers: Answers, close: int = 0
) -> Audit:
    """What a judge or a person says of a sample.

    Args:
        name: Of the audit.
        who: Who says it, in words.
        sample: The sample.
        answers: What is said of it.
        close: What a judge finds nearly as relevant as the positive.
    """
    asked, false = sample.counts(answers.known), sample.counts(answers.false)
    share = stratified_rate(false, asked, sample.sizes)
    finding = AuditFinding(
        name,
        "the negatives",
        f"false, as {who} finds",
        True,
        int(asked.sum()),
        int(false.sum()),
        *share,
    )
    counts = AuditCounts(
        audited=int(asked.sum()),
        false=int(false.sum()),
        close=close,
        unknown=sample.num_unjudged + int((~answers.known).sum()),
    )
    strata = [
        _stratum(number, int(sample.sizes[number]), int(asked[number]), int(false[number]))
        for number in range(len(sample.sizes))
        if sample.sizes[number]
    ]
    return Audit(finding, counts, {"strata": strata})


def _point(point: CurvePoint, num_hidden: int) -> dict[str, Any]:
    """A point of the curve, JSON-ready."""
    found = point.outcome.false[HIDDEN]
    values = {**asdict(point.outcome), "rule": point.rule}
    values.pop("false")
    return {
        **values,
        "false": found.false,
        "rate": found.estimate.rate,
        "low": found.estimate.low,
        "high": found.estimate.high,
        "returned": found.distinct / num_hidden,
    }


def _stratum(number: int, size: int, asked: int, false: int) -> dict[str, Any]:
    """A stratum of ranks, JSON-ready."""
    firsts = FIRST_OF_STRATUM.tolist()
    share = EstimatedRate(0.0, 0.0, 1.0)
    if asked:
        low, high = wilson_interval(false / asked, asked)
        share = EstimatedRate(false / asked, float(low), float(high))
    return {
        "first_rank": firsts[number],
        "last_rank": firsts[number + 1] - 1 if number + 1 < len(firsts) else None,
        "negatives": size,
        "audited": asked,
        "false": false,
        **share._asdict(),
    }
