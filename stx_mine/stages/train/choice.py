"""Which loss and which collator a config asks for, and whether the batches are what it reads."""

from typing import Any, cast

from sentence_transformers import SentenceTransformer
from torch import nn

from stx_mine.errors import ConfigError
from stx_mine.models.limits import embedding_dim
from stx_mine.models.load import is_static
from stx_mine.models.tokenise import Tokeniser
from stx_mine.settings import command_line_of
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.train.batch_collator import BatchCollator
from stx_mine.stages.train.collator import PackedCollator
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.known_tokens import RememberingTokeniser
from stx_mine.stages.train.label_collator import LabelCollator
from stx_mine.stages.train.losses.embedding import MiniBatches
from stx_mine.stages.train.losses.guide import Guide, OwnScores
from stx_mine.stages.train.losses.mnr import PackedLoss, PackedMNRLoss
from stx_mine.stages.train.losses.own_passages import (
    Metric,
    PackedKLLoss,
    PackedMarginMSELoss,
    PackedTripletLoss,
)
from stx_mine.stages.train.losses.sentence_transformers import LabelLoss, cached_mnr, gist
from stx_mine.stages.train.losses.weighted_sum import LossSum
from stx_mine.stages.train.row_collator import RowCollator
from stx_mine.store.batches import BatchShard


def check_batches(config: TrainConfig, shard: BatchShard, packed_by: dict[str, Any]) -> None:
    """Refuse batches that the loss cannot read.

    Args:
        config: Names the loss.
        shard: Any of the batches.
        packed_by: The config of `pack` that made them, from their manifest.

    Raises:
        ConfigError: The layout, the policy or the scores are not what the loss needs; the message
            has the command that packs them so.
    """
    kind = config.kind
    pack = PackConfig(**{**packed_by, "run_dir": config.run_dir, "overwrite": True})
    labels = shard.texts_per_label is not None
    found, needs = "", ""
    if kind.labels and not labels:
        found, needs = "rows of pairs", "(text, label) batches"
        pack = pack.with_layout("labels")
    elif labels and not kind.labels:
        found, needs = "(text, label) batches", "rows of pairs"
        pack = pack.with_layout("inline")
    changes: dict[str, Any] = {}
    if kind.rows and shard.policy != "strict":
        found, needs = found or f"policy {shard.policy}", needs or "batches of policy strict"
        changes["policy"] = "strict"
    if kind.scores and not shard.has_scores:
        found, needs = found or "none", needs or "scores of the model that mined"
        changes["scores"] = True
    if kind.negatives and not labels and shard.num_negatives == 0:
        found, needs = found or "none", needs or "negatives in the rows"
        changes["k"] = None
    if needs:
        command = command_line_of("pack", PackConfig(**{**vars(pack), **changes}))
        raise ConfigError(
            f"--loss {config.loss} needs {needs}, found {found} in {shard.path.parent.parent}/; "
            f"run `{command}`"
        )


def check_model(config: TrainConfig, model: SentenceTransformer, num_processes: int) -> None:
    """Refuse a model, or a number of processes, with which the loss does not work.

    Raises:
        ConfigError: One of them; or fewer dimensions than asked for.
    """
    dims, most = config.matryoshka_dims, embedding_dim(model) if config.matryoshka_dims else 0
    if dims and max(dims) > most:
        raise ConfigError(
            f"--matryoshka-dims must be at most the {most} dimensions of the model, found "
            f"{max(dims)}; give smaller ones"
        )
    if not config.kind.rows:
        return
    ours = "--loss mnr" + (" --guide" if config.guide else "")
    if is_static(model):
        raise ConfigError(
            f"--loss {config.loss} of sentence-transformers caches gradients of a transformer, "
            f"found a static model; give {ours}, which takes both"
        )
    if num_processes > 1:
        raise ConfigError(
            f"--loss {config.loss} works in one process, found {num_processes}; give {ours}, which "
            "shares a batch, or start one"
        )


