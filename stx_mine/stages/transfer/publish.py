"""Publish: finished artifacts to a URL, the manifest of each last."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stx_mine.engine.local import run_tasks
from stx_mine.engine.tasks import Worker, attempt
from stx_mine.errors import ArtifactError, ConfigError
from stx_mine.stages.transfer.config import PublishConfig
from stx_mine.stages.transfer.storage import Storage, finished
from stx_mine.store.kinds import KINDS
from stx_mine.store.report import StageReport
from stx_mine.store.run_dir import RunDir

# Files on their way at one time: a connection alone seldom fills a network.
CONNECTIONS = 8


@dataclass(frozen=True)
class Sender(Worker):
    """Sends files of one artifact.

    Attributes:
        storage: Where to.
        name: Name of the artifact.
        folder: Where it lies here.
        checksums: Of each file.
    """

    storage: Storage
    name: str
    folder: Path
    checksums: dict[str, str]

    def __call__(self, file: str) -> None:
        """Send one file."""
        self.storage.send(self.name, self.folder, file, self.checksums[file])


def run_publish(config: PublishConfig) -> StageReport:
    """Send finished artifacts to a URL; what is there already stays.

    Raises:
        ConfigError: There is no URL, or fsspec cannot open it.
        ArtifactError: An artifact is not finished, is damaged, or another one is at the URL.
        TaskError: A file could not be sent in three tries.
    """
    storage = Storage(url_of(config.url, "publish"))
    here = finished(RunDir(config.run_dir))
    chosen = choose(config.artifact, list(here), f"in {config.run_dir}/")
    counts = {"artifacts": len(chosen), "files": 0, "files_moved": 0, "bytes_moved": 0}
    lines = []
    for name in chosen:
        manifest = here[name]
        listed = {one["file"]: one for one in manifest.content["files"]}
        missing = storage.begin(name, manifest, config.overwrite)
        if missing is not None:
            checksums = {file: one["xxh3_128"] for file, one in listed.items()}
            sender = Sender(storage, name, manifest.folder, checksums)
            with ThreadPoolExecutor(CONNECTIONS) as threads:
                run_tasks(missing, partial(attempt, sender), f"publish {name}", threads)
            storage.end(name, manifest)
        moved = [int(listed[file]["bytes"]) for file in missing or ()]
        lines.append(f"{name}: {moved_words(len(moved), len(listed), sum(moved))}")
        counts["files"] += len(listed)
        counts["files_moved"] += len(moved)
        counts["bytes_moved"] += sum(moved)
    return StageReport(
        "publish",
        counts,
        tuple(lines),
        skipped=not counts["files_moved"],
        folder=storage.url.rstrip("/"),
    )


def moved_words(num_moved: int, num_files: int, num_bytes: int) -> str:
    """How many files moved, in words."""
    if not num_moved:
        return f"all {num_files:,} files were there"
    return f"{num_moved:,} of {num_files:,} files moved, {num_bytes / 1e6:,.1f} MB"


def url_of(url: str | None, command: str) -> str:
    """The URL of a config.

    Raises:
        ConfigError: There is none.
    """
    if url is None:
        raise ConfigError(
            f"expected a URL, found none; name one, as in `stx-mine {command} s3://bucket/run`"
        )
    return url


def choose(wanted: Sequence[str], there: Sequence[str], where: str) -> list[str]:
    """The artifacts that are meant; all where none is named.

    Raises:
        ConfigError: A name is no artifact.
        ArtifactError: One is not there, or none at all.
    """
    for one in wanted:
        if one.split("/")[0] not in KINDS:
            raise ConfigError(f"--artifact {one} is no artifact; there are {', '.join(KINDS)}")
        if not any(_is_part(name, one) for name in there):
            raise ArtifactError(
                f"no finished {one} {where}, found {', '.join(there) or 'nothing'}; name one of "
                "these, or finish it first"
            )
    if not there:
        raise ArtifactError(f"no finished artifact {where}; run or publish a stage first")
    return [name for name in there if not wanted or any(_is_part(name, one) for one in wanted)]


def _is_part(name: str, wanted: str) -> bool:
    return name == wanted or name.startswith(f"{wanted}/")
