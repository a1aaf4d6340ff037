"""`groups/`: which texts count as one text, over both roles.

Groups are one space: passages first, then queries; the smallest member names a group. What `ingest`
makes of them follows from `texts/` alone: equal texts, and the chunks of one document. Embeddings
and hits do not depend on groups, so that regrouping makes neither stale.
"""

from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.forbidden import forbidden_groups, num_forbidden_passages
from stx_mine.core.ragged import Ragged
from stx_mine.errors import ArtifactError
from stx_mine.settings import StageConfig
from stx_mine.store.artifact import MANIFEST, Artifact, Manifest
from stx_mine.store.counts import Counts
from stx_mine.store.files import json_or_empty, write_array
from stx_mine.store.manifest import command_of, read_finished
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

QUERY_GROUPS, PASSAGE_GROUPS = "query_groups.npy", "passage_groups.npy"
DROPPED_PASSAGES, DROPPED_PAIRS = "dropped_passages.npy", "dropped_pairs.npy"


def _none() -> NDArray[np.int64]:
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class TextGroups:
    """The group of every text of a run.

    Attributes:
        queries: int64 (num queries,); a group below the number of passages is that of a passage.
        passages: int64 (num passages,).
        dropped_passages: int64 passages that are no candidates, since another one of their group
            stays.
        dropped_pairs: int64 numbers of the pairs that are no rows to train on.
    """

    queries: NDArray[np.int64]
    passages: NDArray[np.int64]
    dropped_passages: NDArray[np.int64] = field(default_factory=_none)
    dropped_pairs: NDArray[np.int64] = field(default_factory=_none)

    @classmethod
    def open(cls, manifest: Manifest) -> "TextGroups":
        """Map the files of a finished `groups/`.

        Raises:
            ArtifactError: A file is damaged, or has numbers that stand for no group.
        """
        queries, passages = (manifest.array(name) for name in (QUERY_GROUPS, PASSAGE_GROUPS))
        for name, groups in ((QUERY_GROUPS, queries), (PASSAGE_GROUPS, passages)):
            manifest.refuse_beyond(name, groups, len(queries) + len(passages))
        dropped = [
            manifest.array(name) if manifest.has(name) else _none()
            for name in (DROPPED_PASSAGES, DROPPED_PAIRS)
        ]
        manifest.refuse_beyond(DROPPED_PASSAGES, dropped[0], len(passages))
        return cls(queries, passages, *dropped)

    @classmethod
    def of_texts(cls, store: TextStore) -> "TextGroups":
        """Texts that are equal after normalisation, and chunks of one document.

        A chunk that stands in several documents is of the first one's group only: else all that
        share a licence or a footer would count as one text.
        """
        passages = np.arange(store.num_passages)
        if store.first_chunks is not None:
            passages = np.asarray(store.first_chunks)
        queries = np.array(store.query_texts)
        in_corpus = queries < store.num_passages
        queries[in_corpus] = passages[queries[in_corpus]]
        return cls(queries, passages)

    @classmethod
    def by_text_id(cls, store: TextStore, groups: NDArray[np.int64]) -> "TextGroups":
        """The groups of both roles from int64 (num texts,), the group of each text by its id."""
        return cls(groups[np.asarray(store.query_texts)], groups[: store.num_passages])

    @property
    def num_groups(self) -> int:
        """An upper bound of the ids of groups."""
        return len(self.passages) + len(self.queries)

    def of_text_ids(self, store: TextStore) -> NDArray[np.int64]:
        """int64 (num texts,): the group of each text id, passages first, then queries."""
        groups = np.arange(store.num_texts)
        groups[: store.num_passages] = self.passages
        own = store.query_texts >= store.num_passages
        groups[store.query_texts[own]] = self.queries[own]
        return groups

    def forbidden(self, store: TextStore) -> Ragged:
        """(num queries,) groups that no negative of a query may lie in, rising."""
        return forbidden_groups(*store.known_positives, self.queries, self.passages)

    def kept_pairs(self, num_pairs: int) -> NDArray[np.bool_]:
        """Bool (num_pairs,): the pairs of a run that are rows to train on."""
        return ~np.isin(np.arange(num_pairs), self.dropped_pairs)

    def labelled(self, store: TextStore) -> NDArray[np.bool_]:
        """Bool (num passages,): which passages count as the same text as a positive of a row."""
        return np.isin(self.passages, self.passages[store.pair_passage_ids])

    def num_forbidden_passages(self, forbidden: Ragged) -> NDArray[np.int64]:
        """int64 (num queries,): passages in the groups that are forbidden to each query."""
        return num_forbidden_passages(forbidden, self.passages, self.num_groups)


@dataclass(frozen=True, kw_only=True)
class GroupCounts(Counts):
    """Counts of a grouping.

    Attributes:
        texts: Distinct texts of both roles, by id.
        groups: Distinct groups of them.
    """

    texts: int
    groups: int


def write_grouping(artifact: Artifact, groups: TextGroups, others: list[str]) -> list[str]:
    """Begin `groups/` and write the group of every text.

    Args:
        artifact: The groups.
        groups: The group of every text.
        others: Files that the caller writes beside.

    Returns:
        The names of all files.
    """
    arrays = {QUERY_GROUPS: groups.queries, PASSAGE_GROUPS: groups.passages}
    if len(groups.dropped_passages) or len(groups.dropped_pairs):
        arrays[DROPPED_PASSAGES] = groups.dropped_passages
        arrays[DROPPED_PAIRS] = groups.dropped_pairs
    names = [*arrays, *others]
    artifact.begin(names)
    for name, values in arrays.items():
        write_array(artifact.folder / name, values)
    return names


def lost_grouping(run: RunDir, texts: Manifest) -> str:
    """The command line of a grouping of earlier texts that `make_groups` replaces.

    Returns:
        Empty where there is none, or one that `make_groups` made.
    """
    folder = run.folder("groups")
    there = json_or_empty(folder / MANIFEST)
    command, inputs = str(there.get("command", "")), there.get("inputs", {})
    if command.split()[1:2] != ["dedup"] or inputs.get("texts") == texts.digest:
        return ""
    return command_of(folder)


def make_groups(run: RunDir, texts: Manifest, config: StageConfig | None = None) -> Manifest:
    """Make `groups/` of a finished `texts/`, unless that is done.

    Another grouping of the same texts is left alone: who made it renews it.

    Args:
        run: The run directory.
        texts: The texts.
        config: Of the stage that makes both; None where none is known.
    """
    inputs = {"texts": texts.digest}
    with suppress(ArtifactError):
        there = read_finished(run, "groups")
        if there.content["inputs"].get("texts") == texts.digest:
            there.refuse_damage(run.checks_all)
            return there
    artifact = Artifact(run, "groups", config, inputs=inputs, fields={})
    groups = TextGroups.of_texts(TextStore.open(texts))
    names = write_grouping(artifact, groups, [])
    counts = GroupCounts(
        texts=groups.num_groups,
        groups=len(np.union1d(groups.queries, groups.passages)),
    )
    return artifact.finish(names, counts=counts)
