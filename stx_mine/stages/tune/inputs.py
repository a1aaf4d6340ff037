"""The input of a pipeline that is tuned: what stages before embed make, and its content."""

from typing import Any

from stx_mine.inputs.config import SourceFields
from stx_mine.inputs.pairs import PairSource
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.queries.config import QueriesConfig
from stx_mine.stages.queries.stage import run_queries
from stx_mine.stages.split.config import SplitConfig
from stx_mine.stages.split.stage import run_split
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.evaluation_sets import open_evaluation_sets
from stx_mine.stages.tune.pipeline_file import TunedPipeline
from stx_mine.store.run_dir import RunDir


def make_inputs(pipeline: TunedPipeline, run_dir: str) -> None:
    """Run the stages whose files the others read, as `stx-mine run` does.

    Args:
        pipeline: The pipeline.
        run_dir: Its run directory.
    """
    if "queries" in pipeline.settings:
        run_queries(QueriesConfig(run_dir=run_dir, **pipeline.settings["queries"]))
    if "split" in pipeline.settings:
        run_split(SplitConfig(run_dir=run_dir, **pipeline.settings["split"]))


def contents_of(pipeline: TunedPipeline, run_dir: str) -> dict[str, Any]:
    """What decides the texts of training and of evaluation: checksums by what they are for.

    Args:
        pipeline: The pipeline.
        run_dir: Its run directory.

    Raises:
        InputError: A file, column or split is missing.
    """
    embed = EmbedConfig(run_dir=run_dir, **pipeline.settings["embed"])
    opened: list[tuple[str, SourceFields]] = [(one.path, one) for one in embed.sources or ()]
    if embed.pairs is not None:
        opened.append((embed.pairs, embed))
    train = TrainConfig(run_dir=run_dir, **pipeline.settings["train"])
    sets = open_evaluation_sets(train, RunDir(run_dir))
    return {
        "pairs": [PairSource.open(path, how, "train").fingerprint() for path, how in opened],
        "evaluation": {name: one.source.fingerprint() for name, one in sets.items()},
    }
