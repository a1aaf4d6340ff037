"""The files of `split/`: a BEIR folder with one corpus, one file of queries, and qrels per part."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.inputs.names import OF_DOCUMENT
from stx_mine.inputs.pairs import PairSource, TitledStream
from stx_mine.stages.ingest.named_documents import NamedDocuments
from stx_mine.stages.ingest.pairs import Ingested
from stx_mine.stages.split.core.parts import PARTS, TRAIN
from stx_mine.stages.split.core.units import PairGraph
from stx_mine.stages.split.judgements import JudgementBlock
from stx_mine.stages.split.output_ids import OutputIds
from stx_mine.store.files import atomic
from stx_mine.store.tables import write_json_lines

CORPUS, QUERIES = "corpus.jsonl", "queries.jsonl"
_HEADER = "query-id\tcorpus-id\tscore\n"


def qrels_file(part: str) -> str:
    """The name of the qrels of a part."""
    return f"qrels/{part}.tsv"


def write_corpus(
    path: Path, source: PairSource, ids: OutputIds, named: NamedDocuments | None
) -> int:
    """Write passages as `_id`, `title`, `text`; `language`, `of_document` where they are named.

    Returns:
        The number of lines.
    """
    tables = _tables(source.titled_passages(), source, "passage", ids)
    return write_json_lines(path, _with_documents(tables, ids, named))


def _with_documents(
    tables: Iterator[pa.Table], ids: OutputIds, named: NamedDocuments | None
) -> Iterator[pa.Table]:
    """Tables with the document of which each passage is a chunk, where any is named."""
    start = 0
    for table in tables:
        if named is not None:
            texts = ids.texts[start : start + len(table)]
            table = table.append_column(OF_DOCUMENT, named.names.take(pa.array(texts)))
        start += len(table)
        yield table


def write_query_file(path: Path, source: PairSource, ids: OutputIds) -> int:
    """Write queries as `_id`, `text`, and `language` where the input names any.

    Returns:
        The number of lines.
    """
    untitled = ((texts, original_ids, None) for texts, original_ids in source.queries())
    return write_json_lines(path, _tables(untitled, source, "query", ids))


def _tables(
    stream: TitledStream | Iterable[tuple[pa.Array, pa.Array, None]],
    source: PairSource,
    role: str,
    ids: OutputIds,
) -> Iterator[pa.Table]:
    """The kept rows of a stream, as tables of the columns that are written."""
    languages = None
    if source.names_languages:
        named = pa.chunked_array(list(source.languages(role)), pa.large_string())
        languages = named if named.null_count < len(named) else None
    start = num_written = 0
    for texts, _, titles in stream:
        kept = pa.array(ids.kept[start : start + len(texts)])
        rows = texts.filter(kept)
        columns = {"_id": ids.of_rows.slice(num_written, len(rows))}
        if titles is not None:
            columns["title"], columns["text"] = _apart(rows, titles.filter(kept))
        else:
            columns["text"] = rows
        if languages is not None:
            columns["language"] = languages.slice(start, len(texts)).filter(kept)
        yield pa.table(columns)
        start += len(texts)
        num_written += len(rows)


def _apart(texts: pa.Array, titles: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Titles, empty where there is none, and texts without the title that they begin with."""
    bodies = [
        text if title is None else text[len(title) + 1 :]
        for text, title in zip(texts.to_pylist(), titles.to_pylist(), strict=True)
    ]
    return titles.fill_null(""), pa.array(bodies, pa.large_string())


