"""A shared tree: one artifact as the hub holds it, whose files keep their paths.

README.md                  its card, with a license and what it was made of
.stx-mine/manifest.json    its manifest; of paths of this machine it has only the last part
.stx-mine/plan.json        its plan, likewise
.stx-mine/README.md        its card as it is in the run
.stx-mine/share.json       its name, and digests of the cards that were written, so that one
that somebody has edited there since is not taken for ours
...                        every other file that the manifest lists
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import join, split
from typing import Any

import xxhash

from stx_mine.errors import ArtifactError
from stx_mine.stages.transfer.hub_address import HubAddress
from stx_mine.stages.transfer.listings import (
    Listing,
    is_artifact,
    is_grown_from,
    read_object,
)
from stx_mine.stages.transfer.shared_card import shared_card
from stx_mine.stages.transfer.storage import Storage
from stx_mine.store.artifact import MANIFEST, PLAN, Manifest
from stx_mine.store.dataset_card import DATASET_CARD
from stx_mine.store.files import json_or_empty
from stx_mine.store.listing import refuse_listing
from stx_mine.store.manifest import command_of, sealed
from stx_mine.store.places import is_mark
from stx_mine.store.run_dir import RunDir

MARKS, _SHARE = ".stx-mine", "share.json"
_IN_MARKS = (MANIFEST, PLAN, DATASET_CARD, _SHARE)
# What the hub itself puts into a new repository.
_OF_HUB = {".gitattributes"}
# What a manifest or a plan says that may name paths of this machine, and decides nothing here.
_LOCAL = ("config", "extra", "fields")


def path_in_tree(file: str) -> str:
    """Where a file of the artifact lies in the tree."""
    return f"{MARKS}/{file}" if file in _IN_MARKS else file


@dataclass(frozen=True)
class TreeState:
    """What lies where a tree is to be written.

    Attributes:
        where: The place, for errors.
        sizes: Bytes of each file, by its path.
        marks: Contents of the cards and of what lies in `.stx-mine/`, by path.
        commit: The commit of a hub; empty elsewhere.
    """

    where: str
    sizes: dict[str, int]
    marks: dict[str, bytes]
    commit: str = ""

    def _object(self, file: str) -> dict[str, Any]:
        return read_object(self.marks.get(path_in_tree(file), b"")) or {}

    @property
    def manifest(self) -> dict[str, Any] | None:
        """That of the artifact that is there; None where there is none, or it is damaged."""
        found = self._object(MANIFEST)
        try:
            refuse_listing(found, MANIFEST, "")
        except ArtifactError:
            return None
        return found

    @property
    def is_ours(self) -> bool:
        """Whether a tree lies there, or nothing."""
        marked = is_mark(self._object(MANIFEST)) or is_mark(self._object(PLAN))
        return marked or self.sizes.keys() <= _OF_HUB

    @property
    def cards(self) -> list[str]:
        """Digests of the cards that were written there."""
        found = self._object(_SHARE).get("cards")
        return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []

    @property
    def files(self) -> set[str]:
        """Paths of what was written there."""
        listed = self.manifest["files"] if self.manifest else []
        ours = {path_in_tree(one["file"]) for one in listed}
        return ours | {DATASET_CARD, *map(path_in_tree, _IN_MARKS)}

    @property
    def others(self) -> list[str]:
        """Paths of what somebody else has put there."""
        return sorted(self.sizes.keys() - self.files - _OF_HUB)

    def refuse(self, name: str, content: dict[str, Any], overwrite: bool) -> None:
        """Refuse to write a tree where something else lies.

        Args:
            name: Name of the artifact.
            content: Its manifest.
            overwrite: Whether another artifact, or an edited card, may be replaced.

        Raises:
            ArtifactError: Somebody else's files are there, another artifact, or an edited card.
        """
        if not self.is_ours:
            found = ", ".join(sorted(self.sizes.keys() - _OF_HUB)[:3])
            raise ArtifactError(
                f"{self.where} holds what stx-mine did not publish ({found}); it is left alone, "
                "also with --overwrite: name another place, or move it away"
            )
        if overwrite:
            return
        if self.manifest is not None and not is_grown_from(self.manifest, content):
            raise ArtifactError(
                f"{self.where} holds another {name}, made with other settings or from other "
                "inputs; give --overwrite to replace it, or name another place"
            )
        card = self.marks.get(DATASET_CARD)
        if card is not None and _digest(card) not in self.cards and self.manifest is not None:
            raise ArtifactError(
                f"{DATASET_CARD} of {self.where} was edited there since it was published; give "
                "--overwrite to replace it, or move what was written into another file"
            )


@dataclass(frozen=True)
class TreeStorage(Storage):
    """A shared tree at a URL of fsspec."""

    def place(self, name: str) -> str:
        """Where the artifact lies: the tree has no folder for it."""
        return self.url

    def names(self) -> list[str]:
        """The name of the artifact; none where no tree lies there."""
        name = (self._read("", _SHARE) or {}).get("name")
        return [name] if isinstance(name, str) and is_artifact(name, self.url) else []

    def sizes(self, name: str) -> dict[str, int]:
        """Bytes of each file of the artifact that is there."""
        found = super().sizes(name)
        found.pop(DATASET_CARD, None)
        return {path.removeprefix(f"{MARKS}/"): size for path, size in found.items()}

    def card(self, name: str, listed: Listing) -> bytes | None:
        """The card of the artifact, where that is none of its files."""
        is_listed = DATASET_CARD in listed.entries
        return None if is_listed else self._content(self._path(name, DATASET_CARD))

    def state(self) -> TreeState:
        """What lies there."""
        sizes = super().sizes("")
        marks = {
            path: found
            for path in (DATASET_CARD, *map(path_in_tree, _IN_MARKS))
            if path in sizes and (found := self._content(f"{self._path('')}/{path}")) is not None
        }
        return TreeState(self.place(""), sizes, marks)

    def _path(self, *parts: str) -> str:
        return "/".join([self._opened[1], *map(path_in_tree, parts[1:])])


@dataclass(frozen=True)
class SharedTree:
    """A tree that is to be written.

    Attributes:
        name: Name of the artifact, as `batches` or `exports/beir`.
        of: Its manifest.
        content: The manifest that lies in the tree.
        marks: What else lies in the tree than files of the artifact, by path.
    """

    name: str
    of: Manifest
    content: dict[str, Any]
    marks: dict[str, bytes]

    @classmethod
    def of_artifact(
        cls, name: str, of: Manifest, license_id: str, address: HubAddress, run: RunDir
    ) -> "SharedTree":
        """The tree of an artifact.

        Args:
            name: Its name.
            of: Its manifest.
            license_id: The license that the card names.
            address: Where it will lie on the hub.
            run: The run that holds it.

        Raises:
            ArtifactError: It has no card.
        """
        here = of.folder / DATASET_CARD
        if not here.is_file():
            raise ArtifactError(
                f"expected the card of {name} at {here}, found none; run "
                f"`{command_of(of.folder)}`, which writes it again"
            )
        card = here.read_text("utf-8")
        content = sealed(_without_paths(of.content))
        marks = {
            DATASET_CARD: shared_card(card, license_id, address, run, of).encode(),
            path_in_tree(DATASET_CARD): card.encode(),
            path_in_tree(PLAN): _json(_without_paths(json_or_empty(of.folder / PLAN))),
            path_in_tree(MANIFEST): _json(content),
        }
        return cls(name, of, content, marks)

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """What the manifest says of each file that lies as such in the tree."""
        return {file: one for file, one in self.of.entries.items() if file not in _IN_MARKS}

    @property
    def num_files(self) -> int:
        """Files of the tree."""
        return len(self.files) + len(self.marks) + 1

    def all_marks(self, state: TreeState) -> dict[str, bytes]:
        """The marks, and what tells the cards that were written from edited ones."""
        return {**self._share(state), **self.marks}

    def _share(self, state: TreeState) -> dict[str, bytes]:
        cards = [*state.cards[-1:], _digest(self.marks[DATASET_CARD])]
        share = {"name": self.name, "cards": list(dict.fromkeys(cards))}
        return {path_in_tree(_SHARE): _json(share)}

    def changed_files(self, state: TreeState, overwrite: bool) -> list[str]:
        """Paths of the files of the artifact that are not there as they are here."""
        listed = state.manifest["files"] if state.manifest and not overwrite else []
        there = {one["file"]: one for one in listed}
        return [
            file
            for file, one in self.files.items()
            if there.get(file) != one or state.sizes.get(file) != one["bytes"]
        ]

    def changed_marks(self, state: TreeState) -> dict[str, bytes]:
        """What else is not there as it is here; nothing, or with it what tells the cards."""
        changed = {
            path: content
            for path, content in self.marks.items()
            if state.marks.get(path) != content
        }
        is_known = path_in_tree(_SHARE) in state.marks
        return {} if is_known and not changed else {**self._share(state), **changed}

    def stale(self, state: TreeState) -> list[str]:
        """Paths of what was written there and is no part of this tree."""
        wanted = {*self.files, *self.marks, path_in_tree(_SHARE)}
        return sorted((state.files - wanted) & state.sizes.keys())

    def num_bytes(self, files: Sequence[str], marks: dict[str, bytes]) -> int:
        """Bytes of some of its files and marks."""
        return sum(int(self.files[one]["bytes"]) for one in files) + sum(map(len, marks.values()))


def _without_paths(content: dict[str, Any]) -> dict[str, Any]:
    """A manifest or a plan whose paths of this machine have only their last part."""
    found = {name: _cut(one) if name in _LOCAL else one for name, one in content.items()}
    if isinstance(found.get("command"), str):
        found["command"] = join(map(_cut, split(found["command"])))
    return found


def _cut(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _cut(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_cut(one) for one in value]
    is_path = isinstance(value, str) and (value.startswith("~") or Path(value).is_absolute())
    return Path(value).name if is_path else value


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _digest(content: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(content)
