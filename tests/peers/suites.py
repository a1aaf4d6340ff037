"""Where the test files of sentence-transformers come from: they are run, and never copied here.

A source archive of PyPI holds few of them, so that the tests of `mine_hard_negatives` as they are
today lie in its repository alone. Both are pinned by version and digest.
"""

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "stx-mine/peers"
REPOSITORY = "STX_SENTENCE_TRANSFORMERS"


@dataclass(frozen=True)
class Suite:
    """Some tests of one file.

    Attributes:
        function: What they test.
        version: Of sentence-transformers.
        file: Its path in the repository.
        digest: SHA-256 of the source archive, or of the file where no archive holds it.
        archived: Whether the source archive of PyPI holds it.
        about: What `pytest -k` takes of it.
    """

    function: str
    version: str
    file: str
    digest: str
    archived: bool
    about: str = ""

    def found(self, folder: Path) -> Path:
        """The test file, unpacked into a folder or in a checkout; skips where it cannot be had."""
        return self._unpacked(folder) if self.archived else self._checked_out()

    def _unpacked(self, folder: Path) -> Path:
        if "STX_PEERS" not in os.environ:
            pytest.skip("`make test-peers` runs the tests of a source archive")
        archive = CACHE / f"sentence_transformers-{self.version}.tar.gz"
        if not archive.exists():
            self._download(archive)
        self._verify(archive)
        name = f"{archive.name.removesuffix('.tar.gz')}/{self.file}"
        with tarfile.open(archive) as members:
            members.extract(name, folder, filter="data")
        return folder / name

    def _download(self, archive: Path) -> None:
        wanted = f"sentence-transformers=={self.version}"
        from_source = ("--no-deps", "--no-binary=sentence-transformers")
        command = (sys.executable, "-m", "pip", "download", "-q", "--retries=1", *from_source)
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as beside:
            try:
                done = subprocess.run(
                    [*command, "-d", beside, wanted],
                    capture_output=True,
                    text=True,
                    timeout=240,
                )
            except subprocess.TimeoutExpired:
                pytest.skip(f"pip has not downloaded {wanted} in 240 s")
            if done.returncode:
                pytest.skip(f"pip cannot download {wanted}: {done.stderr.splitlines()[-1:]}")
            [downloaded] = Path(beside).glob("*.tar.gz")
            self._verify(downloaded)
            downloaded.rename(archive)

    def _checked_out(self) -> Path:
        where = os.environ.get(REPOSITORY)
        if where is None:
            pytest.skip(
                f"no source archive holds {self.file}; set {REPOSITORY} to a checkout of "
                f"sentence-transformers, tag v{self.version}"
            )
        self._verify(Path(where) / self.file)
        return Path(where) / self.file

    def _verify(self, path: Path) -> None:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        assert found == self.digest, (
            f"expected {path} of version {self.version}, SHA-256 {self.digest}, found {found}; "
            "remove it, or give a checkout of that version"
        )
