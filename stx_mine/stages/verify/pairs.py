"""Verify packed batches of pairs, batch by batch, from the shards and the tables beside them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stx_mine.core.groups import Groups
from stx_mine.core.ragged import Ragged, offsets_of
from stx_mine.errors import InputError
from stx_mine.stages.verify.core.batches import (
    SHOWN_TEXT,
    BatchIds,
    Violation,
    check_batch,
    check_strict,
    check_texts,
)
from stx_mine.store.batches import (
    GROUPS,
    PASSAGE_LANGUAGES,
    POSITIVES,
    BatchShard,
    ragged_column,
    ragged_scores,
    text_columns,
)
from stx_mine.store.columns import number_values
from stx_mine.store.digests import text_digests

_SHOWN_ROWS = 5


def check_pair_packings(folder: Path, packings: list[list[BatchShard]]) -> Iterator[str]:
    """Say what is wrong in batches of the layouts of pairs.

    Args:
        folder: The folder of the batches, with the tables that `pack` wrote beside them.
        packings: Shards of each packing.

    Yields:
        A sentence per violation, in the order of the batches.

    Raises:
        InputError: A table beside the shards is missing.
    """
    known, near = _ByAnchor.open(folder)
    groups = _groups(folder)
    for shards in packings:
        seen: list[NDArray[np.int64]] = []
        for shard in shards:
            for number in range(shard.num_batches):
                table = shard.batch(number)
                seen.append(table.column("row_id").to_numpy())
                for violation in _check_batch(shard, table, known, near, groups):
                    yield _sentence(folder, shard, number, table, violation)
        row_ids, counts = np.unique(np.concatenate(seen), return_counts=True)
        for row_id in row_ids[counts > 1]:
            yield f"{shards[0].path.parent.name}: row_id {row_id} is in the packing more than once"


class _ByAnchor:
    """Groups by anchor: of its known positives, or of its near ones."""

    def __init__(self, anchor_ids: NDArray[np.int64], groups: Ragged) -> None:
        self._order = np.argsort(anchor_ids)
        self._sorted = anchor_ids[self._order]
        self._groups = groups

    @classmethod
    def open(cls, folder: Path) -> "tuple[_ByAnchor, _ByAnchor]":
        """Read the known and the near positives.

        Raises:
            InputError: Their table is missing.
        """
        path = folder / POSITIVES
        if not path.exists():
            raise InputError(f"expected {POSITIVES} in {folder}, found none; pack again")
        table = pq.read_table(path)
        anchors = table.column("anchor_id").to_numpy()
        known, near = (ragged_column(table, name) for name in ("positive_ids", "near_ids"))
        return cls(anchors, known), cls(anchors, near)

    def of(self, anchors: NDArray[np.int64]) -> Ragged:
        """(B,) ragged: groups of each anchor, int64 (B,); none for an unknown anchor."""
        place = np.minimum(np.searchsorted(self._sorted, anchors), len(self._sorted) - 1)
        rows = [
            self._groups.row(self._order[at]) if self._sorted[at] == anchor else ()
            for at, anchor in zip(place, anchors, strict=True)
        ]
        offsets = offsets_of([len(row) for row in rows])
        return Ragged(offsets, np.concatenate([np.asarray(row, np.int64) for row in rows]))


def _groups(folder: Path) -> Groups:
    path = folder / GROUPS
    if not path.exists():
        raise InputError(f"expected {GROUPS} in {folder}, found none; pack again")
    table = pq.read_table(path)
    return Groups(table.column("text_id").to_numpy(), table.column("group").to_numpy())


def _check_batch(
    shard: BatchShard, table: pa.Table, known: _ByAnchor, near: _ByAnchor, groups: Groups
) -> Iterator[Violation]:
    anchors = table.column("anchor_id").to_numpy()
    batch = BatchIds(
        anchors,
        table.column("positive_id").to_numpy(),
        ragged_column(table, "negative_ids"),
        ragged_column(table, "ignore_ids"),
        known.of(anchors),
        near.of(anchors),
        groups,
    )
    yield from check_batch(batch)
    if shard.policy == "strict":
        yield from check_strict(batch, shard.num_negatives)
    yield from _check_sources(shard, table)
    yield from _check_slots(shard, table, batch)
    if PASSAGE_LANGUAGES in table.column_names:
        yield from _check_languages(table, batch)
    if shard.has_scores:
        yield from _check_scores(table, batch)


def _check_scores(table: pa.Table, batch: BatchIds) -> Iterator[Violation]:
    """A score for the positive and for each negative, all of them numbers."""
    offsets, scores = ragged_scores(table)
    wrong = np.diff(offsets) != 1 + batch.negatives.lengths()
    wrong[np.repeat(np.arange(len(wrong)), np.diff(offsets))[~np.isfinite(scores)]] = True
    for row in np.flatnonzero(wrong):
        yield Violation(int(row), "scores are no number each for its positive and negatives", ())


def _check_languages(table: pa.Table, batch: BatchIds) -> Iterator[Violation]:
    """A language, or null, for the positive and for each negative."""
    lengths = pc.list_value_length(table.column(PASSAGE_LANGUAGES)).to_numpy()
    for row in np.flatnonzero(lengths != 1 + batch.negatives.lengths()):
        what = f"{PASSAGE_LANGUAGES} is not one each for its positive and negatives"
        yield Violation(int(row), what, ())


def _check_sources(shard: BatchShard, table: pa.Table) -> Iterator[Violation]:
    """A batch has one prompt per role: its rows are of sources that agree."""
    prompts = {source.name: source.prompts for source in shard.sources}
    names = table.column("source").to_pylist() if prompts else []
    for row, name in enumerate(names):
        if name not in prompts:
            yield Violation(row, f"its source {name!r} is not in the footer", ())
        elif prompts[name] != prompts.get(names[0]):
            yield Violation(row, f"its source {name!r} has other prompts than {names[0]!r}", ())


def _check_slots(shard: BatchShard, table: pa.Table, batch: BatchIds) -> Iterator[Violation]:
    """Texts stand where the ids say, and each text has one id."""
    lengths = batch.negatives.lengths()
    rows, ids, digests = [], [], []
    columns = text_columns(shard.num_negatives)
    for slot, name in enumerate(columns):
        column = table.column(name)
        expected = lengths > slot - 2 if slot >= 2 else np.ones(len(lengths), bool)
        filled = pc.is_valid(column).to_numpy()
        for row in np.flatnonzero(filled != expected):
            yield Violation(int(row), f"{name} does not fit the number of negative_ids", ())
            return
        here = np.flatnonzero(filled)
        rows.append(here)
        if slot < 2:
            ids.append((batch.anchors, batch.positives)[slot])
        else:
            ids.append(batch.negatives.values[batch.negatives.offsets[here] + slot - 2])
        digests.append(text_digests(column.drop_null().combine_chunks()))
    texts, _ = number_values(pa.chunked_array(digests))
    yield from check_texts(np.concatenate(rows), np.concatenate(ids), texts)


def _sentence(
    folder: Path, shard: BatchShard, number: int, table: pa.Table, violation: Violation
) -> str:
    anchor = table.column("anchor")[violation.row].as_py() or ""
    ids = ", ".join(_named(shard, table, group) for group in violation.ids)
    return (
        f"{shard.path.relative_to(folder)} batch {number} row {violation.row}: "
        f"{violation.what}{f' (ids {ids})' if ids else ''}; anchor {anchor[:SHOWN_TEXT]!r}"
    )


def _named(shard: BatchShard, table: pa.Table, text_id: int) -> str:
    """An id, its text, and the rows of the batch that hold it."""
    negatives = ragged_column(table, "negative_ids")
    rows, text = [], ""
    for slot, name in enumerate(text_columns(shard.num_negatives)):
        if slot < 2:
            holders = np.flatnonzero(table.column(f"{name}_id").to_numpy() == text_id)
        else:
            filled = np.flatnonzero(negatives.lengths() > slot - 2)
            ids = negatives.values[negatives.offsets[filled] + slot - 2]
            holders = filled[ids == text_id]
        if len(holders):
            rows += holders.tolist()
            text = text or table.column(name)[rows[-1]].as_py() or ""
    if not rows:
        return str(text_id)
    shown = sorted(set(rows))
    more = " ..." if len(shown) > _SHOWN_ROWS else ""
    return f"{text_id} {text[:SHOWN_TEXT]!r} row {', '.join(map(str, shown[:_SHOWN_ROWS]))}{more}"
