"""The manifest of a finished artifact: what it says of itself, and the only way to its files.

A file is opened by its entry, which says how many bytes it has. What is not as it was written is
refused in one line that names the file, what was expected and found, and the command that makes it
anew.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from stx_mine.errors import ArtifactError, DamagedError, one_line
from stx_mine.store.files import StoredArray, json_or_empty, read_array, read_json, read_table
from stx_mine.store.intact import Damage, find_damage, size_problem
from stx_mine.store.kinds import KINDS
from stx_mine.store.listing import MANIFEST, PLAN, refuse_listing
from stx_mine.store.names import NEW
from stx_mine.store.places import is_mark
from stx_mine.store.run_dir import RunDir
from stx_mine.store.sound_columns import column_problem

_Read = TypeVar("_Read")
# What is made to be named as input, and how deep below its folder the files of an artifact may lie.
_GIVEN, _LEVELS = ("queries", "split", "exports"), 3
# The checksum of all else in the manifest.
_SEAL = "checksum"
# What readers raise where a file holds something else than they expect.
_UNREADABLE = (
    *(OSError, ValueError, EOFError, LookupError, TypeError, RuntimeError),
    *(pa.ArrowException, ArtifactError),
)


@dataclass(frozen=True)
class Manifest:
    """What a finished artifact says of itself."""

    folder: Path
    content: dict[str, Any]

    @property
    def digest(self) -> str:
        """Digest over names and checksums of the files; timestamps play no part."""
        return str(self.content["digest"])

    @property
    def counts(self) -> dict[str, Any]:
        """Numbers of what came in, was kept, was dropped."""
        return dict(self.content["counts"])

    @property
    def fields(self) -> dict[str, Any]:
        """The settings that decided the bytes."""
        return dict(self.content["fields"])

    @property
    def extra(self) -> dict[str, Any]:
        """What the stage adds for its readers."""
        return dict(self.content["extra"])

    @cached_property
    def entries(self) -> dict[str, dict[str, Any]]:
        """What it says of each file, by its path below the folder."""
        return {one["file"]: one for one in self.content["files"]}

    def names(self, prefix: str = "") -> list[str]:
        """Paths of the files that begin so, in the order in which they were listed."""
        return [name for name in self.entries if name.startswith(prefix)]

    def has(self, name: str) -> bool:
        """Whether the artifact has such a file, wherever it may be now."""
        return name in self.entries

    def file(self, name: str) -> Path:
        """Where a file lies, which is there and has its size.

        Raises:
            DamagedError: It is not, or the artifact has no such file.
        """
        if not self.has(name):
            raise self.damaged(name, f"expected it in {MANIFEST}, found no such entry")
        if problem := size_problem(self.folder / name, self.entries[name]["bytes"]):
            raise self.damaged(name, problem)
        return self.folder / name

    def read(self, name: str, reader: Callable[[Path], _Read]) -> _Read:
        """What a reader makes of a file.

        Raises:
            DamagedError: It is damaged, or holds something else than the reader expects.
        """
        path = self.file(name)
        try:
            return reader(path)
        except _UNREADABLE as error:
            raise self.damaged(name, f"it cannot be read ({one_line(error)[:120]})") from error

    def table(self, name: str) -> pa.Table:
        """Map a table; its offsets are checked, so that nothing outside of the file is read.

        Raises:
            DamagedError: The file is damaged.
        """
        return self.read(name, read_sound_table)

    def array(self, name: str) -> NDArray[Any]:
        """Map an array into memory, read-only.

        Raises:
            DamagedError: The file is damaged.
        """
        return self.read(name, read_array)

    def stored_array(self, name: str) -> StoredArray:
        """Read the header of an array.

        Raises:
            DamagedError: The file is damaged.
        """
        return self.read(name, StoredArray.open)

    def json(self, name: str) -> dict[str, Any]:
        """Read a JSON object.

        Raises:
            DamagedError: The file is damaged.
        """
        return self.read(name, read_json)

    def refuse_beyond(self, name: str, ids: NDArray[Any], stop: int, least: int = 0) -> None:
        """Refuse a file with numbers that stand for nothing.

        Args:
            name: The file.
            ids: Whole numbers of it, of any shape.
            stop: One above the largest that stands for something.
            least: The smallest.

        Raises:
            DamagedError: One is outside of [least, stop).
        """
        if not ids.size:
            return
        lowest, highest = int(np.min(ids)), int(np.max(ids))
        if lowest < least or highest >= stop:
            found = lowest if lowest < least else highest
            raise self.damaged(name, f"expected {least} to {stop - 1:,} in it, found {found:,}")

    def refuse_length(self, name: str, found: int, expected: int) -> None:
        """Refuse a file with another number of rows than what it belongs to.

        Raises:
            DamagedError: It has.
        """
        if found != expected:
            raise self.damaged(name, f"expected {expected:,} rows, found {found:,}")

    def damaged(self, name: str, problem: str) -> DamagedError:
        """The error of a file that is not as it was written."""
        return DamagedError(f"{self.folder / name} is damaged: {problem}; {self.cure}")

    @property
    def cure(self) -> str:
        """What makes the artifact anew, as the end of an error."""
        return f"rebuild it with `{remake(self.folder)}`"

    def damage(self, full: bool = False) -> list[Damage]:
        """The files that are not as they were written."""
        return find_damage(self.folder, self.content["files"], full)

    def refuse_damage(self, full: bool = False) -> None:
        """Check the size of every file, and each checksum once on a machine.

        Args:
            full: Compute every checksum, whatever is known.

        Raises:
            DamagedError: A file is damaged.
        """
        if found := self.damage(full):
            others = f" (and {len(found) - 1:,} more files)" if len(found) > 1 else ""
            raise self.damaged(found[0].file, found[0].problem + others)


def read_sound_table(path: Path) -> pa.Table:
    """Map an Arrow file whose offsets stay within it, so that nothing beside it is ever read.

    Raises:
        ValueError: They do not, or it holds something else.
    """
    table = read_table(path)
    if problem := next(filter(None, map(column_problem, table.columns)), ""):
        raise ValueError(problem)
    return table


def read_manifest(folder: Path) -> Manifest:
    """Read `manifest.json` of a finished artifact.

    Raises:
        DamagedError: It lacks what every manifest has, lists what is no file of the folder, or
            was changed since it was written.
    """
    cure = f"rebuild it with `{remake(folder, (PLAN,))}`"
    try:
        content = read_json(folder / MANIFEST, cure)
        refuse_listing(content, str(folder / MANIFEST), cure)
    except ArtifactError as error:
        raise DamagedError(str(error)) from error
    if not is_sealed(content):
        raise DamagedError(
            f"{folder / MANIFEST} is damaged: expected what its checksum says, found something "
            f"else; {cure}"
        )
    return Manifest(folder, content)


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a manifest with a checksum of itself."""
    return {**content, _SEAL: _seal_of(content)}


