"""(text, label) data on disk: input files, the table of labels beside the shards, the card."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stx_mine.artifacts.batches import list_column, ragged_column
from stx_mine.artifacts.columns import number_values
from stx_mine.artifacts.files import atomic
from stx_mine.artifacts.readers import ColumnFile
from stx_mine.artifacts.texts import DIGEST, text_digests
from stx_mine.errors import InputError
from stx_mine.ragged import Ragged

LABELS = "labels.parquet"
SHARD_COLUMNS = ("text", "label", "text_id")


@dataclass(frozen=True)
class LabeledFile:
    """A file of (text, label) rows, numbered.

    Attributes:
        text_ids: int64 (rows,): texts in the order of their first rows; -1 where it is empty.
        label_ids: int64 (rows,): labels in the order of their first rows; -1 where it is missing.
        texts: The first raw occurrence of each text.
        names: The label that each number stands for.
    """

    text_ids: NDArray[np.int64]
    label_ids: NDArray[np.int64]
    texts: pa.ChunkedArray
    names: pa.Array

    @classmethod
    def read(cls, path: str, text_column: str | None, label_column: str | None) -> "LabeledFile":
        """Read a file; texts are the same where they are equal after normalisation.

        Args:
            path: Parquet, JSONL, CSV or TSV.
            text_column: None for `text`, or else the first column.
            label_column: None for `label`, or else the second column; strings or whole numbers.

        Raises:
            InputError: The file or a column is missing, malformed or empty.
        """
        file = ColumnFile.open(path)
        columns = [
            file.pick(given or (name if name in file.columns else None), place, f"--{name}-column")
            for place, (name, given) in enumerate((("text", text_column), ("label", label_column)))
        ]
        if columns[0] == columns[1]:
            raise InputError(
                f"expected a column of texts and one of labels in {path}, found {columns[0]!r} for "
                f"both (its columns are {', '.join(file.columns)}); name them with --text-column "
                "and --label-column"
            )
        texts, digests, labels = list[pa.Array](), list[pa.Array](), list[pa.Array]()
        for some_texts, some_labels in file.batches(columns):
            texts.append(some_texts)
            digests.append(text_digests(some_texts))
            labels.append(pc.utf8_trim_whitespace(some_labels))
        text_ids, _ = number_values(pa.chunked_array(digests, DIGEST))
        named = pa.chunked_array(labels, pa.large_string())
        label_ids, names = number_values(pc.if_else(pc.equal(named, ""), None, named))
        firsts = np.unique(text_ids, return_index=True)[1][int((text_ids < 0).any()) :]
        raw = pa.chunked_array(texts, pa.large_string()).take(pa.array(firsts))
        return cls(text_ids, label_ids, raw, names)


def write_labels(path: Path, names: pa.Array, texts: Ragged) -> None:
    """Write each label with its name and the ids of all its texts; row number = label."""
    columns = [pa.array(np.arange(len(texts))), names, list_column(texts)]
    table = pa.table(columns, names=["label", "name", "text_ids"])
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_labels(folder: Path) -> tuple[pa.ChunkedArray, Ragged]:
    """The name and the ids of all texts of each label; row number = label.

    Raises:
        InputError: The file is missing.
    """
    if not (folder / LABELS).exists():
        raise InputError(f"expected {LABELS} in {folder}, found none; pack again")
    table = pq.read_table(folder / LABELS)
    return table.column("name"), ragged_column(table, "text_ids")


def label_card(facts: dict[str, Any]) -> str:
    """The README.md of (text, label) shards: what they hold and which losses read them.

    Args:
        facts: batch_size, texts_per_label, seed, packings, batches, rows, labels, source.
    """
    return f"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: epoch-000/*.parquet
  columns:
  - text
  - label
  default: true
- config_name: full
  data_files:
  - split: train
    path: epoch-*/*.parquet
- config_name: labels
  data_files:
  - split: train
    path: {LABELS}
tags:
- sentence-transformers
- stx-mine
---
# Packed (text, label) batches

{facts["batches"]:,} batches of exactly {facts["batch_size"]:,} rows in each of {facts["packings"]}
packings (`epoch-NNN/`), layout `labels`, seed {facts["seed"]}. Made by stx-mine from
{facts["rows"]:,} rows under {facts["labels"]:,} labels ({facts["source"]}).

In a batch every label has 2 to {facts["texts_per_label"]} texts, no text stands twice, and no two
labels share a text or are joined by a known positive pair.

These batches are for the losses of sentence-transformers that make triplets of a batch by its
labels: `BatchAllTripletLoss`, `BatchHardTripletLoss`, `BatchHardSoftMarginTripletLoss`,
`BatchSemiHardTripletLoss`. They are not for MultipleNegativesRankingLoss.

- `stx-mine train --loss batch-all` (or another) trains on them.
- `load_dataset(DIR, split="train")` gives the first packing with `text` and `label` (a number).
- `load_dataset(DIR, "full")` gives every packing, and `text_id`: texts that count as the same text
  share one. `load_dataset(DIR, "labels")` gives the name and all texts of each label.
- Rows `[i * B, (i + 1) * B)` are batch i. Any shuffling of rows destroys it: train with
  `stx_mine.train.packed_sampler.PackedBatchSampler` as `batch_sampler`.
- `{LABELS}` and `positives.parquet` hold what `stx-mine verify DIR` needs.
"""
