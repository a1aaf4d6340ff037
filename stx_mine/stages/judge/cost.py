"""What judging would cost, before it begins."""

import time
from dataclasses import dataclass

import numpy as np

from stx_mine.stages.judge.asked import AskedPairs
from stx_mine.stages.judge.pair_scorer import PairScorer

# Pairs whose tokens are counted, and of these those that are judged with a clock.
_COUNTED, _TIMED, _FIRST = 4_096, 256, 8


@dataclass(frozen=True)
class Cost:
    """What pairs cost.

    Attributes:
        pairs: Pairs to judge.
        tokens: Tokens of them; 0 where the judge does not tell.
        seconds: On this machine, by all of its devices that are named.
    """

    pairs: int
    tokens: int
    seconds: float


def cost_of(scorer: PairScorer, asked: AskedPairs) -> Cost:
    """Tokens and time of pairs, from a sample of them.

    Args:
        scorer: Judges on a device of this machine.
        asked: The pairs.
    """
    pairs, some = asked.table.num_rows, asked.take(_COUNTED)
    queries, passages = scorer.texts_of(some.query_ids, some.passage_ids)
    tokens = scorer.num_tokens(queries, passages) * pairs / max(len(queries), 1)
    # What is made at the first call must not be timed.
    scorer.score(queries[:_FIRST], passages[:_FIRST])
    started = time.perf_counter()
    scorer.score(queries[:_TIMED], passages[:_TIMED])
    seconds = (time.perf_counter() - started) * pairs / max(min(len(queries), _TIMED), 1)
    return Cost(pairs, int(np.rint(tokens)), seconds / max(len(scorer.devices), 1))
