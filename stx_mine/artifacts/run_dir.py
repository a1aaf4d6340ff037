"""The run directory: where each artifact lies, who makes it, and the lock."""

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from stx_mine.errors import ArtifactError, LockedError

# Artifact -> the command that makes or renews it.
MAKERS = {
    "texts": "stx-mine embed PAIRS",
    "embeddings": "stx-mine embed",
    "index": "stx-mine index",
    "hits": "stx-mine mine",
    "negatives": "stx-mine mine",
    "batches": "stx-mine pack",
    "model": "stx-mine train",
    "evaluations": "stx-mine evaluate",
    "estimates": "stx-mine estimate",
    "exports": "stx-mine export",
}
# What a round (rounds/N/ of a run) reads from the run that it belongs to.
_SHARED_BY_ROUNDS = ("texts",)


class RunDir:
    """One local directory with a folder per artifact."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def is_round(self) -> bool:
        """Whether this is a later round (`RUN/rounds/N`) of another run."""
        return self.path.absolute().parent.name == "rounds"

    @property
    def first_round(self) -> "RunDir":
        """The run that this round belongs to; itself in round 1."""
        return RunDir(self.path.absolute().parent.parent) if self.is_round else self

    def folder(self, artifact: str) -> Path:
        """Where an artifact lies."""
        if artifact in _SHARED_BY_ROUNDS:
            return self.first_round.path / artifact
        return self.path / artifact

    def round_dir(self, number: int) -> "RunDir":
        """The run directory of round `number` (1 is this one)."""
        return self if number == 1 else RunDir(self.path / "rounds" / str(number))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory for one command.

        Raises:
            LockedError: Another command holds it.
            ArtifactError: The directory cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock", timeout=0)
            holder = self.path / ".lock.json"
            with lock:
                holder.write_text(
                    json.dumps(
                        {
                            "pid": os.getpid(),
                            "host": socket.gethostname(),
                            "command": Path(sys.argv[0]).name + " " + " ".join(sys.argv[1:2]),
                        }
                    )
                )
                yield
                holder.unlink(missing_ok=True)
        except Timeout as error:
            raise LockedError(
                f"{self.path} is in use by {self._holder()}; wait for it, or give another --run-dir"
            ) from error
        except (PermissionError, NotADirectoryError, FileExistsError) as error:
            raise ArtifactError(
                f"cannot write to the run directory {self.path} ({error.strerror}); "
                "give another --run-dir or mend its permissions"
            ) from error
        except OSError as error:
            if error.filename is None or not str(error.filename).startswith(str(self.path)):
                raise
            raise ArtifactError(
                f"cannot write {error.filename} ({error.strerror}); give another --run-dir"
            ) from error

    def _holder(self) -> str:
        try:
            found = json.loads((self.path / ".lock.json").read_text())
            return f"process {found['pid']} on {found['host']} ({found['command']})"
        except (OSError, ValueError, KeyError):
            return "another process"
