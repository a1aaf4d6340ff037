"""Options of `pack`."""

from dataclasses import dataclass, fields
from typing import Any, Literal

from stx_mine.engine.config import EngineConfig
from stx_mine.errors import ConfigError
from stx_mine.settings import flag, option

_PAIRS, _LABELS, _FILE = "--layout inline or ids", "--layout labels", "--labeled"
# Option of pack -> what heeds it.
_LAYOUT_OPTIONS = {
    **dict.fromkeys(("policy", "k", "near_positive_margin", "rotate", "order", "cluster"), _PAIRS),
    **dict.fromkeys(("scores", "engine", "task"), _PAIRS),
    **dict.fromkeys(("labeled", "texts_per_label"), _LABELS),
    **dict.fromkeys(("text_column", "label_column"), _FILE),
}


@dataclass(frozen=True, kw_only=True)
class PackConfig(EngineConfig):
    """Bind negatives and write batches into Parquet shards, one packing per epoch."""

    batch_size: int = option(2_048, "Rows that one optimizer step sees.", "batches", minimum=2)
    policy: Literal["merge", "strict"] = option(
        "merge",
        "merge: each text once a batch, known positives masked; strict: for any trainer.",
        "batches",
    )
    k: int | None = option(None, "Negatives a row (default: the k of mine).", "batches", minimum=0)
    layout: Literal["inline", "ids", "labels"] = option(
        "inline",
        "inline: texts in the shards; ids: texts beside them; labels: (text, label) rows.",
        "batches",
    )
    labeled: str | None = option(
        None,
        "Rows of --layout labels: Parquet, JSONL, CSV or TSV (default: labels of the run's pairs).",
        "batches",
    )
    text_column: str | None = option(
        None, "Its column of texts (default: text, or the first).", "batches"
    )
    label_column: str | None = option(
        None, "Its column of labels (default: label, or the second).", "batches"
    )
    texts_per_label: int = option(
        4, "Texts that a label has in a batch of --layout labels, at most.", "batches", minimum=2
    )
    near_positive_margin: float | None = option(
        None,
        "Passages that score above a row's positive - margin are no negatives of it, of any kind.",
        "batches",
    )
    rotate: bool = option(False, "Bind other negatives of the pool in other packings.", "batches")
    order: Literal["random", "easy-to-hard", "hard-to-easy"] = option(
        "random",
        "Order of the batches; a hard row has candidates near or above its positive.",
        "batches",
    )
    cluster: float | None = option(
        None,
        "Batches of like queries, from 0 (random) to 1 (neighbouring topics only).",
        "batches",
        minimum=0,
    )
    sources_per_batch: Literal["auto", "one", "mixed"] = option(
        "auto",
        "Sources in a batch: one, mixed in proportion, or auto: one where their prompts differ.",
        "batches",
    )
    source_temperature: float = option(
        1.0,
        "A source's share of a packing: (weight x rows) ^ (1 / temperature).",
        "batches",
        minimum=0.01,
    )
    scores: bool = option(
        False, "Store the scores of each row by the model that mined, to be distilled.", "batches"
    )
    dry_run: bool = option(False, "Write nothing; say what each policy would give, and advise.")
    packings: int | None = option(
        None, "Different packings (default: 2, or as many as make 12 steps).", "batches", minimum=1
    )
    seed: int = option(42, "Seed; packing e is seeded by (seed, e).", "batches", minimum=0)
    shard_rows: int = option(
        65_536, "Rows a shard; rounded to whole batches.", "batches", minimum=1
    )

    def __post_init__(self) -> None:
        """Check what one range alone cannot tell.

        Raises:
            ConfigError: A value is too large, or two do not fit one another.
        """
        super().__post_init__()
        if self.cluster is not None and self.cluster > 1:
            raise ConfigError(f"--cluster must be at most 1, found {self.cluster:g}; give 1")
        if self.cluster is not None and self.order != "random":
            raise ConfigError(
                f"--cluster {self.cluster:g} and --order {self.order} both decide which rows meet; "
                "give one of them"
            )
        self._check_layout()

    def _check_layout(self) -> None:
        """Refuse options that the layout would not heed.

        Raises:
            ConfigError: There is one, or batches would not hold whole groups of texts.
        """
        heeded = {_LABELS if self.layout == "labels" else _PAIRS, _FILE if self.labeled else ""}
        for one in fields(self):
            value, needs = getattr(self, one.name), _LAYOUT_OPTIONS.get(one.name)
            if needs is not None and needs not in heeded and value != one.default:
                raise ConfigError(
                    f"{flag(one)} {value} needs {needs}, found --layout {self.layout}"
                    f"{f' and {_FILE} {self.labeled}' if self.labeled else ''}; leave out one of "
                    "them"
                )
        if self.layout == "labels" and self.batch_size % self.texts_per_label:
            lower = self.batch_size // self.texts_per_label * self.texts_per_label
            raise ConfigError(
                f"--batch-size must be a multiple of --texts-per-label {self.texts_per_label}, "
                f"found {self.batch_size}; give {lower or self.texts_per_label} or "
                f"{lower + self.texts_per_label}"
            )

    def with_layout(self, layout: Literal["inline", "labels"]) -> "PackConfig":
        """The same packing in another layout, without what that layout would not heed."""
        kept: dict[str, Any] = {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if one.name not in _LAYOUT_OPTIONS
        }
        kept["layout"] = layout
        if layout == "labels":
            each = PackConfig.texts_per_label
            kept["batch_size"] = max(each, self.batch_size // each * each)
        return PackConfig(**kept)
