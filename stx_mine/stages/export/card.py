"""The dataset card of an export."""

from dataclasses import dataclass

from stx_mine.stages.export.counts import ExportCounts
from stx_mine.stages.export.layouts.layout import Layout
from stx_mine.store.dataset_card import CardConfig, DatasetCard
from stx_mine.store.markdown import code_span
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
    """

    name: str
    layout: Layout
    counts: ExportCounts
    ids: dict[str, str]
    k: int
    model: str


def export_card(facts: CardFacts) -> DatasetCard:
    """The card of an export: how to load it, and what is inside."""
    named = "".join(f"\nIds of {role}: {which}." for role, which in facts.ids.items())
    text = f"""# Mined rows, layout `{facts.name}`

{_content(facts)}{named}

{facts.layout.use}
"""
    configs = tuple(CardConfig(name, files) for name, files in facts.layout.configs.items())
    return DatasetCard(configs, ("sentence-transformers", "hard-negatives", "stx-mine"), text)


def _content(facts: CardFacts) -> str:
    counts, k, mined = facts.counts, facts.k, f"mined with {code_span(facts.model)}"
    if facts.layout.lines is None:
        return f"{counts.lines:,} lines, {mined}."
    dropped = listed(counts.rows_dropped)
    return f"""{counts.lines:,} lines of {counts.rows_kept:,} out of {counts.rows_in:,} rows
(a query, a positive passage), at most {k} negatives each, {mined}. Left out:
{dropped or "none"}. {counts.rows_ragged:,} of the rows have fewer than {k} negatives."""
