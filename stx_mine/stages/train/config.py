"""Options of `train`."""

from dataclasses import dataclass, fields
from typing import Literal

from stx_mine.errors import ConfigError
from stx_mine.settings import StageConfig, flag, option, option_words


@dataclass(frozen=True)
class LossKind:
    """What a loss of `train` reads.

    Attributes:
        options: Names of the options that decide its value; another loss's options are refused.
        labels: Whether it reads (text, label) batches.
        negatives: Whether rows without any negative teach it nothing.
        scores: Whether it reads the scores of the model that mined.
        rows: Whether it is the library's and takes the rows as they stand: it needs a transformer,
            batches of the policy strict, and one process.
    """

    options: tuple[str, ...]
    labels: bool = False
    negatives: bool = False
    scores: bool = False
    rows: bool = False


REPORTERS = ("tensorboard", "wandb")
_OWN_BATCH = ("symmetric", "negatives", "shared_negatives", "hardness", "weight")
_GUIDE, _MARGIN = ("guide", "guide_margin"), ("metric", "triplet_margin")
LOSSES = {
    "mnr": LossKind(("temperature", *_OWN_BATCH, *_GUIDE, "matryoshka_dims")),
    "triplet": LossKind((*_MARGIN, "matryoshka_dims"), negatives=True),
    "margin-mse": LossKind(("matryoshka_dims",), negatives=True, scores=True),
    "kl": LossKind(("temperature", "matryoshka_dims"), negatives=True, scores=True),
    "cached-mnr": LossKind(("temperature",), rows=True),
    "gist": LossKind(("temperature", *_GUIDE), rows=True),
    "batch-all": LossKind((*_MARGIN, "matryoshka_dims"), labels=True),
    "batch-hard": LossKind((*_MARGIN, "matryoshka_dims"), labels=True),
    "batch-semi-hard": LossKind((*_MARGIN, "matryoshka_dims"), labels=True),
    "batch-hard-soft-margin": LossKind(("metric", "matryoshka_dims"), labels=True),
}
# Triplet margins that suit a distance: of sentence-transformers for Euclidean.
_TRIPLET_MARGINS = {"cosine": 0.3, "euclidean": 5.0}


