"""The held-out data that `train` evaluates on while it runs."""

from pathlib import Path

from stx_mine.errors import ConfigError, InputError
from stx_mine.inputs.config import SourceFields
from stx_mine.inputs.pairs import PairSource
from stx_mine.stages.evaluate.sets import EvaluationSet, read_evaluation_set
from stx_mine.stages.train.config import TrainConfig


def open_evaluation_sets(config: TrainConfig) -> dict[str, PairSource]:
    """Name -> source of each of `config.evaluation`; the texts are not read yet.

    Raises:
        ConfigError: Two have one name, or an option fits none of them.
        InputError: A file, column or split is missing.
    """
    folders = [Path(path).is_dir() for path in config.evaluation]
    _refuse_unused("split", config.evaluation_split, "BEIR folders", any(folders))
    _refuse_unused("corpus", config.evaluation_corpus, "files of pairs", not all(folders))
    sources: dict[str, PairSource] = {}
    for path in config.evaluation:
        name = Path(path).name.split(".")[0]
        if name in sources:
            raise ConfigError(
                f"expected --evaluation of different names, found {name!r} twice ({path}); rename "
                "a file or folder"
            )
        # Each option is for one kind of input; a run may have both.
        is_folder = Path(path).is_dir()
        fields = SourceFields(
            split=config.evaluation_split if is_folder else None,
            corpus=None if is_folder else config.evaluation_corpus,
        )
        try:
            sources[name] = PairSource.open(path, fields, "dev")
        except InputError as error:
            # It speaks of the options of `evaluate`.
            raise InputError(str(error).replace("--split", "--evaluation-split")) from error
    return sources


def _refuse_unused(name: str, value: str | None, what: str, used: bool) -> None:
    if value is not None and not used:
        raise ConfigError(
            f"--evaluation-{name} {value} fits {what} only, found none among --evaluation; leave "
            "it out"
        )


def read_evaluation_sets(config: TrainConfig) -> list[EvaluationSet]:
    """Read all sets of a training into memory.

    Raises:
        InputError: No pair is left, or qrels name unknown ids.
    """
    sources = open_evaluation_sets(config)
    return [read_evaluation_set(name, source) for name, source in sources.items()]
