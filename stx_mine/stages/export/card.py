"""The dataset card of an export."""

from collections.abc import Iterable

from stx_mine.stages.export.counts import ExportCounts
from stx_mine.stages.export.layouts import LAYOUTS
from stx_mine.store.dataset_card import DEFAULT, CardConfig, DatasetCard
from stx_mine.store.stage_report import listed


def export_card(
    name: str, folders: Iterable[str], counts: ExportCounts, k: int, model: str
) -> DatasetCard:
    """The card of an export: what `datasets.load_dataset` finds, and what is inside.

    Args:
        name: Name of the layout.
        folders: Folder of each config.
        counts: The counts of the export.
        k: Most negatives of a row.
        model: Name of the model that mined.
    """
    layout = LAYOUTS[name]
    configs = tuple(
        CardConfig(DEFAULT if folder == "data" else folder, f"{folder}/*{layout.suffix}")
        for folder in folders
    )
    dropped = listed(counts.rows_dropped)
    text = f"""# Mined rows, layout `{name}`

{counts.lines:,} lines of {counts.rows_kept:,} out of {counts.rows_in:,} (query, positive
passage) pairs, at most {k} negatives each, mined with `{model}`. Left out:
{dropped or "none"}. {counts.rows_ragged:,} of the rows have fewer than {k} negatives.

{layout.use}
"""
    return DatasetCard(configs, ("sentence-transformers", "hard-negatives", "stx-mine"), text)
