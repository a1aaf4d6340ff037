"""Calibrate: try rules on a sample of queries before the full search; nothing is written."""

import numpy as np

from stx_mine.models.devices import refuse_device
from stx_mine.stages.calibrate.config import CalibrateConfig
from stx_mine.stages.calibrate.core.choice import RuleTrials, recommend, unbeaten
from stx_mine.stages.calibrate.counts import CalibrateCounts
from stx_mine.stages.calibrate.grid import RuleTrial, teller_of, try_all
from stx_mine.stages.calibrate.report import calibrate_report
from stx_mine.stages.calibrate.sampled import JUDGED, SampledQueries
from stx_mine.stages.mine.checks import refuse_misfit
from stx_mine.stages.mine.config import MineConfig
from stx_mine.store.artifact import require
from stx_mine.store.groups import TextGroups
from stx_mine.store.judgements import StoredJudgements
from stx_mine.store.manifest import finished_names
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import StageReport
from stx_mine.store.texts import TextStore

# Settings in the table, at most.
_SHOWN = 20


def run_calibrate(config: CalibrateConfig) -> StageReport:
    """Try every setting, and recommend one.

    Raises:
        ConfigError: k does not fit the corpus or the depth.
        ArtifactError: Embeddings, or the judgements that are named, are missing, stale or damaged.
    """
    run = RunDir(config.run_dir, config.check)
    refuse_device(config.device)
    # Refuses what is no depth for so many negatives.
    asked = MineConfig(k=config.k, depth=config.depth)
    with run.lock():
        texts, grouping = require(run, "texts"), require(run, "groups")
        store, groups = TextStore.open(texts), TextGroups.open(grouping)
        refuse_misfit(asked, store, texts)
        embeddings = require(run, "embeddings")
        judge = config.judge or next(iter(finished_names(run, "judgements")), None)
        judgements = None
        if judge is not None:
            judgements = StoredJudgements.open(require(run, "judgements", judge), store)
        sample = SampledQueries.search(config, store, groups, embeddings, judgements)
        trials = list(try_all(sample))
    no_rule = next(trial for trial in trials if not trial.num_options)
    teller = teller_of(no_rule)
    measured = _measured(trials, teller, sample.random_score)
    choice = recommend(measured, config.min_full)
    counts = CalibrateCounts(
        queries=len(np.unique(sample.drawn.units.query_ids)),
        queries_several=len(sample.hidden.query_ids),
        hidden=len(sample.hidden.keys),
        judged=no_rule.outcome.false[JUDGED].known if judge else 0,
        settings=len(trials),
    )
    shown = _shown(trials, measured, choice.number)
    return calibrate_report(config, counts, trials, measured, shown, choice, judge, teller)


def _measured(trials: list[RuleTrial], teller: str | None, random_score: float) -> RuleTrials:
    known = [trial.false_by(teller) for trial in trials]
    return RuleTrials(
        full_S=np.array([trial.outcome.full_share for trial in trials]),
        score_S=np.array([trial.outcome.mean_score for trial in trials]),
        rate_S=np.array([one.estimate.rate if one else np.nan for one in known]),
        options_S=np.array([trial.num_options for trial in trials]),
        is_windowed_S=np.array([trial.is_windowed for trial in trials]),
        random_score=random_score,
    )


def _shown(trials: list[RuleTrial], measured: RuleTrials, chosen: int) -> list[int]:
    """Numbers of the settings in the table, the hardest first; mine's own and the chosen one too.

    Where more are unbeaten than the table holds, they are spread evenly over the scores.
    """
    own = [
        number
        for number, trial in enumerate(trials)
        if trial.num_options == 1 and trial.config.relative_margin == MineConfig.relative_margin
    ]
    rows = np.flatnonzero(unbeaten(measured))
    rows = rows[np.argsort(-measured.score_S[rows], kind="stable")]
    if len(rows) > _SHOWN:
        rows = rows[np.linspace(0, len(rows) - 1, _SHOWN).round().astype(np.int64)]
    rows = np.unique([*rows.tolist(), *own, chosen])
    order = np.lexsort([measured.options_S[rows], -measured.score_S[rows]])
    return [int(row) for row in rows[order]]
