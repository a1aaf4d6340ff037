"""Evaluation sets: opened, and read into memory."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from stx_mine.errors import ConfigError
from stx_mine.inputs.pairs import PairSource, TextStream
from stx_mine.models.tokenise import Role
from stx_mine.stages.evaluate.config import EvaluateConfig
from stx_mine.stages.ingest.numbering import Distinct
from stx_mine.stages.ingest.pairs import Ingested, read_source

# The evaluation that holds the results of several data sets.
OVERVIEW = "overview"


@dataclass(frozen=True)
class EvaluationSet:
    """Held-out pairs and the passages to search.

    Attributes:
        name: Its name in logs and reports: of the file or folder.
        texts: Distinct texts of each role, by id.
        relevant: The pairs, with the numbering of their texts.
    """

    name: str
    texts: dict[Role, pa.ChunkedArray]
    relevant: Ingested


def read_evaluation_set(name: str, source: PairSource) -> EvaluationSet:
    """Read texts and pairs into memory.

    Raises:
        InputError: No pair is left, or qrels name unknown ids.
    """
    relevant = read_source(source)
    texts: dict[Role, pa.ChunkedArray] = {
        "query": distinct_texts(source.queries(), relevant.queries),
        "passage": distinct_texts(source.passages(), relevant.passages),
    }
    return EvaluationSet(name, texts, relevant)


def distinct_texts(stream: TextStream, distinct: Distinct) -> pa.ChunkedArray:
    """The first row of each distinct text of a stream, by id."""
    first, start, chunks = distinct.first_rows(), 0, []
    for texts, _ in stream:
        chunks.append(texts.filter(pa.array(first[start : start + len(texts)])))
        start += len(texts)
    return pa.chunked_array(chunks, pa.large_string())


def named_data(config: EvaluateConfig) -> dict[str, str]:
    """Name of the evaluation -> path of its data.

    Raises:
        ConfigError: Two evaluations have one name.
    """
    if len(config.data) == 1 and config.name is not None:
        return {config.name: config.data[0]}
    named: dict[str, str] = {}
    taken = {config.name or OVERVIEW} if len(config.data) > 1 else set()
    for path in config.data:
        name = Path(path).name.split(".")[0]
        if name in taken:
            raise ConfigError(
                f"expected data sets of different names, found {name!r} twice ({path}; the "
                f"overview of several is named {config.name or OVERVIEW!r}); evaluate one of them "
                "by itself with --name"
            )
        taken.add(name)
        named[name] = path
    return named
