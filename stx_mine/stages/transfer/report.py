"""The closing report of `publish` and `fetch`: which files moved."""

from collections.abc import Sequence

from stx_mine.stages.transfer.counts import MovedFiles, TransferCounts
from stx_mine.store.stage_report import StageReport


def transfer_report(command: str, moved: Sequence[MovedFiles], folder: str) -> StageReport:
    """The report of one command.

    Args:
        command: publish or fetch.
        moved: The files of each artifact.
        folder: Where the artifacts lie now: a URL, or the run directory.
    """
    counts = TransferCounts.of(moved)
    return StageReport(
        command,
        counts.to_json(),
        tuple(f"{of_artifact.name}: {_moved_words(of_artifact)}" for of_artifact in moved),
        skipped=not counts.files_moved,
        folder=folder,
    )


def _moved_words(moved: MovedFiles) -> str:
    if not moved.num_moved:
        return f"all {moved.num_files:,} files were there"
    megabytes = moved.num_bytes / 1e6
    return f"{moved.num_moved:,} of {moved.num_files:,} files moved, {megabytes:,.1f} MB"
