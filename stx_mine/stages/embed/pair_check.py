"""Whether positives are closer to their queries than random passages, on a sample of pairs."""

from dataclasses import dataclass

import numpy as np

from stx_mine.core.similarity import Similarity
from stx_mine.search.score import score_hits
from stx_mine.store.artifact import Manifest
from stx_mine.store.texts import TextStore
from stx_mine.store.vectors import Vectors

_PAIRS = 1_000
_SEED = 42
# Pairs that do not belong together lose half of the time.
_CHANCE = 0.4


@dataclass(frozen=True)
class PairCheck:
    """How a sample of pairs compares with random passages.

    Attributes:
        pairs: Pairs of the sample.
        below_random: Those whose positive scores lower than a random passage does.
    """

    pairs: int
    below_random: int

    @classmethod
    def of(cls, texts: Manifest, embeddings: Manifest) -> "PairCheck":
        """Compare up to 1,000 pairs, each with one random passage, by the stored vectors."""
        store = TextStore.open(texts)
        generator = np.random.default_rng(_SEED)
        rows = np.sort(generator.permutation(store.num_pairs)[:_PAIRS])
        similarity = Similarity(embeddings.extra["contract"]["similarity"])
        positives = store.pair_passage_ids[rows]
        others = generator.integers(0, store.num_passages, len(rows))
        queries = similarity.prepare(
            Vectors.open(embeddings, "queries").take(store.pair_query_ids[rows])
        )
        vectors = Vectors.open(embeddings, "passages")
        passages = similarity.prepare(vectors.take(np.concatenate([positives, others])))
        places = np.arange(len(rows))
        both = np.stack([places, places + len(rows)], axis=1)
        of_positive, of_other = score_hits(queries, passages, both, similarity, alone=True).T
        return cls(len(rows), int((of_positive < of_other).sum()))

    @property
    def warnings(self) -> list[str]:
        """What to look at where positives lose about as often as chance has it."""
        if self.below_random < _CHANCE * self.pairs:
            return []
        return [
            f"{self.below_random:,} of {self.pairs:,} positives score below a random passage: "
            "queries and passages may stand in different rows, or the model may not read their "
            "language; look at the three pairs above"
        ]
