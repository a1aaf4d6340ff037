"""Input files as streams of Arrow record batches with string columns, whatever their format."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from stx_mine.errors import InputError

_COMPRESSIONS = (".gz", ".zst", ".bz2")
_FORMATS = (".parquet", ".jsonl", ".ndjson", ".csv", ".tsv")
_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class ColumnFile:
    """A file of named columns: Parquet, JSONL, CSV or TSV, the latter three also compressed."""

    path: Path
    kind: str
    columns: tuple[str, ...]

    @classmethod
    def open(cls, path: str | Path) -> "ColumnFile":
        """Recognise a file by its name and read its column names.

        Raises:
            InputError: It is missing, empty or of an unknown kind.
        """
        path = Path(path)
        if not path.is_file():
            what = "a folder" if path.is_dir() else "nothing"
            raise InputError(f"expected a file at {path}, found {what}; check the path")
        kind = _kind(path)
        if kind not in _FORMATS:
            raise InputError(
                f"expected one of {', '.join(_FORMATS)} (text also with .gz, .zst, .bz2), "
                f"found {path.name}; rename or convert the file"
            )
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty; give a file with at least one row")
        try:
            columns = _column_names(path, kind)
        except (pa.ArrowInvalid, pa.ArrowKeyError, ValueError, OSError) as error:
            raise InputError(
                f"expected {kind[1:]} in {path}, found something else ({_one_line(error)})"
            ) from error
        return cls(path, kind, columns)

    def pick(self, name: str | None, position: int, option: str) -> str:
        """A column by its name, or by its position where no name is given.

        Raises:
            InputError: There is no such column; the message lists those there are.
        """
        if name is not None and name not in self.columns:
            raise InputError(
                f"{option} {name!r} is not a column of {self.path}; "
                f"its columns are {', '.join(self.columns)}"
            )
        if name is None and position >= len(self.columns):
            raise InputError(
                f"expected at least {position + 1} columns in {self.path}, found "
                f"{len(self.columns)} ({', '.join(self.columns)}); name the right file"
            )
        return name if name is not None else self.columns[position]

    def column_kinds(self) -> dict[str, str]:
        """What each column holds, as far as can be seen: `text`, `texts` (lists of it), or `other`.

        Parquet says it, the first row of JSON lines shows it, and in CSV and TSV all is text.
        """
        if self.kind == ".parquet":
            schema = pa.parquet.read_schema(self.path)
            return {field.name: _arrow_kind(field.type) for field in schema}
        if self.kind in (".csv", ".tsv"):
            return dict.fromkeys(self.columns, "text")
        with pa.input_stream(str(self.path), compression="detect") as stream:
            return {name: _json_kind(value) for name, value in _first_json_row(stream).items()}

    def batches(self, columns: list[str]) -> Iterator[list[pa.Array]]:
        """Stream the asked-for columns as large strings; nulls stay null.

        Raises:
            InputError: A column holds something else than text or numbers, or a row is broken.
        """
        try:
            for batch in self._record_batches(columns):
                yield [self._as_text(batch.column(name), name) for name in columns]
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            raise InputError(
                f"cannot read {self.path}: {_one_line(error)}; mend that row"
            ) from error

    def _record_batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        if self.kind == ".parquet":
            source = pa.parquet.ParquetFile(self.path)
            yield from source.iter_batches(batch_size=_BATCH_ROWS, columns=columns)
            return
        with pa.input_stream(str(self.path), compression="detect") as stream:
            if self.kind in (".jsonl", ".ndjson"):
                parse = pa.json.ParseOptions(unexpected_field_behavior="infer")
                read = pa.json.ReadOptions(block_size=1 << 24)
                for batch in pa.json.open_json(stream, read_options=read, parse_options=parse):
                    yield self._with_missing(batch, columns)
                return
            convert = pa.csv.ConvertOptions(
                include_columns=columns, column_types={name: pa.large_string() for name in columns}
            )
            yield from pa.csv.open_csv(
                stream,
                read_options=pa.csv.ReadOptions(block_size=1 << 24),
                parse_options=_csv_options(self.kind),
                convert_options=convert,
            )

    def _with_missing(self, batch: pa.RecordBatch, columns: list[str]) -> pa.RecordBatch:
        """A block of JSON lines may lack a column that other blocks have."""
        arrays = [
            batch.column(name)
            if name in batch.schema.names
            else pa.nulls(batch.num_rows, pa.large_string())
            for name in columns
        ]
        return pa.RecordBatch.from_arrays(arrays, names=columns)

    def _as_text(self, array: pa.Array, name: str) -> pa.Array:
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        kind = array.type
        texts = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if not (texts or pa.types.is_null(kind) or pa.types.is_integer(kind)):
            raise InputError(f"expected text in column {name!r} of {self.path}, found {kind}")
        return array.cast(pa.large_string())


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
                    f"found something else ({_one_line(error)}); mend that row"
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


def is_column_file(path: Path) -> bool:
    """Whether a path is a visible file of a kind that `ColumnFile` reads."""
    return path.is_file() and not path.name.startswith(".") and _kind(path) in _FORMATS


def _kind(path: Path) -> str:
    suffixes = [suffix for suffix in path.suffixes if suffix not in _COMPRESSIONS]
    return suffixes[-1] if suffixes else ""


def _either(folder: Path, stem: str) -> Path:
    for suffix in (".jsonl", ".jsonl.gz", ".jsonl.zst"):
        if (folder / f"{stem}{suffix}").exists():
            return folder / f"{stem}{suffix}"
    return folder / f"{stem}.jsonl"


def _column_names(path: Path, kind: str) -> tuple[str, ...]:
    if kind == ".parquet":
        return tuple(pa.parquet.read_schema(path).names)
    with pa.input_stream(str(path), compression="detect") as stream:
        if kind in (".jsonl", ".ndjson"):
            return tuple(_first_json_row(stream))
        reader = pa.csv.open_csv(
            stream,
            read_options=pa.csv.ReadOptions(block_size=1 << 22),
            parse_options=_csv_options(kind),
        )
        return tuple(reader.schema.names)


def _first_json_row(stream: pa.NativeFile) -> dict[str, Any]:
    row = json.loads(stream.read(1 << 22).lstrip().split(b"\n", 1)[0])
    if not isinstance(row, dict):
        raise ValueError("a line is no JSON object")
    return row


def _arrow_kind(kind: pa.DataType) -> str:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return "texts" if _arrow_kind(kind.value_type) == "text" else "other"
    if pa.types.is_dictionary(kind):
        return _arrow_kind(kind.value_type)
    texts = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
    return "text" if texts else "other"


def _json_kind(value: Any) -> str:
    if isinstance(value, list):
        return "texts" if all(isinstance(one, str) for one in value) else "other"
    return "text" if value is None or isinstance(value, str) else "other"


def _csv_options(kind: str) -> pa.csv.ParseOptions:
    if kind == ".tsv":
        return pa.csv.ParseOptions(delimiter="\t", quote_char=False)
    return pa.csv.ParseOptions(newlines_in_values=True)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
