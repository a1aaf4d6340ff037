"""Checkpoints of a training: which are whole, and which one it continues from.

The Trainer removes older ones file by file; a kill meanwhile leaves one with its state and without
its weights. So each lists its files, and counts only with all of them, as they were written.
"""

import shutil
from pathlib import Path

from stx_mine.store.files import checksum, json_or_empty, write_json
from stx_mine.store.intact import file_entry, find_damage

STATE, _FILES, _SEAL = "trainer_state.json", "files.json", "state_checksum.json"


def list_files(checkpoint: Path, num_processes: int) -> None:
    """List the files of a checkpoint, before its state is written, which the Trainer does last.

    Args:
        checkpoint: Its folder.
        num_processes: Processes that train; each writes the state of its random numbers.
    """
    names = [
        path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file()
    ]
    # Those of others may not be there yet.
    others = [f"rng_state_{rank}.pth" for rank in range(num_processes if num_processes > 1 else 0)]
    listed = [file_entry(checkpoint, name) for name in names if name not in others]
    write_json(checkpoint / _FILES, {"files": listed, "others": others})


def seal_state(checkpoint: Path) -> None:
    """Take down the checksum of the state, once the Trainer has written it."""
    write_json(checkpoint / _SEAL, {"xxh3_128": checksum(checkpoint / STATE)})


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that is whole; None where there is none."""
    found = {checkpoint: steps_done(checkpoint) for checkpoint in folder.glob("checkpoint-*")}
    newest = max(found, key=found.__getitem__, default=None)
    return str(newest) if newest and found[newest] else None


def remove_incomplete(folder: Path) -> list[str]:
    """Remove what a kill left of checkpoints that were being written or removed, and damaged ones.

    Returns:
        Their names.
    """
    left = sorted(one for one in folder.glob("checkpoint-*") if not _is_whole(one))
    for checkpoint in left:
        shutil.rmtree(checkpoint, ignore_errors=True)
    return [checkpoint.name for checkpoint in left]


def steps_done(checkpoint: Path) -> int:
    """Steps before a checkpoint; 0 if it, or the best one until then, is not whole."""
    state = json_or_empty(checkpoint / STATE)
    best = state.get("best_model_checkpoint")
    needed = [checkpoint, *([checkpoint.parent / Path(best).name] if best else [])]
    return int(state.get("global_step", 0)) if all(map(_is_whole, needed)) else 0


def _is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint has its state, and all files that it lists as they were written."""
    listing, state = json_or_empty(checkpoint / _FILES), json_or_empty(checkpoint / STATE)
    entries, others = listing.get("files"), listing.get("others", [])
    if not isinstance(entries, list) or not isinstance(others, list) or not state:
        return False
    sealed = json_or_empty(checkpoint / _SEAL).get("xxh3_128")
    if sealed is not None and sealed != checksum(checkpoint / STATE):
        return False
    is_named = checkpoint.name == f"checkpoint-{state.get('global_step')}"
    there = all((checkpoint / name).is_file() for name in others)
    try:
        return bool(entries) and is_named and there and not find_damage(checkpoint, entries, False)
    except (LookupError, TypeError):
        # The listing itself is damaged.
        return False