def make_loss(
    config: TrainConfig,
    model: SentenceTransformer,
    guide: SentenceTransformer | None = None,
    judged: bool = False,
) -> nn.Module:
    """The loss that the config asks for.

    Args:
        config: Names it.
        model: The model to train.
        guide: What `config.guide` names, in evaluation mode.
        judged: Whether the scores of the batches are those of a judge.

    Raises:
        ConfigError: The library's loss cannot use the two models.
    """
    mini_batches = MiniBatches.of(config, model.device)
    guiding = None
    if guide is not None:
        guiding = Guide(model=guide, margin=config.guide_margin, mini_batches=mini_batches)
    if config.kind.labels:
        dims = config.matryoshka_dims
        return LabelLoss(model, config.loss, config.metric, config.margin, mini_batches, dims)
    if config.loss == "cached-mnr":
        return cached_mnr(model, config.temperature, mini_batches.tokens)
    if config.loss == "gist":
        assert guiding is not None, "the config asks for one"
        return gist(model, guiding, config.temperature)
    if not config.kind.terms:
        return _packed_loss(config.loss, config, model, guiding, judged)
    terms = {name: _packed_loss(name, config, model, guiding, judged) for name in config.kind.terms}
    return LossSum(terms, config.weight_of)


def _packed_loss(
    name: str,
    config: TrainConfig,
    model: SentenceTransformer,
    guide: Guide | None,
    judged: bool,
) -> PackedLoss:
    """One of our losses, by its name."""
    mini_batches = MiniBatches.of(config, model.device)
    dims, rows = config.matryoshka_dims, config.chunk_rows
    own_metric = cast(Metric, str(model.similarity_fn_name))
    if name == "triplet":
        return PackedTripletLoss(model, config.margin, config.metric, rows, mini_batches, dims)
    if name == "margin-mse":
        return PackedMarginMSELoss(model, own_metric, rows, mini_batches, dims)
    if name == "kl":
        return PackedKLLoss(
            model,
            config.temperature,
            own_metric,
            rows,
            mini_batches,
            dims,
            teacher_temperature=config.teacher_temperature,
            probabilities=judged,
        )
    above = config.mask_above
    return PackedMNRLoss(
        model,
        config.temperature,
        rows,
        mini_batches,
        symmetric=config.symmetric,
        interactions=config.interactions,
        hard_only=config.negatives == "hard",
        hardness=config.hardness,
        guide=guide,
        own_scores=None if above is None else OwnScores(margin=-above),
        dims=dims,
    )


def make_collator(
    config: TrainConfig,
    model: SentenceTransformer,
    packings: list[list[BatchShard]],
    guide: SentenceTransformer | None = None,
) -> BatchCollator:
    """The collator that gives the loss what it reads."""
    shards = [shard for packing in packings for shard in packing]
    tokenise = RememberingTokeniser(Tokeniser(model, config.pad_to))
    if config.kind.labels:
        return LabelCollator(shards, tokenise)
    if config.kind.rows:
        return RowCollator(shards, tokenise)
    return PackedCollator(
        shards,
        tokenise,
        weight=config.weight,
        symmetric=config.symmetric,
        num_shared=config.shared_negatives,
        seed=config.seed,
        guide=None if guide is None else RememberingTokeniser(Tokeniser(guide)),
        scores=config.kind.scores,
        interactions=config.interactions,
    )


def masked_shares(loss: nn.Module) -> dict[str, float]:
    """Count -> share in [0, 1] of all (row, passage) that were masked; none where nothing masks."""
    found: dict[str, float] = {}
    for term in (one for one in loss.modules() if isinstance(one, PackedMNRLoss)):
        by = {"masked_by_guide": term.guide, "masked_by_own_scores": term.own_scores}
        found |= {name: one.share_masked for name, one in by.items() if one is not None}
    return found
