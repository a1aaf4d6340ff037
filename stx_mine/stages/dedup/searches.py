"""The searches of `dedup`, each an artifact of its own that later calls use again."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stx_mine.engine.run import make_files
from stx_mine.inputs.pairs import PairSource
from stx_mine.settings import key_fields
from stx_mine.stages.dedup.alike import (
    EMBEDDED_ROLES,
    NeighbourSearcher,
    block_files,
    num_crowded,
)
from stx_mine.stages.dedup.config import DedupConfig
from stx_mine.stages.dedup.evaluation_texts import EvaluationTexts
from stx_mine.stages.dedup.forms import write_forms
from stx_mine.stages.dedup.leaks import write_leaks
from stx_mine.stages.dedup.near import SearchCounts, write_near
from stx_mine.stages.dedup.near_texts import floor_below
from stx_mine.store.artifact import PLAN, Artifact, Manifest, require
from stx_mine.store.files import json_or_empty, read_table
from stx_mine.store.lock import TaskShard
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

# How far below the threshold close vectors are searched, so that another one needs no search.
_BELOW = 0.05


class DuplicateSearch:
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
                below = max(round(threshold - _BELOW, 6), 0.01)
                fields["floor"] = floor_below(threshold) if kind == "jaccard" else below
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
        ignored = self.config.ignored_in_forms
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
            self.config.device,
        )
        make_files(artifact, files, worker, self.config, "searching", self.task_shard)
        tables = [read_table(artifact.folder / file) for file in files]
        num_pairs = sum(table.num_rows for table in tables)
        found = SearchCounts(pairs=num_pairs, crowded=num_crowded(tables))
        return artifact.finish(files, counts=found)

    def leaks(self, sources: dict[str, PairSource]) -> Manifest:
        """Texts of training pairs that are in evaluation sets."""
        config = self.config
        embeddings = None if config.cosine is None else require(self.run, "embeddings")
        fields = {name: getattr(config, name) for name in ("jaccard", "cosine")}
        fields |= {"ignored": config.ignored, "shingles": config.shingles}
        fields |= {"size": config.run_length, **key_fields(config, "texts")}
        fields["content"] = {name: source.fingerprint() for name, source in sources.items()}
        inputs = {"texts": self.texts.digest}
        if embeddings is not None:
            inputs["embeddings"] = embeddings.digest
        with self.run.exclusive():
            # Of other sets they are other leaks, and found anew without being asked.
            artifact = Artifact(
                self.run,
                "duplicates",
                config,
                subfolder="leaks",
                fields=fields,
                inputs=inputs,
                overwrite=True,
            )
            if artifact.done:
                return artifact.result
            evaluation = EvaluationTexts.of(sources)
            model = None
            if embeddings is not None:
                from stx_mine.stages.embed.embed_again import OtherTexts

                model = OtherTexts.of(
                    embeddings, self.texts, config.device, config.trust_remote_code
                )
            return write_leaks(artifact, config, self.store, evaluation, embeddings, model)
