"""Options of `tune`."""

import math
import re
from dataclasses import dataclass
from typing import Literal

from stx_mine.settings import MAX_SEED, ReadingConfig, option

_UNITS = {"s": 1, "m": 60, "h": 3_600}
_BUDGET = re.compile(r"(\d+(?:\.\d+)?)([smh])")
_VARIED = re.compile(r"[a-z]+\.[a-z_]+=.+", re.DOTALL)


def _no_duration(budget: str) -> str:
    """What is wrong with a value of `budget`."""
    found = _BUDGET.fullmatch(budget)
    if found and 0 < float(found[1]) < math.inf:
        return ""
    return f"--budget must be a time such as 90s, 15m or 2h, found {budget!r}; give one"


def _not_varied(words: tuple[str, ...]) -> str:
    """What is wrong with values of `vary`."""
    wrong = [word for word in words if not _VARIED.fullmatch(word)]
    if not wrong:
        return ""
    return f"--vary must be STAGE.FIELD=VALUE,VALUE, found {wrong[0]!r}; give such as mine.k=0,4,8"


@dataclass(frozen=True, kw_only=True)
class TuneConfig(ReadingConfig):
    """Try policies on held-out pairs of your own and write the pipeline of the best."""

    pipeline: str | None = option(
        None,
        "The pipeline file to tune; its run directory is the one that is used.",
        argument=True,
        group="What to tune",
    )
    data: tuple[str, ...] = option(
        (),
        "Held-out pairs or a BEIR folder to choose by; repeatable (default: train.evaluation of "
        "the file, else pairs that are held out of its own).",
        "tuning",
        group="What to tune",
    )
    metric: Literal["ndcg@10", "mrr@10", "recall@100"] = option(
        "ndcg@10", "What is to become better.", "tuning", group="What to tune"
    )
    budget: str = option(
        "15m",
        "Time to spend, as in 90s, 15m or 2h; how far and how often policies are tried follows.",
        "tuning",
        group="How much to try",
        check=_no_duration,
    )
    seeds: int = option(
        3,
        "Seeds of the best policies; fewer than 3 tell little.",
        "tuning",
        minimum=1,
        maximum=100,
        group="How much to try",
    )
    vary: tuple[str, ...] = option(
        (),
        "STAGE.FIELD=VALUE,VALUE to try instead of the usual: one change at a time, then those "
        "that helped together; repeatable.",
        "tuning",
        group="How much to try",
        check=_not_varied,
    )
    seed: int = option(
        42,
        "The first seed of packing and training.",
        "tuning",
        minimum=0,
        maximum=MAX_SEED,
        group="How much to try",
    )

    @property
    def budget_seconds(self) -> float:
        """The time to spend."""
        found = _BUDGET.fullmatch(self.budget)
        assert found, "it was checked"
        return float(found[1]) * _UNITS[found[2]]
