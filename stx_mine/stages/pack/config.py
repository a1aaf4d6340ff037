"""Options of `pack`."""

import re
from dataclasses import dataclass, fields
from typing import Any, Literal

from stx_mine.engine.config import EngineConfig
from stx_mine.errors import ConfigError
from stx_mine.settings import MAX_SEED, option

_JUDGE = "judge:"


def _no_teacher(scores: bool | str) -> str:
    """What is wrong with a value of `scores`."""
    if scores is True or re.fullmatch(f"{_JUDGE}.+", str(scores), re.DOTALL):
        return ""
    return (
        "--scores must be judge:NAME, or stand alone for the model that mined (in YAML and Python: "
        f"true or false), found {scores!r}; give one of them"
    )


@dataclass(frozen=True, kw_only=True)
class PackConfig(EngineConfig):
    """Bind negatives and write batches into Parquet shards, one packing per epoch."""

    batch_size: int = option(
        2_048, "Rows that one optimizer step sees.", "batches", minimum=2, group="Batches"
    )
    policy: Literal["merge", "strict"] = option(
        "merge",
        "merge: each text once per batch, known positives masked; strict: for any trainer.",
        "batches",
        group="Batches",
        needs="layout=inline|ids",
    )
    k: int | None = option(
        None,
        "Negatives per row (default: the k of mine).",
        "batches",
        minimum=0,
        group="Batches",
        needs="layout=inline|ids",
    )
    layout: Literal["inline", "ids", "labels"] = option(
        "inline",
        "inline: texts in the shards; ids: texts beside them; labels: (text, label) rows.",
        "batches",
        group="Shards",
    )
    labeled: str | None = option(
        None,
        "Rows of --layout labels: Parquet, JSONL, CSV or TSV (default: labels of the run's pairs).",
        "batches",
        group="Labels",
        needs="layout=labels",
    )
    text_column: str | None = option(
        None,
        "Its column of texts (default: text, or the first).",
        "batches",
        group="Labels",
        needs="labeled",
    )
    label_column: str | None = option(
        None,
        "Its column of labels (default: label, or the second).",
        "batches",
        group="Labels",
        needs="labeled",
    )
    texts_per_label: int = option(
        4,
        "Texts that a label has in a batch of --layout labels, at most.",
        "batches",
        minimum=2,
        group="Labels",
        needs="layout=labels",
    )
    near_positive_margin: float | None = option(
        None,
        "Passages that score above a row's positive - margin are no negatives of it, of any kind, "
        "but for known negatives that mine kept.",
        "batches",
        group="Rows that meet",
        needs="layout=inline|ids",
    )
    rotate: bool = option(
        False,
        "Bind other negatives of the pool in other packings.",
        "batches",
        group="Rows that meet",
        needs="layout=inline|ids",
    )
    order: Literal["random", "easy-to-hard", "hard-to-easy"] = option(
        "random",
        "Order of the batches; a hard row has candidates near or above its positive.",
        "batches",
        group="Rows that meet",
        needs="layout=inline|ids",
    )
    cluster: float | None = option(
        None,
        "Batches of like queries, from 0 (random) to 1 (neighbouring topics only).",
        "batches",
        minimum=0,
        group="Rows that meet",
        maximum=1,
        needs="layout=inline|ids",
        conflicts="order",
        because="which also decides which rows meet",
    )
    sources_per_batch: Literal["auto", "one", "mixed"] = option(
        "auto",
        "Sources in a batch: one, mixed in proportion, or auto: one where their prompts differ.",
        "batches",
        group="Several sources",
        needs="layout=inline|ids",
    )
    source_temperature: float = option(
        1.0,
        "A source's share of a packing: (weight x rows) ^ (1 / temperature).",
        "batches",
        minimum=0.01,
        group="Several sources",
        needs="layout=inline|ids",
    )
    scores: bool | str = option(
        False,
        "Store the scores of each row, to be distilled: by the model that mined, or judge:NAME.",
        "batches",
        group="Shards",
        needs="layout=inline|ids",
        check=_no_teacher,
    )
    dry_run: bool = option(
        False, "Write nothing; say what each policy would give, and advise.", group="Batches"
    )
    packings: int | None = option(
        None,
        "Different packings (default: 2, or as many as make 12 steps).",
        "batches",
        minimum=1,
        group="Batches",
    )
    seed: int = option(
        42,
        "Seed; packing e is seeded by (seed, e).",
        "batches",
        minimum=0,
        maximum=MAX_SEED,
        group="Batches",
    )
    shard_rows: int = option(
        65_536, "Rows per shard; rounded to whole batches.", "batches", minimum=1, group="Shards"
    )

    def __post_init__(self) -> None:
        """Check what one range alone cannot tell.

        Raises:
            ConfigError: The layout has no tasks to divide, or batches would not hold whole labels.
        """
        super().__post_init__()
        for name in ("engine", "task"):
            value = getattr(self, name)
            if self.layout == "labels" and value != getattr(type(self), name):
                raise ConfigError(
                    f"--{name} {value} needs --layout inline or ids, found --layout labels, which "
                    "one process packs; leave one of them out"
                )
        if self.layout == "labels":
            self._check_label_batch()

    def _check_label_batch(self) -> None:
        """Refuse batches of which one might hold a single label, or cut a label.

        Raises:
            ConfigError: The batch size is one of these.
        """
        size, each = self.batch_size, self.texts_per_label
        if size < 2 * each:
            smaller = f" or --texts-per-label {size // 2}" if size >= 4 else ""
            raise ConfigError(
                f"--batch-size must be at least twice --texts-per-label {each}, found {size}: a "
                "batch of a single label has nothing to tell it from; give --batch-size "
                f"{2 * each}{smaller}"
            )
        if size % each:
            lower = size // each * each
            raise ConfigError(
                f"--batch-size must be a multiple of --texts-per-label {each}, found {size}; give "
                f"{lower} or {lower + each}"
            )

    @property
    def judge(self) -> str | None:
        """Name of the judge whose scores are stored; None where they are not a judge's."""
        return self.scores.removeprefix(_JUDGE) if isinstance(self.scores, str) else None

    def with_layout(self, layout: Literal["inline", "labels"]) -> "PackConfig":
        """The same packing in another layout, without what that layout does not read."""
        kept: dict[str, Any] = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if not field.metadata["needs"] and field.name not in ("engine", "task", "layout")
        }
        kept["layout"] = layout
        if layout == "labels":
            each = PackConfig.texts_per_label
            kept["batch_size"] = max(2 * each, self.batch_size // each * each)
        return PackConfig(**kept)
