"""Whose scores of rows are stored to be distilled: those of the model that mined, or of a judge."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stx_mine.search.score import score_hits
from stx_mine.store.artifact import Manifest
from stx_mine.store.judgements import StoredJudgements
from stx_mine.store.negatives import pool_files
from stx_mine.store.pools import PoolBlock, Pools
from stx_mine.store.texts import TextStore
from stx_mine.store.vectors import Vectors

# Of the negatives, how many a wider band would reach.
_REACHED = 0.9


class Teacher(Protocol):
    """Scores passages for the queries of rows."""

    def scores(self, rows: NDArray[np.int64], slots_BS: NDArray[np.int64]) -> NDArray[np.float32]:
        """The scores of passages for the query of their row.

        Args:
            rows: int64 (B,) numbers of pairs.
            slots_BS: int64 (B, S) passage ids; -1 for none.

        Returns:
            float32 (B, S); NaN where there is no passage, or no score.
        """
        ...


@dataclass(frozen=True)
class Miner:
    """The model that mined.

    Scores of mined negatives are what the search found; a positive or a random negative is scored
    here, by the same sum.

    Attributes:
        store: Texts and pairs.
        pools: Opened with their scores.
        queries: Vectors.
        passages: Vectors.
    """

    store: TextStore
    pools: Pools
    queries: Vectors
    passages: Vectors

    def scores(self, rows: NDArray[np.int64], slots_BS: NDArray[np.int64]) -> NDArray[np.float32]:
        """As in `Teacher`."""
        scores = self.pools.known_scores(rows, slots_BS)
        new = np.isnan(scores) & (slots_BS >= 0)
        ids, numbers = np.unique(slots_BS[new], return_inverse=True)
        places = np.full(slots_BS.shape, -1, np.int64)
        places[new] = numbers
        made = score_hits(
            self.queries.take(self.store.pair_query_ids[rows]),
            self.passages.take(ids),
            places,
            self.passages.similarity,
        )
        scores[new] = made[new]
        return scores


@dataclass(frozen=True)
class JudgeOfPairs:
    """A judge, who has no score of most pairs.

    Attributes:
        store: Texts and pairs.
        judgements: Of the judge.
    """

    store: TextStore
    judgements: StoredJudgements

    def scores(self, rows: NDArray[np.int64], slots_BS: NDArray[np.int64]) -> NDArray[np.float32]:
        """As in `Teacher`."""
        queries_BS = np.broadcast_to(self.store.pair_query_ids[rows][:, None], slots_BS.shape)
        found = np.full(slots_BS.shape, np.nan, np.float32)
        there = slots_BS >= 0
        found[there] = self.judgements.find(queries_BS[there], slots_BS[there])
        return found


def band_of_pools(negatives: Manifest, k: int) -> float:
    """The `judge --band` that reaches nine tenths of the first k negatives of all pools.

    Returns:
        Share of the positive's score, rounded up to hundredths, at least 0.01.
    """
    gaps = [np.empty(0, np.float32)]
    for name in pool_files(negatives):
        pools, table = PoolBlock.read(negatives, name), negatives.table(name)
        some, places = pools.pools.take(np.arange(len(pools.pools)), longest=k)
        positives = np.repeat(table.column("positive_score").to_numpy(), some.lengths())
        with np.errstate(divide="ignore", invalid="ignore"):
            gaps.append(np.abs(pools.scores[places] - positives) / np.abs(positives))
    found = np.concatenate(gaps)
    found = found[np.isfinite(found)]
    widest = float(np.quantile(found, _REACHED)) if len(found) else 0.0
    return max(0.01, float(np.ceil(100 * widest)) / 100)
