"""What cannot be mined: refused before work starts, or once nothing is left."""

from dataclasses import fields, replace

import numpy as np

from stx_mine.core.verdicts import ELIGIBLE, RULES, Verdict
from stx_mine.engine.local import run_tasks
from stx_mine.errors import ConfigError, InputError
from stx_mine.search.threads import own_threads
from stx_mine.settings import option_words
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.counts import MineCounts
from stx_mine.stages.mine.depths import AllHits
from stx_mine.stages.mine.selector import Selector
from stx_mine.store.artifact import Manifest
from stx_mine.store.stage_report import listed
from stx_mine.store.texts import TextStore


def refuse_misfit(config: MineConfig, store: TextStore, texts: Manifest) -> None:
    """Refuse what the texts of the run cannot give.

    Raises:
        ConfigError: More negatives than passages, a window beyond them, a language where none is
            known, or known negatives where the input has none.
    """
    asked = "--known-negatives filter" if config.known_negatives == "filter" else ""
    asked = asked if config.searches or not config.mines else "--sources known"
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
    if config.range_min + config.k >= store.num_passages:
        raise ConfigError(
            f"--range-min {config.range_min} leaves fewer than the k={config.k} negatives of a row "
            f"in a corpus of {store.num_passages} passages; give --range-min "
            f"{store.num_passages - config.k - 1} or less, or a larger --corpus"
        )
    if config.negative_language != "any" and store.languages is None:
        raise ConfigError(
            f"--negative-language {config.negative_language} needs the languages of the texts, "
            "the input of this run names none; give it a column `language`, or ingest with "
            "--language-column or --language, or leave the option out"
        )


def refuse_empty(counts: MineCounts, selector: Selector, hits: AllHits) -> None:
    """Refuse negatives without a row, or without a hit in any pool.

    Raises:
        InputError: That is so; the message names the rule that dropped most.
    """
    if counts.rows == 0:
        ways_out = {
            "short": "--short-rows keep, or a smaller --k",
            "positive_percentile": "a smaller --min-positive-percentile",
            "judged_wrong": "other --judges, or none",
        }
        needed = [way for reason, way in ways_out.items() if counts.pairs_dropped[reason]]
        raise InputError(
            f"every one of the {counts.pairs_in:,} pairs is dropped "
            f"({listed(counts.pairs_dropped)}); give {' and '.join(needed)}"
        )
    if counts.pooled or not selector.config.mines:
        return
    names = sorted(filter(counts.dropped.get, counts.dropped), key=counts.dropped.__getitem__)
    most = f"most dropped by {names[-1]} ({counts.dropped[names[-1]]:,})" if names else "none found"
    raise InputError(
        f"no candidate is left for any query: {counts.hits_in:,} hits, {most}; "
        f"{_way_out(names[::-1], selector, hits)}"
    )


def _way_out(names: list[str], selector: Selector, hits: AllHits) -> str:
    """What would leave candidates: without one of the rules that dropped hits, or more passages.

    Args:
        names: Verdicts of the hits, those that most have first.
        selector: What gave them.
        hits: All hits.
    """
    config = selector.config
    for name in names:
        off = RULES[Verdict[name.upper()]].off
        left = _num_eligible(replace(selector, config=replace(config, **off)), hits) if off else 0
        if left:
            given = [
                one for one in fields(config) if getattr(config, one.name) != off.get(one.name)
            ]
            options = [
                option_words(one, getattr(config, one.name)) for one in given if one.name in off
            ]
            return f"loosen {', '.join(options)}: without it {left:,} would be left"
    wanted = hits.wanted(np.arange(len(hits.depths)))
    deeper = hits.dense is not None and bool((wanted < len(selector.passages)).any())
    return f"give a larger {'--depth or ' if deeper else ''}--corpus, or loosen several rules"


def _num_eligible(selector: Selector, hits: AllHits) -> int:
    """Hits that pass every rule."""

    def eligible(block: int) -> int:
        verdicts = selector.select(selector.units(hits.block(block))).verdicts_H
        return int(np.isin(verdicts, ELIGIBLE).sum())

    with own_threads() as threads:
        return sum(run_tasks(range(hits.num_blocks), eligible, "selecting", threads))
