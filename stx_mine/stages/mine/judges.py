"""What judges say of hits, and how far they are believed, by what they say of random passages.

Shape letters: H hits, J judges, U units.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.intervals import wilson_interval
from stx_mine.core.ragged import Ragged
from stx_mine.errors import ConfigError
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.core.opinions import Opinion, agreed, last_opinions, opinions_of
from stx_mine.store.judgements import StoredJudgements
from stx_mine.store.texts import TextStore

# What a judge may take for positives of the random passages, at most (upper end of the interval),
# so that what it takes for positives of the candidates is trained on.
MOST_RANDOM = 0.05
# Above this share it is no judge of these texts.
_CHANCE = 0.5


@dataclass(frozen=True)
class JudgeControl:
    """What judges say of random passages, beside the positives of their queries.

    Attributes:
        random: Random passages that they have an opinion about.
        above: Those that they find no worse than the positive.
    """

    random: int
    above: int

    @property
    def most(self) -> float:
        """Upper end of the 95% interval of the share; 1 where nothing is known."""
        return (
            float(wilson_interval(self.above / self.random, self.random)[1]) if self.random else 1
        )

    @property
    def is_trusted(self) -> bool:
        """Whether what they take for positives may be trained on."""
        return self.most <= MOST_RANDOM


@dataclass(frozen=True)
class Judges:
    """The judges that `mine` asks.

    Attributes:
        config: The config.
        store: Texts and pairs.
        judgements: Of each judge.
    """

    config: MineConfig
    store: TextStore
    judgements: Sequence[StoredJudgements]

    def __post_init__(self) -> None:
        """Refuse judges that tell positives from random passages no better than chance.

        Raises:
            ConfigError: They do not, and nobody says what to do all the same.
        """
        if self.config.judged != "auto":
            return
        control = self.control
        if control.above > _CHANCE * control.random:
            raise ConfigError(
                f"expected judges ({', '.join(self.config.judges)}) that know these texts, found "
                f"that they score {control.above:,} of {control.random:,} random passages at least "
                "as high as the positive of their query; give another --judges, or --judged mask "
                "to take their word all the same"
            )

    @cached_property
    def control(self) -> JudgeControl:
        """How far they can be believed."""
        keys = np.unique(np.concatenate([one.random_keys for one in self.judgements]))
        queries, passages = np.divmod(keys, self.store.num_passages)
        pairs, _ = self.store.pairs_of_query.take(queries)
        # A query without a pair has no positive to compare with.
        has = np.flatnonzero(pairs.lengths() > 0)
        pairs, _ = pairs.take(has)
        found = [
            opinions_of(
                one.find_random(queries[has], passages[has]),
                lowest_positives(one, self.store, pairs),
                0.0,
            )
            for one in self.judgements
        ]
        together = self._together(np.stack(found))
        known = together != Opinion.NONE
        return JudgeControl(int(known.sum()), int((together == Opinion.BETTER).sum()))

    @cached_property
    def judged(self) -> Literal["relabel", "mask", "drop"]:
        """What becomes of what is judged no negative."""
        if self.config.judged != "auto":
            return self.config.judged
        can_relabel = self.config.positive_score == "lowest" and self.control.is_trusted
        return "relabel" if can_relabel else "mask"

    def of_hits(
        self, hits: Ragged, query_ids: NDArray[np.int64], pairs: Ragged
    ) -> NDArray[np.uint8]:
        """What they think of each hit together, beside the lowest positive of its unit.

        Args:
            hits: (U,) passage ids of the hits of each unit.
            query_ids: int64 (U,) query of each unit.
            pairs: (U,) numbers of the pairs of each unit, at least one.

        Returns:
            uint8 (H,) of `Opinion`.
        """
        beside = Beside.of_hits(self.store, hits, query_ids, pairs)
        found = [beside.opinions(one, self.config.judged_margin) for one in self.judgements]
        return self._together(np.stack(found))

    def wrong_pairs(self, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which pairs have a positive that judges put below half of the random passages.

        Args:
            pairs: int64 (N,) numbers of pairs.

        Returns:
            bool (N,); none where the judges are not to be believed.
        """
        if self.config.judged == "auto" and not self.control.is_trusted:
            return np.zeros(len(pairs), bool)
        opinions = np.full((len(self.judgements), len(pairs)), Opinion.NONE, np.uint8)
        for number, one in enumerate(self.judgements):
            scores = positive_judgements(one, self.store, pairs)
            opinions[number, scores >= one.floor] = Opinion.BETTER
            opinions[number, scores < one.floor] = Opinion.WORSE
        if self.config.combine == "last":
            wrong: NDArray[np.bool_] = last_opinions(opinions) == Opinion.WORSE
            return wrong
        votes: NDArray[np.int64] = (opinions == Opinion.WORSE).sum(0)
        return votes >= self.config.votes_needed

    def _together(self, opinions_JH: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.config.combine == "last":
            return last_opinions(opinions_JH)
        return agreed(opinions_JH, self.config.votes_needed)


def positive_judgements(
    judgements: StoredJudgements, store: TextStore, pairs: NDArray[np.int64]
) -> NDArray[np.float32]:
    """A judge's score of each pair's positive, float32; NaN for none."""
    return judgements.find(store.pair_query_ids[pairs], store.pair_passage_ids[pairs])


def lowest_positives(
    judgements: StoredJudgements, store: TextStore, pairs: Ragged
) -> NDArray[np.float32]:
    """A judge's score of the lowest positive of each unit; what is not judged is passed over.

    Args:
        judgements: Of the judge.
        store: Texts and pairs.
        pairs: (U,) numbers of the pairs of each unit, at least one.

    Returns:
        float32 (U,); NaN for none.
    """
    scores = positive_judgements(judgements, store, pairs.values)
    return np.fmin.reduceat(scores, pairs.offsets[:-1]) if len(scores) else scores


@dataclass(frozen=True)
class Beside:
    """Passages beside the positives that judges compare them with.

    Attributes:
        store: Texts and pairs.
        query_ids: int64 (U,) query of each unit.
        pairs: (U,) numbers of the pairs of each unit, at least one.
        owners: int64 (H,) the unit of each passage.
        passage_ids: int64 (H,).
    """

    store: TextStore
    query_ids: NDArray[np.int64]
    pairs: Ragged
    owners: NDArray[np.int64]
    passage_ids: NDArray[np.int64]

    @classmethod
    def of_hits(
        cls, store: TextStore, hits: Ragged, query_ids: NDArray[np.int64], pairs: Ragged
    ) -> "Beside":
        """All (U,) hits of units beside their positives."""
        owners = np.repeat(np.arange(len(query_ids)), hits.lengths())
        return cls(store, query_ids, pairs, owners, hits.values)

    def scores(
        self, judgements: StoredJudgements
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """A judge's score of each passage, and of the lowest positive of its unit.

        Returns:
            float32 (H,) each; NaN for none.
        """
        lowest = lowest_positives(judgements, self.store, self.pairs)
        found = judgements.find(self.query_ids[self.owners], self.passage_ids)
        return found, lowest[self.owners]

    def opinions(self, judgements: StoredJudgements, margin: float) -> NDArray[np.uint8]:
        """What a judge thinks of each passage.

        Args:
            judgements: Of the judge.
            margin: Share of its score of the positive that is close to it.

        Returns:
            uint8 (H,) of `Opinion`.
        """
        return opinions_of(*self.scores(judgements), margin, judgements.floor)
