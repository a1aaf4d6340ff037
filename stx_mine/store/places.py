"""Where an artifact lies, what of it is ours, and how a new one takes the place of an old one.

    NAME        the artifact
    NAME.new    one that is built beside it
    NAME.old    the one before, from the first rename of a swap until it is removed

A folder is ours if a plan or a manifest of an artifact lies in it, or nothing at all. No other one
is ever written to, renamed or removed. What is shared keeps the two in a folder below: its `marks`.
"""

import os
import shutil
from collections.abc import Iterable, Set
from contextlib import suppress
from pathlib import Path

from stx_mine.errors import ArtifactError, ConfigError
from stx_mine.store.files import read_json, sync_directory
from stx_mine.store.kinds import KINDS
from stx_mine.store.listing import MANIFEST, PLAN
from stx_mine.store.names import NEW, OLD, PARTIAL, name_problem


def is_mark(content: object) -> bool:
    """Whether what a JSON file holds is a plan or a manifest of an artifact."""
    if not isinstance(content, dict) or not isinstance(content.get("key"), str):
        return False
    name = content.get("artifact")
    return isinstance(name, str) and name in KINDS


def is_ours(folder: Path, marks: str = "") -> bool:
    """Whether a folder may be written to and removed: it is an artifact, begun or whole, or empty.

    A file in its place is not ours.

    Args:
        folder: The folder.
        marks: The folder below it in which plan and manifest lie; empty for itself.
    """
    if not folder.is_dir():
        return False
    inside = folder / marks
    found = {path.name for path in folder.iterdir()}
    # What a link leads to is of somebody else.
    is_there = inside.is_dir() and not (marks and inside.is_symlink())
    marked = {path.name for path in inside.iterdir()} if is_there else set()
    # A killed command may have come no further.
    others = found - {marks} if marks and is_there else found - marked
    if not others and marked <= {PLAN + PARTIAL}:
        return True
    return any(_has_mark(inside / name) for name in (PLAN, MANIFEST) if name in marked)


def _has_mark(path: Path) -> bool:
    try:
        return is_mark(read_json(path))
    except ArtifactError:
        return False


def refuse_foreign(folder: Path, marks: str = "") -> None:
    """Refuse to write to a folder that is not ours.

    Raises:
        ArtifactError: It is somebody else's.
    """
    if folder.is_symlink() or folder.exists():
        if not is_ours(folder, marks):
            raise ArtifactError(
                f"expected an artifact of stx-mine at {folder}, or nothing, found something else "
                f"without a {Path(marks) / PLAN} of one; it is left alone, also with --overwrite: "
                f"give another {'--to' if marks else '--run-dir'}, or move it away"
            )


def refuse_taken(target: Path) -> None:
    """Refuse, before any work, to make an artifact where somebody else's folder is in the way.

    Raises:
        ArtifactError: It lies there, or where the artifact is on its way in or out.
    """
    for folder in (target, beside(target), _with_ending(target, OLD)):
        refuse_foreign(folder)


def refuse_input_within(target: Path, paths: Iterable[str | None]) -> None:
    """Refuse to replace a folder that holds what it is made from.

    Args:
        target: Where an artifact lies, or would.
        paths: The inputs; None for one that is not given.

    Raises:
        ConfigError: One lies there.
    """
    for path in paths:
        # Links may go round.
        real, held = (Path(os.path.realpath(one)) for one in (path or "", target))
        if path and held in (real, *real.parents):
            raise ConfigError(
                f"{path} is where this command writes ({target}/); give another --run-dir, or "
                "copy it elsewhere"
            )


def beside(target: Path) -> Path:
    """Where the successor of an artifact is built; on its disk where its folder is a link."""
    return _with_ending(target, NEW)


def _with_ending(target: Path, ending: str) -> Path:
    real = target.resolve() if target.is_symlink() else target
    return real.with_name(real.name + ending)


def remove_ours(folder: Path, marks: str = "") -> None:
    """Remove an artifact, so that what a kill leaves of it is never whole, and known as ours.

    Its manifest goes first, its plan last; of one with a folder of marks this folder.

    Raises:
        ArtifactError: It is somebody else's.
    """
    refuse_foreign(folder, marks)
    if not folder.exists():
        return
    for path in _in_order_of_removal(folder, marks):
        _remove(path)
    if marks and (folder / marks).exists():
        (folder / marks).rmdir()
    folder.rmdir()


