"""Packed batches on disk: Parquet shards of whole batches, and what lies beside them."""

import json
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged
from stx_mine.errors import InputError
from stx_mine.store.artifact import MANIFEST, read_manifest
from stx_mine.store.files import read_table
from stx_mine.store.sources import SourceInfo
from stx_mine.store.texts import take_texts

POSITIVES, TEXTS = "positives.parquet", "texts.arrow"
GROUPS = "groups.parquet"
SCORES = "scores"
LANGUAGE, PASSAGE_LANGUAGES = "language", "passage_languages"
FOOTER_KEY = b"stx_mine"


def text_columns(num_negatives: int) -> list[str]:
    """Names of the columns that hold texts."""
    return ["anchor", "positive", *negative_columns(num_negatives)]


def id_schema() -> pa.Schema:
    """Columns beside the texts. All ids are of texts, one space over both roles."""
    ids = pa.list_(pa.int64())
    return pa.schema(
        [
            ("row_id", pa.int64()),
            ("anchor_id", pa.int64()),
            ("positive_id", pa.int64()),
            ("negative_ids", ids),
            ("ignore_ids", ids),
            ("num_random_negatives", pa.int64()),
        ]
    )


def negative_columns(num_negatives: int) -> list[str]:
    """Names of the columns of negatives."""
    return [f"negative_{j + 1}" for j in range(num_negatives)]


