"""Where `merge` writes: a folder that nobody else uses, held by one command at a time."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from stx_mine.errors import ArtifactError, ConfigError, LockedError
from stx_mine.inputs.files import at_home
from stx_mine.store.files import json_or_empty
from stx_mine.store.kinds import KINDS
from stx_mine.store.listing import MANIFEST, PLAN
from stx_mine.store.manifest import is_begun
from stx_mine.store.names import name_problem
from stx_mine.store.places import is_mark, is_ours, settle
from stx_mine.store.run_dir import RunDir

MERGED = "merged"
# What lies beside the folder while the command runs.
_LOCK, _SCRATCH = ".lock-stx-mine-to-", ".merge-stx-mine-"


def target_of(to: str) -> Path:
    """The folder that is written.

    Raises:
        ConfigError: It can have no such name.
    """
    target = at_home(to)
    if problem := name_problem(target.name):
        raise ConfigError(f"--to must be a folder, found {to!r}: {problem}; give another name")
    return target


@contextmanager
def held(target: Path) -> Iterator[Path]:
    """Hold a folder for one command; what a killed one left beside it is removed.

    Yields:
        A folder beside it for what is needed until the command ends, on its disk.

    Raises:
        LockedError: Another command writes there.
        ArtifactError: Something else is in the way.
    """
    _refuse_foreign(target)
    parent = target.parent
    begun = any(is_begun(RunDir(parent), kind) for kind in KINDS if kind != MERGED)
    _refuse_places_of_runs(target, begun)
    # Whoever works in a run looks after all of its artifacts.
    run = RunDir(parent).lock() if begun else nullcontext()
    scratch = parent / f"{_SCRATCH}{target.name}"
    with _made(parent), _locked(target), run:
        settle(target, keep_new=False)
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            # Of a command that failed.
            settle(target, keep_new=False)


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder for as long as it is needed; it stays if something lies in it then."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for one in missing:
            with suppress(OSError):
                one.rmdir()


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    lock = FileLock(target.parent / f"{_LOCK}{target.name}")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise LockedError(
            f"another `stx-mine merge` writes {target}; wait for it, or give another --to"
        ) from error
    try:
        yield
    finally:
        # While it is held, so that nobody takes what is going.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _refuse_foreign(target: Path) -> None:
    """Refuse what this command did not make.

    Raises:
        ArtifactError: It lies at the target.
    """
    if not target.exists() and not target.is_symlink():
        return
    marks = [json_or_empty(target / name).get("artifact") for name in (PLAN, MANIFEST)]
    is_empty = target.is_dir() and not any(target.iterdir())
    if target.is_symlink() or not (is_empty or (is_ours(target) and MERGED in marks)):
        raise ArtifactError(
            f"expected a model that `stx-mine merge` made at {target}, or nothing, found something "
            "else; it is left alone, also with --overwrite: give another --to, or move it away"
        )
    own = {PLAN, MANIFEST, *(one["file"] for one in _files(target))}
    found = (path for path in sorted(target.rglob("*")) if path.is_file())
    names = [path.relative_to(target).as_posix() for path in found]
    if others := [name for name in names if name not in own]:
        raise ArtifactError(
            f"{target} holds what `stx-mine merge` did not write ({', '.join(others[:3])}), which "
            "would be lost; move it away, or give another --to"
        )


def _refuse_places_of_runs(target: Path, begun: bool) -> None:
    """Refuse a folder that another command would take for its own.

    Args:
        target: The folder.
        begun: Whether it would lie in a run directory.

    Raises:
        ArtifactError: It has the name of an artifact there, or would lie within one.
    """
    marks = (json_or_empty(target.parent / name) for name in (PLAN, MANIFEST))
    if any(map(is_mark, marks)) or (begun and target.name in {*KINDS, "rounds"} - {MERGED}):
        raise ArtifactError(
            f"{target} is a place of other commands in a run directory; give another --to, such as "
            f"{MERGED}-model"
        )


def _files(target: Path) -> list[dict[str, str]]:
    """The entries of its manifest; those that are none stand for no file."""
    listed = json_or_empty(target / MANIFEST).get("files")
    entries = listed if isinstance(listed, list) else []
    return [one for one in entries if isinstance(one, dict) and isinstance(one.get("file"), str)]


def refuse_within(target: Path, folders: list[tuple[str, Path]]) -> None:
    """Refuse to write where a model lies that is merged.

    Args:
        target: The folder that is written.
        folders: Name and folder of each model.

    Raises:
        ConfigError: One lies there.
    """
    real = target.resolve()
    for name, folder in folders:
        if real in (folder.resolve(), *folder.resolve().parents):
            raise ConfigError(
                f"the model {name} lies where the merged one would ({target}); give another --to"
            )