def is_sealed(content: dict[str, Any]) -> bool:
    """Whether a manifest is as it was written; that of an earlier version does not say."""
    return _SEAL not in content or content[_SEAL] == _seal_of(content)


def _seal_of(content: dict[str, Any]) -> str:
    return digest_of({name: value for name, value in content.items() if name != _SEAL})


def require(run: RunDir, name: str, subfolder: str | None = None) -> Manifest:
    """Read the manifest of a finished artifact, all of whose inputs are still the same.

    Its files are there and as they were written, and so are those of artifacts that it is read
    together with: sizes are looked at each time, checksums once on a machine unless `run` says
    otherwise.

    Raises:
        ArtifactError: It is missing, unfinished, stale or damaged; the message names the command.
    """
    manifest = _current(run, name, subfolder)
    for input_name in manifest.content["inputs"]:
        part, _, folder_name = input_name.partition("/")
        if part in KINDS[name].read_with:
            read_manifest(run.folder(part, folder_name or None)).refuse_damage(run.checks_all)
    manifest.refuse_damage(run.checks_all)
    return manifest


def read_finished(run: RunDir, name: str, subfolder: str | None = None) -> Manifest:
    """Read the manifest of a finished artifact, whose inputs may have changed since.

    Its files are looked at when they are opened.

    Raises:
        ArtifactError: It is missing or unfinished; the message names the command.
    """
    folder = run.folder(name, subfolder)
    if not (folder / MANIFEST).exists():
        state = "unfinished" if (folder / PLAN).exists() else "missing"
        command = f"`{KINDS[name].maker}` first (--run-dir {run.path})"
        if json_or_empty(folder / PLAN).get("command", KINDS[name].maker) != KINDS[name].maker:
            # With its options, it goes on where it was.
            command = f"`{command_of(folder, (PLAN,))}` first"
        raise ArtifactError(f"{folder}/ is {state}; run {command}")
    return read_manifest(folder)


