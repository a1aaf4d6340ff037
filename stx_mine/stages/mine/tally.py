"""Counts of a selection, block by block."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.verdicts import RULES, Verdict
from stx_mine.stages.mine.core.select import Selection
from stx_mine.stages.mine.counts import NO_POOL, MineCounts
from stx_mine.stages.mine.judges import JudgeControl
from stx_mine.stages.mine.selector import Selector, Units
from stx_mine.store.hits import HitBlock, HitSource

_JUDGED = (Verdict.JUDGED_POSITIVE, Verdict.JUDGED_CLOSE)


@dataclass
class Tally:
    """Counts over blocks.

    Attributes:
        k: Negatives of a full row.
        slots: Slots of a pool.
        drop_short: Whether pairs with fewer than k negatives are dropped.
        relabels: Whether what is judged no worse than the positive becomes a positive.
    """

    k: int
    slots: int
    drop_short: bool
    relabels: bool = False
    _verdicts: NDArray[np.int64] = field(init=False)
    _rows: NDArray[np.int64] = field(init=False)
    _untrusted: list[NDArray[np.int64]] = field(init=False, default_factory=list)
    _judged_wrong: list[NDArray[np.int64]] = field(init=False, default_factory=list)
    _judged: dict[Verdict, list[NDArray[np.int64]]] = field(init=False, default_factory=dict)
    _duplicate: list[NDArray[np.int64]] = field(init=False, default_factory=list)
    _short: list[NDArray[np.int64]] = field(init=False, default_factory=list)
    _suspect: int = field(init=False, default=0)
    _known: NDArray[np.int64] = field(init=False)
    _known_without_pool: int = field(init=False, default=0)
    _known_above_positive: int = field(init=False, default=0)
    _to_deepen: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._verdicts = np.zeros(len(Verdict), np.int64)
        self._known = np.zeros(len(Verdict), np.int64)
        self._rows = np.zeros(self.slots + 1, np.int64)
        self._judged = {one: [] for one in _JUDGED}

    @classmethod
    def begin(cls, selector: Selector) -> "Tally":
        """Counts of what a selector decides, from zero."""
        config, judges = selector.config, selector.judges
        relabels = judges is not None and judges.judged == "relabel"
        return cls(config.k, selector.slots, config.short_rows == "drop", relabels)

    def add(
        self, units: Units, chosen: Selection, found: HitBlock, gains: NDArray[np.bool_]
    ) -> None:
        """Count the verdicts of a block, and how many negatives its pairs have.

        Args:
            units: The U units of the block.
            chosen: Their pools and verdicts.
            found: The hits of all queries of the block, with or without a unit.
            gains: bool (U,) units that would gain from a deeper search.
        """
        self._add_known(units, chosen, found)
        self._to_deepen += len(np.unique(units.query_ids[gains]))
        self._verdicts += np.bincount(chosen.verdicts_H, minlength=len(Verdict))
        self._suspect += units.num_suspect
        self._untrusted.append(units.left_out)
        self._duplicate.append(units.dropped)
        self._judged_wrong.append(units.judged_wrong)
        of_units = chosen.sizes()
        sizes = np.repeat(of_units, units.pairs.lengths())
        if self.drop_short:
            self._short.append(units.pairs.values[sizes < self.k])
        owners = self._add_judged(units, chosen)
        if self.relabels:
            sizes = np.concatenate([sizes, of_units[owners]])
        if self.drop_short:
            sizes = sizes[sizes >= self.k]
        self._rows += np.bincount(sizes, minlength=self.slots + 1)

    def _add_judged(self, units: Units, chosen: Selection) -> NDArray[np.int64]:
        """Collect what is judged no worse than the positive, and whether its row is too short.

        Returns:
            int64: the unit of each that is judged a positive.
        """
        owners = np.repeat(np.arange(len(units.ids)), units.hits.hits.lengths())
        short = chosen.sizes() < self.k
        for verdict, parts in self._judged.items():
            rows = np.flatnonzero(chosen.verdicts_H == verdict)
            units_of = owners[rows]
            judged = units.query_ids[units_of], units.hits.hits.values[rows], short[units_of]
            parts.append(np.stack(judged).astype(np.int64))
        of_positives: NDArray[np.int64] = owners[chosen.verdicts_H == Verdict.JUDGED_POSITIVE]
        return of_positives

    def _add_known(self, units: Units, chosen: Selection, found: HitBlock) -> None:
        """Count what became of the known negatives."""
        known = (units.hits.sources & HitSource.KNOWN) > 0
        self._known += np.bincount(chosen.verdicts_H[known], minlength=len(Verdict))
        lengths = units.hits.hits.lengths()
        above = units.hits.scores > np.repeat(units.positive_scores, lengths)
        pooled = chosen.verdicts_H == Verdict.POOLED
        self._known_above_positive += int((known & pooled & above).sum())
        rows = np.repeat(found.query_ids, found.hits.lengths())
        without = ~np.isin(rows, units.query_ids)
        self._known_without_pool += int((without & ((found.sources & HitSource.KNOWN) > 0)).sum())

    def merge(self, other: "Tally") -> None:
        """Take over the counts of other blocks."""
        self._verdicts += other._verdicts
        self._rows += other._rows
        self._untrusted += other._untrusted
        self._duplicate += other._duplicate
        self._judged_wrong += other._judged_wrong
        for verdict, parts in other._judged.items():
            self._judged[verdict] += parts
        self._short += other._short
        self._suspect += other._suspect
        self._known += other._known
        self._known_without_pool += other._known_without_pool
        self._known_above_positive += other._known_above_positive
        self._to_deepen += other._to_deepen

    def dropped_pairs(self, num_pairs: int) -> NDArray[np.int64]:
        """Numbers of the pairs that are no rows to train on, rising.

        Args:
            num_pairs: Pairs of the run; those that were made by judges follow them.
        """
        parts = [np.empty(0, np.int64), *self._untrusted, *self._duplicate, *self._short]
        return np.sort(np.concatenate([*parts, *self._judged_wrong, self._short_made(num_pairs)]))

    def _short_made(self, num_pairs: int = 0) -> NDArray[np.int64]:
        if not (self.relabels and self.drop_short):
            return np.empty(0, np.int64)
        return num_pairs + np.flatnonzero(self._judged_rows(Verdict.JUDGED_POSITIVE)[2])

    def _judged_rows(self, verdict: Verdict) -> NDArray[np.int64]:
        """int64 (3, N): query, passage and whether the row is short, by rising ids, distinct."""
        found = np.concatenate([np.empty((3, 0), np.int64), *self._judged[verdict]], axis=1)
        return np.unique(found, axis=1)

    def judged(self, verdict: Verdict) -> NDArray[np.int64]:
        """int64 (2, N): query and passage of what judges decided, by rising ids, distinct."""
        return self._judged_rows(verdict)[:2]

    def counts(
        self,
        control: JudgeControl,
        queries_deepened: int = 0,
        unknown_languages: dict[str, int] | None = None,
    ) -> MineCounts:
        """What was counted so far, with what only the caller knows."""
        dropped = {
            "positive_percentile": sum(len(pairs) for pairs in self._untrusted),
            "dedup": sum(len(pairs) for pairs in self._duplicate),
            "judged_wrong": sum(len(pairs) for pairs in self._judged_wrong),
            "short": sum(len(pairs) for pairs in self._short) + len(self._short_made()),
        }
        made = self.judged(Verdict.JUDGED_POSITIVE).shape[1] if self.relabels else 0
        rows = int(self._rows.sum())
        return MineCounts(
            hits_in=int(self._verdicts.sum()),
            pooled=int(self._verdicts[Verdict.POOLED]),
            dropped=_dropped(self._verdicts),
            known_in=int(self._known.sum()) + self._known_without_pool,
            known_pooled=int(self._known[Verdict.POOLED]),
            known_dropped=_dropped(self._known) | {NO_POOL: self._known_without_pool},
            known_above_positive=self._known_above_positive,
            pairs_in=rows + sum(dropped.values()) - made,
            pairs_made=made,
            random_judged=control.random,
            random_judged_positive=control.above,
            pairs_dropped=dropped,
            pairs_suspect=self._suspect,
            rows=rows,
            rows_full=int(self._rows[max(self.k, 1) :].sum()),
            rows_ragged=int(self._rows[1 : self.k].sum()),
            rows_empty=int(self._rows[0]),
            queries_deepened=queries_deepened,
            queries_to_deepen=self._to_deepen,
            unknown_languages=unknown_languages or {},
        )


def _dropped(counts: NDArray[np.int64]) -> dict[str, int]:
    """The count of each verdict but the one of what is kept, by its name."""
    return {one.name.lower(): int(counts[one]) for one in RULES if one != Verdict.POOLED}
