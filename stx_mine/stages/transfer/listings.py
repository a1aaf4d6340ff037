"""What lies at a URL, and what of it is ours: which files are kept, which are removed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import xxhash

from stx_mine.errors import ArtifactError, ConfigError
from stx_mine.store.artifact import MANIFEST, PLAN, Manifest, read_manifest
from stx_mine.store.kinds import KINDS
from stx_mine.store.listing import refuse_listing
from stx_mine.store.manifest import is_sealed
from stx_mine.store.names import PARTIAL, artifact_problem, path_problem
from stx_mine.store.places import finished_below, is_mark
from stx_mine.store.run_dir import RunDir

MARKER = "publishing.json"


@dataclass(frozen=True)
class Listing:
    """The files of an artifact.

    Attributes:
        entries: What the manifest says of each, by its path.
        digest: What the artifact is and holds.
    """

    entries: dict[str, dict[str, Any]]
    digest: str

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {file: int(one["bytes"]) for file, one in self.entries.items()}

    @classmethod
    def of(cls, content: dict[str, Any]) -> "Listing":
        """That of a manifest, which was checked."""
        return cls({one["file"]: one for one in content["files"]}, content_digest(content))


@dataclass(frozen=True)
class Published:
    """What lies at a URL under the name of an artifact.

    Attributes:
        name: The name.
        sizes: Bytes of each file.
        manifest: The manifest; None where it is not there, or no JSON object.
        plan: The plan, likewise.
        marker: What an artifact on its way is marked with, likewise.
    """

    name: str
    sizes: dict[str, int]
    manifest: dict[str, Any] | None
    plan: dict[str, Any] | None
    marker: dict[str, Any] | None

    @cached_property
    def listing(self) -> Listing | None:
        """The files of the artifact that is there; None where there is none, or it is damaged."""
        if self.manifest is None or not is_mark(self.manifest):
            return None
        try:
            refuse_listing(self.manifest, MANIFEST, "")
        except ArtifactError:
            return None
        return Listing.of(self.manifest)

    @property
    def marked(self) -> str | None:
        """Which content is on its way; None where none is, or where another is being removed."""
        content = (self.marker or {}).get("content")
        return content if isinstance(content, str) else None

    @cached_property
    def known(self) -> list[str]:
        """Files that were sent; no other one is ever removed."""
        marked = (self.marker or {}).get("files")
        named = [one for one in marked if not path_problem(one)] if isinstance(marked, list) else []
        return [*named, *(self.listing.entries if self.listing else ())]

    def refuse(self, url: str, content: dict[str, Any], overwrite: bool) -> None:
        """Refuse to send an artifact where something else lies.

        Args:
            url: The URL, for the error.
            content: The manifest of what is to be sent.
            overwrite: Whether another artifact may be replaced.

        Raises:
            ArtifactError: Somebody else's files are there, or another artifact.
        """
        ours = MARKER in self.sizes or is_mark(self.manifest) or is_mark(self.plan)
        # What a disk that failed left of the first marker.
        others = self.sizes.keys() - {f"{MARKER}{PARTIAL}"}
        if others and not ours:
            found = ", ".join(sorted(others)[:3])
            raise ArtifactError(
                f"{url}/{self.name} holds what stx-mine did not publish ({found}); it is left "
                "alone, also with --overwrite: name another URL, or move it away"
            )
        if overwrite or MANIFEST not in self.sizes:
            return
        # A manifest that a kill cut short has a marker beside it.
        if self.listing is None and MARKER not in self.sizes:
            raise ArtifactError(
                f"{url}/{self.name}/{MANIFEST} is damaged; give --overwrite to publish the "
                "artifact again"
            )
        if self.manifest is not None and self.listing and not is_grown_from(self.manifest, content):
            raise ArtifactError(
                f"{url}/{self.name} holds another {self.name}, made with other settings or from "
                "other inputs; give --overwrite to replace it, or another URL"
            )

    def is_whole(self, wanted: Listing) -> bool:
        """Whether the manifest that is there is that of this very content."""
        return self.listing is not None and self.listing.digest == wanted.digest

    def kept(self, wanted: Listing) -> set[str]:
        """The files that need not be sent."""
        if self.marked == wanted.digest:
            good = set(wanted.entries)
        else:
            before = self.listing.entries if self.listing else {}
            good = {file for file, one in wanted.entries.items() if before.get(file) == one}
        return {file for file in good if self.sizes.get(file) == wanted.entries[file]["bytes"]}

    def stale(self, kept: set[str]) -> list[str]:
        """The files that are removed; others than ours stay."""
        ours = {*self.known, PLAN} - kept
        # That of the marker is gone once the marker is written.
        halves = {file + PARTIAL for file in (*self.known, MANIFEST, PLAN)}
        return sorted((ours | halves) & set(self.sizes))


def read_object(raw: bytes) -> dict[str, Any] | None:
    """A JSON object; None where something else was read."""
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def is_artifact(name: str, url: str) -> bool:
    """Whether what has a manifest at a URL has the name of an artifact.

    Raises:
        ArtifactError: It would leave the run.
    """
    kind, _, subfolder = name.partition("/")
    if kind not in KINDS:
        return False
    if ".." in subfolder.split("/") or "\\" in subfolder:
        raise ArtifactError(
            f"expected names of artifacts at {url}, found {name!r}; remove it there, or name what "
            "you want with --artifact from another URL"
        )
    # What lies deeper, or beside, is no artifact: `publish` puts none there.
    return not artifact_problem(name)


def refuse_manifest(content: dict[str, Any], name: str, where: str) -> None:
    """Refuse a manifest from a URL that is not that of an artifact of its name, with files.

    Args:
        content: The manifest.
        name: The name.
        where: Where it was read, for the error.

    Raises:
        ArtifactError: It is not.
    """
    cure = "publish it again with --overwrite where it was made, or fetch from another URL"
    refuse_listing(content, where, cure)
    if not is_sealed(content):
        raise ArtifactError(
            f"{where} is damaged: expected what its checksum says, found something else; {cure}"
        )
    if content.get("artifact") != name.partition("/")[0]:
        found = content.get("artifact")
        raise ArtifactError(f"expected {name} in {where}, found {found!r}; {cure}")
    if not content["files"]:
        raise ArtifactError(f"expected files in {where}, found none; {cure}")


def choose(wanted: Sequence[str], there: Sequence[str], where: str) -> list[str]:
    """The names in `there` that are wanted; all where none is named.

    Args:
        wanted: Names of artifacts, such as texts or hits/dense.
        there: Names of the finished artifacts.
        where: Where these are, for the error.

    Raises:
        ConfigError: A name is no artifact.
        ArtifactError: One is not there, or none at all.
    """
    for one in wanted:
        if problem := artifact_problem(one):
            raise ConfigError(f"--artifact {one} is no artifact; {problem}")
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


def content_digest(manifest: dict[str, Any]) -> str:
    """What an artifact is and holds; artifacts that grow change it while their digest stays."""
    files = [(one["file"], one["xxh3_128"]) for one in manifest["files"]]
    return xxhash.xxh3_128_hexdigest(json.dumps([manifest["key"], files]).encode())


def finished(run: RunDir) -> dict[str, Manifest]:
    """The finished artifacts of a run by name, in the order in which they are made.

    One without files was begun only.
    """
    found = {}
    for artifact in KINDS:
        folder = run.folder(artifact)
        for path in finished_below(folder, artifact):
            tail = path.relative_to(folder).as_posix()
            manifest = read_manifest(path)
            if manifest.content["files"]:
                found[artifact if tail == "." else f"{artifact}/{tail}"] = manifest
    return found


def is_grown_from(there: dict[str, Any], here: dict[str, Any]) -> bool:
    """Whether what is there is the same artifact, or an earlier state of one that grows."""
    return there["key"] == here["key"] and all(one in here["files"] for one in there["files"])