def finished_names(run: RunDir, name: str) -> list[str]:
    """Names of the finished artifacts of a kind of which a run may hold several, rising."""
    found = run.folder(name, "x").parent.glob(f"*/{MANIFEST}")
    return sorted(path.parent.name for path in found)


def _current(run: RunDir, name: str, subfolder: str | None) -> Manifest:
    """The manifest of a finished artifact that is not stale."""
    manifest = read_finished(run, name, subfolder)
    owner = run.first_round if KINDS[name].shared_by_rounds else run
    if stale := stale_input(owner, manifest):
        kind = KINDS[name]
        command = f"{kind.maker} --overwrite` (--run-dir {run.path})"
        if str(manifest.content.get("command", kind.maker)).split()[1:2] != [kind.command]:
            # Another command renewed it: its maker would make something else.
            command = f"{remake(manifest.folder)}`"
        raise ArtifactError(
            f"{manifest.folder}/ is stale: {stale}/ has changed since; run `{command}"
        )
    return manifest


def stale_input(run: RunDir, manifest: Manifest) -> str:
    """The first artifact that has changed since one was made of it; empty where none has.

    Raises:
        ArtifactError: An input, or one of its own, is missing, unfinished or stale.
    """
    for name, digest in manifest.content["inputs"].items():
        part, _, subfolder = name.partition("/")
        if part in KINDS and _current(run, part, subfolder or None).digest != digest:
            return str(name)
    return ""


def is_begun(run: RunDir, name: str) -> bool:
    """Whether a run has an artifact, finished or not; whoever reads it then requires it."""
    return any((run.folder(name) / file).exists() for file in (PLAN, MANIFEST))


def refuse_damaged(*names: str | None) -> None:
    """Refuse folders, or files in them, that are artifacts and not as they were written.

    What people bring is none, and is left to its reader.

    Args:
        names: Folders of a model or of data, or files; None for one that is not given. Patterns
            and names of a hub are no paths.

    Raises:
        ArtifactError: One is unfinished or damaged.
    """
    for name in names:
        if name is not None and "://" not in name:
            _refuse_damaged(Path(name))


def _refuse_damaged(path: Path) -> None:
    folders = [path, *list(path.absolute().parents)[:_LEVELS]]
    for folder in folders:
        marks = [said for file in (PLAN, MANIFEST) if is_mark(said := json_or_empty(folder / file))]
        if not marks or (folder != path and marks[0]["artifact"] not in _GIVEN):
            continue
        if not (folder / MANIFEST).exists():
            raise ArtifactError(
                f"expected a finished artifact at {folder}, found no {MANIFEST} in it; finish it "
                f"with `{command_of(folder)}`"
            )
        manifest = read_manifest(folder)
        name = path.absolute().relative_to(folder.absolute()).as_posix()
        if folder == path:
            manifest.refuse_damage()
        elif manifest.has(name):
            for one in find_damage(folder, [manifest.entries[name]], full=False):
                raise manifest.damaged(*one)
        return


def remake(folder: Path, says: tuple[str, ...] = (MANIFEST, PLAN)) -> str:
    """The command line that makes an artifact anew, as `command_of` says, with --overwrite."""
    return f"{command_of(folder, says)} --overwrite"


def command_of(folder: Path, says: tuple[str, ...] = (MANIFEST, PLAN)) -> str:
    """The command line that makes an artifact: the one that made it, where it says that.

    Args:
        folder: Of the artifact.
        says: The files that are asked.
    """
    said = next((found for name in says if (found := json_or_empty(folder / name))), {})
    beside, above = folder.name.removesuffix(NEW), folder.parent.name
    kind = said.get("artifact")
    if kind not in KINDS:
        kind = above if above in KINDS and KINDS[above].several else beside
    command = said.get("command")
    if not isinstance(command, str):
        command = KINDS[kind].maker if kind in KINDS else "stx-mine embed PAIRS"
    several = kind in KINDS and KINDS[kind].several and above == kind
    run = folder.parent.parent if several else folder.parent
    return f"{command} --run-dir {quote(str(run))}"


def digest_of(content: Any) -> str:
    """The xxh3-128 digest of something JSON-ready, in hex; the order of keys plays no part."""
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=False).encode()
    return xxhash.xxh3_128_hexdigest(canonical)
