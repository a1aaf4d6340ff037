"""A frozen model that says which passages of a batch are probably right for a row.

Source: GISTEmbed (Solatorio 2024): what the guide scores above the row's positive is masked. We ask
it about passages for the anchor of a row, and on `symmetric` about anchors for its positive; scores
are cosines. Each distinct text of a batch goes through the guide once.

Shape letters: B rows, M distinct candidates, N candidates of a row, D dimensions.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.nn import functional

from stx_mine.stages.train.losses.embedding import PrefixedFeatures, embed_distinct


class Guidance(NamedTuple):
    """What the guide makes of rows and candidates.

    Attributes:
        rows_BD: Its embedding of each row's own text, of unit length.
        candidates_MD: Its embeddings of the distinct candidates, of unit length.
        margin: A candidate is masked where its cosine > that of the positive - margin.
        tally: (2,) how many were masked, and how many were scored, so far.
    """

    rows_BD: Tensor
    candidates_MD: Tensor
    margin: float
    tally: Tensor

    def of_rows(self, rows: slice) -> "Guidance":
        """The same for some rows."""
        return self._replace(rows_BD=self.rows_BD[rows])

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
        hidden_BM = scores_BM > scores_BM.gather(1, places_B1) - self.margin
        hidden_BM.scatter_(1, places_B1, False)
        self.tally.add_(torch.tensor([int(hidden_BM.sum()), hidden_BM.numel()]))
        return hidden_BM


@dataclass(frozen=True)
class Guide:
    """A frozen model with its margin.

    Attributes:
        model: In evaluation mode; never trained.
        margin: As in `Guidance`.
        batch_tokens: Tokens that go through it at one time.
        tally: int64 (2,) on the CPU: (row, candidate) that it masked, and all that it scored.
    """

    model: SentenceTransformer
    margin: float
    batch_tokens: int
    tally: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.int64))

    def embed(
        self, features: list[PrefixedFeatures], labels: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Unit embeddings of the distinct anchors (A, D) and passages (M, D) of a batch."""
        with torch.no_grad():
            anchors, passages = embed_distinct(self.model, features, labels, self.batch_tokens)
        return functional.normalize(anchors, dim=1), functional.normalize(passages, dim=1)

    def of(self, rows_BD: Tensor, candidates_MD: Tensor) -> Guidance:
        """Its guidance for rows and candidates that it embedded."""
        return Guidance(rows_BD, candidates_MD, self.margin, self.tally)

    @property
    def share_masked(self) -> float:
        """Share of all (row, candidate) so far that it masked."""
        masked, seen = (int(one) for one in self.tally)
        return masked / max(1, seen)
