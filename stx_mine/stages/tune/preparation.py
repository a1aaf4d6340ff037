"""What every policy starts from: held-out pairs, texts, vectors and hits, made once."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stx_mine.errors import ConfigError, InputError
from stx_mine.inputs.config import LanguageFields, SourceFields
from stx_mine.settings import names_of
from stx_mine.stages.dedup.config import DedupConfig
from stx_mine.stages.dedup.stage import run_dedup
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.evaluate.sets import EvaluationSet
from stx_mine.stages.index.config import IndexConfig
from stx_mine.stages.index.stage import run_index
from stx_mine.stages.judge.config import JudgeConfig
from stx_mine.stages.judge.stage import run_judge
from stx_mine.stages.mine.config import OF_JUDGES, MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.packings import default_packings
from stx_mine.stages.split.config import SplitConfig
from stx_mine.stages.split.stage import run_split
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.evaluation_sets import read_evaluation_sets
from stx_mine.stages.tune.core.policies import Ground
from stx_mine.stages.tune.pipeline_file import TunedPipeline
from stx_mine.store.artifact import MANIFEST, require
from stx_mine.store.negatives import negatives_per_row, rows_of
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import percent
from stx_mine.store.texts import TextStore

# What cannot be divided here: a person has to say what is held out.
_UNDIVIDED = ("sources", "query_vectors", "passage_vectors", "negative_column")
# Of pairs, a share to hold out, and a number that is never exceeded: more only take time.
_DEV, _MOST_DEV = 0.1, 2_000


@dataclass(frozen=True)
class PreparationSeconds:
    """What the preparation took.

    Attributes:
        embed: Texts and vectors.
        search: Hits.
        judge: The judges of the file.
    """

    embed: float
    search: float
    judge: float


@dataclass(frozen=True)
class Preparation:
    """What every policy starts from.

    Attributes:
        run: The run directory that policies are tried in.
        ground: The settings that they change.
        sets: The evaluation sets.
        seconds: What it took.
        notes: What was held out, as sentences.
    """

    run: RunDir
    ground: Ground
    sets: list[EvaluationSet]
    seconds: PreparationSeconds
    notes: list[str]


def prepare(pipeline: TunedPipeline, folder: Path, run: RunDir) -> Preparation:
    """Make what is not there yet.

    Args:
        pipeline: What is tuned; the files that its stages before embed make are there.
        folder: Where policies are tried.
        run: The run directory of the pipeline: what judges said there counts here.

    Raises:
        StxMineError: A stage of the file cannot be run as it stands there.
    """
    settings, notes = {name: dict(one) for name, one in pipeline.settings.items()}, list[str]()
    own, train = str(folder), settings["train"]
    if not train.get("evaluation"):
        settings["embed"], note = _hold_out(settings["embed"], own)
        train["evaluation"], train["evaluation_split"] = (settings["embed"]["pairs"],), "dev"
        notes.append(note)
    began = time.monotonic()
    run_embed(EmbedConfig(run_dir=own, **settings["embed"]))
    embedded = time.monotonic()
    if "dedup" in settings:
        run_dedup(DedupConfig(run_dir=own, **settings["dedup"]))
    if "index" in settings:
        run_index(IndexConfig(run_dir=own, **settings["index"]))
    tried = RunDir(own)
    run_mine(MineConfig.without_judges({"run_dir": own, **settings["mine"]}))
    searched = time.monotonic()
    judges = _adopt_judgements(run, tried)
    if "judge" in settings:
        run_judge(JudgeConfig(run_dir=own, **settings["judge"]))
    judged = time.monotonic()
    sets = read_evaluation_sets(TrainConfig(run_dir=own, **train), tried)
    ground = _ground(tried, settings, judges)
    seconds = PreparationSeconds(embedded - began, searched - embedded, judged - searched)
    return Preparation(tried, ground, sets, seconds, notes)


def _adopt_judgements(run: RunDir, tried: RunDir) -> tuple[str, ...]:
    """Copy the finished judgements of a run; they hold for texts, whatever else there is.

    Args:
        run: Has them, if any.
        tried: Gets those that it lacks.

    Returns:
        Their names.
    """
    names = []
    for folder in sorted(run.folder("judgements").glob("*/")):
        if not (folder / MANIFEST).exists():
            continue
        names.append(folder.name)
        if not (tried.folder("judgements", folder.name) / MANIFEST).exists():
            shutil.copytree(folder, tried.folder("judgements", folder.name), dirs_exist_ok=True)
    return tuple(names)


def _hold_out(embed: dict[str, Any], run_dir: str) -> tuple[dict[str, Any], str]:
    """Hold pairs out of those of the file: what embed reads instead, and a sentence.

    Raises:
        ConfigError: The input is of a kind that only a person can divide.
        InputError: Its pairs cannot be divided.
    """
    if embed.get("pairs") is None:
        raise ConfigError(
            "expected embed.pairs in the file, or --data, found neither; name held-out pairs with "
            "--data"
        )
    for name in _UNDIVIDED:
        if embed.get(name):
            raise ConfigError(
                f"pairs with embed.{name} are not held out here; name held-out pairs with --data, "
                "or divide them with `stx-mine split`"
            )
    reading = {*names_of(SourceFields), *names_of(LanguageFields)}
    fields = {name: value for name, value in embed.items() if name in reading}
    fields |= {"run_dir": run_dir, "pairs": embed["pairs"], "test": 0, "overwrite": True}
    unit: Literal["component", "query"] = "component"
    try:
        report = run_split(SplitConfig(dev=_DEV, **fields))
    except InputError:
        # Few texts tie all pairs together.
        unit = "query"
        report = run_split(SplitConfig(dev=_DEV, unit=unit, **fields))
    if report.counts["parts"]["dev"]["pairs"] > _MOST_DEV:
        report = run_split(SplitConfig(dev=_MOST_DEV, unit=unit, **fields))
    held_out, whole = report.counts["parts"]["dev"]["pairs"], report.counts["pairs_kept"]
    rest = {name: value for name, value in embed.items() if name not in reading}
    shared = "by query, so that passages are shared" if unit == "query" else "no text shared"
    return (
        {**rest, "pairs": str(RunDir(run_dir).folder("split"))},
        f"{percent(held_out, whole)} of the pairs of {embed['pairs']} were held out to choose by, "
        f"{shared}; policies are trained on the others",
    )


def _ground(run: RunDir, settings: dict[str, dict[str, Any]], judges: tuple[str, ...]) -> Ground:
    negatives = require(run, "negatives")
    store = TextStore.open(require(run, "texts"))
    rows = rows_of(negatives, store.num_pairs)
    pack = PackConfig(**settings["pack"])
    k = negatives_per_row(negatives, pack.k)
    batches = max(1, len(rows) // pack.batch_size)
    passes = settings["train"].get("epochs") or pack.packings or default_packings(batches)
    given = [name for name in OF_JUDGES if name in settings["mine"]]
    unjudged = {**{name: getattr(MineConfig, name) for name in given}, "judges": ()}
    return Ground(settings, k, pack.batch_size, len(rows), passes, judges, unjudged)


def without_evaluation(train: dict[str, Any]) -> dict[str, Any]:
    """How a policy is trained: nothing is measured meanwhile, which would take time and choose."""
    left = (
        *("evaluation", "evaluation_split", "evaluation_corpus", "evaluation_steps"),
        *("patience", "report_to", "validation_share", "epochs", "steps", "merge_check"),
    )
    by_evaluation = ("merge_with_base", "auto")
    return {
        name: value
        for name, value in train.items()
        if name not in left and (name, value) != by_evaluation
    }