@dataclass(frozen=True)
class BatchShard:
    """One Parquet file of whole batches.

    Attributes:
        path: The file.
        batch_size: Rows a batch.
        num_batches: Batches in the file.
        num_negatives: Columns of negatives.
        policy: merge or strict; empty for (text, label) rows.
        texts: The table of texts that its ids stand for; None where it holds texts itself.
        texts_per_label: Texts that a label has in a batch at most; None for rows of pairs.
        sources: What its column `source` names; empty where there is no such column.
        has_scores: Whether it stores `scores`: of the positive, then of each negative of a row.
        judge: Name of the judge whose scores these are, which has none of some; None: they are of
            the model that mined.
    """

    path: Path
    batch_size: int
    num_batches: int
    num_negatives: int
    policy: str
    texts: Path | None = None
    texts_per_label: int | None = None
    sources: tuple[SourceInfo, ...] = ()
    has_scores: bool = False
    judge: str | None = None

    @classmethod
    def open(cls, path: Path) -> "BatchShard":
        """Read the footer.

        Raises:
            InputError: The file is no shard of whole batches.
        """
        try:
            parquet = pq.ParquetFile(path)
            metadata = parquet.schema_arrow.metadata or {}
            footer = json.loads(metadata[FOOTER_KEY])
            size = int(footer["batch_size"])
        except (pa.ArrowInvalid, KeyError, ValueError, OSError) as error:
            raise InputError(
                f"expected a shard packed by `stx-mine pack` at {path}, found something else "
                f"({type(error).__name__}); pack again"
            ) from error
        rows = parquet.metadata.num_rows
        if rows % size:
            raise InputError(f"{path} has {rows:,} rows, no multiple of its batch size {size:,}")
        if footer["layout"] == "labels":
            each = int(footer["texts_per_label"])
            return cls(path, size, rows // size, 0, "", texts_per_label=each)
        texts = path.parent.parent / TEXTS if footer["layout"] == "ids" else None
        sources = tuple(map(SourceInfo.from_json, footer.get("sources", ())))
        k, policy = int(footer["k"]), footer["policy"]
        has_scores = SCORES in parquet.schema_arrow.names
        return cls(
            path,
            size,
            rows // size,
            k,
            policy,
            texts,
            sources=sources,
            has_scores=has_scores,
            judge=footer.get("judge"),
        )

    def batch(self, number: int) -> pa.Table:
        """Read one batch, texts included; only the row groups that hold it."""
        table = self._batch(number, None)
        return table if self.texts is None else self._with_texts(table, self.texts)

    def batch_ids(self, number: int) -> pa.Table:
        """The columns of ids of one batch."""
        return self._batch(number, id_schema().names)

    def _batch(self, number: int, columns: list[str] | None) -> pa.Table:
        parquet = pq.ParquetFile(self.path)
        first, last = number * self.batch_size, (number + 1) * self.batch_size
        groups: list[int] = []
        start = skip = 0
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            if start < last and start + rows > first:
                skip = skip if groups else first - start
                groups.append(group)
            start += rows
        return parquet.read_row_groups(groups, columns).slice(skip, self.batch_size)

    def ids(self) -> pa.Table:
        """The columns of ids of all batches."""
        return pq.read_table(self.path, columns=id_schema().names)

    def _with_texts(self, table: pa.Table, path: Path) -> pa.Table:
        texts = read_table(path).column("text")
        anchors = take_texts(texts, table.column("anchor_id").to_numpy())
        return with_text_columns(table, anchors, texts, self.num_negatives)


def list_packings(folder: Path) -> list[list[BatchShard]]:
    """The shards of each packing, in order: those that the manifest names.

    Args:
        folder: Of finished batches, or of a copy of their shards that has no manifest.

    Raises:
        ArtifactError: One is missing, or is not of its size.
        InputError: There are none.
    """
    if (folder / MANIFEST).exists():
        manifest = read_manifest(folder)
        paths = [manifest.file(name) for name in manifest.names("epoch-")]
    else:
        paths = sorted(folder.glob("epoch-*/train-*.parquet"))
    packings = [
        [BatchShard.open(path) for path in shards]
        for _, shards in groupby(sorted(paths), key=lambda path: path.parent)
    ]
    if not packings:
        raise InputError(f"expected epoch-000/train-*.parquet in {folder}, found none; run pack")
    return packings


def slot_text_ids(table: pa.Table, num_negatives: int) -> NDArray[np.int64]:
    """int64 (1 + K, B): ids of the positive and of each negative; -1 where there is none."""
    negatives = ragged_column(table, "negative_ids").padded(num_negatives)
    return np.concatenate([table.column("positive_id").to_numpy()[None], negatives.T])


def with_text_columns(
    table: pa.Table, anchors: pa.DictionaryArray, passages: pa.ChunkedArray, num_negatives: int
) -> pa.Table:
    """Rows of ids with their texts before them; null where there is none.

    Args:
        table: The rows: few, since each text stands in memory as often as it is named.
        anchors: (B,) the text of each anchor.
        passages: Texts by the ids of positives and negatives.
        num_negatives: K.
    """
    taken = take_texts(passages, slot_text_ids(table, num_negatives).ravel())
    num_rows = len(anchors)
    slots = (taken.slice(slot * num_rows, num_rows) for slot in range(1 + num_negatives))
    texts = [one.dictionary_decode() for one in (anchors, *slots)]
    names = [*text_columns(num_negatives), *table.column_names]
    return pa.table([*texts, *table.columns], names=names)


def list_column(ragged: Ragged) -> pa.Array:
    """Ragged ids as an Arrow column; `ragged_column` reads it back."""
    return pa.ListArray.from_arrays(
        pa.array(ragged.offsets, pa.int32()), pa.array(ragged.values, pa.int64())
    )


def ragged_column(table: pa.Table, name: str) -> Ragged:
    """A list column as one flat array with offsets."""
    column = table.column(name).combine_chunks()
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    offsets = column.offsets.to_numpy().astype(np.int64)
    values = column.values.to_numpy()[offsets[0] : offsets[-1]].astype(np.int64)
    return Ragged(offsets - offsets[0], values)


def ragged_scores(table: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Offsets (B + 1,) and values of the scores of each row: its positive, then its negatives.

    What has no score, null in the column, is NaN.
    """
    column = table.column(SCORES).combine_chunks()
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    offsets = column.offsets.to_numpy().astype(np.int64)
    values = column.values.to_numpy(zero_copy_only=False)[offsets[0] : offsets[-1]]
    return offsets - offsets[0], values