@dataclass(frozen=True)
class PartOfJudgement:
    """Tells the part of a judgement.

    Attributes:
        num_passages: Distinct passages, those without a pair too.
        keys_N: int64 (N,) query * num_passages + passage of each pair, rising.
        parts_N: int8 (N,) the part of each of these pairs.
        parts_Q: int8 (num queries,) the part of each query, the first of `PARTS` where it has pairs
            in several; their number where it has none.
        held_out: bool (num texts,) whether a text stands in a pair of dev or test, or counts as one
            that does.
    """

    num_passages: int
    keys_N: NDArray[np.int64]
    parts_N: NDArray[np.int8]
    parts_Q: NDArray[np.int8]
    held_out: NDArray[np.bool_]

    @classmethod
    def of(cls, found: Ingested, graph: PairGraph, parts_N: NDArray[np.int8]) -> "PartOfJudgement":
        """Look up parts by query and passage.

        Args:
            found: What was read.
            graph: Its pairs.
            parts_N: int8 (N,) the part of each pair.
        """
        queries, passages = found.pairs.T
        num_passages = len(found.passages.digests)
        keys_N = queries * num_passages + passages
        order = np.argsort(keys_N)
        parts_Q = np.full(len(found.queries.digests), len(PARTS), np.int8)
        np.minimum.at(parts_Q, queries, parts_N)
        held_out = np.zeros(len(graph.digests), bool)
        for texts_N in (graph.queries_N, graph.passages_N):
            held_out[graph.names[texts_N[parts_N != TRAIN]]] = True
        return cls(num_passages, keys_N[order], parts_N[order], parts_Q, held_out[graph.names])

    def of_block(self, block: JudgementBlock) -> tuple[NDArray[np.int8], dict[str, int]]:
        """The part of each judgement.

        Returns:
            int8 (R,) places in `PARTS`, -1 for one that is left out; and how many of those that are
            not relevant are left out, by reason. Pairs that are left out are those that reading
            dropped.
        """
        parts = np.full(len(block.queries), -1, np.int8)
        known = (block.queries >= 0) & (block.passages >= 0)
        known &= self.parts_Q[block.queries] < len(PARTS)
        keys = block.queries * self.num_passages + block.passages
        places = np.minimum(np.searchsorted(self.keys_N, keys), len(self.keys_N) - 1)
        positive = np.flatnonzero(block.positive & known & (self.keys_N[places] == keys))
        parts[positive] = self.parts_N[places[positive]]
        negative = ~block.positive & (block.grades <= 0)
        usable = np.flatnonzero(negative & known)
        of_query = self.parts_Q[block.queries[usable]]
        meets = (of_query == TRAIN) & self.held_out[block.passages[usable]]
        parts[usable] = np.where(meets, -1, of_query)
        dropped = {
            "held_out_text": int(meets.sum()),
            "no_pair": int((negative & ~known).sum()),
        }
        return parts, dropped


@dataclass(frozen=True)
class QrelsCounts:
    """What was written to the qrels.

    Attributes:
        rows: int64 (parts,) lines.
        not_relevant: int64 (parts,) those that are no positive.
        dropped: Reason -> judgements that are no positive and were left out.
    """

    rows: NDArray[np.int64]
    not_relevant: NDArray[np.int64]
    dropped: dict[str, int]


def write_qrels(
    folder: Path, names: list[str], blocks: Iterable[JudgementBlock], parts: PartOfJudgement
) -> QrelsCounts:
    """Write the judgements of each part, in the order of the input.

    Args:
        folder: The folder that `qrels/` is made in.
        names: The parts to write.
        blocks: The judgements.
        parts: Tells the part of each.
    """
    rows, not_relevant = (np.zeros(len(PARTS), np.int64) for _ in range(2))
    dropped: dict[str, int] = {}
    with ExitStack() as stack:
        files = {
            PARTS.index(name): stack.enter_context(
                stack.enter_context(atomic(folder / qrels_file(name))).open("w", encoding="utf-8")
            )
            for name in names
        }
        for file in files.values():
            file.write(_HEADER)
        for block in blocks:
            of_block, left_out = parts.of_block(block)
            for reason, number in left_out.items():
                dropped[reason] = dropped.get(reason, 0) + number
            for part, file in files.items():
                chosen = np.flatnonzero(of_block == part)
                file.writelines(_lines(block, chosen))
                rows[part] += len(chosen)
                not_relevant[part] += int((~block.positive[chosen]).sum())
    return QrelsCounts(rows, not_relevant, dropped)


def _lines(block: JudgementBlock, rows: NDArray[np.int64]) -> Iterator[str]:
    query_ids = block.query_ids.take(pa.array(rows)).to_pylist()
    passage_ids = block.passage_ids.take(pa.array(rows)).to_pylist()
    for query, passage, grade in zip(
        query_ids, passage_ids, block.grades[rows].tolist(), strict=True
    ):
        yield f"{query}\t{passage}\t{grade:.15g}\n"
