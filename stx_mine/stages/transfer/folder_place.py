"""A shared tree in a folder of this machine: built beside and swapped in."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stx_mine import progress
from stx_mine.errors import ArtifactError
from stx_mine.stages.transfer.shared_tree import MARKS, SharedTree, TreeState
from stx_mine.store.dataset_card import DATASET_CARD
from stx_mine.store.files import atomic, checksum
from stx_mine.store.listing import MANIFEST, PLAN
from stx_mine.store.names import PARTIAL
from stx_mine.store.places import (
    beside,
    refuse_foreign,
    remove_others,
    remove_ours,
    settle,
    swap_in,
)


@dataclass(frozen=True)
class FolderPlace:
    """Where `publish --to` writes.

    Attributes:
        folder: The folder.
    """

    folder: Path

    @property
    def visibility(self) -> str:
        """Who sees it; the folder says that itself."""
        return ""

    def state(self) -> TreeState:
        """What lies there; a swap that was cut is completed first.

        Raises:
            ArtifactError: It is no folder.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise ArtifactError(
                f"expected a folder at {self.folder}, or nothing, found a file; give another --to"
            )
        settle(self.folder, keep_new=True, marks=MARKS)
        paths = self.folder.rglob("*") if self.folder.is_dir() else ()
        found = {
            path.relative_to(self.folder).as_posix(): path
            for path in paths
            if path.is_file() and not path.name.endswith(PARTIAL)
        }
        marks = {
            name: path.read_bytes()
            for name, path in found.items()
            if name.startswith(f"{MARKS}/") or name == DATASET_CARD
        }
        sizes = {name: path.stat().st_size for name, path in found.items()}
        return TreeState(str(self.folder), sizes, marks)

    def put(
        self, tree: SharedTree, files: Sequence[str], marks: dict[str, bytes], state: TreeState
    ) -> None:
        """Write a tree: the cards in place where only they differ, else all of it anew.

        Raises:
            ArtifactError: Somebody else's files are in the way.
        """
        if not files and not tree.stale(state):
            for name, content in marks.items():
                _write(self.folder / name, content)
            return
        if state.others:
            raise ArtifactError(
                f"{self.folder} holds what stx-mine did not publish ({', '.join(state.others[:3])})"
                ", which would be lost; move it away, or give another --to"
            )
        new, plan = beside(self.folder), tree.marks[f"{MARKS}/{PLAN}"]
        refuse_foreign(new, MARKS)
        begun = new / MARKS / PLAN
        if not begun.exists() or begun.read_bytes() != plan:
            remove_ours(new, MARKS)
            _write(begun, plan)
        self._copy(tree, new)
        last = f"{MARKS}/{MANIFEST}"
        marks = tree.all_marks(state)
        for name in sorted(marks, key=lambda name: name == last):
            _write(new / name, marks[name])
        swap_in(self.folder, MARKS)

    def _copy(self, tree: SharedTree, new: Path) -> None:
        total = tree.num_bytes(list(tree.files), {})
        with progress.step(f"writing {self.folder}", total, "bytes") as counted:
            for name, one in tree.files.items():
                path, expected = new / name, one["xxh3_128"]
                if not path.exists() or checksum(path) != expected:
                    with atomic(path) as temporary:
                        shutil.copyfile(tree.of.file(name), temporary)
                        if checksum(temporary) != expected:
                            raise tree.of.damaged(name, "its checksum is not that of the manifest")
                counted.advance(one["bytes"])
        remove_others(new, {new / name for name in (*tree.files, *tree.marks)})


def _write(path: Path, content: bytes) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(content)
