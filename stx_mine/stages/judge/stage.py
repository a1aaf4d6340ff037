"""Judge: score the candidates in doubt with a stronger model, into `judgements/NAME/`."""

from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa

from stx_mine.engine.run import make_files
from stx_mine.engine.task_shards import task_shard_of
from stx_mine.errors import ConfigError, InputError
from stx_mine.stages.embed.devices import devices_here
from stx_mine.stages.judge.asked import (
    ASKED,
    KNOWN,
    AskedPairs,
    ask,
    asked_for,
    known_of_run,
    of_judge,
)
from stx_mine.stages.judge.batch_jobs import export_questions, num_unknown
from stx_mine.stages.judge.config import JudgeConfig
from stx_mine.stages.judge.cost import announce, cost_of
from stx_mine.stages.judge.counts import JudgeCounts
from stx_mine.stages.judge.doubt import DoubtfulPairs, wanted_pairs
from stx_mine.stages.judge.judge import Usage
from stx_mine.stages.judge.pair_scorer import PairScorer
from stx_mine.stages.judge.report import cost_report, judge_report
from stx_mine.stages.mine.selector import Selector
from stx_mine.store.artifact import PLAN, Artifact, require
from stx_mine.store.files import json_or_empty, read_table, write_table
from stx_mine.store.judgements import (
    JUDGEMENTS,
    pair_digests,
    sorted_judgements,
    write_judgements,
)
from stx_mine.store.lock import TaskShard
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import StageReport
from stx_mine.store.texts import TextStore

# Pairs that say how the others go through the model.
_SAMPLE = 1_024


def run_judge(config: JudgeConfig) -> StageReport:
    """Judge what is in doubt and not judged yet; on a dry run only say what it would cost.

    Raises:
        ConfigError: No judge is named, or nothing is in doubt.
        ModelError: It cannot be loaded, or gives no scores.
        InputError: It gives a score to no pair.
        ArtifactError: Negatives are missing, or the judgements of another judge are in the way.
        TaskShardsLeftError: This call did its part, and others are at work.
    """
    if not config.judge:
        raise ConfigError(
            "expected a judge, found none; give --cross-encoder MODEL, --reranker URL or --llm URL"
        )
    run, task_shard = RunDir(config.run_dir, config.check), task_shard_of(config)
    target = run.folder("judgements", config.judge_name)
    with run.lock(task_shard):
        texts, negatives = require(run, "texts"), require(run, "negatives")
        store = TextStore.open(texts)
        worker = _worker(config, texts.folder.absolute(), target.absolute(), task_shard)
        here = worker
        if config.engine == "ray" or worker.copies:
            # Others judge; the devices are theirs.
            here = replace(worker, devices=("cpu",))
        contract = here.judge.contract()
        selector = Selector.of_negatives(run, negatives, store)
        wanted = wanted_pairs(config, run, negatives, selector, here.judge)
        pairs = pair_digests(store, wanted.query_ids, wanted.passage_ids)
        known = known_of_run(config, run, contract, pairs)
        asked = ask(pairs, wanted, known, config.pairs_a_task)
        if config.export_questions is not None:
            return export_questions(config, here, asked)
        if config.dry_run:
            return cost_report(cost_of(here, asked), wanted, str(target))
        union = sorted_judgements(pa.concat_tables([known, asked.unjudged()]))
        earlier = json_or_empty(target / PLAN).get("fields") or {}
        artifact = Artifact(
            run,
            "judgements",
            config,
            subfolder=config.judge_name,
            fields={**contract, **asked_for(config, union, known.num_rows, earlier)},
            inputs={},
            overwrite=config.overwrite or of_judge(earlier) == contract,
        )
        if artifact.done:
            return judge_report(artifact, config, skipped=True)
        _begin(artifact, here, asked, known)
        announce(config, here.judge, here.pairs(asked.query_ids, asked.passage_ids))
        folder = artifact.folder.absolute()
        asked = AskedPairs.open(folder)
        make_files(
            artifact, list(asked.tasks), worker.in_folder(folder), config, "judging", task_shard
        )
        with run.exclusive():
            # Another share may have finished at the same time.
            if not artifact.reload():
                _finish(artifact, asked, wanted, num_unknown(here.judge, here, asked))
        return judge_report(artifact, config, here.judge.notes)


def _worker(
    config: JudgeConfig, texts: Path, folder: Path, task_shard: TaskShard | None
) -> PairScorer:
    """What judges; its paths are absolute, so that it may run in another process."""
    named = config.cross_encoder and _absolute(config.cross_encoder)
    answers = config.import_answers and str(Path(config.import_answers).absolute())
    config = replace(config, cross_encoder=named, import_answers=answers)
    devices: tuple[str, ...] = ()
    if config.runs_here:
        devices = devices_here(config.device, config.engine == "ray", task_shard)
    return PairScorer(config, texts, folder, Path.cwd(), devices=devices)


def _absolute(model: str) -> str:
    return str(Path(model).absolute()) if Path(model).is_dir() else model


def _begin(artifact: Artifact, here: PairScorer, asked: AskedPairs, known: pa.Table) -> None:
    """Leave what is asked where tasks find it, unless another call or a killed one did."""
    with artifact.run.exclusive():
        if artifact.reload():
            return
        choices = artifact.choices
        if choices is None:
            some = asked.take(_SAMPLE)
            pairs = here.pairs(some.query_ids, some.passage_ids)
            tuning = here.judge.tune(pairs, asked.table.num_rows)
            choices = {"tuning": tuning and asdict(tuning)}
        artifact.begin([JUDGEMENTS], choices)
        if not (artifact.folder / ASKED).exists():
            write_table(artifact.folder / KNOWN, known)
            asked.write(artifact.folder)
        AskedPairs.open(artifact.folder).remove_damaged(artifact.folder)


def _finish(
    artifact: Artifact, asked: AskedPairs, wanted: DoubtfulPairs, num_unknown_answers: int
) -> None:
    """Bring the scores of all tasks together with what was known.

    Raises:
        InputError: No pair got a score.
    """
    judged, usage = asked.judged(artifact.folder)
    if asked.table.num_rows and not judged.num_rows:
        raise InputError(
            f"expected scores from {artifact.target.name}, found none: all {asked.table.num_rows:,}"
            f" pairs got {_reasons(usage)}; try it with a pair of your own, or give another judge"
        )
    known = read_table(artifact.folder / KNOWN)
    table = sorted_judgements(pa.concat_tables([known, judged]))
    write_judgements(artifact.folder, table)
    counts = JudgeCounts(
        queries=wanted.num_queries,
        candidates=wanted.num_candidates,
        positives=wanted.num_positives,
        random=int(wanted.is_random.sum()),
        beyond_budget=wanted.num_beyond,
        judged=judged.num_rows,
        known=known.num_rows,
        failed=asked.table.num_rows - judged.num_rows,
        failures=dict(usage.failures),
        calls=usage.calls,
        tokens_read=usage.tokens_read,
        tokens_written=usage.tokens_written,
        cut=usage.cut,
        unknown_answers=num_unknown_answers,
    )
    artifact.finish([JUDGEMENTS], counts=counts)


def _reasons(usage: Usage) -> str:
    return ", ".join(usage.failures)
