"""Turn the hits of a block into pools and verdicts: what the rules need beside the hits."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged, offsets_of
from stx_mine.core.similarity import unit_rows
from stx_mine.core.verdicts import Verdict
from stx_mine.search.score import product_scores, score_hits
from stx_mine.stages.mine.closeness import close_to_positive
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.core.languages import wrong_language
from stx_mine.stages.mine.core.select import HitMarks, Rules, Selection, UseLimits, select_negatives
from stx_mine.stages.mine.judges import Judges
from stx_mine.store.artifact import Manifest, require
from stx_mine.store.groups import TextGroups
from stx_mine.store.hits import HitBlock, HitSource
from stx_mine.store.judgements import StoredJudgements
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore
from stx_mine.store.vectors import Vectors

# Random passages that a positive is compared with. A positive below half of them is suspect.
_SAMPLE, SUSPECT_PERCENTILE = 128, 50.0
# From this share of positives among the passages on, others are no negatives: where most were,
# this was better on all sets, where few were, on some (benchmarks/README.md).
MOST_ARE = 0.5


@dataclass(frozen=True)
class Units:
    """What shares a pool: queries with their lowest positive score, or single pairs.

    Attributes:
        ids: int64 (U,) query_id, or number of the pair; rising.
        query_ids: int64 (U,).
        positive_scores: float32 (U,) the positive score that margins count from.
        hits: (U,) hits of each unit.
        pairs: (U,) numbers of the pairs that share the pool.
        left_out: int64 numbers of the pairs whose positive scores too low to be trusted.
        judged_wrong: int64 numbers of the pairs whose positive is judged below random passages.
        dropped: int64 numbers of the pairs that `dedup` dropped.
        num_suspect: Pairs whose positive scores below most random passages.
    """

    ids: NDArray[np.int64]
    query_ids: NDArray[np.int64]
    positive_scores: NDArray[np.float32]
    hits: HitBlock
    pairs: Ragged
    left_out: NDArray[np.int64]
    judged_wrong: NDArray[np.int64]
    dropped: NDArray[np.int64]
    num_suspect: int


@dataclass(frozen=True)
class Selector:
    """Turns hits into pools by the rules of a config; several threads may use one.

    Attributes:
        config: The config.
        store: Texts and pairs.
        groups: The group of every text.
        queries: Vectors of the queries.
        passages: Vectors of the passages.
        forbidden: Forbidden groups of each query.
        judgements: Of each judge that is asked.
        labelled: bool (num passages,) which passages are a positive of some row; None for those of
            `store`, which may hide some.
    """

    config: MineConfig
    store: TextStore
    groups: TextGroups
    queries: Vectors
    passages: Vectors
    forbidden: Ragged
    judgements: Sequence[StoredJudgements] = ()
    labelled: NDArray[np.bool_] | None = None

    @classmethod
    def of_negatives(cls, run: RunDir, negatives: Manifest, store: TextStore) -> "Selector":
        """What made finished negatives, or would have without judges."""
        config = MineConfig.without_judges(negatives.fields)
        groups, embeddings = TextGroups.open(require(run, "groups")), require(run, "embeddings")
        queries, passages = (Vectors.open(embeddings, role) for role in ("queries", "passages"))
        return cls(config, store, groups, queries, passages, groups.forbidden(store))

    @property
    def slots(self) -> int:
        """Slots of a pool; none where no row gets negatives."""
        return max(self.config.pool, self.config.k) if self.config.mines else 0

    @cached_property
    def rules(self) -> Rules:
        """The rules of the config."""
        config = self.config
        return Rules(
            pool=self.slots,
            range_min=config.range_min,
            range_max=config.range_max,
            min_score=config.min_score,
            max_score=config.max_score,
            absolute_margin=config.absolute_margin,
            relative_margin=config.relative_margin,
            upper_margin=config.upper_margin,
            sampling=config.sampling,
            sampling_temperature=config.sampling_temperature,
            seed=config.seed,
        )

    @cached_property
    def _random_passages(self) -> NDArray[np.float32]:
        rng = np.random.default_rng(self.config.seed)
        size = min(_SAMPLE, len(self.passages))
        return self.passages.take(np.sort(rng.choice(len(self.passages), size, replace=False)))

    @cached_property
    def is_labelled(self) -> NDArray[np.bool_]:
        """Bool (num passages,): which passages are a positive of some row."""
        return self.groups.labelled(self.store) if self.labelled is None else self.labelled

    @property
    def takes_labelled(self) -> bool:
        """Whether only those may be negatives."""
        return self.negatives_from == "positives"

    @property
    def negatives_from(self) -> str:
        """Which passages may be negatives, with auto decided."""
        asked = self.config.negatives_from
        if asked != "auto":
            return asked
        return "positives" if self.is_labelled.mean() >= MOST_ARE else "corpus"

    @cached_property
    def _excluded(self) -> NDArray[np.uint8]:
        """The verdict of the passages that are no candidates; empty where all are."""
        dropped = self.groups.dropped_passages
        if not len(dropped) and not self.takes_labelled:
            return np.zeros(0, np.uint8)
        excluded = np.zeros(len(self.passages), np.uint8)
        if self.takes_labelled:
            excluded[~self.is_labelled] = Verdict.UNLABELLED
        excluded[dropped] = Verdict.DROPPED_PASSAGE
        return excluded

    def units(self, hits: HitBlock) -> Units:
        """The units of a block of queries; queries without a pair to trust have none.

        Raises:
            DamagedError: The hits name passages that are not there.
        """
        hits.refuse_beyond(len(self.passages))
        pairs, _ = self.store.pairs_of_query.take(hits.query_ids)
        rows = np.repeat(np.arange(len(hits.query_ids)), pairs.lengths())
        positives, percentiles = self.score_positives(hits.query_ids, pairs)
        least = self.config.min_positive_percentile
        trusted = np.ones(len(rows), bool) if least is None else percentiles >= least
        dropped = np.isin(pairs.values, self.groups.dropped_pairs)
        wrong = np.zeros(len(rows), bool)
        if self.judges is not None:
            wrong = self.judges.wrong_pairs(pairs.values)
        kept = trusted & ~dropped & ~wrong
        return Units(
            **self._group(hits, rows[kept], pairs.values[kept], positives[kept]),
            left_out=pairs.values[~trusted & ~dropped],
            judged_wrong=pairs.values[wrong & trusted & ~dropped],
            dropped=pairs.values[dropped],
            num_suspect=int((percentiles < SUSPECT_PERCENTILE).sum()),
        )

    def score_positives(
        self, query_ids: NDArray[np.int64], pairs: Ragged
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Scores of positives, and percent of random passages that score below each.

        Args:
            query_ids: int64 (Q,).
            pairs: (Q,) numbers of pairs of each query.
        """
        rows = np.repeat(np.arange(len(query_ids)), pairs.lengths())
        vectors = self.queries.take(query_ids)
        positives = score_hits(
            vectors[rows],
            self.passages.take(self.store.pair_passage_ids[pairs.values]),
            np.arange(len(rows))[:, None],
            self.queries.similarity,
            alone=True,
        )[:, 0]
        return positives, self._percentiles(vectors, rows, positives)

    def _percentiles(
        self,
        queries_QD: NDArray[np.float32],
        rows: NDArray[np.int64],
        positives: NDArray[np.float32],
    ) -> NDArray[np.float64]:
        """Percent of random passages that score below each positive."""
        scores_QS = product_scores(queries_QD, self._random_passages, self.queries.similarity)
        below: NDArray[np.float64] = (scores_QS[rows] < positives[:, None]).mean(1)
        return 100 * below

    def _group(
        self,
        hits: HitBlock,
        rows: NDArray[np.int64],
        pairs: NDArray[np.int64],
        positives: NDArray[np.float32],
    ) -> dict[str, Any]:
        if self.config.positive_score == "pair":
            order = np.argsort(pairs, kind="stable")
            rows, pairs = rows[order], pairs[order]
            return {
                "ids": pairs,
                "query_ids": hits.query_ids[rows],
                "positive_scores": positives[order],
                "hits": hits.take(rows),
                "pairs": Ragged(np.arange(len(pairs) + 1), pairs),
            }
        present, starts, counts = np.unique(rows, return_index=True, return_counts=True)
        lowest = np.minimum.reduceat(positives, starts) if len(starts) else positives
        return {
            "ids": hits.query_ids[present],
            "query_ids": hits.query_ids[present],
            "positive_scores": lowest,
            "hits": hits if len(present) == len(hits.query_ids) else hits.take(present),
            "pairs": Ragged(offsets_of(counts), pairs),
        }

    @cached_property
    def _centres(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The mean query and the mean passage."""
        return self.queries.mean, self.passages.mean

    def _too_close(self, units: Units) -> NDArray[np.bool_] | None:
        """Hits that are too close to a positive of their unit."""
        if self.config.closeness is None:
            return None
        query_centre, passage_centre = self._centres
        distinct, rows = np.unique(units.hits.hits.values, return_inverse=True)
        positives = self.passages.take(self.store.pair_passage_ids[units.pairs.values])
        return close_to_positive(
            unit_rows(self.queries.take(units.query_ids) - query_centre),
            unit_rows(positives - passage_centre),
            units.pairs,
            unit_rows(self.passages.take(distinct) - passage_centre),
            Ragged(units.hits.hits.offsets, rows.astype(np.int64)),
            self.config.closeness,
        )

    def _wrong_language(self, units: Units) -> NDArray[np.bool_] | None:
        """Hits that do not have the language that negatives shall have."""
        languages, wanted = self.store.languages, self.config.negative_language
        if languages is None or wanted == "any":
            return None
        rows = np.repeat(units.query_ids, units.hits.hits.lengths())
        passages = languages.passages[units.hits.hits.values]
        return wrong_language(languages.queries[rows], passages, wanted)

    @cached_property
    def judges(self) -> Judges | None:
        """What the judges say; None where none is asked.

        Raises:
            ConfigError: They do not know these texts.
        """
        return Judges(self.config, self.store, self.judgements) if self.judgements else None

    def kept_anyway(self, hits: HitBlock) -> NDArray[np.bool_] | None:
        """Which hits no rule about scores drops: known negatives, unless these are filtered.

        Returns:
            bool (H,); None where there is none.
        """
        if self.config.known_negatives != "keep":
            return None
        known: NDArray[np.bool_] = (hits.sources & HitSource.KNOWN) > 0
        return known if known.any() else None

    def marks(self, units: Units) -> HitMarks:
        """What is known of the hits of units beside their scores, whatever the thresholds are."""
        judges = self.judges
        return HitMarks(
            known=self.kept_anyway(units.hits),
            wrong_language=self._wrong_language(units),
            too_close=self._too_close(units),
            opinions=None
            if judges is None
            else judges.of_hits(units.hits.hits, units.query_ids, units.pairs),
        )

    def select(
        self, units: Units, uses: UseLimits | None = None, marks: HitMarks | None = None
    ) -> Selection:
        """Pools and verdicts of units.

        Args:
            units: The units.
            uses: What each passage keeps of its uses, where these are limited.
            marks: Of the hits, where they are known already.
        """
        return select_negatives(
            units.ids,
            units.query_ids,
            units.positive_scores,
            units.hits.hits,
            units.hits.scores,
            query_groups=self.groups.queries,
            passage_groups=self.groups.passages,
            excluded=self._excluded,
            forbidden=self.forbidden,
            rules=self.rules,
            marks=self.marks(units) if marks is None else marks,
            uses=uses,
        )


def negatives_table(
    units: Units, chosen: Selection, depths: NDArray[np.int64], wanted: NDArray[np.int64]
) -> pa.Table:
    """A file of `negatives/`: a row per unit, with its pool and the verdict of every hit.

    The hits themselves stay in `hits/`; `read_verdicts` joins them.

    Args:
        units: U units.
        chosen: Their pools and verdicts.
        depths: int64 (U,) the depth that the dense hits of each were read at.
        wanted: int64 (U,) how many dense hits were asked for.
    """
    filled = chosen.ids_US >= 0
    offsets = pa.array(offsets_of(filled.sum(1)), pa.int64())

    def pooled(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
        return pa.LargeListArray.from_arrays(offsets, pa.array(values[filled], kind))

    return pa.table(
        {
            "unit_id": units.ids,
            "query_id": units.query_ids,
            "positive_score": units.positive_scores,
            "passage_ids": pooled(chosen.ids_US, pa.int32()),
            "ranks": pooled(chosen.ranks_US, pa.int32()),
            "scores": pooled(chosen.scores_US, pa.float32()),
            "depth": pa.array(depths, pa.int32()),
            "hits_wanted": pa.array(wanted, pa.int32()),
            "verdicts": pa.LargeListArray.from_arrays(
                pa.array(units.hits.hits.offsets), pa.array(chosen.verdicts_H, pa.uint8())
            ),
        }
    )
