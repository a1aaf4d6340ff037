"""The dataset card of an export."""

from dataclasses import dataclass

from stx_mine.stages.export.counts import ExportCounts
from stx_mine.stages.export.layouts.layout import Layout
from stx_mine.store.stage_report import listed


@dataclass(frozen=True)
class CardFacts:
    """What a card says of an export.

    Attributes:
        name: Name of the layout.
        layout: The layout.
        counts: The counts of the export.
        ids: Role -> which ids stand in the files; empty where there are none.
        k: Most negatives of a row.
        model: Name of the model that mined.
        key: What decides the content, as a digest.
    """

    name: str
    layout: Layout
    counts: ExportCounts
    ids: dict[str, str]
    k: int
    model: str
    key: str


def export_card(facts: CardFacts) -> str:
    """The README.md of an export: how to load it, and what is inside.

    `datasets` keeps one copy per name of a folder and text of its configs: each config names the
    content, so that another content is never taken for it.
    """
    layout = facts.layout
    configs = "".join(
        f"\n- config_name: {config}\n  description: {facts.key}\n  data_files:"
        f"\n  - split: train\n    path: {files}"
        for config, files in layout.configs.items()
    )
    header = f"configs:{configs}\n" if configs else ""
    named = "".join(f"\nIds of {role}: {which}." for role, which in facts.ids.items())
    return f"""---
{header}tags:
- sentence-transformers
- hard-negatives
- stx-mine
---
# Mined rows, layout `{facts.name}`

{_content(facts)}{named}

{layout.use}
"""


def _content(facts: CardFacts) -> str:
    counts, k, mined = facts.counts, facts.k, f"mined with `{facts.model}`"
    if facts.layout.lines is None:
        return f"{counts.lines:,} lines, {mined}."
    dropped = listed(counts.rows_dropped)
    return f"""{counts.lines:,} lines of {counts.rows_kept:,} out of {counts.rows_in:,} rows
(a query, a positive passage), at most {k} negatives each, {mined}. Left out:
{dropped or "none"}. {counts.rows_ragged:,} of the rows have fewer than {k} negatives."""
