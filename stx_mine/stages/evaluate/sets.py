"""Evaluation sets: opened, and read into memory."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, ragged_sets
from stx_mine.core.role import Role
from stx_mine.errors import ConfigError, InputError
from stx_mine.inputs.files import suffix_of
from stx_mine.inputs.pairs import PairSource
from stx_mine.stages.evaluate.config import EvaluateConfig
from stx_mine.stages.evaluate.core.metrics import Relevance
from stx_mine.stages.evaluate.counts import EvaluationCounts
from stx_mine.stages.evaluate.judgements import (
    Corpus,
    JudgedQueries,
    Judgements,
    documents_of,
)
from stx_mine.stages.evaluate.own_passages import (
    NOTHING,
    LeftOut,
    OfQueries,
    OwnPassages,
    left_out,
    same_names,
    same_texts,
    texts_agree,
)
from stx_mine.stages.ingest.numbering import distinct_texts
from stx_mine.stages.ingest.pairs import Ingested, read_source
from stx_mine.store.names import name_problem
from stx_mine.store.stage_report import listed

# The evaluation that holds the results of several data sets.
OVERVIEW = "overview"


@dataclass(frozen=True)
class EvaluationSet:
    """Queries, what is judged of them, and the passages to search.

    Of a text that stands under several ids one copy is encoded, and every id is ranked.

    Attributes:
        name: Its name in logs and reports: of the file or folder.
        texts: Of queries (Q,), a text each; of passages the distinct texts.
        digests: Digests of the same texts.
        query_ids: int64 (Q,): number of each query in the data.
        query_names: (Q,) its id in the data; null where it has none.
        documents: Of each text of a passage the documents that it stands in, numbered so that of
            those that tie the first has the lower id.
        judged: What is judged, by document.
        positives: int64 (N, 2): query and text of each relevant passage, distinct.
        left_out: Of each query the documents that are not ranked.
        counts: What was read.
        read: Which columns were read as what, and what was decided, as sentences.
    """

    name: str
    texts: dict[Role, pa.ChunkedArray]
    digests: dict[Role, pa.Array]
    query_ids: NDArray[np.int64]
    query_names: pa.Array
    documents: Ragged
    judged: Relevance
    positives: NDArray[np.int64]
    left_out: Ragged
    counts: EvaluationCounts
    read: list[str]


def read_evaluation_set(
    name: str, source: PairSource, own_passages: OwnPassages = "auto"
) -> EvaluationSet:
    """Read texts and judgements into memory.

    Args:
        name: Name of the set.
        source: Where it lies.
        own_passages: What is done with the passages that are a query's own.

    Raises:
        InputError: No pair is left, nothing is relevant, or a grade is no number.
    """
    found = read_source(source, for_training=False)
    passages = distinct_texts(source.passages(), found.passages)
    if found.judgements is None:
        return _of_pairs(name, source, found, passages, own_passages)
    return _of_judgements(name, source, found, found.judgements, passages, own_passages)


def _of_pairs(
    name: str,
    source: PairSource,
    found: Ingested,
    passages: pa.ChunkedArray,
    own_passages: OwnPassages,
) -> EvaluationSet:
    """Pairs of texts: a passage is a distinct text, and every pair gains 1."""
    asked, rows = np.unique(found.pairs[:, 0], return_inverse=True)
    num_texts, chosen = len(passages), pa.array(asked)
    documents = ragged_sets(np.arange(num_texts), np.arange(num_texts), num_texts)
    positives = np.stack([rows, found.pairs[:, 1]], axis=1)
    judged = Relevance.binary(ragged_sets(rows, positives[:, 1], len(asked)))
    digests = found.queries.digests.take(chosen)
    away = left_out(
        own_passages,
        len(asked),
        same_texts(digests, found.passages.digests, documents),
        NOTHING,
        np.empty(0, np.bool_),
        OfQueries(positives[:, 0], positives[:, 1]),
    )
    originals = found.queries.original_ids.filter(pa.array(found.queries.first_rows()))
    return EvaluationSet(
        name,
        {
            "query": distinct_texts(source.queries(), found.queries).take(chosen),
            "passage": passages,
        },
        {"query": digests, "passage": found.passages.digests},
        asked,
        originals.take(chosen).combine_chunks(),
        documents,
        judged,
        positives,
        away.documents,
        EvaluationCounts(
            pairs_in=found.counts.pairs_in,
            pairs_kept=found.counts.pairs_kept,
            pairs_dropped=found.counts.pairs_dropped,
            queries=len(asked),
            passages=num_texts,
            positives=len(positives),
            own_left_out=len(away.documents.values),
        ),
        [*source.description(), *found.notes],
    )


def _of_judgements(
    name: str,
    source: PairSource,
    found: Ingested,
    table: pa.Table,
    passages: pa.ChunkedArray,
    own_passages: OwnPassages,
) -> EvaluationSet:
    """Judgements of ids: a passage is a document with an id, and a grade is a gain."""
    queries = JudgedQueries.read(source.queries(), table["query"].unique())
    corpus = Corpus.of(found.passages)
    judgements = Judgements.join(table, queries.names, corpus.names, source.min_grade)
    judged = judgements.judged
    if not judged.is_relevant.any():
        raise InputError(
            f"no judgement of {name} is of a grade that is relevant "
            f"({listed(dict(judgements.dropped)) or 'no rows'}); check --split and --min-grade"
        )
    of_text = same_texts(queries.digests, found.passages.digests, corpus.documents)
    of_name = same_names(queries.names, corpus.names)
    gaining = documents_of(judged, np.ones(len(judged.gains), np.bool_))
    relevant = documents_of(judged, judged.is_relevant)
    agrees = texts_agree(
        queries.texts.take(pa.array(of_name.rows)).combine_chunks(),
        passages.take(pa.array(corpus.texts[of_name.documents])).combine_chunks(),
    )
    away = left_out(own_passages, len(queries.names), of_text, of_name, agrees, gaining)
    positives = np.stack([relevant.rows, corpus.texts[relevant.documents]], axis=1)
    return EvaluationSet(
        name,
        {"query": queries.texts, "passage": passages},
        {"query": queries.digests, "passage": found.passages.digests},
        np.arange(len(queries.names)),
        queries.names,
        corpus.documents,
        judged,
        np.unique(positives, axis=0),
        away.documents,
        _counts_of_judgements(judgements, corpus, gaining, away, source.min_grade),
        [*source.description(), *found.notes],
    )


def _counts_of_judgements(
    judgements: Judgements,
    corpus: Corpus,
    gaining: OfQueries,
    away: LeftOut,
    min_grade: float | None,
) -> EvaluationCounts:
    judged = judgements.judged
    gains = judged.gains[judged.gains > 0]
    texts = np.unique(np.stack([gaining.rows, corpus.texts[gaining.documents]], axis=1), axis=0)
    copies, _ = corpus.documents.take(texts[:, 1])
    of_positives = OfQueries(np.repeat(texts[:, 0], copies.lengths()), copies.values)
    ranked = ~of_positives.is_in(
        OfQueries(
            np.repeat(np.arange(len(away.documents)), away.documents.lengths()),
            away.documents.values,
        )
    )
    return EvaluationCounts(
        pairs_in=judgements.num_read,
        pairs_kept=len(judged.gains),
        pairs_dropped=dict(judgements.dropped),
        queries=len(judged.documents),
        passages=len(corpus.texts),
        positives=int(judged.is_relevant.sum()),
        lowest_gain=float(gains.min(initial=np.inf)) if len(gains) else 0.0,
        highest_gain=float(gains.max(initial=0.0)),
        min_grade=min_grade,
        queries_without_positive=int((judged.num_relevant() == 0).sum()),
        pairs_not_in_corpus=int((judged.documents.values < 0).sum()),
        copies=int((corpus.documents.lengths() - 1).clip(0).sum()),
        copies_of_positives=int((ranked & ~of_positives.is_in(gaining)).sum()),
        own_left_out=len(away.documents.values),
        own_positives=away.num_positives,
        ids_of_other_texts=away.num_other_texts,
    )


def data_name(path: str) -> str:
    """Name of the data at a path: of its folder, or of its file without format and compression."""
    place = Path(path).resolve()
    name = place.name.lstrip(".")
    if not place.is_dir() and (suffix := suffix_of(place)):
        name = name[: name.lower().rindex(suffix)]
    return name or "data"


def prefix_of(config: EvaluateConfig) -> str:
    """What the names of several evaluations begin with."""
    return f"{config.name}-" if config.name and len(config.data) > 1 else ""


def named_data(config: EvaluateConfig) -> dict[str, str]:
    """Name of the evaluation -> path of its data.

    A name that is given is that of one; of several it is that of their overview, and what their own
    names begin with.

    Raises:
        ConfigError: Two evaluations have one name, or one is no name of a folder.
    """
    if config.name is not None and (problem := name_problem(config.name)):
        raise ConfigError(
            f"expected the name of a folder of evaluations/, found --name {config.name!r}: "
            f"{problem}; give a name such as dev"
        )
    if len(config.data) == 1 and config.name is not None:
        return {config.name: config.data[0]}
    named: dict[str, str] = {}
    taken = {config.name or OVERVIEW} if len(config.data) > 1 else set()
    for path in config.data:
        name = prefix_of(config) + data_name(path)
        if problem := name_problem(name):
            raise ConfigError(
                f"expected data whose name can be that of a folder, found {name!r} ({path}): "
                f"{problem}; give --name, or rename the data"
            )
        if name in taken:
            raise ConfigError(
                f"expected data sets of different names, found {name!r} twice ({path}; the "
                f"overview of several is named {config.name or OVERVIEW!r}); evaluate one of them "
                "by itself with --name"
            )
        taken.add(name)
        named[name] = path
    return named
