"""How hard a batch is: what other rows bring, and what was mined, beside the positive.

Shape letters: A anchors that are looked at, B rows of a batch, D dimensions, K negatives.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from stx_mine.search.score import product_scores, score_hits
from stx_mine.stages.pack.builder import Packer
from stx_mine.store.artifact import Manifest
from stx_mine.store.stage_report import percent
from stx_mine.store.vectors import Vectors

# Where a manifest of batches holds it.
HARDNESS = "hardness"

# Share of harder rows from which on negatives that are positives of other rows paid on all sets
# (benchmarks/README.md, "Which passages may be negatives").
_PAYS_AMONG_POSITIVES = 0.38
# The same of negatives from the whole corpus, on two sets (+1.7 and +2.4 points), and the share up
# to which they gave -1.4 and +0.4 ("Where mined negatives pay").
_PAYS, _COSTS = 0.55, 0.35
# Anchors whose hardest passages are looked for, and passages of a matrix product.
_ANCHORS, _PASSAGES = 256, 16_384
# A passage that is both has one score, up to the rounding of products.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class BatchHardness:
    """Means over some rows of a random batch; scores are those of the model that mined.

    Attributes:
        positives: Distinct positives of the batch.
        texts: Its distinct passages, negatives included.
        passages: Passages of the run.
        own_positive: Score of a row's positive.
        other_positive: Score of the hardest positive of another row that is no known positive;
            None where each is one.
        own_negative: Score of the hardest of a row's own negatives, of rows that have one; None
            where none has.
        harder: Share of the rows whose own hardest negative scores above that of the others; those
            without a negative count as no.
        unlabelled: Share of the own negatives that are a positive of no row; batches of versions
            that did not look took all.
    """

    positives: int
    texts: int
    passages: int
    own_positive: float
    other_positive: float | None
    own_negative: float | None
    harder: float
    unlabelled: float = 1.0

    @classmethod
    def read(cls, batches: Manifest) -> Self | None:
        """Of finished batches; None where it was not measured.

        Args:
            batches: Their manifest.
        """
        found: dict[str, Any] | None = batches.extra.get(HARDNESS)
        return None if found is None else cls(**found)

    @property
    def sentences(self) -> list[str]:
        """What the batch sees of the corpus, and how hard that is."""
        positives, texts = (percent(one, self.passages) for one in (self.positives, self.texts))
        told = [
            f"a random batch holds {positives} of {self.passages:,} passages as positives, {texts} "
            "with negatives"
        ]
        if self.other_positive is not None:
            told.append(
                f"there a row's positive scores {self.own_positive:.3f} on average, the hardest "
                f"positive of another row {self.other_positive:.3f}{self._mined}"
            )
        return [*told, self.advice] if self.advice else told

    @property
    def advice(self) -> str:
        """Whether mined negatives pay by what was measured; empty where rows have none."""
        if self.own_negative is None:
            return ""
        if self.harder >= (_PAYS if self.unlabelled else _PAYS_AMONG_POSITIVES):
            return "mined negatives pay here, by what was measured"
        if self.unlabelled and self.harder <= _COSTS:
            return (
                "mined negatives may cost more than they give here: the batch brings harder ones, "
                "and passages that are a positive of no row are only ever pushed away; try "
                "`mine --negatives-from positives` or `--k 0`, and `stx-mine tune` tells"
            )
        return "whether mined negatives pay here is open: `stx-mine tune` tells"

    @property
    def _mined(self) -> str:
        if self.own_negative is None:
            return ""
        return (
            f", the hardest of its own negatives {self.own_negative:.3f} (harder in "
            f"{self.harder:.0%} of the rows)"
        )


def batch_hardness(packer: Packer, embeddings: Manifest) -> BatchHardness | None:
    """Of a batch whose rows are drawn; None where it would hold one positive only.

    Args:
        packer: Rows, pools, and what each query avoids.
        embeddings: Of the finished `embeddings/`.
    """
    store, rng = packer.store, np.random.default_rng(packer.config.seed)
    size = min(packer.config.batch_size, len(packer.pools.rows))
    rows_B = rng.choice(packer.pools.rows, size, replace=False)
    positives_B = store.pair_passage_ids[rows_B].astype(np.int64)
    negatives_BK = packer.pools.ids_NS[rows_B, : packer.k].astype(np.int64)
    distinct = np.unique(positives_B)
    if len(distinct) < 2:
        return None
    texts = np.unique(np.concatenate([distinct, negatives_BK[negatives_BK >= 0]]))
    queries, passages = (Vectors.open(embeddings, role) for role in ("queries", "passages"))
    rows_A = np.arange(min(_ANCHORS, size))
    query_ids = store.pair_query_ids[rows_B[rows_A]]
    vectors_AD = queries.take(query_ids)
    other_A = np.full(len(rows_A), -np.inf, np.float32)
    for start in range(0, len(distinct), _PASSAGES):
        some = distinct[start : start + _PASSAGES]
        scores = product_scores(vectors_AD, passages.take(some), queries.similarity)
        scores[_avoided(packer, query_ids, some)] = -np.inf
        other_A = np.maximum(other_A, scores.max(1))
    own_AK = np.concatenate([positives_B[rows_A, None], negatives_BK[rows_A]], axis=1)
    known, places = np.unique(own_AK, return_inverse=True)
    places = places.reshape(own_AK.shape)
    # Rows with fewer negatives are padded by -1, which is the first one then.
    known, places = (known[1:], places - 1) if known[0] < 0 else (known, places)
    scores_AK = score_hits(vectors_AD, passages.take(known), places, queries.similarity, alone=True)
    own_A, mined_A = scores_AK[:, 0], scores_AK[:, 1:].max(1, initial=-np.inf)
    # Where no other row brings a negative, any of its own is harder.
    rounding_A = np.where(np.isfinite(other_A), _ROUNDING * np.abs(other_A), 0)
    return BatchHardness(
        positives=len(distinct),
        texts=len(texts),
        passages=store.num_passages,
        own_positive=float(own_A.mean()),
        other_positive=_mean(other_A),
        own_negative=_mean(mined_A),
        harder=float((mined_A > other_A + rounding_A).mean()),
        unlabelled=_share_unlabelled(own_AK[:, 1:], packer),
    )


def _share_unlabelled(negatives_AK: NDArray[np.int64], packer: Packer) -> float:
    """Of some negatives, how many are a positive of no row; 0 where there is none."""
    labelled = packer.groups.labelled(packer.store)[negatives_AK[negatives_AK >= 0]]
    return 1 - float(labelled.mean()) if len(labelled) else 0.0


def _avoided(
    packer: Packer, query_ids: NDArray[np.int64], passage_ids: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Bool (A, N): which passages are no negatives of which query."""
    groups = packer.groups.passages[passage_ids]
    found = np.zeros((len(query_ids), len(passage_ids)), bool)
    for row, query in enumerate(query_ids.tolist()):
        found[row] = np.isin(groups, packer.avoided.row(query))
    return found


def _mean(values: NDArray[np.float32]) -> float | None:
    """The mean of what is there; None where nothing is."""
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else None
