"""(text, label) data on disk: input files, the table of labels beside the shards, the card."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stx_mine.core.ragged import Ragged
from stx_mine.errors import InputError
from stx_mine.store.batches import list_column, ragged_column
from stx_mine.store.files import atomic

LABELS = "labels.parquet"
SHARD_COLUMNS = ("text", "label", "text_id")


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
  `stx_mine.stages.train.packed_sampler.PackedBatchSampler` as `batch_sampler`.
- `{LABELS}` and `positives.parquet` hold what `stx-mine verify DIR` needs.
"""
