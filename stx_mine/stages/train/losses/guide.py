"""A model that says which passages of a batch are probably right for a row.

It is a frozen one (GISTEmbed; Solatorio 2024), or the very model that is trained, as it is in this
step (Qwen3-Embedding; Zhang et al. 2025): what it scores above the row's positive is masked. We ask
it about passages for the anchor of a row, and where these are compared about anchors for its
positive, anchors beside anchors and passages beside the positive; scores are cosines. Each distinct
text of a batch goes through a frozen model once.

Shape letters: B rows, M distinct candidates, N candidates of a row, D dimensions.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.nn import functional

from stx_mine.stages.train.losses.embedding import MiniBatches, PrefixedFeatures, embed_distinct


class Guidance(NamedTuple):
    """What the guide makes of rows and candidates.

    Attributes:
        rows_BD: Its embedding of each row's own text, of unit length.
        candidates_MD: Its embeddings of the distinct candidates, of unit length.
        margin: A candidate is masked where its cosine > that of the positive - margin.
        tally: (2,) how many were masked, and how many were scored, so far.
        positives_B: (B,) the cosine of each row's anchor with its positive, where the candidates
            have no such pair; None: that of the row with its target.
    """

    rows_BD: Tensor
    candidates_MD: Tensor
    margin: float
    tally: Tensor
    positives_B: Tensor | None = None

    def of_rows(self, rows: slice) -> "Guidance":
        """The same for some rows."""
        positives_B = None if self.positives_B is None else self.positives_B[rows]
        return self._replace(rows_BD=self.rows_BD[rows], positives_B=positives_B)

    def beside(self, other: "Guidance") -> tuple["Guidance", "Guidance"]:
        """What it makes of anchors beside anchors, and of positives beside passages.

        Args:
            other: Of the positive of each row, and anchors; itself it is of anchors and passages.
        """
        positives_B = (self.rows_BD * other.rows_BD).sum(1)
        return (
            self._replace(candidates_MD=other.candidates_MD, positives_B=positives_B),
            other._replace(candidates_MD=self.candidates_MD, positives_B=positives_B),
        )

    def hides(self, targets_B: Tensor) -> Tensor:
        """Which of all candidates each row must not see: bool (B, M); never its target."""
        scores_BM = self.rows_BD @ self.candidates_MD.T
        return self._above(scores_BM, targets_B)

    def hides_of(self, own_BN: Tensor) -> Tensor:
        """Which of its own candidates each row must not see: bool (B, N).

        Args:
            own_BN: int64, the target first; what stands for no candidate may be any number.
        """
        candidates_BND = self.candidates_MD[own_BN]
        scores_BN = torch.einsum("bd,bnd->bn", self.rows_BD, candidates_BND)
        return self._above(scores_BN, torch.zeros_like(own_BN[:, 0]))

    def _above(self, scores_BM: Tensor, targets_B: Tensor) -> Tensor:
        places_B1 = targets_B[:, None]
        if self.positives_B is None:
            positives_B1 = scores_BM.gather(1, places_B1)
        else:
            positives_B1 = self.positives_B[:, None]
        hidden_BM = scores_BM > positives_B1 - self.margin
        hidden_BM.scatter_(1, places_B1, False)
        self.tally.add_(torch.tensor([int(hidden_BM.sum()), hidden_BM.numel()]))
        return hidden_BM


@dataclass(frozen=True, kw_only=True)
class Masking:
    """How much above the positive is masked, and how much was.

    Attributes:
        margin: As in `Guidance`.
        tally: int64 (2,) on the CPU: (row, candidate) that were masked, and all that were scored.
    """

    margin: float
    tally: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.int64))

    @property
    def share_masked(self) -> float:
        """Share of all (row, candidate) so far that were masked."""
        masked, seen = (int(one) for one in self.tally)
        return masked / max(1, seen)


@dataclass(frozen=True, kw_only=True)
class OwnScores(Masking):
    """The model that is trained, as its own guide."""

    def of(self, rows_BD: Tensor, candidates_MD: Tensor) -> Guidance:
        """Its guidance for rows and candidates that it embeds just now; no gradient flows."""
        rows_BD, candidates_MD = (
            functional.normalize(one.detach(), dim=1) for one in (rows_BD, candidates_MD)
        )
        return Guidance(rows_BD, candidates_MD, self.margin, self.tally)


@dataclass(frozen=True, kw_only=True)
class Guide(Masking):
    """A frozen model.

    Attributes:
        model: In evaluation mode; never trained.
        mini_batches: What goes through it at one time.
    """

    model: SentenceTransformer
    mini_batches: MiniBatches

    def embed(
        self, features: list[PrefixedFeatures], labels: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Unit embeddings of the distinct anchors (A, D) and passages (M, D) of a batch."""
        with torch.no_grad():
            anchors, passages = embed_distinct(self.model, features, labels, self.mini_batches)
        return functional.normalize(anchors, dim=1), functional.normalize(passages, dim=1)

    def of(self, rows_BD: Tensor, candidates_MD: Tensor) -> Guidance:
        """Its guidance for rows and candidates that it embedded."""
        return Guidance(rows_BD, candidates_MD, self.margin, self.tally)
