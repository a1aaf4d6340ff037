"""The dataset card of an export."""

from collections.abc import Iterable
from typing import Any

from stx_mine.stages.export.layouts import LAYOUTS


def export_card(name: str, folders: Iterable[str], facts: dict[str, Any]) -> str:
    """The README.md of an export: configs for `datasets.load_dataset`, and what is inside.

    Args:
        name: Name of the layout.
        folders: Folder of each config.
        facts: k, model, and the counts of the export.
    """
    layout = LAYOUTS[name]
    configs = "".join(
        f"\n- config_name: {'default' if folder == 'data' else folder}\n  data_files:"
        f"\n  - split: train\n    path: {folder}/*{layout.suffix}"
        for folder in folders
    )
    dropped = ", ".join(f"{reason} {n:,}" for reason, n in facts["rows_dropped"].items() if n)
    return f"""---
configs:{configs}
tags:
- sentence-transformers
- hard-negatives
- stx-mine
---
# Mined rows, layout `{name}`

{facts["lines"]:,} lines of {facts["rows_kept"]:,} out of {facts["rows_in"]:,} (query, positive
passage) pairs, at most {facts["k"]} negatives each, mined with `{facts["model"]}`. Left out:
{dropped or "none"}. {facts["rows_ragged"]:,} of the rows have fewer than {facts["k"]} negatives.

{layout.use}
"""
