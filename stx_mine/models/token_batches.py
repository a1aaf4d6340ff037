"""Mini-batches of texts of like length, so that little is padded."""

import numpy as np
from numpy.typing import NDArray

# Tokens of a mini-batch: on a CPU more than a cache holds gains nothing (1,024 to 4,096 tie).
_CPU_TOKENS, _OTHER_TOKENS = 2_048, 32_768
# What a forward and backward pass costs beside its tokens, in tokens: on a CPU the gradients of
# all weights, which are added up once more; on a GPU the host that starts some hundred kernels.
_CPU_CALL, _OTHER_CALL = 64, 8_192
# Different lengths that cuts are looked for between.
_MOST_LENGTHS = 64


def default_tokens(device_type: str) -> int:
    """Tokens of a mini-batch in training, on a device of a type such as cpu or cuda."""
    return _CPU_TOKENS if device_type == "cpu" else _OTHER_TOKENS


def call_tokens(device_type: str) -> int:
    """What one more mini-batch costs in training, in tokens that could be computed instead."""
    return _CPU_CALL if device_type == "cpu" else _OTHER_CALL


def token_batches(
    lengths: NDArray[np.int64], budget: int, call: int | None = None
) -> list[NDArray[np.int64]]:
    """Cut texts into mini-batches of at most `budget` tokens, padding included.

    Args:
        lengths: int64 (N,) tokens of each text.
        budget: Longest text times number of texts, at most; a longer text stands alone.
        call: What a mini-batch costs beside its tokens, in tokens: the sum of this and all tokens,
            padding included, is the least that there is. None: every mini-batch is as full as the
            next text allows.

    Returns:
        Numbers of the texts of each mini-batch, longest texts first, so that memory runs out at
        once or never.
    """
    if not len(lengths):
        return []
    order = np.argsort(-lengths, kind="stable")
    longest = np.maximum(1, lengths[order])
    starts = _starts(longest, budget, [len(order)])
    if call is not None:
        # Cuts are the best that are known beforehand: a run costs less than it seems.
        cut = _starts(longest, budget, _cuts(longest, budget, call))
        starts = min(cut, starts, key=lambda one: _cost(longest, one, call))
    return np.split(order, starts[1:])


def _starts(longest: NDArray[np.int64], budget: int, ends: list[int]) -> list[int]:
    """Where mini-batches start that are as full as the budget and the ends of runs allow."""
    starts, start = list[int](), 0
    for end in ends:
        while start < end:
            starts.append(start)
            start = min(end, start + max(1, budget // int(longest[start])))
    return starts


def _cost(longest: NDArray[np.int64], starts: list[int], call: int) -> int:
    """Tokens of mini-batches, padding included, and what each costs beside them."""
    sizes = np.diff(starts, append=len(longest))
    return int((sizes * longest[starts]).sum()) + call * len(starts)


def _cuts(longest: NDArray[np.int64], budget: int, call: int) -> list[int]:
    """Where runs of texts end that are padded to their longest, so that all is the cheapest.

    A run is as many mini-batches as the budget makes of it.

    Args:
        longest: int64 (N,) lengths, falling.
        budget: Tokens of a mini-batch.
        call: What a mini-batch costs, in tokens.
    """
    # Cuts are between texts of different length, or of different multiples of a few tokens.
    kinds = longest // -(-int(longest[0]) // _MOST_LENGTHS)
    starts = np.flatnonzero(np.diff(kinds, prepend=kinds[0] + 1))
    ends = np.append(starts[1:], len(longest))
    heads = longest[starts]
    fitting = np.maximum(1, budget // heads)
    # The least cost of the first so many kinds, and where their last run starts.
    costs, last_starts = np.zeros(len(ends) + 1), np.zeros(len(ends) + 1, np.int64)
    for number, end in enumerate(ends, 1):
        texts = end - starts[:number]
        run_costs = texts * heads[:number] - call * (-texts // fitting[:number])
        all_costs = costs[:number] + run_costs
        last_starts[number] = all_costs.argmin()
        costs[number] = all_costs.min()
    cuts, number = list[int](), len(ends)
    while number:
        cuts.append(int(ends[number - 1]))
        number = int(last_starts[number])
    return cuts[::-1]
