"""What each loss of `train` reads, the one table of losses, and what all of them keep in memory."""

from dataclasses import dataclass

from stx_mine.settings import StageConfig, option

# Of the free memory: gradients, the optimizer and scores come on top.
ACTIVATION_SHARE = 0.25


@dataclass(frozen=True)
class LossKind:
    """What a loss of `train` reads.

    Attributes:
        options: Names of the options that decide its value; another loss's options are refused.
        labels: Whether it reads (text, label) batches.
        negatives: Whether rows without any negative teach it, or a term of it, nothing.
        scores: Whether it reads the scores of a teacher: the model that mined, or a judge.
        rows: Whether it is the library's and takes the rows as they stand: it needs a transformer,
            batches of the policy strict, and one process.
        terms: Names of the losses that it is the weighted sum of; empty where it is no sum.
    """

    options: tuple[str, ...]
    labels: bool = False
    negatives: bool = False
    scores: bool = False
    rows: bool = False
    terms: tuple[str, ...] = ()

    @classmethod
    def of_sum(cls, **terms: "LossKind") -> "LossKind":
        """What a sum of losses reads, by their names."""
        options = dict.fromkeys(name for one in terms.values() for name in one.options)
        return cls(
            ("weights", *options),
            negatives=any(one.negatives for one in terms.values()),
            scores=any(one.scores for one in terms.values()),
            terms=tuple(terms),
        )


_OWN_BATCH = ("symmetric", "interactions", "negatives", "shared_negatives", "hardness", "weight")
_GUIDE, _MARGIN = ("guide", "guide_margin"), ("metric", "triplet_margin")
_MNR = LossKind(("temperature", *_OWN_BATCH, *_GUIDE, "mask_above", "matryoshka_dims"))
_TRIPLET = LossKind((*_MARGIN, "matryoshka_dims"), negatives=True)
_MARGIN_MSE = LossKind(("matryoshka_dims",), negatives=True, scores=True)
_KL = LossKind(
    ("temperature", "teacher_temperature", "matryoshka_dims"), negatives=True, scores=True
)
LOSSES = {
    "mnr": _MNR,
    "triplet": _TRIPLET,
    "margin-mse": _MARGIN_MSE,
    "kl": _KL,
    "mnr+margin-mse": LossKind.of_sum(**{"mnr": _MNR, "margin-mse": _MARGIN_MSE}),
    "mnr+kl": LossKind.of_sum(mnr=_MNR, kl=_KL),
    "triplet+margin-mse": LossKind.of_sum(**{"triplet": _TRIPLET, "margin-mse": _MARGIN_MSE}),
    "triplet+kl": LossKind.of_sum(triplet=_TRIPLET, kl=_KL),
    "cached-mnr": LossKind(("temperature",), rows=True),
    "gist": LossKind(("temperature", *_GUIDE), rows=True),
    "batch-all": LossKind((*_MARGIN, "matryoshka_dims"), labels=True),
    "batch-hard": LossKind((*_MARGIN, "matryoshka_dims"), labels=True),
    "batch-semi-hard": LossKind((*_MARGIN, "matryoshka_dims"), labels=True),
    "batch-hard-soft-margin": LossKind(("metric", "matryoshka_dims"), labels=True),
}


def read_by(name: str) -> str:
    """What an option of a loss needs: one of the losses that read it, by itself or in a sum."""
    return "loss=" + "|".join(
        loss for loss, kind in LOSSES.items() if name in kind.options and not kind.terms
    )


def sums_of_losses() -> str:
    """What an option of sums needs: one of them."""
    return "loss=" + "|".join(loss for loss, kind in LOSSES.items() if kind.terms)


@dataclass(frozen=True, kw_only=True)
class StepFields(StageConfig):
    """How much of a step is in memory at one time."""

    chunk_rows: int = option(
        2_048, "Anchors whose logits exist at one time.", minimum=1, group="Memory and speed"
    )
    batch_tokens: int | None = option(
        None,
        "Tokens per forward pass of a transformer (default: 2,048 on a CPU, 32,768 else).",
        minimum=1,
        group="Memory and speed",
    )
    activation_share: float = option(
        ACTIVATION_SHARE,
        "Share of the free memory for the activations of a transformer; forward passes beyond it "
        "are made twice.",
        minimum=0,
        maximum=0.9,
        group="Memory and speed",
    )

    def step_fields(self) -> dict[str, int | float | None]:
        """These options by name."""
        return {name: getattr(self, name) for name in StepFields.__annotations__}