def remove_others(folder: Path, kept: Set[Path]) -> None:
    """Remove the files below a folder that are none of those; folders stay."""
    for path in [one for one in folder.rglob("*") if one.is_file() and one not in kept]:
        path.unlink()


def _in_order_of_removal(folder: Path, marks: str) -> list[Path]:
    """What lies in a folder that is ours, its manifest first and its plan last."""
    inside = folder / marks
    last = inside / (PLAN if (inside / PLAN).exists() else MANIFEST)
    paths = {*folder.iterdir(), *(inside.iterdir() if inside.exists() else ())} - {inside}
    return sorted(paths, key=lambda path: (path == last, path != inside / MANIFEST, path))


def _remove(path: Path) -> None:
    """Remove a file, a folder with all in it, or a link and not what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def swap_in(target: Path, marks: str = "") -> None:
    """Give the finished artifact beside a target its name; the old one is removed afterwards.

    Raises:
        ArtifactError: Somebody else's folder is in the way.
    """
    new, old = beside(target), _with_ending(target, OLD)
    real = target.resolve() if target.is_symlink() else target
    remove_ours(old, marks)
    if real.exists():
        refuse_foreign(real, marks)
        real.replace(old)
    new.replace(real)
    sync_directory(real.parent)
    _remove_if_ours(old, marks)


def settle(target: Path, keep_new: bool, marks: str = "") -> None:
    """Complete a swap that a kill cut, and remove what is left of it.

    Args:
        target: Where the artifact lies, or would.
        keep_new: Whether what was begun beside it may be continued.
        marks: The folder below it in which plan and manifest lie; empty for itself.
    """
    new, old = beside(target), _with_ending(target, OLD)
    if not target.exists():
        if (new / marks / MANIFEST).exists() and is_ours(new, marks):
            new.replace(target)
        elif (old / marks / MANIFEST).exists() and is_ours(old, marks):
            old.replace(target)
    _remove_if_ours(old, marks)
    if not keep_new:
        _remove_if_ours(new, marks)


def _remove_if_ours(folder: Path, marks: str) -> None:
    if is_ours(folder, marks):
        # What is open elsewhere may stay for a while; the next command tries again.
        with suppress(OSError):
            remove_ours(folder, marks)


def clear_scratch(folder: Path, name: str) -> None:
    """Remove what a finished artifact needed while it was made, and files that were never whole.

    Args:
        folder: Where the artifact lies.
        name: Its kind.
    """
    found = [path for pattern in KINDS[name].scratch for path in folder.glob(pattern)]
    found += [path for path in folder.rglob(f"*{PARTIAL}") if path.is_file()]
    for path in found:
        # What is open elsewhere may stay for a while; the next command tries again.
        with suppress(OSError):
            _remove(path)


def settle_all(root: Path, names: list[str], is_alone: bool) -> None:
    """`settle` for the artifacts below a folder, and `clear_scratch` for those that are finished.

    Args:
        root: A run directory.
        names: The kinds that lie there.
        is_alone: Whether no other share is at work, which may add to what is finished.
    """
    for name in names:
        kind, targets = KINDS[name], [root / name]
        if kind.several:
            targets += _cut_below(root / name)
        for target in targets:
            settle(target, keep_new=kind.resumes)
        if is_alone or not kind.grows:
            for folder in finished_below(root / name, name):
                clear_scratch(folder, name)


def _cut_below(folder: Path) -> list[Path]:
    """The artifacts below a folder of which something unfinished lies there."""
    found = folder.iterdir() if folder.is_dir() else ()
    targets = (
        path.with_name(path.name.removesuffix(ending))
        for path in found
        for ending in (NEW, OLD)
        if path.name.endswith(ending)
    )
    return sorted({path for path in targets if not name_problem(path.name)})


def finished_below(folder: Path, name: str) -> list[Path]:
    """The finished artifacts of a kind: the folder itself, and those below it in their order."""
    kind, folders = KINDS[name], [folder]
    if kind.several and folder.is_dir():
        folders += sorted(path for path in folder.iterdir() if not name_problem(path.name))
    return [one for one in folders if (one / MANIFEST).exists() and is_ours(one)]
