"""Dedup: find texts that count as one text, and remake `groups/` of them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stx_mine.engine.run import make_files
from stx_mine.engine.task_shards import task_shard_of
from stx_mine.errors import ConfigError
from stx_mine.settings import key_fields
from stx_mine.stages.dedup.alike import (
    EMBEDDED_ROLES,
    NeighbourSearcher,
    block_files,
    num_crowded,
)
from stx_mine.stages.dedup.config import DedupConfig
from stx_mine.stages.dedup.forms import FORMS, write_forms
from stx_mine.stages.dedup.near import SearchCounts, write_near
from stx_mine.stages.dedup.near_texts import refuse_without_rensa
from stx_mine.stages.dedup.regroup import regroup
from stx_mine.stages.dedup.report import dedup_report
from stx_mine.store.artifact import PLAN, Artifact, Manifest, require
from stx_mine.store.files import json_or_empty, read_table
from stx_mine.store.lock import TaskShard
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import StageReport
from stx_mine.store.texts import TextStore

# How far below the threshold pairs are searched, so that another threshold needs no search.
_BELOW = {"jaccard": 0.1, "cosine": 0.05}


def run_dedup(config: DedupConfig) -> StageReport:
    """Find duplicates where needed, then remake `groups/`.

    Raises:
        ConfigError: A package is missing, or more would be joined than is allowed.
        ArtifactError: There are no texts or embeddings, or other duplicates are in the way.
        TaskShardsLeftError: This call did its part of a search, and others are at work.
    """
    run, task_shard = RunDir(config.run_dir, config.check), task_shard_of(config)
    if config.jaccard:
        refuse_without_rensa()
    if run.is_round:
        raise ConfigError(
            f"expected the run that all rounds share, found the round {run.path}; its texts and "
            f"groups are those of {run.first_round.path}: give that as --run-dir"
        )
    with run.lock(task_shard):
        texts = require(run, "texts")
        store = TextStore.open(texts)
        if store.documents is not None:
            raise ConfigError(
                "expected whole texts, found documents that were cut with --chunk: to join two "
                "chunks would join all other chunks of their documents; leave similar documents "
                "out before they are cut"
            )
        search = _Search(config, run, texts, store, task_shard)
        forms = search.forms()
        firsts = forms.array(FORMS)
        found = {}
        if config.jaccard is not None:
            found["jaccard"] = search.near(forms, firsts)
        if config.cosine is not None:
            found["cosine"] = search.close()
        with run.exclusive():
            made = {"exact": forms, **found}
            artifact = Artifact(
                run,
                "groups",
                config,
                inputs={
                    "texts": texts.digest,
                    **{f"duplicates/{kind}": one.digest for kind, one in made.items()},
                },
                fields={**key_fields(config, "groups"), "numbers": "numbers" in config.ignored},
                command="dedup",
            )
            skipped = artifact.done
            if not skipped:
                regroup(artifact, config, store, made)
        return dedup_report(artifact, config, store, skipped)


class _Search:
    """Finds the pairs that are not there yet."""

    def __init__(
        self,
        config: DedupConfig,
        run: RunDir,
        texts: Manifest,
        store: TextStore,
        task_shard: TaskShard | None,
    ) -> None:
        self.config, self.run, self.texts, self.store = config, run, texts, store
        self.task_shard = task_shard

    def _open(self, kind: str, fields: dict[str, Any], inputs: dict[str, str]) -> Artifact:
        """The artifact of one kind; what only reaches less far than is wanted is replaced."""
        threshold = getattr(self.config, kind, None)
        reaches_less = False
        if threshold is not None:
            before = json_or_empty(self.run.folder("duplicates", kind) / PLAN)
            planned = before.get("fields")
            floor = planned.get("floor") if isinstance(planned, dict) else None
            same = isinstance(floor, float) and planned == {**fields, "floor": floor}
            same = same and before.get("inputs") == inputs
            if same and floor <= threshold:
                fields["floor"] = floor
            else:
                fields["floor"] = max(round(threshold - _BELOW[kind], 6), 0.01)
                reaches_less = same
        return Artifact(
            self.run,
            "duplicates",
            self.config,
            subfolder=kind,
            fields=fields,
            inputs=inputs,
            overwrite=self.config.overwrite or reaches_less,
        )

    def forms(self) -> Manifest:
        """Equal texts."""
        ignored = [name for name in self.config.ignored if name != "numbers"]
        with self.run.exclusive():
            artifact = self._open("exact", {"ignored": ignored}, {"texts": self.texts.digest})
            if artifact.done:
                return artifact.result
            return write_forms(artifact, self.store, ignored)

    def near(self, forms: Manifest, firsts: NDArray[np.int64]) -> Manifest:
        """Pairs that share shingles."""
        fields = {"shingles": self.config.shingles, "size": self.config.run_length}
        inputs = {"texts": self.texts.digest, "duplicates/exact": forms.digest}
        with self.run.exclusive():
            artifact = self._open("jaccard", fields, inputs)
            if artifact.done:
                return artifact.result
            floor = artifact.plan["fields"]["floor"]
            return write_near(artifact, self.store, firsts, self.config, floor)

    def close(self) -> Manifest:
        """Pairs whose vectors are close."""
        embeddings = require(self.run, "embeddings")
        counts = {"passages": self.store.num_passages, "queries": self.store.num_queries}
        files = [file for role in EMBEDDED_ROLES for file in block_files(role, counts[role])]
        with self.run.exclusive():
            artifact = self._open("cosine", {}, {"embeddings": embeddings.digest})
            if artifact.done:
                return artifact.result
            artifact.begin(files)
        worker = NeighbourSearcher(
            embeddings.folder.absolute(),
            artifact.folder.absolute(),
            artifact.plan["fields"]["floor"],
        )
        make_files(artifact, files, worker, self.config, "search", self.task_shard)
        tables = [read_table(artifact.folder / file) for file in files]
        num_pairs = sum(table.num_rows for table in tables)
        found = SearchCounts(pairs=num_pairs, crowded=num_crowded(tables))
        return artifact.finish(files, counts=found)
