"""Evaluation sets: opened, and read into memory."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from stx_mine.artifacts.pair_source import PairSource, TextStream
from stx_mine.config import SourceFields, TrainConfig
from stx_mine.errors import ConfigError, InputError
from stx_mine.models.tokenise import Role
from stx_mine.stages.distinct import Distinct
from stx_mine.stages.read_pairs import Ingested, read_source


@dataclass(frozen=True)
class EvaluationSet:
    """Held-out pairs and the passages to search.

    Attributes:
        name: Its name in logs and reports: of the file or folder.
        texts: Distinct texts of each role, by id.
        found: The pairs that are relevant.
    """

    name: str
    texts: dict[Role, pa.ChunkedArray]
    found: Ingested


def open_evaluation_sets(config: TrainConfig) -> dict[str, PairSource]:
    """Name -> source of each of `config.evaluation`; the texts are not read yet.

    Raises:
        ConfigError: Two have one name, or an option fits none of them.
        InputError: A file, column or split is missing.
    """
    folders = [Path(path).is_dir() for path in config.evaluation]
    _refuse_unheeded("split", config.evaluation_split, "BEIR folders", any(folders))
    _refuse_unheeded("corpus", config.evaluation_corpus, "files of pairs", not all(folders))
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


def _refuse_unheeded(name: str, value: str | None, what: str, heeded: bool) -> None:
    if value is not None and not heeded:
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


def read_evaluation_set(name: str, source: PairSource) -> EvaluationSet:
    """Read texts and pairs into memory.

    Raises:
        InputError: No pair is left, or qrels name unknown ids.
    """
    found = read_source(source)
    texts: dict[Role, pa.ChunkedArray] = {
        "query": distinct_texts(source.queries(), found.queries),
        "passage": distinct_texts(source.passages(), found.passages),
    }
    return EvaluationSet(name, texts, found)


def distinct_texts(stream: TextStream, distinct: Distinct) -> pa.ChunkedArray:
    """The first row of each distinct text of a stream, by id."""
    first, start, chunks = distinct.first_rows(), 0, []
    for texts, _ in stream:
        chunks.append(texts.filter(pa.array(first[start : start + len(texts)])))
        start += len(texts)
    return pa.chunked_array(chunks, pa.large_string())
