"""Publish: finished artifacts to a URL, the manifest of each last."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stx_mine.engine.local import run_tasks
from stx_mine.engine.tasks import Worker, attempt
from stx_mine.errors import ConfigError
from stx_mine.stages.transfer.config import PublishConfig
from stx_mine.stages.transfer.counts import MovedFiles
from stx_mine.stages.transfer.hub_address import HubAddress
from stx_mine.stages.transfer.listings import choose, finished
from stx_mine.stages.transfer.report import transfer_report
from stx_mine.stages.transfer.share import run_share
from stx_mine.stages.transfer.storage import CONNECTIONS, Storage, url_of
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import StageReport


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
    """Send finished artifacts to a URL; files that are there already are not sent again.

    Raises:
        ConfigError: There is no URL, or fsspec cannot open it.
        ArtifactError: An artifact is not finished, is damaged, or another one is at the URL.
        TaskError: A file could not be sent in three tries.
    """
    url = url_of(config.url, "publish")
    if address := HubAddress.of(url):
        return run_share(config, address)
    _refuse_options_of_hub(config, url)
    storage = Storage(url)
    here = finished(RunDir(config.run_dir))
    chosen = choose(config.artifact, list(here), f"in {config.run_dir}/")
    for name in chosen:
        # Before anything there is replaced.
        here[name].refuse_damage()
    moved = []
    for name in chosen:
        manifest = here[name]
        listed = {file["file"]: file for file in manifest.content["files"]}
        missing = storage.begin(name, manifest, config.overwrite)
        if missing is not None:
            checksums = {file: entry["xxh3_128"] for file, entry in listed.items()}
            sender = Sender(storage, name, manifest.folder, checksums)
            with ThreadPoolExecutor(CONNECTIONS) as threads:
                run_tasks(missing, partial(attempt, sender), f"sending {name}", threads)
            storage.end(name, manifest)
        num_bytes = sum(int(listed[file]["bytes"]) for file in missing or ())
        moved.append(MovedFiles(name, len(listed), len(missing or ()), num_bytes))
    return transfer_report("publish", moved, storage.url.rstrip("/"))


def _refuse_options_of_hub(config: PublishConfig, url: str) -> None:
    """Refuse options that mean nothing at another URL.

    Raises:
        ConfigError: One is given.
    """
    given = {"--license": config.license, "--public": config.public, "--to": config.to}
    if named := [name for name, value in given.items() if value]:
        raise ConfigError(
            f"{named[0]} is for hf://datasets/OWNER/NAME and hf://OWNER/NAME, found {url}; leave "
            "it out, or give such a URL"
        )
