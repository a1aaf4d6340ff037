"""What `pack --layout labels` counts."""

from dataclasses import dataclass
from typing import Any

from stx_mine.store.counts import Counts


@dataclass(frozen=True, kw_only=True)
class LabelCounts(Counts):
    """Counts of packed (text, label) rows.

    Attributes:
        rows_in: Rows of the file, or of the labels that pairs make.
        rows_kept: Rows that may be packed.
        rows_dropped: Reason -> the other rows.
        contradictory_texts: Texts under several labels, which are dropped under all of them.
        labels_dropped: Labels with fewer than two texts left.
        labels: Labels that may be packed.
        texts: Their distinct texts.
        texts_a_label: The fewest texts of a label, the median, the most.
        rows_packed: Rows in each packing.
        rows_left_out: Reason -> kept rows that are not in a packing.
        batches: Batches of each packing.
        batches_bound: Batches that there can be at most.
        batch_size_of_enough_steps: The largest batch size that makes an epoch long enough.
        packings: Different packings.
        steps: Optimizer steps of all packings.
        labels_of_first_batch: Labels of the first batch.
        pairs: Pairs of the run, where they make the labels.
        pairs_dropped: Those that `dedup` dropped, beside them.
    """

    rows_in: int
    rows_kept: int
    rows_dropped: dict[str, int]
    contradictory_texts: int
    labels_dropped: int
    labels: int
    texts: int
    texts_a_label: list[int]
    rows_packed: int
    rows_left_out: dict[str, int]
    batches: int
    batches_bound: int
    batch_size_of_enough_steps: int
    packings: int
    steps: int
    labels_of_first_batch: int
    pairs: int | None = None
    pairs_dropped: int | None = None

    def __post_init__(self) -> None:
        assert self.rows_in == self.rows_kept + sum(self.rows_dropped.values())
        assert self.rows_kept == self.rows_packed + sum(self.rows_left_out.values())

    def to_json(self) -> dict[str, Any]:
        """As a manifest holds them; pairs only where they make the labels."""
        return {name: value for name, value in super().to_json().items() if value is not None}
