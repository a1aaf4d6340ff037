"""Finished negatives, and all that is needed to select once more as they were selected."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from stx_mine.stages.audit.hidden import HiddenPositives
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.dense import DenseHits
from stx_mine.stages.mine.depths import AllHits
from stx_mine.stages.mine.selector import Selector
from stx_mine.store.artifact import Manifest, require
from stx_mine.store.groups import TextGroups
from stx_mine.store.hits import HitSource
from stx_mine.store.judgements import StoredJudgements
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore
from stx_mine.store.vectors import Vectors


@dataclass(frozen=True)
class AuditedRun:
    """A run that was mined.

    Attributes:
        run: The run directory.
        negatives: Of its negatives.
        config: How they were mined; where that runs is this command's affair.
        store: Texts and pairs of the input.
        groups: The group of every text.
        embeddings: Of its vectors.
    """

    run: RunDir
    negatives: Manifest
    config: MineConfig
    store: TextStore
    groups: TextGroups
    embeddings: Manifest

    @classmethod
    def open(cls, run: RunDir, device: str | None) -> "AuditedRun":
        """Read what the negatives were made of.

        Args:
            run: The run directory.
            device: What searches, where a search is needed.

        Raises:
            ArtifactError: Something is missing, stale or damaged.
        """
        negatives, settings = require(run, "negatives"), {"device": device}
        if "hits/dense" in negatives.content["inputs"]:
            # An index may have come, or gone, since.
            settings["search"] = str(require(run, "hits", "dense").fields["search"])
        return cls(
            run,
            negatives,
            MineConfig.as_mined(negatives.content["config"], **settings),
            TextStore.open(require(run, "texts")),
            TextGroups.open(require(run, "groups")),
            require(run, "embeddings"),
        )

    def selector(self, hidden: HiddenPositives) -> Selector:
        """What selects without knowing of hidden positives, by no judge."""
        queries, passages = (Vectors.open(self.embeddings, one) for one in ("queries", "passages"))
        return Selector(
            self.config,
            hidden.store,
            hidden.groups,
            queries,
            passages,
            hidden.forbidden,
            labelled=self.groups.labelled(self.store),
        )

    def rules(self, config: MineConfig) -> dict[str, Any]:
        """What of a selector differs by settings: these, and the judgements that they name."""
        return {
            "config": config,
            "judgements": [self.judgements(name) for name in config.judges],
        }

    def judgements(self, name: str) -> StoredJudgements:
        """The judgements of a judge.

        Raises:
            ArtifactError: There are none, or they are damaged.
        """
        return StoredJudgements.open(require(self.run, "judgements", name), self.store)

    def hits(self, hidden: HiddenPositives) -> AllHits:
        """The hits of all queries, as deep as without the hidden positives."""
        wasted = hidden.groups.num_forbidden_passages(hidden.forbidden)
        config, dense = self.config, None
        if config.searches:
            dense = DenseHits(config, self.run, self.embeddings, wasted)
        others: dict[HitSource, Manifest] = {
            source: require(self.run, "hits", source.folder)
            for source in HitSource
            if source != HitSource.DENSE
            and f"hits/{source.folder}" in self.negatives.content["inputs"]
        }
        depths = np.full(self.store.num_queries, config.depth if dense else 0, np.int64)
        return AllHits(dense, others, depths, config.query_block)
