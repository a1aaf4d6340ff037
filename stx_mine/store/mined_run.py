"""A run that was mined: its texts, pools and verdicts, opened together."""

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
from stx_mine.errors import ArtifactError
from stx_mine.store.artifact import Manifest, require
from stx_mine.store.digests import normalise
from stx_mine.store.groups import TextGroups
from stx_mine.store.negatives import StoredVerdicts, rows_of, with_judged
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore


@dataclass(frozen=True)
class MinedRun:
    """A run that was mined, as a person looks at it.

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
    def open(cls, path: str, check: str) -> "MinedRun":
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
                f"{self.negatives.folder}/ was made anew while it was read; run the same command "
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
        return texts_named(self.store.queries, name)

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


def texts_named(table: pa.Table, name: str) -> NDArray[np.int64]:
    """Ids of the texts of a role that are this one, or have this original id."""
    wanted = normalise(pa.array([name]))[0]
    same = [pc.equal(normalise(chunk), wanted) for chunk in table.column("text").chunks]
    same_id = pc.fill_null(pc.equal(table.column("original_id"), name), False)
    named = pc.or_(pa.chunked_array(same, pa.bool_()).combine_chunks(), same_id.combine_chunks())
    return np.flatnonzero(named.to_numpy(zero_copy_only=False))
