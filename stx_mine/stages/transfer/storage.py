"""Finished artifacts at a URL of fsspec (s3, gs, file ...), laid out as in a run directory.

The manifest is sent last and removed first, so that an artifact with a manifest is whole. While an
artifact is being sent, a marker names it and all files that were ever sent or are to be sent: only
these are replaced or removed, and only where a marker, plan or manifest shows that we sent them.
Object stores write a file whole or not at all; on a disk it is written beside and renamed.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec

from stx_mine.errors import ArtifactError, ConfigError, one_line
from stx_mine.stages.transfer.listings import (
    MARKER,
    Listing,
    Published,
    is_artifact,
    read_object,
)
from stx_mine.store.artifact import MANIFEST, PLAN, Manifest
from stx_mine.store.files import atomic, checksum
from stx_mine.store.manifest import remake
from stx_mine.store.names import PARTIAL

# Files that move at the same time: one connection alone seldom fills a network.
CONNECTIONS = 8
# The largest plan, manifest or marker that is read.
_MOST_BYTES = 1 << 28


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
            # Some are reached already where they are opened.
            with self._reached():
                filesystem, root = fsspec.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            protocol = self.url.partition("://")[0]
            raise ConfigError(
                f"cannot open {self.url} ({' '.join(str(error).split())}); fsspec needs a package "
                f"for {protocol}://, as in `pip install s3fs` for s3:// or `gcsfs` for gs://"
            ) from error
        place = str(root).rstrip("/")
        if self.url.rstrip().endswith("://") or not place:
            raise ConfigError(
                f"expected a URL of a folder of its own, found {self.url!r}; name one, as in "
                "s3://bucket/run or file:///data/run"
            )
        return filesystem, place

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Say what is wrong where the URL cannot be reached.

        Raises:
            ConfigError: It cannot.
        """
        try:
            yield
        except (OSError, NotImplementedError) as error:
            raise ConfigError(
                f"cannot reach {self.url} ({type(error).__name__}: {one_line(error)}); check the "
                "URL, the network and the permissions, then run the same command again"
            ) from error

    def place(self, name: str) -> str:
        """Where an artifact lies, for a person."""
        return f"{self.url}/{name}"

    def session(self) -> AbstractContextManager[None]:
        """What is held while files move; nothing here."""
        return nullcontext()

    def card(self, name: str, listed: Listing) -> bytes | None:
        """The card that lies beside the files of an artifact; none does here."""
        return None

    def names(self) -> list[str]:
        """The artifacts that are whole, as `hits/dense`.

        Raises:
            ArtifactError: One has a name that no artifact has.
        """
        filesystem, root = self._opened
        with self._reached():
            filesystem.invalidate_cache()
            paths = _found_below(filesystem, root)
        tails = [str(path).removeprefix(root).strip("/") for path in paths]
        found = [tail.removesuffix(f"/{MANIFEST}") for tail in tails if tail.endswith(MANIFEST)]
        return sorted(name for name in found if is_artifact(name, self.url))

    def manifest(self, name: str) -> dict[str, Any] | None:
        """The manifest of an artifact; None where it is not there, or cannot be read."""
        return self._read(name, MANIFEST)

    def plan(self, name: str) -> dict[str, Any] | None:
        """The plan of an artifact; None where it is not there, or cannot be read."""
        return self._read(name, PLAN)

    def sizes(self, name: str) -> dict[str, int]:
        """Bytes of each file that is there."""
        filesystem, _ = self._opened
        folder = self._path(name)
        with self._reached():
            filesystem.invalidate_cache()
            found = _found_below(filesystem, folder)
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
            ArtifactError: Another one is there, or somebody else's files are.
        """
        there = Published(
            name, self.sizes(name), *(self._read(name, file) for file in (MANIFEST, PLAN, MARKER))
        )
        there.refuse(self.url, manifest.content, overwrite)
        wanted = Listing.of(manifest.content)
        # A whole one that is asked for again is mended, whatever is wrong with it.
        mends = overwrite and there.marked is None and there.is_whole(wanted)
        kept = set() if mends else there.kept(wanted)
        missing = [file for file in wanted.entries if file not in kept]
        if there.is_whole(wanted) and not missing:
            self._remove(name, [MARKER] if MARKER in there.sizes else [])
            return None
        with self._reached():
            # First what may be removed, only then what is good: a kill may come in between.
            known = sorted({*there.known, *wanted.entries})
            if there.marked != wanted.digest:
                self._write_json(name, MARKER, {"content": None, "files": known})
            self._remove(name, [MANIFEST] if MANIFEST in there.sizes else [])
            self._remove(name, there.stale(kept))
            self._write_json(name, MARKER, {"content": wanted.digest, "files": known})
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
                f"{folder / file} is damaged: its checksum is not that of {MANIFEST}; rebuild it "
                f"with `{remake(folder)}`"
            )
        filesystem, _ = self._opened
        with self._written(self._path(name, file)) as target:
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
        with self._reached():
            for file in (PLAN, MANIFEST):
                self._write(name, file, (manifest.folder / file).read_bytes())
            self._remove(name, [MARKER])

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
                    f"run `stx-mine publish {self.url} --overwrite` where it was made"
                )

    def _path(self, *parts: str) -> str:
        return "/".join([self._opened[1], *parts])

    @contextmanager
    def _written(self, path: str) -> Iterator[str]:
        """Where to write a file, so that its name is that of the whole file."""
        filesystem, _ = self._opened
        # Object stores have no folders to make, and nothing that is half written.
        if "file" not in filesystem.protocol:
            yield path
            return
        filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
        yield path + PARTIAL
        filesystem.mv(path + PARTIAL, path)

    def _read(self, *parts: str) -> dict[str, Any] | None:
        """A JSON object; None where it is not there, or something else."""
        found = self._content(self._path(*parts))
        return None if found is None else read_object(found)

    def _content(self, path: str) -> bytes | None:
        """What a file holds; None where it is not there, or larger than any of ours."""
        filesystem, _ = self._opened
        with self._reached():
            if not filesystem.isfile(path) or filesystem.size(path) > _MOST_BYTES:
                return None
            found: bytes = filesystem.cat_file(path)
            return found

    def _write_json(self, name: str, file: str, content: dict[str, Any]) -> None:
        self._write(name, file, json.dumps(content).encode())

    def _write(self, name: str, file: str, content: bytes) -> None:
        with self._reached(), self._written(self._path(name, file)) as path:
            self._opened[0].pipe_file(path, content)

    def _remove(self, name: str, files: Sequence[str]) -> None:
        with self._reached():
            for file in files:
                self._opened[0].rm_file(self._path(name, file))


def _found_below(filesystem: Any, folder: str) -> dict[str, Any]:
    """Path -> what is known of each file below a folder; nothing where there is none.

    `exists` would do for that, but says the same where a URL cannot be reached.
    """
    try:
        found: dict[str, Any] = filesystem.find(folder, detail=True)
    except FileNotFoundError:
        return {}
    return found


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
