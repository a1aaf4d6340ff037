"""The two runs of a comparison: opened, and their texts and pairs matched by content."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.core.forbidden import positive_groups
from stx_mine.core.ragged import Ragged
from stx_mine.errors import ArtifactError, InputError
from stx_mine.stages.diff.counts import SharedCounts
from stx_mine.store.artifact import Manifest, require
from stx_mine.store.columns import number_values
from stx_mine.store.digests import DIGEST, normalise, text_digests
from stx_mine.store.groups import TextGroups
from stx_mine.store.negatives import StoredVerdicts, rows_of, with_judged
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore


@dataclass(frozen=True)
class Side:
    """One of the two runs.

    Attributes:
        path: The run directory.
        texts: Manifest of its texts.
        negatives: Manifest of its negatives.
        store: Its texts and pairs.
        groups: Their groups.
        units: Its pools and verdicts.
    """

    path: Path
    texts: Manifest
    negatives: Manifest
    store: TextStore
    groups: TextGroups
    units: StoredVerdicts

    @classmethod
    def open(cls, path: str, check: str) -> "Side":
        """Open a run that was mined.

        Args:
            path: The run directory.
            check: Whether checksums are computed that were found right before (full).

        Raises:
            ArtifactError: There is no such directory, or its negatives are missing, unfinished or
                stale.
        """
        run = RunDir(path, check)
        run.refuse_missing()
        negatives, texts = require(run, "negatives"), require(run, "texts")
        groups = TextGroups.open(require(run, "groups"))
        store = with_judged(TextStore.open(texts), negatives)
        return cls(run.path, texts, negatives, store, groups, StoredVerdicts(negatives))

    def refuse_changed(self) -> None:
        """Refuse what was read while `mine` replaced it: no lock keeps it from that.

        Raises:
            ArtifactError: The negatives are others than when the run was opened.
        """
        if require(RunDir(self.path), "negatives").digest != self.negatives.digest:
            raise ArtifactError(
                f"{self.negatives.folder}/ was made anew while it was read; run `stx-mine diff` "
                "again when `stx-mine mine` is done"
            )

    @property
    def k(self) -> int:
        """Negatives of a full row."""
        return int(self.negatives.extra["k"])

    @property
    def model(self) -> str:
        """What made the embeddings, as it was named: a model, a function or files of vectors."""
        return str(require(RunDir(self.path), "embeddings").extra["miner"])

    @cached_property
    def is_row(self) -> NDArray[np.bool_]:
        """Bool (num pairs,): whether mine kept the pair as a row to train on."""
        kept = np.zeros(self.store.num_pairs, bool)
        kept[rows_of(self.negatives, self.store.num_pairs)] = True
        return kept

    @cached_property
    def positives(self) -> Ragged:
        """(num queries,) groups of the positives of each query."""
        store = self.store
        return positive_groups(
            store.pair_query_ids, store.pair_passage_ids, self.groups.passages, store.num_queries
        )

    def units_of(self, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64: the unit whose pool each pair has."""
        return pairs if self.negatives.extra["per_pair"] else self.store.pair_query_ids[pairs]

    def queries_named(self, name: str) -> NDArray[np.int64]:
        """Ids of the queries of this text, or of this original id."""
        wanted = normalise(pa.array([name]))[0]
        texts = self.store.queries.column("text").chunks
        same = [pc.equal(normalise(chunk), wanted) for chunk in texts]
        same_id = pc.fill_null(pc.equal(self.store.queries.column("original_id"), name), False)
        named = pc.or_(
            pa.chunked_array(same, pa.bool_()).combine_chunks(), same_id.combine_chunks()
        )
        return np.flatnonzero(named.to_numpy(zero_copy_only=False))

    def settings(self) -> dict[str, dict[str, Any]]:
        """Artifact -> field -> value, of the negatives and all that they were made from."""
        settings: dict[str, dict[str, Any]] = {}
        self._add_settings("negatives", settings)
        return settings

    def _add_settings(self, name: str, settings: dict[str, dict[str, Any]]) -> None:
        part, _, subfolder = name.partition("/")
        manifest = require(RunDir(self.path), part, subfolder or None)
        for input_name in manifest.content["inputs"]:
            if input_name not in settings:
                self._add_settings(input_name, settings)
        settings[name] = dict(_flat(manifest.fields))


