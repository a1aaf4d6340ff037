"""The pairs that are judged now, and what is known of them from before."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.errors import ArtifactError
from stx_mine.stages.judge.config import JudgeConfig
from stx_mine.stages.judge.doubt import DoubtfulPairs
from stx_mine.stages.judge.judge import PairScores, Usage, starts_of_queries
from stx_mine.store.artifact import MANIFEST, PLAN, read_manifest
from stx_mine.store.columns import find_rows
from stx_mine.store.files import checksum, json_or_empty, read_table, write_table
from stx_mine.store.judgements import JUDGEMENTS, SCHEMA, digest_of_pairs, sorted_judgements
from stx_mine.store.places import beside
from stx_mine.store.run_dir import RunDir

# What lies in the folder until its judgements are finished; `Kind.scratch` names all of it.
ASKED, KNOWN = "asked.arrow", "known.arrow"
_TASK = "scores-{:05d}-of-{}.arrow"
# Settings of the plan that say what was asked for and where it stood, not who judged.
PAIR_SET, ANSWERS, ASKED_AGAIN = "pairs", "answers", "asked_again"


@dataclass(frozen=True)
class AskedPairs:
    """Pairs to judge, by rising digests, in tasks of whole queries.

    Attributes:
        table: Columns `pair`, `query_id`, `passage_id`, `is_random`.
        task_pairs: Pairs a task, about.
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

    @cached_property
    def _bounds(self) -> NDArray[np.int64]:
        """int64 (tasks + 1,): where tasks begin, at the first pair of a query."""
        rows = self.table.num_rows
        queries = starts_of_queries(self.query_ids)
        wanted = np.arange(0, rows, self.task_pairs)
        return np.unique(np.append(queries[np.searchsorted(queries, wanted)], rows))

    @cached_property
    def tasks(self) -> dict[str, slice]:
        """The rows of each task, by the name of its file of scores."""
        number = len(self._bounds) - 1
        return {
            _TASK.format(task, number): slice(int(first), int(last))
            for task, (first, last) in enumerate(pairwise(self._bounds))
        }

    def unjudged(self) -> pa.Table:
        """The pairs as judgements without a score."""
        scores = pa.nulls(self.table.num_rows, pa.float32())
        return pa.table([self.table["pair"], scores, self.table["is_random"]], schema=SCHEMA)

    def remove_damaged(self, folder: Path) -> None:
        """Remove files of scores that are not those of their task, so that they are made anew."""
        for task in self.tasks:
            if (folder / task).exists() and self._scores(folder, task) is None:
                (folder / task).unlink()

    def _scores(self, folder: Path, task: str) -> PairScores | None:
        """The scores of a task; None where there are none of it."""
        rows = self.tasks[task]
        with suppress(OSError, ValueError, TypeError):
            found = PairScores.read(folder / task)
            if len(found.scores) == rows.stop - rows.start:
                return found
        return None

    def judged(self, folder: Path) -> tuple[pa.Table, Usage]:
        """The judgements of the tasks that are finished, those without a score left out."""
        parts, usage = [SCHEMA.empty_table()], Usage()
        for task, rows in self.tasks.items():
            found = self._scores(folder, task)
            if found is None:
                continue
            some = self.table.slice(rows.start, rows.stop - rows.start)
            columns = [some["pair"], pa.array(found.scores), some["is_random"]]
            table = pa.table(columns, schema=SCHEMA)
            parts.append(table.filter(pa.array(np.isfinite(found.scores))))
            usage += found.usage
        return pa.concat_tables(parts), usage


def known_of_run(
    config: JudgeConfig, run: RunDir, contract: dict[str, Any], pairs: pa.Array
) -> pa.Table:
    """What the judge has said before: here, and of these pairs in the other rounds of the run.

    Args:
        config: The config.
        run: The run, or a round of it.
        contract: What decides the scores of the judge.
        pairs: Binary (N,) digests of the pairs that are wanted.
    """
    name, first = config.judge_name, run.first_round
    parts = [known_judgements(run.folder("judgements", name), contract, config.overwrite)]
    for place in (first.path, *sorted((first.path / "rounds").glob("*"))):
        if place.absolute() != run.path.absolute():
            found = known_judgements(RunDir(place).folder("judgements", name), contract, True)
            parts.append(found.filter(pc.is_in(found["pair"], pairs)))
    return sorted_judgements(pa.concat_tables(parts))


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
    return {
        name: value
        for name, value in fields.items()
        if name not in (PAIR_SET, ANSWERS, ASKED_AGAIN)
    }


def asked_for(
    config: JudgeConfig, union: pa.Table, num_known: int, earlier: dict[str, Any]
) -> dict[str, Any]:
    """What is asked for, and where answers stand: what does not decide who judges.

    Args:
        config: The config.
        union: All pairs that are known or wanted.
        num_known: How many are known.
        earlier: The settings of judgements that are there.
    """
    found: dict[str, Any] = {PAIR_SET: digest_of_pairs(union["pair"].combine_chunks())}
    if config.import_answers is not None:
        found[ANSWERS] = checksum(Path(config.import_answers))
    if config.overwrite and num_known < union.num_rows:
        # Pairs that got no score before are asked about again.
        found[ASKED_AGAIN] = num_known
    elif earlier.get(PAIR_SET) == found[PAIR_SET] and ASKED_AGAIN in earlier:
        found[ASKED_AGAIN] = earlier[ASKED_AGAIN]
    return found


def _begun(folder: Path) -> Iterator[pa.Table]:
    """The judgements in an unfinished folder; what cannot be read is judged anew."""
    with suppress(OSError, ValueError, KeyError):
        if (folder / KNOWN).exists():
            yield read_table(folder / KNOWN).cast(SCHEMA)
        if (folder / ASKED).exists():
            yield AskedPairs.open(folder).judged(folder)[0]


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
