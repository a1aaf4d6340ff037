"""What a finished `dedup` holds for one text, for stages that have other numbers for the texts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stx_mine.errors import ConfigError
from stx_mine.settings import names_of
from stx_mine.stages.dedup.config import DedupConfig
from stx_mine.stages.dedup.forms import FORMS, NUMBERS
from stx_mine.stages.dedup.joins import EXACT
from stx_mine.stages.dedup.regroup import numbers_of_texts, pairs_above
from stx_mine.store.artifact import require
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore


@dataclass(frozen=True)
class StoredDuplicates:
    """Texts of a run that are alike; chains are not cut.

    Attributes:
        store: The texts of the run.
        firsts: int64 (T,) by id of a text: the smallest text of equal form.
        pairs: int64 (2, N) first texts of two forms, that are near or of one meaning.
        command: The command line that found them.
        digest: Of the groups that were made of them.
    """

    store: TextStore
    firsts: NDArray[np.int64]
    pairs: NDArray[np.int64]
    command: str
    digest: str

    @classmethod
    def open(cls, run: RunDir) -> "StoredDuplicates":
        """Read what the groups of a run were made of.

        Raises:
            ConfigError: `dedup` has not made them.
            ArtifactError: There are none, or something is stale or damaged.
        """
        run.refuse_missing()
        groups = require(run, "groups")
        parts = [name.partition("/") for name in groups.content["inputs"]]
        made = {
            kind: require(run, "duplicates", kind)
            for part, _, kind in parts
            if part == "duplicates" and kind != "leaks"
        }
        if EXACT not in made:
            raise ConfigError(
                f"expected groups that dedup made in {run.path}, found those of equal texts; run "
                f"`stx-mine dedup --run-dir {run.path}` with the options that are wanted first"
            )
        settings = groups.content["config"]
        known = {name: settings[name] for name in names_of(DedupConfig) if name in settings}
        store = TextStore.open(require(run, "texts"))
        firsts, numbers = (numbers_of_texts(made[EXACT], one, store) for one in (FORMS, NUMBERS))
        found, _, _ = pairs_above(DedupConfig(**known), store, made, firsts, numbers)
        nothing = np.empty((2, 0), np.int64)
        pairs = np.concatenate([nothing, *(np.stack([one.left, one.right]) for one in found)], 1)
        return cls(store, firsts, pairs, str(groups.content["command"]), groups.digest)
