"""Verify: every checksum and invariant of packed batches, batch by batch, from the shards alone.

Rows that `pack` did not write are checked by `verify_rows`.
"""

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stx_mine.core.groups import Groups
from stx_mine.core.ragged import Ragged, offsets_of
from stx_mine.errors import ConfigError, InputError, ViolationError
from stx_mine.stages.verify.config import VerifyConfig
from stx_mine.stages.verify.core.batches import (
    BatchIds,
    Violation,
    check_batch,
    check_strict,
    check_texts,
)
from stx_mine.stages.verify.labels import check_label_packings
from stx_mine.stages.verify.rows import SHOWN_TEXT, verify_rows
from stx_mine.store.artifact import MANIFEST
from stx_mine.store.batches import (
    GROUPS,
    PASSAGE_LANGUAGES,
    POSITIVES,
    BatchShard,
    list_packings,
    ragged_column,
    ragged_scores,
    text_columns,
)
from stx_mine.store.columns import number_values
from stx_mine.store.digests import text_digests
from stx_mine.store.files import checksum, read_json
from stx_mine.store.report import StageReport
from stx_mine.store.run_dir import RunDir

_SHOWN_ROWS = 5


def run_verify(config: VerifyConfig) -> StageReport:
    """Check a folder of packed batches, or a file or folder of rows of others.

    Raises:
        InputError: There are neither packed batches nor rows.
        ConfigError: An option does not fit what is there.
        ViolationError: A checksum or an invariant does not hold; the first ones are named.
    """
    folder = (
        Path(config.directory) if config.directory else RunDir(config.run_dir).folder("batches")
    )
    if not folder.is_dir() and not (config.directory and folder.is_file()):
        raise InputError(f"expected a folder of packed batches at {folder}; run `stx-mine pack`")
    if not (folder / MANIFEST).exists() and not any(folder.glob("epoch-*")):
        return verify_rows(folder, config)
    _refuse_row_options(folder, config)
    listed = _listed_files(folder)
    found = list(islice(_check_files(folder, listed), config.max_violations))
    if not found:
        found = list(islice(_check_content(folder), config.max_violations))
    if found:
        more = " (the first ones)" if len(found) == config.max_violations else ""
        lines = "\n  ".join(found)
        raise ViolationError(f"{folder} breaks {len(found)} invariants{more}:\n  {lines}")
    packings = list_packings(folder)
    batches = sum(shard.num_batches for shard in chain(*packings))
    counts = {
        "packings": len(packings),
        "batches": batches,
        "rows": batches * packings[0][0].batch_size,
        "files": len(listed),
    }
    lines_ok = [
        f"{counts['batches']:,} batches ({counts['rows']:,} rows) in {counts['packings']} packings "
        "hold every invariant",
        f"{len(listed):,} checksums match" if listed else "no manifest.json: checksums not checked",
    ]
    return StageReport("verify", counts, tuple(lines_ok), folder=str(folder))


def _refuse_row_options(folder: Path, config: VerifyConfig) -> None:
    for name in ("batch_size", "anchor_column", "positive_column", "negative_column"):
        if getattr(config, name):
            raise ConfigError(
                f"--{name.replace('_', '-')} is for rows of others, {folder} holds batches of "
                "`stx-mine pack`, which say it themselves; leave it out"
            )


def _listed_files(folder: Path) -> list[dict[str, str]]:
    manifest = folder / MANIFEST
    return list(read_json(manifest)["files"]) if manifest.exists() else []


def _check_files(folder: Path, listed: list[dict[str, str]]) -> Iterator[str]:
    for one in listed:
        path = folder / one["file"]
        if not path.exists():
            yield f"{one['file']}: the file is missing"
        elif checksum(path) != one["xxh3_128"]:
            yield f"{one['file']}: its bytes have changed since it was packed (checksum)"


def _check_content(folder: Path) -> Iterator[str]:
    packings = list_packings(folder)
    sizes = {sum(shard.num_batches for shard in shards) for shards in packings}
    if len(sizes) > 1:
        yield f"packings differ in their number of batches: {sorted(sizes)}"
    if packings[0][0].texts_per_label is not None:
        yield from check_label_packings(folder, packings)
    else:
        yield from _check_pair_packings(folder, packings)


def _check_pair_packings(folder: Path, packings: list[list[BatchShard]]) -> Iterator[str]:
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
        """The known and the near positives."""
        path = folder / POSITIVES
        if not path.exists():
            raise InputError(f"expected {POSITIVES} in {folder}, found none; pack again")
        table = pq.read_table(path)
        anchors = table.column("anchor_id").to_numpy()
        known, near = (ragged_column(table, name) for name in ("positive_ids", "near_ids"))
        return cls(anchors, known), cls(anchors, near)

    def of(self, anchors: NDArray[np.int64]) -> Ragged:
        """Groups of each anchor; none for an unknown anchor."""
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
    """A batch has one prompt a role: its rows are of sources that agree."""
    prompts = {one.name: one.prompts for one in shard.sources}
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
