"""Counts of `verify`: what it read of packed batches, of rows of others, and of artifacts."""

from dataclasses import dataclass

from stx_mine.store.counts import Counts


@dataclass(frozen=True, kw_only=True)
class VerifyCounts(Counts):
    """What was checked in a folder of packed batches.

    Attributes:
        packings: Packings, one per epoch folder.
        batches: Batches of all packings.
        rows: Rows of all batches; a row that is in several packings counts in each.
        files: Files whose checksum was compared; 0 where there is no manifest.
    """

    packings: int
    batches: int
    rows: int
    files: int


@dataclass(frozen=True, kw_only=True)
class VerifiedRows(Counts):
    """What was checked in rows that `pack` did not write.

    Attributes:
        batches: Batches, the last partial one among them.
        rows: Rows of all files.
        files: Files read.
        last_batch_rows: Rows of the last batch where it is partial, else 0.
    """

    batches: int
    rows: int
    files: int
    last_batch_rows: int


@dataclass(frozen=True, kw_only=True)
class VerifiedArtifacts(Counts):
    """What was checked of the artifacts of a run.

    Attributes:
        artifacts: Artifacts, those of later rounds among them.
        files: Files whose size and checksum were compared.
        num_bytes: Their sizes together.
    """

    artifacts: int
    files: int
    num_bytes: int
