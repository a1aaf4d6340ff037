"""The judging task: some of the pairs in doubt to one file of scores."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stx_mine.stages.embed.devices import DeviceWorker
from stx_mine.stages.embed.token_encoder import Tuning
from stx_mine.stages.judge.asked import AskedPairs
from stx_mine.stages.judge.config import JudgeConfig
from stx_mine.stages.judge.judge import Judge, PairTexts
from stx_mine.stages.judge.opening import open_judge
from stx_mine.store.artifact import PLAN, read_manifest
from stx_mine.store.files import json_or_empty
from stx_mine.store.texts import TextStore


@dataclass(frozen=True)
class PairScorer(DeviceWorker):
    """Scores the pairs of a task.

    Attributes:
        config: The config.
        texts: Folder of `texts/`.
        folder: Folder of the judgements, with the pairs to judge.
        place: Working directory of the caller, where the module of a function may lie.
    """

    config: JudgeConfig
    texts: Path
    folder: Path
    place: Path

    @property
    def wants_gpu(self) -> bool:
        """Unless another device is named, or no network runs here."""
        return self.config.runs_here and self.may_be_gpu

    @property
    def tasks_at_once(self) -> int:
        """Two of a server, so that it has questions while the last ones of a task are answered."""
        if self.config.cross_encoder is not None:
            return 1
        # Threads would each open their own.
        for name in ("asked", "store", "judge", "tuning"):
            getattr(self, name)
        return 2

    @cached_property
    def judge(self) -> Judge:
        """What judges.

        Raises:
            ModelError: It cannot be loaded, or is no judge.
        """
        if self.config.runs_here:
            self.share_cores()
        return open_judge(self.config, self.folder, self.place, self.device)

    @cached_property
    def tuning(self) -> Tuning | None:
        """As the plan in the folder says; None where it says nothing."""
        tuning = (json_or_empty(self.folder / PLAN).get("choices") or {}).get("tuning")
        return Tuning(**tuning) if tuning else None

    @cached_property
    def store(self) -> TextStore:
        """The texts."""
        return TextStore.open(read_manifest(self.texts))

    @cached_property
    def asked(self) -> AskedPairs:
        """The pairs to judge."""
        return AskedPairs.open(self.folder)

    def __call__(self, task: str) -> None:
        """Write the scores of one task."""
        rows = self.asked.tasks[task]
        pairs = self.pairs(self.asked.query_ids[rows], self.asked.passage_ids[rows])
        self.judge.score(pairs, self.tuning).write(self.folder / task)

    def pairs(self, query_ids: NDArray[np.int64], passage_ids: NDArray[np.int64]) -> PairTexts:
        """Pairs with their texts."""
        return PairTexts(self.store, query_ids, passage_ids)
