"""Losses over a packed batch, each distinct text embedded once.

Shape letters: B rows, A distinct anchors, M distinct passages, K negatives a row, D dimensions.
"""

from abc import ABC, abstractmethod

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.nn import functional

from stx_mine.train.cross_entropy import masked_cross_entropy, own_cross_entropy
from stx_mine.train.embedding import Features, embed
from stx_mine.train.processes import gather_shares


class PackedLoss(nn.Module, ABC):  # type: ignore[misc]
    """A loss of anchors and passages, summed over prefixes of their dimensions.

    The sum over prefixes is Matryoshka representation learning (Kusupati et al. 2022) with equal
    weights, as MatryoshkaLoss of sentence-transformers has it.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        batch_tokens: int,
        cosine: bool,
        dims: tuple[int, ...] = (),
    ) -> None:
        """Wrap a model.

        Args:
            model: The model to train.
            batch_tokens: Tokens that go through the network at one time.
            cosine: Whether embeddings are brought to unit length.
            dims: First dimensions that are scored, each number of them; none: all.
        """
        super().__init__()
        self.model, self.batch_tokens = model, batch_tokens
        self.cosine, self.dims = cosine, dims

    def forward(self, features: list[Features], labels: dict[str, Tensor]) -> Tensor:
        """The loss of one packed batch, or of this process's rows, as `PackedCollator` gives it."""
        anchors_AD, passages_MD = embed_distinct(self.model, features, labels, self.batch_tokens)
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
        batch_tokens: int,
        *,
        symmetric: bool = False,
        hard_only: bool = False,
        hardness: float = 0.0,
        dims: tuple[int, ...] = (),
    ) -> None:
        """Wrap a model.

        Args:
            model: The model to train.
            temperature: Scores are divided by it.
            chunk_rows: Rows whose logits exist at one time.
            batch_tokens: Tokens that go through the network at one time.
            symmetric: Take the mean with the loss of each positive against all anchors.
            hard_only: A row sees its own negatives and what the batch shares, no other passage.
            hardness: How much more harder negatives count; 0: not at all.
            dims: As in `PackedLoss`.
        """
        super().__init__(model, batch_tokens, str(model.similarity_fn_name) == "cosine", dims)
        self.scale, self.chunk_rows = 1 / temperature, chunk_rows
        self.symmetric, self.hard_only, self.hardness = symmetric, hard_only, hardness

    def score(self, anchors_AD: Tensor, passages_MD: Tensor, labels: dict[str, Tensor]) -> Tensor:
        """Rows against passages, and where asked positives against anchors."""
        anchors_BD = anchors_AD[labels["anchors"]]
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
            )
        forward = masked_cross_entropy(
            anchors_BD,
            passages_MD,
            labels["targets"],
            labels["ignored"],
            self.scale,
            self.chunk_rows,
            labels.get("passage_log_weights"),
            self.hardness,
        )
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
        )
        return (forward + backward) / 2


class PackedTripletLoss(PackedLoss):
    """Triplet loss of each row with its own negatives, in cosine distance.

    Source: Schroff et al. 2015, with distance 1 - cosine; averaged over all (row, negative).
    """

    def __init__(
        self,
        model: SentenceTransformer,
        margin: float,
        batch_tokens: int,
        dims: tuple[int, ...] = (),
    ) -> None:
        """Wrap a model.

        Args:
            model: The model to train.
            margin: How much closer the positive must be, in cosine.
            batch_tokens: Tokens that go through the network at one time.
            dims: As in `PackedLoss`.
        """
        super().__init__(model, batch_tokens, cosine=True, dims=dims)
        self.margin = margin

    def score(self, anchors_AD: Tensor, passages_MD: Tensor, labels: dict[str, Tensor]) -> Tensor:
        """Rows against their own negatives."""
        rows, slots = torch.nonzero(labels["negatives"] >= 0, as_tuple=True)
        anchors_BD = anchors_AD[labels["anchors"]]
        positive_B = (anchors_BD * passages_MD[labels["targets"]]).sum(1)
        negative = (anchors_BD[rows] * passages_MD[labels["negatives"][rows, slots]]).sum(1)
        # The mean over processes of what they return is the mean over all negatives of the batch.
        # A batch without any negative teaches nothing, yet its loss must have a gradient.
        num_processes = int(labels["num_rows"]) / len(anchors_BD)
        mean_negatives = max(1, int(labels["num_negatives"])) / num_processes
        losses = functional.relu(negative - positive_B[rows] + self.margin)
        return losses.sum() / mean_negatives + 0 * positive_B.sum()


def embed_distinct(
    model: nn.Module, features: list[Features], labels: dict[str, Tensor], batch_tokens: int
) -> tuple[Tensor, Tensor]:
    """Embeddings of the distinct anchors (A, D) and passages (M, D).

    Each process embeds its share, and all of them have all.
    """
    anchors, passages = (embed(model, one, batch_tokens) for one in features)
    return (
        gather_shares(anchors, int(labels["num_anchors"])),
        gather_shares(passages, int(labels["num_passages"])),
    )
