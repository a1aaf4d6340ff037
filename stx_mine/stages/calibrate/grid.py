"""The settings that are tried: window x margin x closeness."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from stx_mine.stages.audit.curve import HIDDEN, changed_config
from stx_mine.stages.audit.outcomes import FalseNegatives, Outcome
from stx_mine.stages.calibrate.sampled import JUDGED, SampledQueries
from stx_mine.stages.mine.config import MineConfig

# First rank, and the rank at which the window ends.
_WINDOWS = ((0, None), (0, 50), (5, None), (10, None), (10, 50), (20, None))
_MARGINS = (None, 0.0, 0.02, 0.05, 0.1, 0.2)
_CLOSENESS = (None, 0.75, 0.7, 0.65)
# Fewer false negatives than these say little.
FEW = 20


@dataclass(frozen=True)
class RuleTrial:
    """Settings that were tried, and what they gave.

    Attributes:
        config: The settings.
        outcome: On the sample.
    """

    config: MineConfig
    outcome: Outcome

    @property
    def is_windowed(self) -> bool:
        """Whether ranks are limited."""
        return self.config.range_min > 0 or self.config.range_max is not None

    @property
    def num_options(self) -> int:
        """How many options differ from no rule at all."""
        config = self.config
        given = (config.range_max, config.relative_margin, config.closeness)
        return (config.range_min > 0) + sum(one is not None for one in given)

    def false_by(self, teller: str | None) -> FalseNegatives | None:
        """What is false as somebody tells; None where there is nothing that they know."""
        found = self.outcome.false.get(teller) if teller else None
        return found if found is not None and found.known else None


def teller_of(no_rule: RuleTrial) -> str | None:
    """Who tells false negatives, for all settings: hidden positives, unless the judge sees more.

    Args:
        no_rule: The settings without a rule, which show most of them.

    Returns:
        None where nobody knows anything.
    """
    found = {name: no_rule.false_by(name) for name in (HIDDEN, JUDGED)}
    seen = {name: one.false for name, one in found.items() if one is not None}
    if seen.get(HIDDEN, 0) >= FEW:
        return HIDDEN
    return max(seen, key=seen.__getitem__, default=None)


def try_all(sample: SampledQueries) -> Iterator[RuleTrial]:
    """Try every setting that fits the number of negatives and the depth of the sample."""
    for (first, end), margin, closeness in product(_WINDOWS, _MARGINS, _CLOSENESS):
        config = changed_config(
            sample.drawn.selector.config,
            {
                "range_min": first,
                "range_max": end,
                "relative_margin": margin,
                "closeness": closeness,
            },
        )
        if config is not None:
            yield RuleTrial(config, sample.outcome(config))
