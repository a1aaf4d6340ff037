"""Share: one artifact on the hub, as others load it, or the same tree in a folder."""

from collections.abc import Sequence
from typing import Protocol

import pyarrow.parquet as pq

from stx_mine.errors import ConfigError
from stx_mine.inputs.files import at_home
from stx_mine.stages.transfer.config import PublishConfig
from stx_mine.stages.transfer.counts import MovedFiles
from stx_mine.stages.transfer.folder_place import FolderPlace
from stx_mine.stages.transfer.hub_address import HubAddress
from stx_mine.stages.transfer.hub_place import HubPlace
from stx_mine.stages.transfer.licenses import license_of
from stx_mine.stages.transfer.listings import choose, finished
from stx_mine.stages.transfer.report import share_report
from stx_mine.stages.transfer.shared_tree import SharedTree, TreeState
from stx_mine.store.artifact import Manifest
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import StageReport

# Uncompressed, of which the viewer reads one at a time.
_MOST_GROUP_BYTES = 100_000_000


class SharePlace(Protocol):
    """Where a shared tree is written."""

    @property
    def visibility(self) -> str:
        """Who sees it: public or private; empty where it does not say."""
        ...

    def state(self) -> TreeState:
        """What lies there."""
        ...

    def put(
        self, tree: SharedTree, files: Sequence[str], marks: dict[str, bytes], state: TreeState
    ) -> None:
        """Write what differs."""
        ...


def run_share(config: PublishConfig, address: HubAddress) -> StageReport:
    """Share an artifact; what is there already is not sent again.

    Raises:
        ConfigError: There is no license, the artifact is none that is shared, the hub does not
            answer, or there is no token that may write.
        ArtifactError: The artifact is not finished or damaged, or something else lies there.
    """
    license_id = license_of(config.license)
    name = _wanted(config.artifact, address)
    place: SharePlace = (
        FolderPlace(at_home(config.to))
        if config.to is not None
        else HubPlace.open(address, config.public)
    )
    run = RunDir(config.run_dir)
    here = finished(run)
    [name] = choose([name], list(here), f"in {config.run_dir}/")
    manifest = here[name]
    manifest.refuse_damage()
    tree = SharedTree.of_artifact(name, manifest, license_id, address, run)
    state = place.state()
    state.refuse(name, tree.content, config.overwrite)
    files, marks = tree.changed_files(state, config.overwrite), tree.changed_marks(state)
    if files or marks or tree.stale(state):
        place.put(tree, files, marks, state)
    moved = MovedFiles(name, tree.num_files, len(files) + len(marks), tree.num_bytes(files, marks))
    large = _large_groups(manifest)
    return share_report(moved, address, license_id, config.to, place.visibility, large)


def _large_groups(manifest: Manifest) -> list[str]:
    """Shards with row groups that are too large for the viewer of the hub."""
    found = []
    for name in manifest.names("epoch-"):
        metadata = manifest.read(name, pq.read_metadata)
        groups = map(metadata.row_group, range(metadata.num_row_groups))
        if any(group.total_byte_size > _MOST_GROUP_BYTES for group in groups):
            found.append(name)
    return found


def _wanted(artifacts: Sequence[str], address: HubAddress) -> str:
    """The one artifact that is shared.

    Raises:
        ConfigError: Several are named, or one that such a repository does not hold.
    """
    names = list(artifacts) or ["batches" if address.is_dataset else "model"]
    kind, _, layout = names[0].partition("/")
    fits = names[0] == "batches" or (kind == "exports" and bool(layout))
    if len(names) > 1 or fits != address.is_dataset or (not fits and names[0] != "model"):
        holds = "batches or exports/LAYOUT" if address.is_dataset else "model"
        raise ConfigError(
            f"{address.url} holds one artifact, {holds}, found --artifact {' '.join(names)}; name "
            "that, or publish the others at a URL such as s3://bucket/run"
        )
    return names[0]
