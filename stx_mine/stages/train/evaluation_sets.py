"""The held-out data that `train` evaluates on while it runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stx_mine.errors import ConfigError, InputError
from stx_mine.inputs.config import SourceFields
from stx_mine.inputs.evaluation_data import OpenedData, open_data, recorded_options
from stx_mine.stages.evaluate.leaks import find_in_training
from stx_mine.stages.evaluate.results import shares_json
from stx_mine.stages.evaluate.sets import EvaluationSet, data_name, read_evaluation_set
from stx_mine.stages.train.config import TrainConfig
from stx_mine.store.artifact import require
from stx_mine.store.manifest import is_begun
from stx_mine.store.run_dir import RunDir


def open_evaluation_sets(config: TrainConfig, run: RunDir) -> dict[str, OpenedData]:
    """Name -> data of each of `config.evaluation`, then of `config.merge_check`.

    The texts are not read yet.

    Columns that the run named for its own pairs are those of the data, where it has them.

    Raises:
        ConfigError: Two have one name, or an option fits none of them.
        InputError: A file, column or split is missing.
    """
    paths = (*config.evaluation, *config.merge_check)
    folders = [Path(path).is_dir() for path in paths]
    _refuse_unused("split", config.evaluation_split, "BEIR folders", any(folders))
    _refuse_unused("corpus", config.evaluation_corpus, "files of pairs", not all(folders))
    recorded = recorded_options(require(run, "texts") if is_begun(run, "texts") else None)
    readings: dict[str, OpenedData] = {}
    for path in paths:
        name = data_name(path)
        if name in readings:
            raise ConfigError(
                f"expected --evaluation and --merge-check of different names, found {name!r} twice "
                f"({path}); rename a file or folder"
            )
        # Each option is for one kind of input; a run may have both.
        is_folder = Path(path).is_dir()
        fields = SourceFields(
            split=config.evaluation_split if is_folder else None,
            corpus=None if is_folder else config.evaluation_corpus,
        )
        try:
            readings[name] = open_data(path, fields, "dev", recorded)
        except InputError as error:
            # It speaks of the options of `evaluate`.
            raise InputError(str(error).replace("--split", "--evaluation-split")) from error
    return readings


def _refuse_unused(name: str, value: str | None, what: str, used: bool) -> None:
    if value is not None and not used:
        raise ConfigError(
            f"--evaluation-{name} {value} fits {what} only, found none among --evaluation; leave "
            "it out"
        )


def evaluation_fields(config: TrainConfig, run: RunDir) -> dict[str, Any]:
    """What the sets are, for the key of a model: content, and how it is read.

    Raises:
        ConfigError, InputError: As `open_evaluation_sets`.
    """
    opened = open_evaluation_sets(config, run)
    content = [one.source.fingerprint() for one in opened.values()]
    number = len(config.evaluation)
    found: dict[str, Any] = {"evaluation_content": content[:number]}
    if config.merge_check:
        found["merge_check_content"] = content[number:]
    if reading := {name: one.of_run for name, one in opened.items() if one.of_run}:
        found["evaluation_reading"] = reading
    return found


def read_evaluation_sets(config: TrainConfig, run: RunDir) -> list[EvaluationSet]:
    """Read the sets that a training is evaluated on into memory.

    Raises:
        InputError: No pair is left, or qrels name unknown ids.
    """
    return _read(config, run, slice(len(config.evaluation)))


class SetsOfTraining(NamedTuple):
    """The held-out data of a training.

    Attributes:
        watched: What it is evaluated on.
        checked: What a merged model is compared on beside.
    """

    watched: Sequence[EvaluationSet] = ()
    checked: Sequence[EvaluationSet] = ()


def read_training_sets(config: TrainConfig, run: RunDir) -> SetsOfTraining:
    """Read all sets of a training into memory.

    Raises:
        InputError: No pair is left, or qrels name unknown ids.
    """
    checked = _read(config, run, slice(len(config.evaluation), None))
    return SetsOfTraining(read_evaluation_sets(config, run), checked)


def _read(config: TrainConfig, run: RunDir, part: slice) -> list[EvaluationSet]:
    opened = list(open_evaluation_sets(config, run).items())[part]
    return [read_evaluation_set(name, one.source) for name, one in opened]


def sets_in_training(run: RunDir, sets: Sequence[EvaluationSet]) -> dict[str, Any]:
    """Name of a set -> how much of it the pairs of the run hold; None if nobody can tell."""
    if not is_begun(run, "texts"):
        return {one.name: None for one in sets}
    texts, groups = require(run, "texts"), require(run, "groups")
    return {one.name: shares_json(find_in_training(texts, groups, one).shares) for one in sets}