@dataclass(frozen=True, kw_only=True)
class TrainConfig(StageConfig):
    """Train a model on the packed batches."""

    model: str | None = option(
        None, "The model to train (default: the one that embedded round 1).", "model"
    )
    loss: Literal[
        "mnr",
        "triplet",
        "margin-mse",
        "kl",
        "cached-mnr",
        "gist",
        "batch-all",
        "batch-hard",
        "batch-semi-hard",
        "batch-hard-soft-margin",
    ] = option(
        "mnr",
        "mnr: softmax over all passages of the batch; triplet: own negatives only; margin-mse, kl: "
        "scores of the miner; cached-mnr, gist: the library's, on rows; batch-*: on labels.",
        "model",
    )
    epochs: int | None = option(
        None, "Passes over the rows (default: the packings there are).", "model", minimum=1
    )
    learning_rate: Literal["auto", "probe"] | float = option(
        "auto",
        "Peak rate: auto (by kind of model and batch size), probe (the best of three), a number.",
        "model",
        minimum=0,
    )
    warmup: float = option(0.1, "Share of the steps that warm up.", "model", minimum=0)
    schedule: Literal["linear", "cosine", "constant"] = option(
        "linear", "How the rate falls after warming up.", "model"
    )
    floor: float = option(
        0.0, "Where linear and cosine end, as a share of the peak rate.", "model", minimum=0
    )
    evaluation: tuple[str, ...] = option(
        (),
        "Held-out pairs or a BEIR folder to evaluate on while training; repeatable.",
        "model",
    )
    evaluation_split: str | None = option(
        None, "Which qrels of BEIR folders (default: dev, or the only one).", "model"
    )
    evaluation_corpus: str | None = option(
        None, "A file of passages to search beside those of held-out pairs.", "model"
    )
    evaluation_steps: int | None = option(
        None, "Steps between evaluations (default: 20 evaluations a run).", "model", minimum=1
    )
    patience: int = option(
        5, "Evaluations without a new best before training stops; 0: never.", "model", minimum=0
    )
    validation_share: float = option(
        0.0,
        "Share of the batches that are never trained on, to watch the loss.",
        "model",
        minimum=0,
    )
    report_to: tuple[str, ...] = option((), "Where else to log: tensorboard or wandb; repeatable.")
    temperature: float = option(
        0.05, "Softmax temperature of mnr, kl, cached-mnr and gist.", "model", minimum=1e-6
    )
    guide: str | None = option(
        None, "A frozen model; a passage that it scores above the positive is masked.", "model"
    )
    guide_margin: float = option(
        0.0, "With --guide: mask above its score (cosine) of the positive - margin.", "model"
    )
    symmetric: bool = option(
        False, "Also rank the anchors of the batch for each positive; the mean of both.", "model"
    )
    negatives: Literal["batch", "hard"] = option(
        "batch", "batch: all passages of the batch; hard: the row's own negatives.", "model"
    )
    shared_negatives: int = option(
        0, "With hard: random passages of the batch that all rows see beside.", "model", minimum=0
    )
    hardness: float = option(
        0.0, "Adds this times its score to the logit of each negative.", "model", minimum=0
    )
    weight: Literal["one", "count", "logq"] = option(
        "one",
        "A text of the batch counts once, as often as it stands there, or by its rareness.",
        "model",
    )
    matryoshka_dims: tuple[int, ...] = option(
        (), "Sum the loss over the first so many dimensions; repeatable.", "model"
    )
    metric: Literal["cosine", "euclidean"] = option(
        "cosine", "Distance of triplet and batch-*.", "model"
    )
    triplet_margin: float | None = option(
        None, "Its margin (default: 0.3 for cosine, 5 for euclidean).", "model", minimum=0
    )
    max_length: int | None = option(
        None, "Tokens kept of a text (default: as it was embedded).", "model", minimum=1
    )
    seed: int = option(42, "Seed of batch order and dropout.", "model", minimum=0)
    chunk_rows: int = option(2_048, "Anchors whose logits exist at one time.", minimum=1)
    batch_tokens: int | None = option(
        None,
        "Tokens that a transformer takes at one time (default: 2,048 on a CPU, 32,768 else).",
        minimum=1,
    )
    checkpoint_steps: int = option(100, "Steps between checkpoints.", minimum=1)
    precision: Literal["float32", "bf16", "fp16"] = option(
        "float32", "What the network computes in; weights and loss stay float32.", "model"
    )
    lora_rank: int | None = option(
        None, "Train low-rank adapters only, merged into the model at the end.", "model", minimum=1
    )
    lora_alpha: int | None = option(
        None, "Adapters are scaled by alpha / rank (default: 2 x rank).", "model", minimum=1
    )
    trainer_option: tuple[str, ...] = option(
        (), "NAME=VALUE for the Trainer, as in optim=adafactor; repeatable.", "model"
    )
    gradient_checkpointing: bool = option(
        False, "Keep fewer values of a transformer and compute its layers again backwards."
    )
    compile: bool = option(False, "Compile the network (torch.compile); best with --pad-to.")
    pad_to: int | None = option(
        None,
        "Pad texts to multiples of so many tokens, and fill up mini-batches: few shapes, for XLA.",
        minimum=1,
    )
    device: str | None = option(None, "cpu, cuda, mps ... (default: the best one seen).")

    def __post_init__(self) -> None:
        """Check what one range alone cannot tell.

        Raises:
            ConfigError: Options of one loss with another.
        """
        super().__post_init__()
        self._check_scale()
        if any(dim < 1 for dim in self.matryoshka_dims):
            raise ConfigError(
                f"--matryoshka-dims must be at least 1, found {min(self.matryoshka_dims)}; "
                "give numbers of dimensions"
            )
        self._check_loss()
        hard = self.negatives == "hard"
        clashes = {
            "--symmetric": self.symmetric and hard,
            f"--weight {self.weight}": self.weight != "one" and hard,
            f"--shared-negatives {self.shared_negatives}": self.shared_negatives and not hard,
        }
        for words, clash in clashes.items():
            if clash:
                raise ConfigError(
                    f"{words} does not fit --negatives {self.negatives}; leave one of them out"
                )
        if self.guide is None and (self.guide_margin or self.loss == "gist"):
            needs = f"--guide-margin {self.guide_margin:g}" if self.guide_margin else "--loss gist"
            raise ConfigError(f"{needs} needs --guide MODEL, found none; give one")
        self._check_schedule()

    def _check_loss(self) -> None:
        """Refuse options that the loss would not heed.

        Raises:
            ConfigError: There is one; the message names the losses that read it.
        """
        for one in fields(self):
            readers = [name for name, kind in LOSSES.items() if one.name in kind.options]
            value = getattr(self, one.name)
            if readers and self.loss not in readers and value != one.default:
                raise ConfigError(
                    f"{option_words(one, value)} is an option of --loss {', '.join(readers)}, "
                    f"found --loss {self.loss}; leave it out"
                )

    @property
    def kind(self) -> LossKind:
        """What the loss reads."""
        return LOSSES[self.loss]

    @property
    def margin(self) -> float:
        """The margin of a triplet loss, in its distance."""
        default = _TRIPLET_MARGINS[self.metric]
        return default if self.triplet_margin is None else self.triplet_margin

    def _check_schedule(self) -> None:
        """Refuse what makes no schedule, or would not be heeded.

        Raises:
            ConfigError: There is such an option.
        """
        if isinstance(self.learning_rate, str) and self.learning_rate not in ("auto", "probe"):
            raise ConfigError(
                f"--learning-rate must be auto, probe or a number, found {self.learning_rate!r}; "
                "give one of them"
            )
        for name, limit in (("warmup", 1.0), ("floor", 1.0), ("validation_share", 0.5)):
            if getattr(self, name) > limit:
                raise ConfigError(
                    f"--{name.replace('_', '-')} must be at most {limit:g}, found "
                    f"{getattr(self, name):g}; give a smaller share"
                )
        if self.floor and self.schedule == "constant":
            raise ConfigError(
                f"--floor {self.floor:g} does not fit --schedule constant, which stays at the peak "
                "rate; leave one of them out"
            )
        unknown = set(self.report_to) - set(REPORTERS)
        if unknown:
            raise ConfigError(
                f"--report-to must be {' or '.join(REPORTERS)}, found "
                f"{', '.join(sorted(unknown))}; training_log.jsonl is always written"
            )
        for one in fields(self):
            needs = one.name in ("evaluation_split", "evaluation_corpus", "patience")
            if needs and not self.evaluation and getattr(self, one.name) != one.default:
                raise ConfigError(
                    f"{flag(one)} {getattr(self, one.name)} needs --evaluation, found none; name "
                    "held-out pairs or a BEIR folder, or leave it out"
                )

    def _check_scale(self) -> None:
        """Refuse half an option.

        Raises:
            ConfigError: A scale of adapters without adapters, or no NAME=VALUE.
        """
        if self.lora_alpha is not None and self.lora_rank is None:
            raise ConfigError(
                f"--lora-alpha {self.lora_alpha} needs --lora-rank, found none; give one"
            )
        for word in self.trainer_option:
            if "=" not in word:
                raise ConfigError(
                    f"--trainer-option must be NAME=VALUE, found {word!r}; add =VALUE"
                )
