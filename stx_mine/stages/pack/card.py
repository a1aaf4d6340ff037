"""The dataset card of packed batches."""

from dataclasses import dataclass

from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.counts import PackedSource
from stx_mine.store.batches import LANGUAGE, PASSAGE_LANGUAGES, SCORES, TEXTS
from stx_mine.store.dataset_card import DEFAULT, CardConfig, DatasetCard
from stx_mine.store.markdown import code_span, markdown_text


@dataclass(frozen=True, kw_only=True)
class BatchFacts:
    """What a card says of packed batches.

    Attributes:
        config: The config of `pack`.
        k: Negatives a row.
        packings: Different packings.
        batches: Batches of each.
        rows: Rows that mine kept.
        rows_made: Those of them that judges made of a query and a passage.
        judges: Their names.
        audits: What audits say of the negatives, a sentence each.
        model: Name of the model that mined.
        columns: Columns without nulls in the first packing.
        sources: Counts of each source by name; empty where there is one.
        languages: Whether languages are stored.
    """

    config: PackConfig
    k: int
    packings: int
    batches: int
    rows: int
    rows_made: int
    judges: list[str]
    audits: list[str]
    model: str
    columns: list[str]
    sources: dict[str, PackedSource]
    languages: bool


def batches_card(facts: BatchFacts) -> DatasetCard:
    """The card of the shards: what `datasets.load_dataset` finds, and what is inside."""
    configs = (
        CardConfig(DEFAULT, "epoch-000/*.parquet", tuple(facts.columns)),
        CardConfig("full", "epoch-*/*.parquet"),
    )
    tags = ("sentence-transformers", "hard-negatives", "stx-mine")
    about = f"Packed by stx-mine, policy {facts.config.policy}"
    return DatasetCard(configs, tags, _text(facts), about)


def _text(facts: BatchFacts) -> str:
    config = facts.config
    named = ", ".join(f"`{name}`" for name in facts.columns)
    made, stored = _made(facts), _audits(facts) + _stored(facts)
    return f"""# Packed batches

{facts.batches:,} batches of exactly {config.batch_size:,} rows in each of {facts.packings}
packings (`epoch-NNN/`), policy `{config.policy}`, {facts.k} negatives a row, mined with
{code_span(facts.model)}, seed {config.seed}. Made by stx-mine from {facts.rows:,} pairs{made}.

- `load_dataset(DIR)` gives the first packing with {named}.{_texts(config)}
- `load_dataset(DIR, "full")` gives every packing and column: more negatives (null where a row
  has fewer), and ids. Texts that count as the same text share one. `groups.parquet` lists those
  that are never negatives beside one another, as the parts of one document: text, group.
- Rows `[i * B, (i + 1) * B)` are batch i. Any shuffling of rows destroys it: train with
  {_trainer(config)}.
- Policy `merge` repeats texts in a batch and needs a loss that masks `ignore_ids`
  (`stx-mine train`); policy `strict` has no repeated text and fits any trainer.
- `positives.parquet` holds every known positive, so that `stx-mine verify DIR` needs nothing
  else.{stored}
"""


def _made(facts: BatchFacts) -> str:
    """How many pairs are those of judges, if there are any."""
    if not facts.rows_made:
        return ""
    names = ", ".join(map(code_span, facts.judges))
    made = f"{facts.rows_made:,} of which\nare the word of judges ({names})"
    return f", {made}: no pairs of the input"


def _audits(facts: BatchFacts) -> str:
    """How many of the negatives are false, where that was measured before they were packed."""
    measured = "".join(f"\n  - {markdown_text(one)}" for one in facts.audits)
    return f"\n- Audits of the negatives:{measured}" if measured else ""


def _trainer(config: PackConfig) -> str:
    """What trains on the batches."""
    if config.policy == "merge" or config.layout == "ids":
        return "`stx-mine train`"
    return "`stx_mine.PackedBatchSampler` as `batch_sampler`"


def _texts(config: PackConfig) -> str:
    """Where the texts are, if not in the shards."""
    return "" if config.layout == "inline" else f" Texts are in `{TEXTS}` (Arrow): row number = id."


def _stored(facts: BatchFacts) -> str:
    """What columns hold that not every packing has."""
    sources = "".join(
        f"\n  - {markdown_text(name)}: {one.rows_packed:,} of {one.rows_in:,} rows in each packing"
        for name, one in facts.sources.items()
    )
    sources = f"\n- `source` names where a row is from:{sources}" if sources else ""
    judge = facts.config.judge
    scores = (
        f"\n- `{SCORES}` holds the scores of each row by "
        f"{'the model that mined' if judge is None else f'the judge {code_span(judge)}'}: of the "
        f"positive,\n  then of each negative{'' if judge is None else '; null for none'}."
        if facts.config.scores
        else ""
    )
    languages = (
        f"\n- `{LANGUAGE}` is that of the anchor, `{PASSAGE_LANGUAGES}` those of the positive,\n"
        "  then of each negative; null where the input names none."
        if facts.languages
        else ""
    )
    return sources + scores + languages
