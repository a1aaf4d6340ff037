"""What cannot be mined: refused before work starts, or once nothing is left."""

from dataclasses import replace

import numpy as np

from stx_mine.core.verdicts import ELIGIBLE, RULES, Verdict
from stx_mine.engine.local import run_tasks
from stx_mine.errors import ConfigError, InputError
from stx_mine.search.product import own_threads
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.counts import MineCounts
from stx_mine.stages.mine.depths import AllHits
from stx_mine.stages.mine.judge import Judge
from stx_mine.store.artifact import Manifest
from stx_mine.store.texts import TextStore


def refuse_misfit(config: MineConfig, store: TextStore, texts: Manifest) -> None:
    """Refuse what the texts of the run cannot give.

    Raises:
        ConfigError: More negatives than passages, a language where none is known, or known
            negatives where the input has none.
    """
    asked = "--known-negatives filter" if config.known_negatives == "filter" else ""
    asked = asked if config.searches else "--sources known"
    if asked and not texts.counts.get("known_negatives"):
        raise ConfigError(
            f"{asked} needs known negatives, the input of this run has none; name their columns "
            "with `stx-mine embed PAIRS --negative-column NAME`, or leave the option out"
        )
    if config.k >= store.num_passages:
        raise ConfigError(
            f"--k {config.k} needs more than {config.k} passages, the corpus has "
            f"{store.num_passages}; give a smaller k or a larger --corpus"
        )
    if config.negative_language != "any" and store.languages is None:
        raise ConfigError(
            f"--negative-language {config.negative_language} needs the languages of the texts, "
            "the input of this run names none; give it a column `language`, or ingest with "
            "--language-column or --language, or leave the option out"
        )


def refuse_empty(counts: MineCounts, judge: Judge, hits: AllHits) -> None:
    """Refuse negatives without a row, or without a hit in any pool.

    Raises:
        InputError: That is so; the message names the rule that dropped most.
    """
    if counts.rows == 0:
        raise InputError(
            f"every one of the {counts.pairs_in:,} pairs is dropped ({counts.pairs_dropped}); give "
            "--short-rows keep, or a smaller --k or --min-positive-percentile"
        )
    if counts.pooled:
        return
    name = max(counts.dropped, key=lambda name: counts.dropped[name])
    off = RULES[Verdict[name.upper()]].off
    advice = "give a larger --corpus or --depth"
    if off:
        options = ", ".join(
            f"--{option.replace('_', '-')} {getattr(judge.config, option)}" for option in off
        )
        left = _num_eligible(replace(judge, config=replace(judge.config, **off)), hits)
        advice = f"loosen {options}: without it {left:,} would be left"
    raise InputError(
        f"no candidate is left for any query: {counts.hits_in:,} hits, most dropped by {name} "
        f"({counts.dropped[name]:,}); {advice}"
    )


def _num_eligible(judge: Judge, hits: AllHits) -> int:
    """Hits that pass every rule."""

    def eligible(block: int) -> int:
        verdicts = judge.select(judge.units(hits.block(block))).verdicts_H
        return int(np.isin(verdicts, ELIGIBLE).sum())

    with own_threads() as threads:
        return sum(run_tasks(range(hits.num_blocks), eligible, "judge", threads))
