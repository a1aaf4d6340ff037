"""A folder in BEIR layout: corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from stx_mine.errors import InputError
from stx_mine.inputs.column_file import ColumnFile, one_line


@dataclass(frozen=True)
class BeirFolder:
    """A folder in BEIR layout: corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv."""

    path: Path
    corpus: ColumnFile
    queries: ColumnFile
    qrels: ColumnFile
    split: str

    @classmethod
    def open(cls, path: str | Path, split: str | None, prefer: str) -> "BeirFolder":
        """Find the files and the split.

        Args:
            path: The folder.
            split: Name of the qrels file, or None for `prefer` or the only one.
            prefer: The split to take where none is named.

        Raises:
            InputError: A file is missing, or the split is unknown or ambiguous.
        """
        path = Path(path)
        splits = sorted(file.name.removesuffix(".tsv") for file in path.glob("qrels/*.tsv"))
        if not splits:
            raise InputError(
                f"expected a BEIR folder (corpus.jsonl, queries.jsonl, qrels/*.tsv) at {path}, "
                "found no qrels; give a file of pairs or the right folder"
            )
        chosen = split or (prefer if prefer in splits else splits[0])
        if chosen not in splits or (split is None and prefer not in splits and len(splits) > 1):
            raise InputError(
                f"no split {split or prefer!r} in {path}/qrels; "
                f"give --split with one of: {', '.join(splits)}"
            )
        return cls(
            path,
            ColumnFile.open(_either(path, "corpus")),
            ColumnFile.open(_either(path, "queries")),
            ColumnFile.open(path / "qrels" / f"{chosen}.tsv"),
            chosen,
        )

    def passages(self) -> Iterator[tuple[pa.Array, pa.Array]]:
        """Stream (text, id) of the corpus; text = title + " " + text."""
        for texts, ids, _ in beir_passages(self.corpus):
            yield texts, ids

    def query_texts(self) -> Iterator[tuple[pa.Array, pa.Array]]:
        """Stream (text, id) of the queries."""
        ids, text = self.queries.pick("_id", 0, "id column"), self.queries.pick("text", 1, "text")
        for id_array, text_array in self.queries.batches([ids, text]):
            yield text_array, id_array

    def judgements(self) -> Iterator[tuple[pa.Array, pa.Array, pa.Array]]:
        """Stream (query id, passage id, score) of the split."""
        if len(self.qrels.columns) < 3:
            raise InputError(
                f"expected query-id, corpus-id, score in {self.qrels.path}, "
                f"found {', '.join(self.qrels.columns)}; add the header line"
            )
        if re.fullmatch(r"[-+.\d]+", self.qrels.columns[2]):
            raise InputError(
                f"expected a header line (query-id, corpus-id, score) in {self.qrels.path}, found "
                f"{', '.join(self.qrels.columns)}; add the header line"
            )
        for query_ids, passage_ids, scores in self.qrels.batches(list(self.qrels.columns[:3])):
            try:
                yield query_ids, passage_ids, pc.cast(scores, pa.float64())
            except pa.ArrowInvalid as error:
                raise InputError(
                    f"expected a number in column {self.qrels.columns[2]!r} of {self.qrels.path}, "
                    f"found something else ({one_line(error)}); fix that row"
                ) from error


def open_beir_corpus(folder: str | Path) -> ColumnFile:
    """The corpus of a BEIR folder, which needs no qrels.

    Raises:
        InputError: There is none.
    """
    return ColumnFile.open(_either(Path(folder), "corpus"))


def beir_passages(
    corpus: ColumnFile, titles: bool = True
) -> Iterator[tuple[pa.Array, pa.Array, pa.Array]]:
    """Stream (text, id, title) of a BEIR corpus; text = title + " " + text, no title is null.

    Args:
        corpus: The file.
        titles: Whether to read its titles.
    """
    ids, text = corpus.pick("_id", 0, "id column"), corpus.pick("text", 1, "text")
    if "title" not in corpus.columns or not titles:
        for id_array, text_array in corpus.batches([ids, text]):
            yield text_array, id_array, pa.nulls(len(id_array), pa.large_string())
        return
    for id_array, titles, texts in corpus.batches([ids, "title", text]):
        titles = pc.fill_null(titles, "")
        space = pa.scalar(" ", pa.large_string())
        texts = pc.fill_null(texts, "")
        joined = pc.binary_join_element_wise(titles, texts, space)
        with_title = pc.if_else(pc.equal(texts, ""), titles, joined)
        untitled = pc.equal(titles, "")
        named = pc.if_else(untitled, pa.scalar(None, pa.large_string()), titles)
        yield pc.if_else(untitled, texts, with_title), id_array, named


def _either(folder: Path, stem: str) -> Path:
    for suffix in (".jsonl", ".jsonl.gz", ".jsonl.zst"):
        if (folder / f"{stem}{suffix}").exists():
            return folder / f"{stem}{suffix}"
    return folder / f"{stem}.jsonl"