def _flat(fields: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Fields of fields as `outer.inner`."""
    flat = []
    for name, value in fields.items():
        inner = isinstance(value, dict) and value
        flat += _flat(value, f"{prefix}{name}.") if inner else [(prefix + name, value)]
    return flat


@dataclass(frozen=True)
class Common:
    """One numbering of the texts of a role in both runs, or of their pairs.

    Attributes:
        of_a: int64: the number of each text of A, by its id.
        of_b: int64: the same for B.
        size: Numbers there are.
    """

    of_a: NDArray[np.int64]
    of_b: NDArray[np.int64]
    size: int

    @classmethod
    def of(cls, texts_a: pa.ChunkedArray, texts_b: pa.ChunkedArray, same: bool) -> "Common":
        """Number texts by the 128-bit digest of their normalised form.

        Args:
            texts_a: Distinct texts of A, by id.
            texts_b: Distinct texts of B.
            same: Whether both are known to be the same list.
        """
        if same:
            ids = np.arange(len(texts_a))
            return cls(ids, ids, len(ids))
        digests = [text_digests(chunk) for texts in (texts_a, texts_b) for chunk in texts.chunks]
        numbers, distinct = number_values(pa.chunked_array(digests, DIGEST))
        return cls(numbers[: len(texts_a)], numbers[len(texts_a) :], len(distinct))

    @cached_property
    def ids_a(self) -> NDArray[np.int64]:
        """int64 (size,): the id of each number in A; -1 where A has no such text."""
        return self._ids(self.of_a)

    @cached_property
    def ids_b(self) -> NDArray[np.int64]:
        """int64 (size,): the id of each number in B; -1 where B has no such text."""
        return self._ids(self.of_b)

    def _ids(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        ids = np.full(self.size, -1, np.int64)
        ids[numbers] = np.arange(len(numbers))
        return ids

    def counts(self) -> SharedCounts:
        """Numbers in A only, in both, in B only."""
        in_a, in_b = self.ids_a >= 0, self.ids_b >= 0
        return SharedCounts.of(len(self.of_a), len(self.of_b), int((in_a & in_b).sum()))


@dataclass(frozen=True)
class Matched:
    """Two runs with their queries, passages and pairs matched by content.

    Attributes:
        a: Run A.
        b: Run B.
        queries: Numbering of the queries.
        passages: Numbering of the passages.
        pairs_a: int64 (M,) numbers in A of the pairs that both have; those of a unit of A stand
            together.
        pairs_b: int64 (M,) the same pairs in B.
        num_pairs: Pairs in A only, in both, in B only.
    """

    a: Side
    b: Side
    queries: Common
    passages: Common
    pairs_a: NDArray[np.int64]
    pairs_b: NDArray[np.int64]
    num_pairs: SharedCounts

    @classmethod
    def of(cls, a: Side, b: Side, query: str | None) -> "Matched":
        """Match two runs.

        Args:
            a: Run A.
            b: Run B.
            query: Text or original id of the only query to take; None: all.

        Raises:
            InputError: Neither run has the query.
        """
        same = a.texts.digest == b.texts.digest
        queries, passages = (
            Common.of(one.column("text"), other.column("text"), same)
            for one, other in (
                (a.store.queries, b.store.queries),
                (a.store.passages, b.store.passages),
            )
        )
        chosen = _chosen(a, b, queries, query)
        of_a, keys_a = _keys(a, queries.of_a, passages.of_a, chosen)
        of_b, keys_b = _keys(b, queries.of_b, passages.of_b, chosen)
        _, in_a, in_b = np.intersect1d(keys_a, keys_b, assume_unique=True, return_indices=True)
        pairs_a, pairs_b = of_a[in_a], of_b[in_b]
        order = np.argsort(a.units_of(pairs_a), kind="stable")
        counts = SharedCounts.of(len(keys_a), len(keys_b), len(in_a))
        return cls(a, b, queries, passages, pairs_a[order], pairs_b[order], counts)


def _chosen(a: Side, b: Side, queries: Common, query: str | None) -> NDArray[np.bool_]:
    """Bool (numbers of queries,): those to compare.

    Raises:
        InputError: Neither run has the query.
    """
    chosen = np.full(queries.size, query is None)
    if query is not None:
        chosen[queries.of_a[a.queries_named(query)]] = True
        chosen[queries.of_b[b.queries_named(query)]] = True
    if not chosen.any():
        raise InputError(
            f"no query of {a.path} or {b.path} has the text or the original id {query!r}; "
            "give one as it stands in the data"
        )
    return chosen


def _keys(
    side: Side,
    of_queries: NDArray[np.int64],
    of_passages: NDArray[np.int64],
    chosen: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of a run's pairs whose query is chosen, and a key of each, the same in both runs."""
    queries = of_queries[side.store.pair_query_ids]
    pairs = np.flatnonzero(chosen[queries])
    # One above the largest number that a passage of either run has.
    span = np.int64(1) << 31
    return pairs, queries[pairs] * span + of_passages[side.store.pair_passage_ids[pairs]]
