"""Options of `train`."""

from dataclasses import dataclass
from typing import Literal

from stx_mine.errors import ConfigError
from stx_mine.models.config import ModelFields
from stx_mine.settings import MAX_SEED, WHERE, ReadingConfig, option
from stx_mine.stages.train.losses.config import (
    LOSSES,
    LossKind,
    StepFields,
    read_by,
    sums_of_losses,
)


def _no_assignment(words: tuple[str, ...]) -> str:
    """What is wrong with values of `trainer_option`."""
    wrong = [word for word in words if "=" not in word]
    return f"--trainer-option must be NAME=VALUE, found {wrong[0]!r}; add =VALUE" if wrong else ""


# What stands in the softmax of a row beside passages for its query.
Interaction = Literal["query-query", "passage-passage", "passage-query"]
# Triplet margins that suit a distance: of sentence-transformers for Euclidean.
_TRIPLET_MARGINS = {"cosine": 0.3, "euclidean": 5.0}


@dataclass(frozen=True, kw_only=True)
class TrainConfig(ModelFields, StepFields, ReadingConfig):
    """Train a model on the packed batches."""

    model: str | None = option(
        None, "The model to train (default: the one that embedded round 1).", "model", group="Model"
    )
    loss: Literal[
        "mnr",
        "triplet",
        "margin-mse",
        "kl",
        "mnr+margin-mse",
        "mnr+kl",
        "triplet+margin-mse",
        "triplet+kl",
        "cached-mnr",
        "gist",
        "batch-all",
        "batch-hard",
        "batch-semi-hard",
        "batch-hard-soft-margin",
    ] = option(
        "mnr",
        "mnr: softmax over all passages of the batch; triplet: own negatives only; margin-mse, kl: "
        "scores of a teacher; A+B: a sum; cached-mnr, gist: the library's, on rows; batch-*: on "
        "labels.",
        "model",
        group="Loss",
    )
    epochs: int | None = option(
        None,
        "Passes over the rows (default: the packings there are).",
        "model",
        minimum=1,
        group="Schedule",
    )
    steps: int | None = option(
        None,
        "Optimizer steps, instead of passes: packings are read in turn until so many are done.",
        "model",
        minimum=1,
        group="Schedule",
        conflicts="epochs",
        because="which says how long, too",
    )
    learning_rate: Literal["auto", "probe"] | float = option(
        "auto",
        "Peak rate: auto (by kind of model, batch, steps), probe (the best of three), a number.",
        "model",
        above=0,
        group="Schedule",
    )
    warmup: float = option(
        0.1, "Share of the steps that warm up.", "model", minimum=0, group="Schedule", maximum=1
    )
    schedule: Literal["linear", "cosine", "constant"] = option(
        "linear", "How the rate falls after warming up.", "model", group="Schedule"
    )
    floor: float = option(
        0.0,
        "Where linear and cosine end, as a share of the peak rate.",
        "model",
        minimum=0,
        group="Schedule",
        maximum=1,
        conflicts="schedule=constant",
        because="which stays at the peak rate",
    )
    evaluation: tuple[str, ...] = option(
        (),
        "Held-out pairs or a BEIR folder to evaluate on while training; repeatable.",
        "model",
        group="Evaluation",
    )
    evaluation_split: str | None = option(
        None,
        "Which qrels of BEIR folders (default: dev, or the only one).",
        "model",
        group="Evaluation",
        needs="evaluation|merge_check",
    )
    evaluation_corpus: str | None = option(
        None,
        "A file of passages to search beside those of held-out pairs.",
        "model",
        group="Evaluation",
        needs="evaluation|merge_check",
    )
    evaluation_steps: int | None = option(
        None,
        "Steps between evaluations (default: 20 evaluations a run).",
        "model",
        minimum=1,
        group="Evaluation",
    )
    patience: int = option(
        5,
        "Evaluations without a new best before training stops; 0: never.",
        "model",
        minimum=0,
        group="Evaluation",
        needs="evaluation",
    )
    merge_check: tuple[str, ...] = option(
        (),
        "More such data, as of other domains, to compare base, trained and merged model on; "
        "repeatable.",
        "model",
        group="Evaluation",
        needs="merge_with_base",
    )
    validation_share: float = option(
        0.0,
        "Share of the batches that are never trained on, to watch the loss.",
        "model",
        minimum=0,
        group="Evaluation",
        maximum=0.5,
    )
    report_to: tuple[Literal["tensorboard", "wandb"], ...] = option(
        (), "Where else to log: tensorboard or wandb; repeatable.", group="Evaluation"
    )
    temperature: float = option(
        0.05,
        "Softmax temperature of mnr, kl, cached-mnr and gist.",
        "model",
        minimum=1e-6,
        group="Loss",
        needs=read_by("temperature"),
    )
    weights: tuple[float, ...] = option(
        (),
        "Weights of the terms of a sum of losses, as in 1,0.5 (default: 1 each).",
        "model",
        above=0,
        group="Loss",
        needs=sums_of_losses(),
    )
    teacher_temperature: float | None = option(
        None,
        "Softmax temperature of the scores that kl distils (default: 1 for a judge's, of their "
        "logits; else --temperature, and the loss times its square).",
        "model",
        minimum=1e-6,
        group="Loss",
        needs=read_by("teacher_temperature"),
    )
    guide: str | None = option(
        None,
        "A frozen model; a passage that it scores above the positive is masked.",
        "model",
        group="Loss",
        needs=read_by("guide"),
    )
    guide_margin: float = option(
        0.0,
        "With --guide: mask above its score (cosine) of the positive - margin.",
        "model",
        group="Loss",
        needs=read_by("guide_margin") + " guide",
    )
    mask_above: float | None = option(
        None,
        "Mask what the model that is trained scores (cosine) above the positive by more than this.",
        "model",
        minimum=0,
        group="Loss",
        needs=read_by("mask_above"),
        conflicts="guide",
        because="which says it instead",
    )
    symmetric: bool = option(
        False,
        "Also rank the anchors of the batch for each positive; the mean of both.",
        "model",
        group="Loss",
        needs=read_by("symmetric"),
        conflicts="negatives=hard",
    )
    interactions: tuple[Interaction, ...] = option(
        (),
        "Also in the softmax of a row: other queries beside its query, passages or queries beside "
        "its positive; repeatable.",
        "model",
        group="Loss",
        needs=read_by("interactions"),
        conflicts="symmetric negatives=hard",
        because="which compares otherwise",
    )
    negatives: Literal["batch", "hard"] = option(
        "batch",
        "batch: all passages of the batch; hard: the row's own negatives.",
        "model",
        group="Loss",
        needs=read_by("negatives"),
    )
    shared_negatives: int = option(
        0,
        "With hard: random passages of the batch that all rows see beside.",
        "model",
        minimum=0,
        group="Loss",
        needs=read_by("shared_negatives") + " negatives=hard",
    )
    hardness: float = option(
        0.0,
        "Adds this times its score to the logit of each negative.",
        "model",
        minimum=0,
        group="Loss",
        needs=read_by("hardness"),
    )
    weight: Literal["one", "count", "logq"] = option(
        "one",
        "A text of the batch counts once, as often as it stands there, or by its rareness.",
        "model",
        group="Loss",
        needs=read_by("weight"),
        conflicts="negatives=hard",
    )
    matryoshka_dims: tuple[int, ...] = option(
        (),
        "Sum the loss over the first so many dimensions; repeatable.",
        "model",
        minimum=1,
        group="Loss",
        needs=read_by("matryoshka_dims"),
    )
    metric: Literal["cosine", "euclidean"] = option(
        "cosine",
        "Distance of triplet and batch-*.",
        "model",
        group="Loss",
        needs=read_by("metric"),
    )
    triplet_margin: float | None = option(
        None,
        "Its margin (default: 0.3 for cosine, 5 for euclidean).",
        "model",
        minimum=0,
        group="Loss",
        needs=read_by("triplet_margin"),
    )
    max_length: int | None = option(
        None,
        "Tokens kept of a text (default: as it was embedded).",
        "model",
        minimum=1,
        group="Model",
    )
    seed: int = option(
        42,
        "Seed of batch order and dropout.",
        "model",
        minimum=0,
        maximum=MAX_SEED,
        group="Schedule",
    )
    checkpoint_steps: int = option(100, "Steps between checkpoints.", minimum=1, group=WHERE)
    precision: Literal["auto", "float32", "bf16", "fp16"] = option(
        "float32",
        "What the network computes in; weights and loss stay float32. auto: bf16 where it is "
        "measured to be faster.",
        "model",
        group="Memory and speed",
    )
    dropout: float | None = option(
        None,
        "Dropout of a transformer while it trains (default: as the model has it).",
        "model",
        minimum=0,
        maximum=0.9,
        group="Model",
    )
    save_dtype: Literal["float32", "float16", "bfloat16"] = option(
        "float32",
        "Number format of the trained model's files; training itself has float32 weights.",
        "model",
        group="Model",
    )
    merge_with_base: Literal["auto"] | float | None = option(
        None,
        "Publish base + this x (trained - base), above 0 to 1; auto: the smallest of 0.1 to 1 that "
        "the evaluation cannot tell from the best.",
        "model",
        above=0,
        maximum=1,
        group="Model",
    )
    lora_rank: int | None = option(
        None,
        "Train low-rank adapters only, merged into the model at the end.",
        "model",
        minimum=1,
        group="Model",
    )
    lora_alpha: int | None = option(
        None,
        "Adapters are scaled by alpha / rank (default: 2 x rank).",
        "model",
        minimum=1,
        group="Model",
        needs="lora_rank",
    )
    trainer_option: tuple[str, ...] = option(
        (),
        "NAME=VALUE for the Trainer, as in optim=adafactor; repeatable.",
        "model",
        group=WHERE,
        check=_no_assignment,
    )
    gradient_checkpointing: bool = option(
        False,
        "Keep fewer values of a transformer and compute its layers again backwards.",
        group="Memory and speed",
    )
    compile: bool = option(
        False, "Compile the network (torch.compile); best with --pad-to.", group="Memory and speed"
    )
    pad_to: int | None = option(
        None,
        "Pad texts to multiples of so many tokens, and fill up mini-batches: few shapes, for XLA.",
        minimum=1,
        group="Memory and speed",
    )
    device: str | None = option(
        None, "cpu, cuda, mps ... (default: the best one seen).", group=WHERE
    )

    def __post_init__(self) -> None:
        """Check what the range of one option does not cover.

        Raises:
            ConfigError: The loss lacks what it needs.
        """
        super().__post_init__()
        if self.loss == "gist" and self.guide is None:
            raise ConfigError("--loss gist needs --guide MODEL, found none; give one")
        if self.merge_with_base == "auto" and not self.evaluation:
            raise ConfigError(
                "--merge-with-base auto needs --evaluation, found none; give it, or a number"
            )
        if len(set(self.interactions)) < len(self.interactions):
            raise ConfigError(
                f"--interactions must differ, found {', '.join(self.interactions)}; name each once"
            )
        if self.weights and len(self.weights) != len(self.kind.terms):
            found = ",".join(f"{one:g}" for one in self.weights)
            raise ConfigError(
                f"--weights must be {len(self.kind.terms)} numbers, one a term of {self.loss}, "
                f"found {found}; give such as 1,0.5"
            )

    @property
    def kind(self) -> LossKind:
        """What the loss reads."""
        return LOSSES[self.loss]

    @property
    def weight_of(self) -> dict[str, float]:
        """Weight of each term of a sum of losses, by name; empty where the loss is no sum."""
        terms = self.kind.terms
        return dict(zip(terms, self.weights or (1.0,) * len(terms), strict=True))

    @property
    def margin(self) -> float:
        """The margin of a triplet loss, in its distance."""
        default = _TRIPLET_MARGINS[self.metric]
        return default if self.triplet_margin is None else self.triplet_margin
