"""The closing report of `publish` and `fetch`: which files moved."""

import json
from collections.abc import Sequence
from shlex import quote

from stx_mine.stages.transfer.counts import MovedFiles, TransferCounts
from stx_mine.stages.transfer.hub_address import HubAddress
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


def share_report(
    moved: MovedFiles,
    address: HubAddress,
    license_id: str,
    folder: str | None,
    visibility: str,
    large: Sequence[str],
) -> StageReport:
    """The report of what was shared.

    Args:
        moved: Its files.
        address: Where it lies on the hub, or will.
        license_id: The license in its card.
        folder: Where it was written instead; None where it was sent.
        visibility: public or private; empty in a folder.
        large: Shards with row groups that are too large for the viewer of the hub.
    """
    place = json.dumps(folder or address.repo, ensure_ascii=False)
    loads = f"load_dataset({place})" if address.is_dataset else f"SentenceTransformer({place})"
    lines = [
        f"{moved.name}: {_moved_words(moved)}",
        f"license {license_id}" + (f", {visibility}" if visibility else ""),
        f"{loads} loads it; `stx-mine fetch {folder or address.url}` brings it into a run",
    ]
    if folder is not None:
        kind = " --repo-type dataset" if address.is_dataset else ""
        sends = f"hf upload {address.repo} {quote(folder)} .{kind} --private"
        lines.append(f"nothing was sent; `{sends}` does so")
    warnings = large and [
        f"{len(large):,} shards, as {large[0]}, have row groups of more than 100 MB, which the "
        "hub may not show; an earlier version packed them: packed again they have smaller ones"
    ]
    return StageReport(
        "publish",
        TransferCounts.of([moved]).to_json(),
        tuple(lines),
        tuple(warnings),
        skipped=not moved.num_moved,
        folder=folder or address.url,
    )


def _moved_words(moved: MovedFiles) -> str:
    if not moved.num_moved:
        return f"all {moved.num_files:,} files were there"
    megabytes = moved.num_bytes / 1e6
    return f"{moved.num_moved:,} of {moved.num_files:,} files moved, {megabytes:,.1f} MB"
