"""Options of `evaluate`."""

from dataclasses import dataclass
from typing import Literal

from stx_mine.inputs.config import SourceFields
from stx_mine.models.config import ModelFields
from stx_mine.settings import MAX_SEED, WHERE, ReadingConfig, option


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(ModelFields, SourceFields, ReadingConfig):
    """nDCG@10, MRR@10 and Recall@100 of models on held-out pairs, with 95% intervals."""

    data: tuple[str, ...] = option(
        (),
        "Held-out pairs or BEIR folders, one or several.",
        "evaluations",
        argument=True,
        group="Input",
    )
    own_passages: Literal["auto", "ids", "ranked"] = option(
        "auto",
        "Passages with the text of their query, or with its id where ids are shared, are not "
        "ranked (auto); those with its id are not (ids, as BEIR); all are (ranked).",
        "evaluations",
        group="Input",
    )
    models: tuple[str, ...] = option(
        (),
        "Models to compare (default: the base model and the trained one).",
        "evaluations",
        group="Models",
    )
    dims: tuple[int, ...] = option(
        (),
        "Also evaluate the first dimensions of the embeddings, as in 64,128.",
        "evaluations",
        minimum=1,
        group="Models",
    )
    source: str | None = option(
        None, "Source of the run whose prompts the data takes.", "evaluations", group="Input"
    )
    query_prompt: str | None = option(
        None,
        "Put before queries, whatever the model (default: that of the run for its base and trained "
        "models, else the model's own; empty: none).",
        "evaluations",
        empty=True,
        group="Models",
        conflicts="source",
    )
    passage_prompt: str | None = option(
        None,
        "Put before passages, likewise.",
        "evaluations",
        empty=True,
        group="Models",
        conflicts="source",
    )
    max_length: int | None = option(
        None,
        "Tokens kept of a text, whatever the model (default: those of the run for its base and "
        "trained models, else the model's own).",
        "evaluations",
        minimum=1,
        group="Models",
    )
    name: str | None = option(
        None,
        "Name of the evaluation; of several that of their overview, and what theirs begin with "
        "(default: that of the data).",
        group="Output",
    )
    seed: int = option(
        42,
        "Seed of intervals and of the paired test.",
        "evaluations",
        minimum=0,
        maximum=MAX_SEED,
        group="Output",
    )
    pairs: bool = option(
        False,
        "Print the difference of every two models, not of the best two alone.",
        group="Output",
    )
    encode_batch_size: int = option(256, "Texts per forward pass.", minimum=1, group=WHERE)
    device: str | None = option(
        None, "cpu, cuda, mps ... (default: the best one seen).", group=WHERE
    )
