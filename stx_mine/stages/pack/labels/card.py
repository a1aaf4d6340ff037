"""The dataset card of packed (text, label) batches."""

from pathlib import Path

from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.labels.counts import LabelCounts
from stx_mine.store.dataset_card import DEFAULT, CardConfig, DatasetCard
from stx_mine.store.labels import LABELS, SHARD_COLUMNS
from stx_mine.store.markdown import markdown_text


def label_card(config: PackConfig, counts: LabelCounts) -> DatasetCard:
    """The card of (text, label) shards: what they hold and which losses read them.

    Args:
        config: The config of `pack`.
        counts: Of the packings.
    """
    configs = (
        CardConfig(DEFAULT, "epoch-000/*.parquet", SHARD_COLUMNS[:2]),
        CardConfig("full", "epoch-*/*.parquet"),
        CardConfig("labels", LABELS),
    )
    return DatasetCard(configs, ("sentence-transformers", "stx-mine"), _text(config, counts))


def _text(config: PackConfig, counts: LabelCounts) -> str:
    source = "queries with the same positives, and those positives"
    if config.labeled:
        source = markdown_text(Path(config.labeled).name)
    return f"""# Packed (text, label) batches

{counts.batches:,} batches of exactly {config.batch_size:,} rows in each of {counts.packings}
packings (`epoch-NNN/`), layout `labels`, seed {config.seed}. Made by stx-mine from
{counts.rows_kept:,} rows under {counts.labels:,} labels ({source}).

A batch has two labels or more. In it every label has 2 to {config.texts_per_label} texts, no text
stands twice, and no two labels share a text or are joined by a known positive pair.

These batches are for the losses of sentence-transformers that make triplets of a batch by its
labels: `BatchAllTripletLoss`, `BatchHardTripletLoss`, `BatchHardSoftMarginTripletLoss`,
`BatchSemiHardTripletLoss`. They are not for MultipleNegativesRankingLoss.

- `stx-mine train --loss batch-all` (or another) trains on them.
- `load_dataset(DIR, split="train")` gives the first packing with `text` and `label` (a number).
- `load_dataset(DIR, "full")` gives every packing, and `text_id`: texts that count as the same text
  share one. `load_dataset(DIR, "labels")` gives the name and all texts of each label.
- Rows `[i * B, (i + 1) * B)` are batch i. Any shuffling of rows destroys it: train with
  `stx_mine.PackedBatchSampler` as `batch_sampler`.
- `{LABELS}` and `positives.parquet` hold what `stx-mine verify DIR` needs.
"""
