"""What judging would cost, before it begins."""

import time
from dataclasses import dataclass

import numpy as np

from stx_mine import progress
from stx_mine.stages.judge.asked import AskedPairs
from stx_mine.stages.judge.config import JudgeConfig
from stx_mine.stages.judge.judge import Judge, PairTexts
from stx_mine.stages.judge.pair_scorer import PairScorer

# Pairs whose tokens or characters are counted.
_COUNTED = 4_096
_CHARACTERS_A_TOKEN = 4


@dataclass(frozen=True)
class Cost:
    """What pairs cost.

    Attributes:
        pairs: Pairs to judge.
        calls: Requests to a server; 0 where none is asked.
        tokens: Tokens read; 0 where the judge does not tell.
        tokens_written: Tokens of answers.
        seconds: On this machine, by all of its devices that are named.
        price: What the tokens cost; None where no prices are known.
    """

    pairs: int
    calls: int
    tokens: int
    tokens_written: int
    seconds: float
    price: float | None


def cost_of(scorer: PairScorer, asked: AskedPairs) -> Cost:
    """Tokens and time of pairs, from a sample of them.

    Args:
        scorer: Judges on a device of this machine.
        asked: The pairs.
    """
    judge, total = scorer.judge, asked.table.num_rows
    pairs = scorer.pairs(asked.query_ids[:_COUNTED], asked.passage_ids[:_COUNTED])
    share = total / max(len(pairs), 1)
    judge.score(pairs[: judge.warm_up])
    timed = pairs[: judge.sample]
    started = time.perf_counter()
    usage = judge.score(timed).usage
    seconds = time.perf_counter() - started
    if judge.listing is None:
        parts = total / max(len(timed), 1)
        tokens = judge.num_tokens(pairs) * share
    else:
        # What is asked is known; how many tokens that is, the server says of some.
        parts = judge.num_characters(pairs) * share / max(judge.num_characters(timed), 1)
        tokens = usage.tokens_read * parts
    written = usage.tokens_written * total / max(len(timed), 1)
    price = scorer.config.price(tokens, written)
    calls = judge.num_calls(scorer.pairs(asked.query_ids, asked.passage_ids))
    seconds *= parts / max(len(scorer.devices), 1)
    return Cost(total, calls, int(np.rint(tokens)), int(np.rint(written)), seconds, price)


def announce(config: JudgeConfig, judge: Judge, pairs: PairTexts) -> None:
    """Tell on stderr what will be asked of a server, before anything is.

    Args:
        config: The config.
        judge: Who judges.
        pairs: All pairs to judge.
    """
    if judge.listing is None or config.import_answers is not None or not len(pairs):
        return
    some = pairs[:_COUNTED]
    tokens = judge.num_characters(some) / len(some) * len(pairs) / _CHARACTERS_A_TOKEN
    price = config.price(tokens, 0)
    progress.say(
        f"judge: {judge.num_calls(pairs):,} calls of about {tokens:,.0f} tokens "
        f"({_CHARACTERS_A_TOKEN} characters each){'' if price is None else f', {price:,.2f}'}; "
        "--dry-run measures tokens and time, --max-calls limits them"
    )
