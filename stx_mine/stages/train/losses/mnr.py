"""Losses over a packed batch, each distinct text embedded once.

Shape letters: B rows, A distinct anchors, M distinct passages, K negatives a row, D dimensions.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.nn import functional

from stx_mine.stages.train.losses.cross_entropy import (
    Compared,
    joint_cross_entropy,
    masked_cross_entropy,
    own_cross_entropy,
)
from stx_mine.stages.train.losses.embedding import MiniBatches, PrefixedFeatures, embed_distinct
from stx_mine.stages.train.losses.guide import Guidance, Guide, OwnScores

_ROLES = "anchor", "passage"


class PackedLoss(nn.Module, ABC):  # type: ignore[misc]
    """A loss of anchors and passages, summed over prefixes of their dimensions.

    The sum over prefixes is Matryoshka representation learning (Kusupati et al. 2022) with equal
    weights, as MatryoshkaLoss of sentence-transformers has it.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        mini_batches: MiniBatches,
        cosine: bool,
        dims: tuple[int, ...] = (),
    ) -> None:
        """Wrap a model.

        Args:
            model: The model to train.
            mini_batches: What goes through the network at one time.
            cosine: Whether embeddings are brought to unit length.
            dims: First dimensions that are scored, each number of them; none: all.
        """
        super().__init__()
        self.model, self.mini_batches = model, mini_batches
        self.cosine, self.dims = cosine, dims

    def forward(self, features: list[PrefixedFeatures], labels: dict[str, Tensor]) -> Tensor:
        """The loss of one packed batch, or of this process's rows, as `PackedCollator` gives it."""
        embedded = embed_distinct(self.model, features[:2], labels, self.mini_batches)
        return self.of_embeddings(*embedded, self.prepare(features, labels))

    def prepare(
        self, features: list[PrefixedFeatures], labels: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The labels, with what else `score` reads of the features."""
        return labels

    def of_embeddings(
        self, anchors_AD: Tensor, passages_MD: Tensor, labels: dict[str, Tensor]
    ) -> Tensor:
        """The sum over prefixes, of embeddings as the model gives them."""
        losses = [
            self.score(self._first(anchors_AD, dim), self._first(passages_MD, dim), labels)
            for dim in self.dims or (None,)
        ]
        return torch.stack(losses).sum()

    def _first(self, embeddings: Tensor, dim: int | None) -> Tensor:
        cut = embeddings[:, :dim]
        return functional.normalize(cut, dim=1) if self.cosine else cut

    @abstractmethod
    def score(self, anchors_AD: Tensor, passages_MD: Tensor, labels: dict[str, Tensor]) -> Tensor:
        """The loss of embeddings of the distinct anchors and passages of the batch."""


class PackedMNRLoss(PackedLoss):
    """Multiple negatives ranking over a packed batch (InfoNCE; van den Oord et al. 2018).

    Every distinct passage of the batch is one candidate of every row, less those that are known
    to be positives of the row. Where no text repeats this is the MultipleNegativesRankingLoss of
    sentence-transformers. How much a text counts, and what is shared, the collator decides.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        temperature: float,
        chunk_rows: int,
        mini_batches: MiniBatches,
        *,
        symmetric: bool = False,
        interactions: Collection[str] = (),
        hard_only: bool = False,
        hardness: float = 0.0,
        guide: Guide | None = None,
        own_scores: OwnScores | None = None,
        dims: tuple[int, ...] = (),
    ) -> None:
        """Wrap a model.

        Args:
            model: The model to train.
            temperature: Scores are divided by it.
            chunk_rows: Rows whose logits exist at one time.
            mini_batches: What goes through the network at one time.
            symmetric: Take the mean with the loss of each positive against all anchors.
            interactions: What else stands in the softmax of a row: `query-query` other anchors
                beside its anchor, `passage-passage` and `passage-query` other passages and anchors
                beside its positive (Li et al. 2023 have all three).
            hard_only: A row sees its own negatives and what the batch shares, no other passage.
            hardness: How much more harder negatives count; 0: not at all.
            guide: Says which passages are probably right for a row; its inputs follow ours.
            own_scores: The same by the scores of the model itself.
            dims: As in `PackedLoss`.
        """
        super().__init__(model, mini_batches, str(model.similarity_fn_name) == "cosine", dims)
        self.scale, self.chunk_rows = 1 / temperature, chunk_rows
        self.symmetric, self.interactions = symmetric, frozenset(interactions)
        self.hard_only, self.hardness = hard_only, hardness
        self.guide, self.own_scores = guide, own_scores

    def prepare(
        self, features: list[PrefixedFeatures], labels: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Where there is a guide, its inputs follow those of the model."""
        if self.guide is None:
            return labels
        anchors, passages = self.guide.embed(features[2:], labels)
        return {**labels, "guide_anchors": anchors, "guide_passages": passages}

    def score(self, anchors_AD: Tensor, passages_MD: Tensor, labels: dict[str, Tensor]) -> Tensor:
        """Rows against passages, and where asked what else is compared."""
        anchors_BD = anchors_AD[labels["anchors"]]
        guidance, backwards = self._guidance(anchors_AD, passages_MD, labels)
        if self.hard_only:
            return own_cross_entropy(
                anchors_BD,
                passages_MD,
                labels["targets"],
                labels["negatives"],
                labels["shared"],
                labels["ignored"],
                self.scale,
                self.chunk_rows,
                self.hardness,
                guidance,
            )
        compared = [
            Compared(
                anchors_BD,
                passages_MD,
                labels["targets"],
                labels["ignored"],
                labels.get("passage_log_weights"),
                self.hardness,
                guidance,
            )
        ]
        if self.interactions:
            compared += self._interacting(anchors_AD, passages_MD, labels, guidance, backwards)
        forward = joint_cross_entropy(compared, self.scale, self.chunk_rows)
        if not self.symmetric:
            return forward
        backward = masked_cross_entropy(
            passages_MD[labels["targets"]],
            anchors_AD,
            labels["anchors"],
            labels["ignored_anchors"],
            self.scale,
            self.chunk_rows,
            labels.get("anchor_log_weights"),
            guidance=backwards,
        )
        return (forward + backward) / 2

    def _interacting(
        self,
        anchors_AD: Tensor,
        passages_MD: Tensor,
        labels: dict[str, Tensor],
        guidance: Guidance | None,
        backwards: Guidance | None,
    ) -> list[Compared]:
        """What rows are compared with beside passages for their anchor."""
        anchors, targets = labels["anchors"], labels["targets"]
        anchors_BD, positives_BD = anchors_AD[anchors], passages_MD[targets]
        of_anchors, of_passages = (labels.get(f"{one}_log_weights") for one in _ROLES)
        beside: tuple[Guidance | None, Guidance | None] = None, None
        if guidance is not None and backwards is not None:
            beside = guidance.beside(backwards)
        found = []
        if "query-query" in self.interactions:
            hidden = labels["hidden_anchors"]
            one = Compared(anchors_BD, anchors_AD, anchors, hidden, of_anchors, guidance=beside[0])
            found.append(one)
        if "passage-query" in self.interactions:
            hidden = labels["ignored_anchors"]
            one = Compared(
                positives_BD, anchors_AD, anchors, hidden, of_anchors, guidance=backwards
            )
            found.append(one)
        if "passage-passage" in self.interactions:
            hidden = labels["hidden_passages"]
            one = Compared(
                positives_BD, passages_MD, targets, hidden, of_passages, guidance=beside[1]
            )
            found.append(one)
        return found

    def _guidance(
        self, anchors_AD: Tensor, passages_MD: Tensor, labels: dict[str, Tensor]
    ) -> tuple[Guidance | None, Guidance | None]:
        """What the guide says of passages for the rows, and of anchors for their positives."""
        says: Guide | OwnScores | None = self.own_scores
        if self.guide is not None:
            says = self.guide
            anchors_AD, passages_MD = labels["guide_anchors"], labels["guide_passages"]
        if says is None:
            return None, None
        return (
            says.of(anchors_AD[labels["anchors"]], passages_MD),
            says.of(passages_MD[labels["targets"]], anchors_AD),
        )
