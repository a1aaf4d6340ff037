"""Fetch: published artifacts from a URL into the run directory, each whole or not at all."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stx_mine.engine.local import run_tasks
from stx_mine.engine.tasks import Worker, attempt
from stx_mine.errors import ArtifactError
from stx_mine.stages.transfer.config import FetchConfig
from stx_mine.stages.transfer.counts import MovedFiles
from stx_mine.stages.transfer.report import transfer_report
from stx_mine.stages.transfer.storage import (
    CONNECTIONS,
    Storage,
    choose,
    content_digest,
    url_of,
)
from stx_mine.store.artifact import MANIFEST, PLAN, read_manifest
from stx_mine.store.files import publish_directory
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import StageReport


@dataclass(frozen=True)
class Receiver(Worker):
    """Fetches files of one artifact.

    Attributes:
        storage: Where from.
        name: Name of the artifact.
        folder: Where to.
        checksums: Of each file.
    """

    storage: Storage
    name: str
    folder: Path
    checksums: dict[str, str]

    def __call__(self, file: str) -> None:
        """Fetch one file."""
        self.storage.receive(self.name, self.folder, file, self.checksums[file])


def run_fetch(config: FetchConfig) -> StageReport:
    """Fetch published artifacts; those that are here already are not fetched again.

    Raises:
        ConfigError: There is no URL, or fsspec cannot open it.
        ArtifactError: An artifact is not published, is damaged, or another one is here.
        TaskError: A file could not be fetched in three tries.
    """
    storage, run = Storage(url_of(config.url, "fetch")), RunDir(config.run_dir)
    chosen = choose(config.artifact, storage.names(), f"at {storage.url}")
    with run.lock(begins=True):
        moved = [_fetch(config, storage, run, name) for name in chosen]
    return transfer_report("fetch", moved, config.run_dir)


def _fetch(config: FetchConfig, storage: Storage, run: RunDir, name: str) -> MovedFiles:
    """Fetch one artifact, unless it is here."""
    content = storage.manifest(name)
    if content is None:
        raise ArtifactError(f"{storage.url}/{name} was removed meanwhile; fetch again")
    artifact, _, subfolder = name.partition("/")
    target = run.folder(artifact) / subfolder
    listed = {one["file"]: one for one in content["files"]}
    if (target / MANIFEST).exists():
        here = content_digest(read_manifest(target).content)
        if here == content_digest(content):
            return MovedFiles(name, len(listed), 0, 0)
    if (target / PLAN).exists() and not config.overwrite:
        raise ArtifactError(
            f"{target}/ is here already, and is not what {storage.url}/{name} holds; give "
            "--overwrite to replace it, or another --run-dir"
        )
    staging = target.with_name(f"{target.name}.fetch")
    before = {file for file in listed if (staging / file).exists()}
    checksums = {file: one["xxh3_128"] for file, one in listed.items()}
    receiver = Receiver(storage, name, staging, checksums)
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        run_tasks(list(listed), partial(attempt, receiver), f"fetch {name}", threads)
    storage.settle(name, content, staging)
    publish_directory(staging, target)
    sizes = [int(entry["bytes"]) for file, entry in listed.items() if file not in before]
    return MovedFiles(name, len(listed), len(sizes), sum(sizes))
