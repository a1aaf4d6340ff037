"""A sample of queries that is searched: all pairs known, and some positives hidden."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.random import mix_rows
from stx_mine.search.score import product_scores
from stx_mine.stages.audit.curve import HIDDEN, hidden_truth
from stx_mine.stages.audit.hidden import HiddenPositives
from stx_mine.stages.audit.outcomes import Outcome, OutcomePart, RowNegatives, Truth, outcome_of
from stx_mine.stages.calibrate.config import CalibrateConfig
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.core.opinions import Opinion
from stx_mine.stages.mine.core.select import HitMarks
from stx_mine.stages.mine.judges import Beside
from stx_mine.stages.mine.search_task import BlockSearcher
from stx_mine.stages.mine.selector import Selector, Units
from stx_mine.store.artifact import Manifest
from stx_mine.store.groups import TextGroups
from stx_mine.store.judgements import StoredJudgements
from stx_mine.store.texts import TextStore
from stx_mine.store.vectors import Vectors

JUDGED = "judged"
_RANDOM = 128


@dataclass(frozen=True)
class SearchedQueries:
    """Queries with their hits.

    Attributes:
        selector: What selects for them, by any thresholds.
        units: Of the queries.
        truths: What tells false negatives of them, by the name of who knows.
    """

    selector: Selector
    units: Units
    truths: Mapping[str, Truth]
    _marks: dict[float | None, HitMarks] = field(default_factory=dict)

    def outcome(self, config: MineConfig) -> Outcome:
        """What other thresholds give."""
        selector = replace(self.selector, config=config)
        # What lies close to the positive is the same whatever the margin and the window are.
        if config.closeness not in self._marks:
            self._marks[config.closeness] = selector.marks(self.units)
        marks = self._marks[config.closeness]
        part = OutcomePart.of(selector, self.units, self.truths, marks=marks)
        return outcome_of([part], config.k)


@dataclass(frozen=True)
class SampledQueries:
    """The queries of a calibration.

    Attributes:
        drawn: Queries that say how many rows are full and how hard their negatives are.
        several: Queries with several positives, some of which are hidden; None where none has.
        hidden: What is hidden of these.
    """

    drawn: SearchedQueries
    several: SearchedQueries | None
    hidden: HiddenPositives

    @classmethod
    def search(
        cls,
        config: CalibrateConfig,
        store: TextStore,
        groups: TextGroups,
        embeddings: Manifest,
        judgements: StoredJudgements | None,
    ) -> "SampledQueries":
        """Draw queries and search for each what `mine` would.

        Args:
            config: The config.
            store: Texts and pairs.
            groups: The group of every text.
            embeddings: The vectors.
            judgements: Of a judge that tells false negatives, if there is one.
        """
        queries, passages = (Vectors.open(embeddings, one) for one in ("queries", "passages"))
        base = MineConfig(
            k=config.k,
            depth=config.depth,
            search="exact",
            device=config.device,
            passage_block=config.passage_block,
            run_dir=config.run_dir,
            relative_margin=None,
        )
        whole = Selector(base, store, groups, queries, passages, groups.forbidden(store))
        hidden = HiddenPositives.draw(store, groups, config.hide, config.seed, config.queries)
        without = Selector(
            base,
            hidden.store,
            hidden.groups,
            queries,
            passages,
            hidden.forbidden,
            labelled=whole.is_labelled,
        )
        drawn = _drawn(np.unique(store.pair_query_ids), config.queries, config.seed)
        both = np.union1d(drawn, hidden.query_ids)
        searcher = BlockSearcher(base, embeddings.folder.absolute(), None, embeddings.folder)
        found = searcher.search(both, _wanted(whole)[both])

        def searched(
            selector: Selector, query_ids: NDArray[np.int64], truths: Mapping[str, Truth]
        ) -> SearchedQueries:
            # As deep as mine would search that knows no other positives.
            rows, wanted = np.searchsorted(both, query_ids), _wanted(selector)[query_ids]
            return SearchedQueries(selector, selector.units(found.take(rows, wanted)), truths)

        several = None
        if len(hidden.keys):
            several = searched(without, hidden.query_ids, {HIDDEN: hidden_truth(hidden)})
        judged = {JUDGED: _judged_truth(judgements)} if judgements else {}
        return cls(searched(whole, drawn, judged), several, hidden)

    def outcome(self, config: MineConfig) -> Outcome:
        """What settings give: rows and hardness of the sample, and what is false where known."""
        found = self.drawn.outcome(config)
        if self.several is None:
            return found
        false = self.several.outcome(config).false
        return replace(found, false={**false, **found.false})

    @cached_property
    def random_score(self) -> float:
        """Mean score of random passages."""
        selector, units = self.drawn.selector, self.drawn.units
        rng = np.random.default_rng(selector.config.seed)
        size = min(_RANDOM, len(selector.passages))
        passages = selector.passages.take(rng.choice(len(selector.passages), size, replace=False))
        queries = selector.queries.take(units.query_ids)
        return float(product_scores(queries, passages, selector.queries.similarity).mean())


def _judged_truth(judgements: StoredJudgements) -> Truth:
    """What a judge tells: of what it has judged beside a positive."""

    def truth(
        selector: Selector, units: Units, negatives: RowNegatives
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        beside = Beside(
            selector.store, units.query_ids, units.pairs, negatives.units, negatives.passage_ids
        )
        opinions = beside.opinions(judgements, selector.config.judged_margin)
        return opinions == Opinion.BETTER, opinions != Opinion.NONE

    return truth


def _drawn(query_ids: NDArray[np.int64], number: int, seed: int) -> NDArray[np.int64]:
    """Some queries by chance, rising."""
    order = np.argsort(mix_rows(seed, query_ids, query_ids), kind="stable")
    return np.sort(query_ids[order[:number]])


def _wanted(selector: Selector) -> NDArray[np.int64]:
    """int64 (num queries,): hits that leave enough candidates beyond what is forbidden."""
    wasted = selector.groups.num_forbidden_passages(selector.forbidden)
    return np.minimum(selector.config.depth + wasted, len(selector.passages))
