"""The pairs that are judged now, and what is known of them from before."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.errors import ArtifactError
from stx_mine.stages.judge.doubt import DoubtfulPairs
from stx_mine.store.artifact import MANIFEST, PLAN, read_manifest
from stx_mine.store.columns import find_rows
from stx_mine.store.files import json_or_empty, read_array, read_table, write_table
from stx_mine.store.judgements import JUDGEMENTS, SCHEMA, sorted_judgements
from stx_mine.store.places import beside

# What lies in the folder until its judgements are finished; `Kind.scratch` names all of it.
ASKED, KNOWN = "asked.arrow", "known.arrow"
_TASK = "scores-{:05d}-of-{}.npy"
# Settings of the plan that say which pairs were asked for, not who judged them.
PAIR_SET = "pairs"


@dataclass(frozen=True)
class AskedPairs:
    """Pairs to judge, by rising digests, in tasks of equal size.

    Attributes:
        table: Columns `pair`, `query_id`, `passage_id`, `is_random`.
        task_pairs: Pairs a task.
    """

    table: pa.Table
    task_pairs: int

    @classmethod
    def open(cls, folder: Path) -> "AskedPairs":
        """Read what `write` left."""
        table = read_table(folder / ASKED)
        return cls(table, int(table.schema.metadata[b"task_pairs"]))

    def write(self, folder: Path) -> None:
        """Leave them where tasks find them."""
        metadata = {"task_pairs": str(self.task_pairs)}
        write_table(folder / ASKED, self.table.replace_schema_metadata(metadata))

    @cached_property
    def query_ids(self) -> NDArray[np.int64]:
        """int64 (N,)."""
        return np.asarray(self.table.column("query_id"))

    @cached_property
    def passage_ids(self) -> NDArray[np.int64]:
        """int64 (N,)."""
        return np.asarray(self.table.column("passage_id"))

    def take(self, number: int) -> "AskedPairs":
        """The first ones: a sample, as digests are in no order of meaning."""
        return AskedPairs(self.table.slice(0, number), self.task_pairs)

    @property
    def tasks(self) -> list[str]:
        """A file of scores a task."""
        number = -(-self.table.num_rows // self.task_pairs)
        return [_TASK.format(task, number) for task in range(number)]

    def rows_of(self, task: str) -> slice:
        """The rows of a task."""
        first = self.tasks.index(task) * self.task_pairs
        return slice(first, min(first + self.task_pairs, self.table.num_rows))

    def unjudged(self) -> pa.Table:
        """The pairs as judgements without a score."""
        scores = pa.nulls(self.table.num_rows, pa.float32())
        return pa.table([self.table["pair"], scores, self.table["is_random"]], schema=SCHEMA)

    def remove_damaged(self, folder: Path) -> None:
        """Remove files of scores that are not those of their task, so that they are made anew."""
        for task in self.tasks:
            if (folder / task).exists() and self._scores(folder, task) is None:
                (folder / task).unlink()

    def _scores(self, folder: Path, task: str) -> NDArray[np.float32] | None:
        """The scores of a task; None where there are none of it."""
        rows = self.rows_of(task)
        try:
            found = read_array(folder / task)
        except (OSError, ValueError):
            return None
        fits = found.shape == (rows.stop - rows.start,) and found.dtype == np.float32
        return found if fits else None

    def judged(self, folder: Path) -> pa.Table:
        """The judgements of the tasks that are finished; those without a score are left out."""
        parts = [SCHEMA.empty_table()]
        for task in self.tasks:
            scores = self._scores(folder, task)
            if scores is None:
                continue
            rows = self.rows_of(task)
            some = self.table.slice(rows.start, rows.stop - rows.start)
            found = pa.table([some["pair"], pa.array(scores), some["is_random"]], schema=SCHEMA)
            parts.append(found.filter(pa.array(np.isfinite(scores))))
        return pa.concat_tables(parts)


def known_judgements(place: Path, contract: dict[str, Any], renews: bool) -> pa.Table:
    """What a judge has said before: what is finished, and what a killed command left.

    Args:
        place: Where its judgements lie, if there are any.
        contract: What decides its scores.
        renews: Whether judgements that are damaged are left out.

    Returns:
        By rising digests, a row a pair.

    Raises:
        DamagedError: Finished judgements are damaged.
    """
    parts = [SCHEMA.empty_table()]
    for folder in (place, beside(place)):
        if of_judge(json_or_empty(folder / PLAN).get("fields")) != contract:
            continue
        if not (folder / MANIFEST).exists():
            parts += _begun(folder)
            continue
        try:
            manifest = read_manifest(folder)
            manifest.refuse_damage()
            parts.append(manifest.table(JUDGEMENTS).cast(SCHEMA))
        except ArtifactError:
            if not renews:
                raise
    return sorted_judgements(pa.concat_tables(parts))


def of_judge(fields: object) -> dict[str, Any] | None:
    """What decides scores, of the settings of a plan; None where there are none."""
    if not isinstance(fields, dict):
        return None
    return {name: value for name, value in fields.items() if name != PAIR_SET}


def _begun(folder: Path) -> Iterator[pa.Table]:
    """The judgements in an unfinished folder; what cannot be read is judged anew."""
    with suppress(OSError, ValueError, KeyError):
        if (folder / KNOWN).exists():
            yield read_table(folder / KNOWN).cast(SCHEMA)
        if (folder / ASKED).exists():
            yield AskedPairs.open(folder).judged(folder)


def ask(pairs: pa.Array, wanted: DoubtfulPairs, known: pa.Table, task_pairs: int) -> AskedPairs:
    """The pairs that are not judged yet.

    Args:
        pairs: Binary (N,) digests of all pairs that are wanted.
        wanted: The same pairs.
        known: Judgements that are there.
        task_pairs: Pairs a task.
    """
    table = pa.table(
        {
            "pair": pairs,
            "query_id": wanted.query_ids,
            "passage_id": wanted.passage_ids,
            "is_random": pa.array(wanted.is_random),
        }
    )
    lacking = find_rows(pairs, known["pair"].combine_chunks()) < 0
    return AskedPairs(table.filter(pa.array(lacking)).sort_by("pair"), task_pairs)
