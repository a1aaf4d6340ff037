"""Checkpoints of a training: which are whole, and which one it continues from.

The Trainer removes older ones file by file; a kill meanwhile leaves one with its state and without
its weights. So each lists its files, and counts only with all of them.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from stx_mine.store.files import write_json

STATE, _FILES = "trainer_state.json", "files.json"


def list_files(checkpoint: Path, num_processes: int) -> None:
    """List the files of a checkpoint, before its state is written, which the Trainer does last.

    Args:
        checkpoint: Its folder.
        num_processes: Processes that train; each writes the state of its random numbers.
    """
    paths = (path for path in checkpoint.rglob("*") if path.is_file())
    sizes: dict[str, int | None] = {
        path.relative_to(checkpoint).as_posix(): path.stat().st_size for path in paths
    }
    if num_processes > 1:
        # Those of others may not be there yet.
        sizes |= {f"rng_state_{rank}.pth": None for rank in range(num_processes)}
    write_json(checkpoint / _FILES, {"files": sizes})


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that is whole; None where there is none."""
    found = {checkpoint: steps_done(checkpoint) for checkpoint in folder.glob("checkpoint-*")}
    newest = max(found, key=found.__getitem__, default=None)
    return str(newest) if newest and found[newest] else None


def remove_incomplete(folder: Path) -> None:
    """Remove what a kill left of checkpoints that were being written or removed."""
    for checkpoint in folder.glob("checkpoint-*"):
        if not _lists_all(checkpoint):
            shutil.rmtree(checkpoint, ignore_errors=True)


def steps_done(checkpoint: Path) -> int:
    """Steps before a checkpoint; 0 if a file of it, or of the best one until then, is missing."""
    state = _read(checkpoint / STATE)
    best = state.get("best_model_checkpoint")
    needed = [checkpoint, *([checkpoint.parent / Path(best).name] if best else [])]
    return int(state.get("global_step", 0)) if all(map(_lists_all, needed)) else 0


def _lists_all(checkpoint: Path) -> bool:
    """Whether a checkpoint has its state, and all files that it lists in their sizes."""
    files = _read(checkpoint / _FILES).get("files")
    if not files or not _read(checkpoint / STATE):
        return False
    paths = {checkpoint / name: size for name, size in files.items()}
    return all(
        path.is_file() and size in (None, path.stat().st_size) for path, size in paths.items()
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
