"""Show: look at what a run has; it changes nothing."""

import json
from dataclasses import asdict

import numpy as np

from stx_mine.stages.show.batch_views import batch_view
from stx_mine.stages.show.config import ShowConfig
from stx_mine.stages.show.finding import find_text
from stx_mine.stages.show.mined_views import MinedViews
from stx_mine.stages.show.report import show_report
from stx_mine.stages.show.views import Shown
from stx_mine.store.mined_run import MinedRun
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import StageReport


def run_show(config: ShowConfig) -> StageReport:
    """Show what the config names.

    Raises:
        InputError: Nothing is like the query or the passage.
        ConfigError: There is no such batch.
        ArtifactError: The run was not mined, or not packed.
    """
    run = RunDir(config.run_dir, config.check)
    if config.batch is not None:
        shown = Shown(batches=(batch_view(run, config.batch, config.limit),))
    else:
        views = MinedViews(run, MinedRun.open(config.run_dir, config.check))
        shown = _shown(config, views)
        views.mined.refuse_changed()
    document = json.dumps(asdict(shown), indent=2, ensure_ascii=False) if config.json else ""
    return show_report(shown, config, document)


def _shown(config: ShowConfig, views: MinedViews) -> Shown:
    store, limit = views.mined.store, config.limit
    if config.query is not None:
        number, note = find_text(store.queries, config.query, "query")
        return Shown(tuple(filter(None, [note])), queries=views.queries([number], limit))
    if config.passage is not None:
        number, note = find_text(store.passages, config.passage, "passage")
        return Shown(tuple(filter(None, [note])), passages=views.passages([number], limit))
    if config.suspects:
        return Shown(suspects=views.suspects(limit))
    if config.most_used:
        ids, _ = views.most_used()
        shown = views.passages(ids[:limit].tolist(), 3)
        return Shown(passages=shown, num_more=max(0, len(ids) - limit))
    if config.without_negatives:
        ids = views.without_negatives()
        more = max(0, len(ids) - limit)
        return Shown(queries=views.queries(ids[:limit].tolist(), 5), num_more=more)
    ids = np.unique(store.pair_query_ids)
    number = min(len(ids), config.num_random or 1)
    drawn = np.random.default_rng(config.seed).choice(ids, number, replace=False)
    return Shown(queries=views.queries(np.sort(drawn).tolist(), min(limit, 8)))
