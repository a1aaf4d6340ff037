"""`groups/`: which texts count as one text, over both roles.

Groups are one space: passages first, then queries; the smallest member names a group. What `ingest`
makes of them follows from `texts/` alone: equal texts, and the chunks of one document. Embeddings
and hits do not depend on groups, so that regrouping makes neither stale.
"""

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.forbidden import forbidden_groups, num_forbidden_passages
from stx_mine.core.ragged import Ragged
from stx_mine.errors import ArtifactError
from stx_mine.settings import StageConfig
from stx_mine.store.artifact import Artifact, Manifest, require
from stx_mine.store.counts import Counts
from stx_mine.store.files import write_array
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

QUERY_GROUPS, PASSAGE_GROUPS = "query_groups.npy", "passage_groups.npy"


@dataclass(frozen=True)
class TextGroups:
    """The group of every text of a run.

    Attributes:
        queries: int64 (num queries,); a group below the number of passages is that of a passage.
        passages: int64 (num passages,).
    """

    queries: NDArray[np.int64]
    passages: NDArray[np.int64]

    @classmethod
    def open(cls, manifest: Manifest) -> "TextGroups":
        """Map the files of a finished `groups/`.

        Raises:
            ArtifactError: A file is damaged, or has numbers that stand for no group.
        """
        queries, passages = (manifest.array(name) for name in (QUERY_GROUPS, PASSAGE_GROUPS))
        for name, groups in ((QUERY_GROUPS, queries), (PASSAGE_GROUPS, passages)):
            manifest.refuse_beyond(name, groups, len(queries) + len(passages))
        return cls(queries, passages)

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
        there = require(run, "groups")
        if there.content["inputs"] == inputs:
            return there
    artifact = Artifact(run, "groups", config, inputs=inputs, fields={})
    groups = TextGroups.of_texts(TextStore.open(texts))
    artifact.begin([QUERY_GROUPS, PASSAGE_GROUPS])
    write_array(artifact.folder / QUERY_GROUPS, groups.queries)
    write_array(artifact.folder / PASSAGE_GROUPS, groups.passages)
    counts = GroupCounts(
        texts=groups.num_groups,
        groups=len(np.union1d(groups.queries, groups.passages)),
    )
    return artifact.finish([QUERY_GROUPS, PASSAGE_GROUPS], counts=counts)
