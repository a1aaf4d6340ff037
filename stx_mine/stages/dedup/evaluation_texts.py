"""The texts of evaluation sets: their queries, and the passages that are relevant to one."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.core.role import Role
from stx_mine.inputs.evaluation_data import open_data, recorded_options
from stx_mine.inputs.pairs import PairSource, TextStream
from stx_mine.stages.dedup.config import DedupConfig
from stx_mine.stages.ingest.numbering import Distinct, first_texts
from stx_mine.stages.ingest.pairs import read_source
from stx_mine.store.artifact import Manifest


@dataclass(frozen=True)
class EvaluationTexts:
    """The texts of several evaluation sets, each distinct text of a set and a role once.

    Attributes:
        names: Names of the sets.
        texts: (T,) large strings.
        sets: int64 (T,) number of the set of each text, rising.
        is_query: bool (T,) whether each text is a query; else it is relevant to one.
        read: Which columns were read as what, as sentences.
    """

    names: list[str]
    texts: pa.ChunkedArray
    sets: NDArray[np.int64]
    is_query: NDArray[np.bool_]
    read: list[str]

    @classmethod
    def of(cls, sources: dict[str, PairSource]) -> "EvaluationTexts":
        """Read sets by their names.

        Raises:
            InputError: One is malformed, or has no pair.
        """
        chunks, sets, is_query, read = [pa.array([], pa.large_string())], [], [], list[str]()
        for number, source in enumerate(sources.values()):
            found = read_source(source, for_training=False)
            read += [*source.description(), *found.notes]
            relevant = np.zeros(len(found.passages.digests), bool)
            relevant[found.pairs[:, 1]] = True
            for stream, distinct, wanted in (
                # Of a folder with several qrels, those that these qrels name.
                (source.queries(), found.queries, np.ones(len(found.queries.digests), bool)),
                (source.passages(), found.passages, relevant),
            ):
                kept = list(_chosen(stream, distinct, wanted))
                chunks += kept
                length = sum(map(len, kept))
                sets.append(np.full(length, number))
                is_query.append(np.full(length, distinct is found.queries))
        return cls(
            list(sources),
            pa.chunked_array(chunks),
            np.concatenate(sets),
            np.concatenate(is_query),
            read,
        )

    def rows(self, role: Role) -> NDArray[np.int64]:
        """Numbers of the texts of a role."""
        return np.flatnonzero(self.is_query == (role == "query"))

    def count(self, chosen: NDArray[np.bool_]) -> list[dict[str, int]]:
        """Of each set how many of its queries and positives are among some texts."""
        return [
            {
                "queries": int((chosen & self.is_query & (self.sets == number)).sum()),
                "positives": int((chosen & ~self.is_query & (self.sets == number)).sum()),
            }
            for number in range(len(self.names))
        ]


def opened_sets(config: DedupConfig, texts: Manifest) -> dict[str, PairSource]:
    """Open the evaluation sets, each by the name that it was given by.

    They are read as `evaluate` reads them: as asked for, else as the run reads its own pairs.

    Raises:
        InputError: A file or column is missing.
        ConfigError: An option does not fit the kind of input.
    """
    recorded = recorded_options(texts)
    return {path: open_data(path, config, "test", recorded).source for path in config.against}


def _chosen(
    stream: TextStream, distinct: Distinct, wanted: NDArray[np.bool_]
) -> Iterator[pa.Array]:
    for ids, texts in first_texts(stream, distinct):
        yield texts.filter(pa.array(wanted[ids]))
