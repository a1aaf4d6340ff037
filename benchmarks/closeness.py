"""Rules that guess which candidates answer the query too, from similarities alone.

A rule gives each candidate a number, higher for a likelier false negative; what lies above the
rule's threshold is dropped. The cosines are of q (query), p (its shown positive) and c (candidate).

Shape letters: Q queries, K candidates a query, D dimensions, S sampled texts.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.similarity import Similarity
from stx_mine.search.score import score_hits
from stx_mine.store.vectors import Vectors

Array = NDArray[np.float32]
SAMPLE = 2_000
NEIGHBOURS = 10
_BLOCK = 512


@dataclass(frozen=True)
class Triangles:
    """The three cosines of each (query, positive, candidate).

    Attributes:
        qc: float32 (Q, K).
        qp: float32 (Q, 1).
        pc: float32 (Q, K).
    """

    qc: Array
    qp: Array
    pc: Array


@dataclass(frozen=True)
class Closeness:
    """All that the rules look at.

    Attributes:
        raw: Cosines of the stored vectors.
        centred: Cosines after the mean query is taken from queries and the mean passage from
            passages.
        standard: Standard scores: qc and qp among cosines of q with random passages, pc among
            those of p.
        hubless: CSLS: twice the cosine less both texts' mean cosine with their nearest ten.
        rank_QK: Passages nearer to the positive than the candidate is, as a share of the corpus.
    """

    raw: Triangles
    centred: Triangles
    standard: Triangles
    hubless: Triangles
    rank_QK: Array


def cosines(
    queries_QD: Array, passages_ND: Array, shown_Q: NDArray[np.int64], ids_QK: NDArray[np.int64]
) -> Triangles:
    """The three cosines of each (query, positive, candidate) from unit vectors."""
    positives_QD = passages_ND[shown_Q]
    return Triangles(
        qc=score_hits(queries_QD, passages_ND, ids_QK, "cosine"),
        qp=score_hits(queries_QD, passages_ND, shown_Q[:, None], "cosine"),
        pc=score_hits(positives_QD, passages_ND, ids_QK, "cosine"),
    )


def measure_closeness(
    queries: Vectors,
    passages: Vectors,
    shown_Q: NDArray[np.int64],
    ids_QK: NDArray[np.int64],
    rng: np.random.Generator,
) -> Closeness:
    """Compute what the rules look at.

    Args:
        queries: Vectors of the Q queries.
        passages: Vectors of the corpus.
        shown_Q: int64 (Q,) the positive of each query.
        ids_QK: int64 (Q, K) the candidates.
        rng: Draws the random texts that standard scores and hubness count from.
    """
    queries_QD, passages_ND = queries.rows(0, len(queries)), passages.rows(0, len(passages))
    raw = cosines(queries_QD, passages_ND, shown_Q, ids_QK)
    centred = cosines(centre(queries_QD), centre(passages_ND), shown_Q, ids_QK)
    sampled_SD = passages_ND[rng.permutation(len(passages_ND))[:SAMPLE]]
    asked_SD = queries_QD[rng.permutation(len(queries_QD))[:SAMPLE]]
    query_mean, query_deviation, query_near = spread(queries_QD, sampled_SD)
    passage_mean, passage_deviation, passage_near = spread(passages_ND, sampled_SD)
    asked_near = spread(passages_ND, asked_SD)[2]
    positive_mean, positive_deviation = passage_mean[shown_Q], passage_deviation[shown_Q]
    standard = Triangles(
        qc=(raw.qc - query_mean) / query_deviation,
        qp=(raw.qp - query_mean) / query_deviation,
        pc=(raw.pc - positive_mean) / positive_deviation,
    )
    hubless = Triangles(
        qc=2 * raw.qc - query_near - asked_near[ids_QK, 0],
        qp=2 * raw.qp - query_near - asked_near[shown_Q],
        pc=2 * raw.pc - passage_near[shown_Q] - passage_near[ids_QK, 0],
    )
    return Closeness(raw, centred, standard, hubless, ranks(passages_ND, shown_Q, raw.pc))


def centre(vectors_ND: Array) -> Array:
    """Unit vectors less their mean, of unit length again."""
    return Similarity("cosine").prepare(vectors_ND - vectors_ND.mean(0))


def spread(vectors_ND: Array, sampled_SD: Array) -> tuple[Array, Array, Array]:
    """Mean, deviation, and mean of the nearest ten, of each vector's cosines with a sample.

    Returns:
        Three float32 (N, 1); a vector's cosine with itself does not count.
    """
    parts = []
    for start in range(0, len(vectors_ND), _BLOCK):
        block = vectors_ND[start : start + _BLOCK] @ sampled_SD.T
        same = block > 1 - 1e-5
        nearest = np.partition(np.where(same, -1, block), -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:]
        others = np.where(same, np.nan, block)
        parts.append(np.stack([np.nanmean(others, 1), np.nanstd(others, 1), nearest.mean(1)]))
    mean, deviation, near = np.concatenate(parts, axis=1).astype(np.float32)
    return mean[:, None], deviation[:, None], near[:, None]


def ranks(passages_ND: Array, shown_Q: NDArray[np.int64], pc_QK: Array) -> Array:
    """Share of the corpus that lies nearer to the positive than each candidate does."""
    shares = np.empty_like(pc_QK)
    for start in range(0, len(shown_Q), _BLOCK):
        block = np.sort(passages_ND[shown_Q[start : start + _BLOCK]] @ passages_ND.T, axis=1)
        for row, cosine in enumerate(block, start):
            nearer = len(cosine) - np.searchsorted(cosine, pc_QK[row] + 1e-6)
            shares[row] = nearer / len(cosine)
    return shares


def ratio(t: Triangles) -> Array:
    """The candidate is closer to the positive than the query is: pc > f qp."""
    return t.pc / np.maximum(t.qp, 0.05)


def product(t: Triangles) -> Array:
    """Closer to both than they are to each other: pc qc > f qp^2."""
    return np.maximum(t.pc, 0) * np.maximum(t.qc, 0) / np.maximum(t.qp, 0.05) ** 2


def partial(t: Triangles) -> Array:
    """What p and c share beyond what each shares with q: their partial correlation."""
    rest = np.maximum((1 - t.qp**2) * (1 - t.qc**2), 1e-6)
    return (t.pc - t.qp * t.qc) / np.sqrt(rest)


def midpoint(t: Triangles) -> Array:
    """As near to the middle of query and positive as they are: c.(q+p) > f q.(q+p)."""
    return (t.qc + t.pc) / (1 + t.qp)


Rule = Callable[[Closeness], Array]

RULES: dict[str, Rule] = {
    "ratio": lambda x: ratio(x.raw),
    "ratio, centred": lambda x: ratio(x.centred),
    "ratio, standard": lambda x: ratio(x.standard),
    "difference, centred": lambda x: x.centred.pc - x.centred.qp,
    "difference, standard": lambda x: x.standard.pc - x.standard.qp,
    "difference, CSLS": lambda x: x.hubless.pc - x.hubless.qp,
    "pc, centred": lambda x: x.centred.pc,
    "pc, standard": lambda x: x.standard.pc,
    "partial": lambda x: partial(x.raw),
    "partial, centred": lambda x: partial(x.centred),
    "rank": lambda x: -x.rank_QK,
    "product, centred": lambda x: product(x.centred),
    "product, standard": lambda x: product(x.standard),
    "midpoint": lambda x: midpoint(x.raw),
    "midpoint, centred": lambda x: midpoint(x.centred),
}
CHOSEN = "midpoint, centred"
CHOSEN_GRID = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9)
