"""Which layout a path holds: by the names of its files, then by the first row."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stx_mine.errors import ConfigError, InputError
from stx_mine.inputs.column_file import is_column_file
from stx_mine.stages.verify.config import VerifyConfig
from stx_mine.stages.verify.readers.blocks import RowReader
from stx_mine.stages.verify.readers.by_ids import (
    beir_rows,
    colbert_rows,
    ms_marco_rows,
    nemo_rows,
    tevatron_rows,
    three_table_rows,
)
from stx_mine.stages.verify.readers.columns import column_rows
from stx_mine.stages.verify.readers.documents import first_value
from stx_mine.stages.verify.readers.objects import nest_of, nested_rows
from stx_mine.stages.verify.readers.runs import run_rows
from stx_mine.store.artifact import MANIFEST, PLAN

_COLUMN_OPTIONS = ("anchor_column", "positive_column", "negative_column")
_TRIPLES, _TEXTS = ("triples.jsonl", "triples.tsv"), ("collection.tsv", "queries.tsv")
_CORPUS = "corpus"
# Documents that hold no rows.
_OTHER_DOCUMENTS = (PLAN, MANIFEST, "merlin_metadata.json", "dataset_infos.json")


def open_rows(path: Path, config: VerifyConfig) -> RowReader:
    """Recognise the layout of a file or folder.

    Raises:
        InputError: There are no rows, or they are broken.
        ConfigError: Columns are named for a layout that has none to choose.
    """
    named = [name for name in _COLUMN_OPTIONS if getattr(config, name)]
    reader = _by_names(path) or _by_first_row(path)
    if reader is None:
        return column_rows(_row_files(path), config)
    if named:
        raise ConfigError(
            f"--{named[0].replace('_', '-')} is for columns of texts, {path} holds another layout "
            f"({reader.described}); leave it out"
        )
    return reader


def _by_names(path: Path) -> RowReader | None:
    """The layouts of several files."""
    file = None if path.is_dir() else path
    folder = path.parent if file else path
    if all((folder / name).is_file() for name in _TEXTS):
        triples = [folder / name for name in _TRIPLES if (folder / name).is_file()]
        chosen = file or (triples[0] if triples else None)
        if chosen:
            lists = ".jsonl" in chosen.suffixes
            return (colbert_rows if lists else ms_marco_rows)(folder, chosen)
    if file and folder.name == "qrels":
        return beir_rows(folder.parent, (file,))
    if file:
        return run_rows(file) if ".trec" in file.suffixes else None
    judged = tuple(sorted((folder / "qrels").glob("*.tsv")))
    if judged and (folder / "corpus.jsonl").is_file():
        return beir_rows(folder, judged)
    if all((folder / name).is_dir() for name in ("scores", "queries", "documents")):
        return three_table_rows(folder)
    runs = sorted(folder.glob("run*.trec"))
    return run_rows(runs[0]) if runs else None


def _by_first_row(path: Path) -> RowReader | None:
    """The layouts of one kind of file; None for columns of texts."""
    documents = _documents(path)
    if documents:
        try:
            first = first_value(documents[0])
        except InputError:
            # It may hold JSON lines; `column_rows` says what is wrong with it if not.
            return None
        if isinstance(first, dict) and "pos_doc" in first:
            return nemo_rows(documents)
        nest = nest_of(first)
        return nested_rows(documents, nest) if nest else None
    files = _row_files(path)
    first = _first_row(files[0])
    if isinstance(first, list):
        raise InputError(
            f"expected collection.tsv and queries.tsv beside {files[0]}, which holds ids, found "
            "none; put them there"
        )
    if isinstance(first, dict) and "positive_document_ids" in first:
        beside = files[0].parent
        root = beside if (beside / _CORPUS).is_dir() else beside.parent
        return tevatron_rows(root, files)
    nest = nest_of(first)
    return nested_rows(files, nest) if nest else None


def _first_row(path: Path) -> Any:
    """The first row of JSON lines, or the columns of a Parquet file; None for another kind."""
    if any(suffix in path.suffixes for suffix in (".jsonl", ".ndjson")):
        return first_value(path)
    if ".parquet" in path.suffixes:
        try:
            return dict.fromkeys(pq.read_schema(path).names)
        except (pa.ArrowInvalid, OSError):
            # `column_rows` says what is wrong with it.
            return None
    return None


def _documents(path: Path) -> tuple[Path, ...]:
    """The JSON documents of a path that may hold rows."""
    if path.is_file():
        return (path,) if ".json" in path.suffixes else ()
    found = (one for one in path.glob("*.json") if one.name not in _OTHER_DOCUMENTS)
    return tuple(sorted(one for one in found if not one.name.startswith(".")))


def _row_files(path: Path) -> tuple[Path, ...]:
    """The files of columns of a path, without those of a corpus beside them."""
    if path.is_file():
        return (path,)
    found = tuple(
        one
        for one in sorted(filter(is_column_file, path.rglob("*")))
        if one.name not in _OTHER_DOCUMENTS
    )
    rows = tuple(one for one in found if one.parent.name != _CORPUS)
    if not found:
        raise InputError(
            f"expected packed batches (epoch-000/train-*.parquet) or files of rows in {path}, "
            "found neither; run `stx-mine pack`, or give the right folder"
        )
    return rows or found
