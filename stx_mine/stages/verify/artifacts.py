"""Verify artifacts: their files, what they were made of, and what does not belong to them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from stx_mine.errors import ArtifactError, one_line
from stx_mine.store.artifact import MANIFEST, PLAN, Manifest, read_manifest
from stx_mine.store.dataset_card import DATASET_CARD
from stx_mine.store.files import json_or_empty, read_array, read_json
from stx_mine.store.kinds import KINDS
from stx_mine.store.manifest import command_of, read_sound_table
from stx_mine.store.names import NEW, OLD
from stx_mine.store.places import is_mark
from stx_mine.store.run_dir import RunDir

# Files beside the listed ones that belong there: the card of a model, the plans of layers of hits.
_BESIDE = {"model": (DATASET_CARD,), "hits": ("layer-*.json",)}
_HEADER_BYTES = 8


@dataclass(frozen=True)
class ArtifactState:
    """What was found of one artifact.

    Attributes:
        name: Its path below what was named.
        files: Files that it lists.
        num_bytes: Their sizes together.
        problems: What does not hold, each with the way out, as sentences.
        notes: What is worth knowing and harms nobody, as sentences.
    """

    name: str
    files: int
    num_bytes: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def check_artifacts(folder: Path) -> list[ArtifactState]:
    """Check every artifact in a folder: a run with its rounds, one artifact, or several of a kind.

    Returns:
        The state of each, in the order in which they are made; none where none is there.
    """
    return [_state(folder, *found) for found in _artifacts(folder)]


def _artifacts(folder: Path) -> Iterator[tuple[RunDir, str, Path]]:
    """The run, the kind and the folder of each artifact, begun or finished."""
    if kind := artifact_kind(folder):
        several = KINDS[kind].several and folder.parent.name == kind
        yield RunDir(folder.parent.parent if several else folder.parent), kind, folder
        return
    if folder.name in KINDS and KINDS[folder.name].several:
        for below in _sorted_folders(folder):
            if artifact_kind(below):
                yield RunDir(folder.parent), folder.name, below
        return
    runs = [folder, *sorted(folder.glob("rounds/*"), key=lambda path: (len(path.name), path.name))]
    for run in runs:
        for kind in KINDS:
            inside = _sorted_folders(run / kind) if KINDS[kind].several else []
            for found in (run / kind, *inside):
                if artifact_kind(found):
                    yield RunDir(run), kind, found


def _sorted_folders(folder: Path) -> list[Path]:
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if path.is_dir() and path.suffix not in (NEW, OLD))


def artifact_kind(folder: Path) -> str:
    """The kind of the artifact in a folder, begun or finished; empty where it is none."""
    for name in (MANIFEST, PLAN):
        content = json_or_empty(folder / name)
        if is_mark(content):
            return str(content["artifact"])
    return ""


def _state(top: Path, run: RunDir, kind: str, folder: Path) -> ArtifactState:
    name = folder.name if folder == top else folder.relative_to(top).as_posix()
    if not (folder / MANIFEST).exists():
        problem = f"{folder}/ is unfinished: it has no {MANIFEST}; finish it with "
        return ArtifactState(name, 0, 0, (f"{problem}`{command_of(folder)}`",), ())
    try:
        manifest = read_manifest(folder)
    except ArtifactError as error:
        return ArtifactState(name, 0, 0, (str(error),), ())
    stale, absent = _inputs(run, manifest)
    sizes = [int(one["bytes"]) for one in manifest.content["files"]]
    problems = (*_plan_problems(folder, manifest), *_file_problems(manifest), *stale)
    notes = (*absent, *_leftovers(kind, manifest))
    return ArtifactState(name, len(sizes), sum(sizes), problems, notes)


def _plan_problems(folder: Path, manifest: Manifest) -> Iterator[str]:
    if json_or_empty(folder / PLAN).get("key") != manifest.content["key"]:
        yield str(manifest.damaged(PLAN, f"expected the key of {MANIFEST}, found another or none"))


def _file_problems(manifest: Manifest) -> Iterator[str]:
    """Sizes and checksums, and of files that have theirs what readers read first."""
    damage = dict(manifest.damage(full=True))
    for name in manifest.names():
        problem = damage.get(name) or _head_problem(manifest.folder / name)
        if problem:
            yield str(manifest.damaged(name, problem))


def _head_problem(path: Path) -> str:
    """What is wrong with the header or footer of a file; empty where nothing is, or it has none."""
    try:
        if path.suffix == ".arrow":
            read_sound_table(path)
        elif path.suffix == ".npy":
            read_array(path)
        elif path.suffix == ".parquet":
            pq.ParquetFile(path).close()
        elif path.suffix == ".json":
            json.loads(path.read_bytes())
        elif path.suffix == ".safetensors":
            with path.open("rb") as file:
                size = int.from_bytes(file.read(_HEADER_BYTES), "little")
                json.loads(file.read(min(size, path.stat().st_size)))
    except (OSError, ValueError, RecursionError) as error:
        return f"it cannot be read ({one_line(error)[:120]})"
    return ""


def _inputs(run: RunDir, manifest: Manifest) -> tuple[list[str], list[str]]:
    """Sentences about inputs that have changed since, and about those that are not here."""
    stale, absent = list[str](), list[str]()
    for name, digest in manifest.content["inputs"].items():
        part, _, subfolder = name.partition("/")
        if part not in KINDS:
            continue
        try:
            folder = run.folder(part, subfolder or None)
            found = read_json(folder / MANIFEST).get("digest")
        except FileNotFoundError:
            absent.append(f"{manifest.folder}/ was made of {name}/, which is not here")
            continue
        except ArtifactError:
            # It is named where its own turn comes.
            found = digest
        if found != digest:
            stale.append(f"{manifest.folder}/ is stale: {name}/ has changed since; {manifest.cure}")
    return stale, absent


def _leftovers(kind: str, manifest: Manifest) -> list[str]:
    """Sentences about files that do not belong to an artifact."""
    folder = manifest.folder
    beside = {path for glob in _BESIDE.get(kind, ()) for path in folder.glob(glob)}
    own = {folder / name for name in (*manifest.names(), PLAN, MANIFEST)} | beside
    left = [path for path in sorted(folder.rglob("*")) if path.is_file() and path not in own]
    if KINDS[kind].several:
        left = [path for path in left if path.parent == folder or not artifact_kind(path.parent)]
    ends = [folder.with_name(folder.name + ending) for ending in (NEW, OLD)]
    names = [path.relative_to(folder.parent).as_posix() for path in left]
    names += [f"{path.name}/" for path in ends if path.is_dir()]
    if not names:
        return []
    more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
    return [f"{folder.parent / names[0]}{more}: left over, not read and not published"]
