"""Finished artifacts at a URL of fsspec (s3, gs, file ...), laid out as in a run directory.

The manifest is sent last and removed first, so that an artifact with a manifest is whole. While an
artifact is being sent, a marker names it: only files of that artifact are kept when it continues.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec
import xxhash

from stx_mine.errors import ArtifactError, ConfigError
from stx_mine.store.artifact import MANIFEST, PLAN, Manifest, read_manifest
from stx_mine.store.files import atomic, checksum, write_json
from stx_mine.store.kinds import KINDS
from stx_mine.store.run_dir import RunDir

# Files that move at the same time: one connection alone seldom fills a network.
CONNECTIONS = 8
_MARKER = "publishing.json"


@dataclass(frozen=True)
class Storage:
    """The artifacts of one run below a URL.

    Attributes:
        url: Such as s3://bucket/run; whatever fsspec opens.
    """

    url: str

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        try:
            filesystem, root = fsspec.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            protocol = self.url.partition("://")[0]
            raise ConfigError(
                f"cannot open {self.url} ({' '.join(str(error).split())}); fsspec needs a package "
                f"for {protocol}://, as in `pip install s3fs` for s3:// or `gcsfs` for gs://"
            ) from error
        return filesystem, str(root).rstrip("/")

    def names(self) -> list[str]:
        """The artifacts that are whole, as `hits/dense`."""
        filesystem, root = self._opened
        filesystem.invalidate_cache()
        paths = filesystem.find(root) if filesystem.exists(root) else []
        tails = [str(path).removeprefix(root).strip("/") for path in paths]
        found = [tail.removesuffix(f"/{MANIFEST}") for tail in tails if tail.endswith(MANIFEST)]
        return sorted(name for name in found if name.split("/")[0] in KINDS)

    def manifest(self, name: str) -> dict[str, Any] | None:
        """The manifest of an artifact; None where it is not there, or not whole."""
        return self._read_json(name, MANIFEST)

    def sizes(self, name: str) -> dict[str, int]:
        """Bytes of each file that is there."""
        filesystem, _ = self._opened
        folder = self._path(name)
        filesystem.invalidate_cache()
        if not filesystem.exists(folder):
            return {}
        found = filesystem.find(folder, detail=True)
        return {
            str(path).removeprefix(folder).strip("/"): int(info["size"])
            for path, info in found.items()
        }

    def begin(self, name: str, manifest: Manifest, overwrite: bool) -> list[str] | None:
        """Remove what is in the way of an artifact, and mark it as being sent.

        Args:
            name: Name of the artifact.
            manifest: Of the artifact here.
            overwrite: Whether another one may be replaced.

        Returns:
            The files that must be sent; None where the same artifact is there, whole.

        Raises:
            ArtifactError: Another one is there.
        """
        wanted = {one["file"]: one for one in manifest.content["files"]}
        there, sizes = self.manifest(name), self.sizes(name)
        if there is not None and not overwrite and not _grown_from(there, manifest.content):
            raise ArtifactError(
                f"{self.url}/{name} holds another {name}, made with other settings or from other "
                "inputs; give --overwrite to replace it, or another URL"
            )
        digest = content_digest(manifest.content)
        marker = self._read_json(name, _MARKER) or {}
        if marker.get("content") == digest:
            good = set(wanted)
        else:
            before = {one["file"]: one for one in (there or {"files": []})["files"]}
            good = {file for file, one in wanted.items() if before.get(file) == one}
        kept = {file for file in good if sizes.get(file) == wanted[file]["bytes"]}
        missing = [file for file in wanted if file not in kept]
        if there is not None and not missing and content_digest(there) == digest:
            return None
        self._remove(name, [MANIFEST] if MANIFEST in sizes else [])
        self._remove(name, [file for file in sizes if file not in {*kept, MANIFEST, _MARKER}])
        self._write_json(name, _MARKER, {"content": digest})
        return missing

    def send(self, name: str, folder: Path, file: str, expected: str) -> None:
        """Send one file.

        Args:
            name: Name of the artifact.
            folder: Where it lies here.
            file: Its path below the folder.
            expected: Its checksum.

        Raises:
            ArtifactError: The file here is not what its manifest says.
        """
        if checksum(folder / file) != expected:
            raise ArtifactError(
                f"{folder / file} is damaged: its checksum is not that of {MANIFEST}; delete the "
                f"folder {folder} and run its command again"
            )
        filesystem, _ = self._opened
        target = self._path(name, file)
        self._make_parent(target)
        filesystem.put_file(str(folder / file), target)

    def end(self, name: str, manifest: Manifest) -> None:
        """Publish the manifest, last.

        Raises:
            ArtifactError: A file that was sent is not there.
        """
        sizes = self.sizes(name)
        for one in manifest.content["files"]:
            if sizes.get(one["file"]) != one["bytes"]:
                raise ArtifactError(
                    f"{self._path(name, one['file'])} has {sizes.get(one['file'], 'no')} bytes "
                    f"after it was sent, expected {one['bytes']}; run the same command again"
                )
        for file in (PLAN, MANIFEST):
            self._write(name, file, (manifest.folder / file).read_bytes())
        self._remove(name, [_MARKER])

    def receive(self, name: str, folder: Path, file: str, expected: str) -> None:
        """Fetch one file, unless it is there already.

        Args:
            name: Name of the artifact.
            folder: Where it is written here.
            file: Its path below the folder.
            expected: Its checksum.

        Raises:
            ArtifactError: What came is not what the manifest says.
        """
        path = folder / file
        if path.exists() and checksum(path) == expected:
            return
        filesystem, _ = self._opened
        with atomic(path) as temporary:
            filesystem.get_file(self._path(name, file), str(temporary))
            if checksum(temporary) != expected:
                raise ArtifactError(
                    f"{self._path(name, file)} is damaged: its checksum is not that of {MANIFEST}; "
                    f"delete it there and run `stx-mine publish {self.url}` where it was made"
                )

    def settle(self, name: str, content: dict[str, Any], staging: Path) -> None:
        """Give a fetched artifact its plan and the manifest that its files were checked against."""
        listed = {staging / one["file"] for one in content["files"]}
        for path in [one for one in staging.rglob("*") if one.is_file() and one not in listed]:
            path.unlink()
        with atomic(staging / PLAN) as temporary:
            temporary.write_bytes(self._opened[0].cat_file(self._path(name, PLAN)))
        write_json(staging / MANIFEST, content)

    def _path(self, *parts: str) -> str:
        return "/".join([self._opened[1], *parts])

    def _make_parent(self, path: str) -> None:
        filesystem, _ = self._opened
        # Object stores have no folders to make.
        if "file" in filesystem.protocol:
            filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)

    def _read_json(self, *parts: str) -> dict[str, Any] | None:
        filesystem, _ = self._opened
        path = self._path(*parts)
        if not filesystem.exists(path):
            return None
        content: dict[str, Any] = json.loads(filesystem.cat_file(path))
        return content

    def _write_json(self, name: str, file: str, content: dict[str, Any]) -> None:
        self._write(name, file, json.dumps(content).encode())

    def _write(self, name: str, file: str, content: bytes) -> None:
        path = self._path(name, file)
        self._make_parent(path)
        self._opened[0].pipe_file(path, content)

    def _remove(self, name: str, files: list[str]) -> None:
        for file in files:
            self._opened[0].rm_file(self._path(name, file))


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


def content_digest(manifest: dict[str, Any]) -> str:
    """What an artifact is and holds; artifacts that grow change it while their digest stays."""
    files = [(one["file"], one["xxh3_128"]) for one in manifest["files"]]
    return xxhash.xxh3_128_hexdigest(json.dumps([manifest["key"], files]).encode())


def finished(run: RunDir) -> dict[str, Manifest]:
    """The finished artifacts of a run by name, in the order in which they are made."""
    found = {}
    for artifact in KINDS:
        folder = run.folder(artifact)
        for path in [folder / MANIFEST, *sorted(folder.glob(f"*/{MANIFEST}"))]:
            if path.exists():
                tail = path.parent.relative_to(folder).as_posix()
                found[artifact if tail == "." else f"{artifact}/{tail}"] = read_manifest(
                    path.parent
                )
    return found


def _grown_from(there: dict[str, Any], here: dict[str, Any]) -> bool:
    """Whether what is there is the same artifact, or an earlier state of one that grows."""
    return there["key"] == here["key"] and all(one in here["files"] for one in there["files"])
