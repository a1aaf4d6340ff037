"""How many hidden positives come back as negatives, rule by rule and threshold by threshold."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stx_mine.engine.local import run_tasks
from stx_mine.errors import ConfigError
from stx_mine.search.threads import own_threads
from stx_mine.stages.audit.audited_run import AuditedRun
from stx_mine.stages.audit.hidden import HiddenPositives
from stx_mine.stages.audit.outcomes import Outcome, OutcomePart, RowNegatives, Truth, outcome_of
from stx_mine.stages.mine.config import OF_JUDGES, MineConfig
from stx_mine.stages.mine.depths import AllHits, search_depths
from stx_mine.stages.mine.selector import Selector, Units
from stx_mine.stages.mine.use_limits import use_limits
from stx_mine.store.manifest import finished_names

HIDDEN, _AS_MINED = "hidden", "as mined"
_MARGINS = (None, 0.0, 0.02, 0.05, 0.1, 0.15, 0.2)
_CLOSENESS = (0.8, 0.75, 0.7, 0.65, 0.6)
_FIRST_RANKS = (5, 10, 20, 40)
# The rules that guess at false negatives, turned off.
_NO_RULES: dict[str, Any] = {
    "range_min": 0,
    "max_score": None,
    "absolute_margin": None,
    "relative_margin": None,
    "closeness": None,
    **{name: MineConfig.__dataclass_fields__[name].default for name in OF_JUDGES},
}


@dataclass(frozen=True)
class CurvePoint:
    """A rule with a threshold, and what it gives.

    Attributes:
        rule: A few words.
        outcome: On the queries that have hidden positives.
    """

    rule: str
    outcome: Outcome


def hidden_curve(mined: AuditedRun, hidden: HiddenPositives) -> list[CurvePoint]:
    """Mine without the hidden positives: as was mined, and by one rule after the other.

    Args:
        mined: The run.
        hidden: What is hidden.

    Returns:
        The first point is that of the settings that the run was mined with.
    """
    hits = mined.hits(hidden)
    selector = mined.selector(hidden)
    return [
        CurvePoint(rule, _outcome(replace(selector, **mined.rules(config)), hits, hidden))
        for rule, config in _rules(mined)
    ]


def hidden_truth(hidden: HiddenPositives) -> Truth:
    """What is known by hidden positives: of the queries that have some, everything."""

    def truth(
        _: Selector, __: Units, negatives: RowNegatives
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        false = hidden.are_hidden(negatives.query_ids, negatives.passage_ids)
        return false, np.isin(negatives.query_ids, hidden.query_ids)

    return truth


def _rules(mined: AuditedRun) -> Iterator[tuple[str, MineConfig]]:
    yield _AS_MINED, mined.config
    changes: list[tuple[str, dict[str, Any]]] = []
    for margin in _MARGINS:
        name = "no rule" if margin is None else f"relative margin {margin:g}"
        changes.append((name, {"relative_margin": margin}))
    changes += [(f"closeness {value:g}", {"closeness": value}) for value in _CLOSENESS]
    changes += [(f"from rank {rank}", {"range_min": rank}) for rank in _FIRST_RANKS]
    for name, change in changes:
        config = changed_config(mined.config, {**_NO_RULES, **change})
        if config is not None:
            yield name, config
    without = {name: value for name, value in _NO_RULES.items() if name in OF_JUDGES}
    for judge in finished_names(mined.run, "judgements"):
        config = changed_config(mined.config, {**without, "judges": (judge,), "judged": "drop"})
        if config is not None:
            yield f"as mined, judge {judge}", config


def changed_config(config: MineConfig, changes: dict[str, Any]) -> MineConfig | None:
    """Other settings; None where they do not fit the rest, such as a rank beyond the depth."""
    try:
        return replace(config, **changes)
    except ConfigError:
        return None


def _outcome(selector: Selector, hits: AllHits, hidden: HiddenPositives) -> Outcome:
    limited = selector.config.max_uses is not None
    # What others use decides what is left of each passage.
    hits = search_depths(selector, hits, None if limited else hidden.query_ids)
    uses, truths = use_limits(selector, hits), {HIDDEN: hidden_truth(hidden)}

    def part(block: int) -> OutcomePart:
        own = np.intersect1d(hits.block_queries(block), hidden.query_ids, assume_unique=True)
        return OutcomePart.of(selector, selector.units(hits.block(block, own)), truths, uses)

    with own_threads() as threads:
        parts = run_tasks(range(hits.num_blocks), part, "selecting", threads)
    return outcome_of(parts, selector.config.k)
