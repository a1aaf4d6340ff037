"""Counts of `publish` and `fetch`: artifacts, their files, and what moved."""

from collections.abc import Sequence
from dataclasses import dataclass

from stx_mine.store.counts import Counts


@dataclass(frozen=True)
class MovedFiles:
    """The files of one artifact.

    Attributes:
        name: Name of the artifact, as `hits/dense`.
        num_files: Its files.
        num_moved: Those that were not at the other side.
        num_bytes: Bytes of these.
    """

    name: str
    num_files: int
    num_moved: int
    num_bytes: int


@dataclass(frozen=True)
class TransferCounts(Counts):
    """Counts of one `publish` or `fetch`.

    Attributes:
        artifacts: Artifacts chosen.
        files: Files of all of them.
        files_moved: Files that were not at the other side.
        bytes_moved: Bytes of these.
    """

    artifacts: int
    files: int
    files_moved: int
    bytes_moved: int

    @classmethod
    def of(cls, moved: Sequence[MovedFiles]) -> "TransferCounts":
        """The counts of all artifacts."""
        return cls(
            artifacts=len(moved),
            files=sum(of_artifact.num_files for of_artifact in moved),
            files_moved=sum(of_artifact.num_moved for of_artifact in moved),
            bytes_moved=sum(of_artifact.num_bytes for of_artifact in moved),
        )
