"""Fetch: published artifacts from a URL into the run directory, each whole or not at all."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stx_mine.engine.local import run_tasks
from stx_mine.engine.tasks import Worker, attempt
from stx_mine.errors import ArtifactError
from stx_mine.stages.transfer.config import FetchConfig
from stx_mine.stages.transfer.counts import MovedFiles
from stx_mine.stages.transfer.hub_address import HubAddress
from stx_mine.stages.transfer.hub_place import open_hub_tree
from stx_mine.stages.transfer.listings import (
    Listing,
    choose,
    content_digest,
    refuse_manifest,
)
from stx_mine.stages.transfer.report import transfer_report
from stx_mine.stages.transfer.shared_tree import TreeStorage
from stx_mine.stages.transfer.storage import CONNECTIONS, Storage, url_of
from stx_mine.store.artifact import MANIFEST, PLAN, read_manifest
from stx_mine.store.dataset_card import DATASET_CARD
from stx_mine.store.files import atomic, read_json, write_json
from stx_mine.store.intact import remember
from stx_mine.store.places import (
    beside,
    is_mark,
    refuse_foreign,
    remove_others,
    remove_ours,
    swap_in,
)
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
    storage, run = _storage(url_of(config.url, "fetch")), RunDir(config.run_dir)
    chosen = choose(config.artifact, storage.names(), f"at {storage.url}")
    with run.lock(begins=True), storage.session():
        moved = [_fetch(config, storage, run, name) for name in chosen]
    return transfer_report("fetch", moved, config.run_dir)


def _storage(url: str) -> Storage:
    """What lies at a URL: the artifacts of a run, or one that was shared."""
    if address := HubAddress.of(url):
        return open_hub_tree(address)
    shared = TreeStorage(url)
    return shared if shared.names() else Storage(url)


def _fetch(config: FetchConfig, storage: Storage, run: RunDir, name: str) -> MovedFiles:
    """Fetch one artifact, unless it is here."""
    content, plan = _checked(storage, name)
    artifact, _, subfolder = name.partition("/")
    target = run.folder(artifact, subfolder or None)
    refuse_foreign(target)
    listed = Listing.of(content)
    if _is_here(target, listed, config.overwrite):
        return MovedFiles(name, len(listed.entries), 0, 0)
    if (target / PLAN).exists() and not config.overwrite:
        raise ArtifactError(
            f"{target}/ is here already, and is not what {storage.place(name)} holds; give "
            "--overwrite to replace it, or another --run-dir"
        )
    staging = beside(target)
    if not (staging / PLAN).exists() or read_json(staging / PLAN) != plan:
        remove_ours(staging)
        write_json(staging / PLAN, plan)
    pending = {file: n for file, n in listed.sizes.items() if not (staging / file).exists()}
    _refuse_little_room(staging, sum(pending.values()), name)
    checksums = {file: one["xxh3_128"] for file, one in listed.entries.items()}
    receiver = Receiver(storage, name, staging, checksums)
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        run_tasks(list(checksums), partial(attempt, receiver), f"fetching {name}", threads)
    # What an earlier fetch of other content left.
    remove_others(staging, {staging / PLAN, *(staging / file for file in listed.entries)})
    if card := storage.card(name, listed):
        with atomic(staging / DATASET_CARD) as path:
            path.write_bytes(card)
    write_json(staging / MANIFEST, content)
    swap_in(target)
    remember(target, content["files"])
    return MovedFiles(name, len(listed.entries), len(pending), sum(pending.values()))


def _is_here(target: Path, listed: Listing, overwrite: bool) -> bool:
    """Whether the artifact is here, as it was written.

    Raises:
        ArtifactError: It is here and damaged, and is not to be replaced.
    """
    if not (target / MANIFEST).exists():
        return False
    try:
        here = read_manifest(target)
        is_same = content_digest(here.content) == listed.digest
        damage = here.damage() if is_same else []
    except ArtifactError:
        # A manifest that cannot be read is that of another artifact.
        return False
    if damage and not overwrite:
        raise ArtifactError(
            f"{target / damage[0].file} is damaged: {damage[0].problem}; give --overwrite to "
            "fetch it again"
        )
    return is_same and not damage


def _checked(storage: Storage, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The manifest and the plan of an artifact at the URL.

    Raises:
        ArtifactError: One is damaged, or files are not of the sizes that the manifest says.
    """
    content, plan, sizes = storage.manifest(name), storage.plan(name), storage.sizes(name)
    where, cure = storage.place(name), "publish it again with --overwrite where it was made"
    if content is None:
        state = "is damaged" if MANIFEST in sizes else "was removed meanwhile"
        raise ArtifactError(f"{where}/{MANIFEST} {state}; {cure}, or fetch again")
    refuse_manifest(content, name, f"{where}/{MANIFEST}")
    if plan is None or not is_mark(plan) or plan["key"] != content["key"]:
        raise ArtifactError(f"expected the plan of {name} in {where}/{PLAN}, found none; {cure}")
    for file, num_bytes in Listing.of(content).sizes.items():
        if sizes.get(file) != num_bytes:
            raise ArtifactError(
                f"{where}/{file} is damaged: it has {sizes.get(file, 'no')} bytes, expected "
                f"{num_bytes}; {cure}"
            )
    return content, plan


def _refuse_little_room(folder: Path, num_bytes: int, name: str) -> None:
    """Refuse to fetch what does not fit on the disk.

    Raises:
        ArtifactError: It does not.
    """
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise ArtifactError(
            f"{name} takes {num_bytes / 1e9:,.1f} GB, found {free / 1e9:,.1f} GB free at "
            f"{folder.parent}; free the rest, or give another --run-dir"
        )
