"""One pass over all hits before a selection with --max-uses: which uses each passage keeps."""

import numpy as np

from stx_mine.core.verdicts import ELIGIBLE
from stx_mine.stages.mine.core.select import UseLimits
from stx_mine.stages.mine.core.uses import UseCounter
from stx_mine.stages.mine.depths import AllHits
from stx_mine.stages.mine.selector import Selector

# The score of a use that no other one takes the place of.
_FIRST = np.float32(np.inf)


def use_limits(selector: Selector, hits: AllHits) -> UseLimits | None:
    """The last use that each passage keeps.

    Args:
        selector: What selects.
        hits: All hits.

    Returns:
        None where passages may be used as often as they like.
    """
    if selector.config.max_uses is None:
        return None
    counter = UseCounter(len(selector.passages), selector.config.max_uses)
    for block in range(hits.num_blocks):
        units = selector.units(hits.block(block))
        verdicts = selector.select(units).verdicts_H
        eligible = np.isin(verdicts, ELIGIBLE)
        unit_ids = np.repeat(units.ids, units.hits.hits.lengths())
        known = selector.kept_anyway(units.hits)
        scores = units.hits.scores if known is None else np.where(known, _FIRST, units.hits.scores)
        counter.add(units.hits.hits.values[eligible], scores[eligible], unit_ids[eligible])
    return counter.limits()
