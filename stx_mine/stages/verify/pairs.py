"""Verify packed batches of pairs, some at a time, from the shards and the tables beside them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stx_mine.core.groups import Groups
from stx_mine.stages.verify.batch_blocks import AllTexts, BatchBlock, ShardReader
from stx_mine.stages.verify.core.batch_ids import BatchIds
from stx_mine.stages.verify.core.batches import (
    SHOWN_TEXT,
    Broken,
    Violation,
    check_pair_batches,
    check_strict_batches,
    check_texts,
    in_order,
)
from stx_mine.stages.verify.core.sets import find_all
from stx_mine.store.avoided import AvoidedGroups, read_text_groups
from stx_mine.store.batches import (
    PASSAGE_LANGUAGES,
    SCORES,
    BatchShard,
    id_schema,
    ragged_column,
    ragged_scores,
    text_columns,
)
from stx_mine.store.columns import number_values

_SHOWN_ROWS, _SHOWN_IDS = 5, 5
_SOURCE = "source"


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
    avoided, groups = AvoidedGroups.open(folder), read_text_groups(folder)
    texts_path = packings[0][0].texts
    texts = None if texts_path is None else AllTexts.open(texts_path)
    for shards in packings:
        seen = [np.empty(0, np.int64)]
        for shard in shards:
            reader = _reader(shard)
            for block in reader.blocks():
                seen.append(block.table.column("row_id").to_numpy())
                yield from _Block(folder, reader, block, avoided, groups, texts).sentences()
        row_ids, counts = np.unique(np.concatenate(seen), return_counts=True)
        for row_id in row_ids[counts > 1]:
            yield f"{shards[0].path.parent.name}: row_id {row_id} is in the packing more than once"


def _reader(shard: BatchShard) -> ShardReader:
    present = pq.read_schema(shard.path).names
    others = [name for name in (_SOURCE, PASSAGE_LANGUAGES, SCORES) if name in present]
    texts = text_columns(shard.num_negatives) if shard.texts is None else []
    return ShardReader(shard, (*id_schema().names, *others), tuple(texts))


@dataclass(frozen=True)
class _Block:
    """Some batches of a shard, and what they are checked against.

    Attributes:
        folder: The folder of the batches.
        reader: Of the shard.
        block: The batches.
        avoided: What each anchor avoids.
        groups: The group of each text.
        texts: What ids stand for, where the shard holds no texts itself; else None.
    """

    folder: Path
    reader: ShardReader
    block: BatchBlock
    avoided: AvoidedGroups
    groups: Groups
    texts: AllTexts | None

    def sentences(self) -> Iterator[str]:
        """A sentence per violation, batch by batch."""
        for violation in in_order(list(self._checks()), self.reader.shard.batch_size):
            yield self._sentence(violation)

    @cached_property
    def ids(self) -> BatchIds:
        """The ids of all rows."""
        table = self.block.table
        anchors = table.column("anchor_id").to_numpy()
        return BatchIds(
            self.reader.shard.batch_size,
            anchors,
            table.column("positive_id").to_numpy(),
            ragged_column(table, "negative_ids"),
            ragged_column(table, "ignore_ids"),
            self.avoided.known,
            self.avoided.near,
            find_all(self.avoided.anchors, anchors),
            self.groups,
        )

    @cached_property
    def slot_ids(self) -> NDArray[np.int64]:
        """int64 (N, S): the id of each slot; -1 for none."""
        ids, num_negatives = self.ids, self.reader.shard.num_negatives
        negatives, _ = ids.negatives.take(np.arange(len(ids.anchors)), num_negatives)
        columns = (ids.anchors[:, None], ids.positives[:, None], negatives.padded(num_negatives))
        return np.concatenate(columns, axis=1)

    def _checks(self) -> Iterator[Broken]:
        shard, table = self.reader.shard, self.block.table
        yield from check_pair_batches(self.ids)
        if shard.policy == "strict":
            yield from check_strict_batches(self.ids, shard.num_negatives)
        if shard.sources:
            yield _check_sources(shard, table.column(_SOURCE))
        yield from self._check_slots()
        slots = 1 + self.ids.negatives.lengths()
        if PASSAGE_LANGUAGES in table.column_names:
            lengths = pc.list_value_length(table.column(PASSAGE_LANGUAGES)).to_numpy()
            what = f"{PASSAGE_LANGUAGES} is not one each for its positive and negatives"
            yield Broken.of(np.flatnonzero(lengths != slots), what)
        if shard.has_scores:
            offsets, scores = ragged_scores(table)
            wrong = np.diff(offsets) != slots
            # A judge has no score of some.
            number = np.isfinite(scores) | (np.isnan(scores) & (shard.judge is not None))
            wrong[np.repeat(np.arange(len(wrong)), np.diff(offsets))[~number]] = True
            what = "scores are no number each for its positive and negatives"
            yield Broken.of(np.flatnonzero(wrong), what)

    def _check_slots(self) -> Iterator[Broken]:
        """Texts stand where the ids say, and each text has one id."""
        size, k = self.reader.shard.batch_size, self.reader.shard.num_negatives
        lengths = self.ids.negatives.lengths()
        expected_NS = np.arange(-2, k)[None] < lengths[:, None]
        if self.texts is None:
            filled_NS, numbers_NS = self.block.filled_NS, self.block.numbers_NS
        else:
            filled_NS = self.texts.are_ids(self.slot_ids)
            numbers_NS = self.texts.of(self.slot_ids)
        # Of a batch the first slot that differs is named, by its first row.
        differ_PSB = (filled_NS != expected_NS).reshape(-1, size, 2 + k).transpose(0, 2, 1)
        batches = np.flatnonzero(differ_PSB.any((1, 2)))
        slots = differ_PSB[batches].any(2).argmax(1)
        rows = batches * size + differ_PSB[batches, slots].argmax(1)
        names = text_columns(k)

        def named(number: int) -> list[Violation]:
            what = f"{names[slots[number]]} does not fit the number of negative_ids"
            return [Violation(int(rows[number]), what, ())]

        yield Broken(rows, named)
        beyond = np.flatnonzero(lengths > k)
        yield Broken.of(beyond, f"negative_ids has more than the {k} columns of negatives")
        counted_N = ~np.repeat(differ_PSB.any((1, 2)), size)
        yield check_texts(self.slot_ids, numbers_NS, filled_NS & counted_N[:, None], size)

    def _sentence(self, violation: Violation) -> str:
        shard = self.reader.shard
        batch, row = divmod(violation.row, shard.batch_size)
        ids = [self._named(batch, one) for one in violation.ids[:_SHOWN_IDS]]
        more = len(violation.ids) - len(ids)
        ids += [f"{more:,} more"] if more else []
        concerned = f" (ids {', '.join(ids)})" if ids else ""
        return (
            f"{shard.path.relative_to(self.folder)} batch {self.block.first + batch} row {row}: "
            f"{violation.what}{concerned}; "
            f"anchor {self._text(violation.row, 0)[:SHOWN_TEXT]!r}"
        )

    def _named(self, batch: int, text_id: int) -> str:
        """An id, its text, and the rows of the batch that hold it."""
        size = self.reader.shard.batch_size
        slots, rows = np.nonzero(self.slot_ids[batch * size : (batch + 1) * size].T == text_id)
        if not len(rows):
            return str(text_id)
        text = ""
        for slot in np.unique(slots):
            last = int(rows[slots == slot][-1])
            text = text or self._text(batch * size + last, int(slot))
        shown = np.unique(rows).tolist()
        more = " ..." if len(shown) > _SHOWN_ROWS else ""
        places = ", ".join(map(str, shown[:_SHOWN_ROWS]))
        return f"{text_id} {text[:SHOWN_TEXT]!r} row {places}{more}"

    def _text(self, row: int, slot: int) -> str:
        if self.texts is not None:
            return self.texts.text(int(self.slot_ids[row, slot]))
        shard = self.reader.shard
        name = text_columns(shard.num_negatives)[slot]
        return self.reader.text(self.block.first * shard.batch_size + row, name)


def _check_sources(shard: BatchShard, column: pa.ChunkedArray) -> Broken:
    """A batch has one prompt per role: its rows are of sources that agree."""
    prompts = {source.name: source.prompts for source in shard.sources}
    numbers_N, distinct = number_values(column)
    names = [*distinct.to_pylist(), None]
    asked = [prompts.get(name) for name in names]
    # The last name is that of a row without one.
    kinds_N = np.array([-1 if one is None else asked.index(one) for one in asked])[numbers_N]
    firsts_N = np.repeat(np.arange(0, len(kinds_N), shard.batch_size), shard.batch_size)
    rows = np.flatnonzero((kinds_N < 0) | (kinds_N != kinds_N[firsts_N]))

    def named(number: int) -> list[Violation]:
        row = int(rows[number])
        name, first = names[numbers_N[row]], names[numbers_N[firsts_N[row]]]
        if kinds_N[row] < 0:
            return [Violation(row, f"its source {name!r} is not in the footer", ())]
        return [Violation(row, f"its source {name!r} has other prompts than {first!r}", ())]

    return Broken(rows, named)
