"""The run directory: where each artifact lies, and who holds it."""

from contextlib import AbstractContextManager
from pathlib import Path

from stx_mine.errors import ArtifactError
from stx_mine.store.kinds import KINDS
from stx_mine.store.lock import RunLock, TaskShard


class RunDir:
    """One local directory with a folder per artifact."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = RunLock(self.path)

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
        if KINDS[artifact].shared_by_rounds:
            return self.first_round.path / artifact
        return self.path / artifact

    def round_dir(self, number: int) -> "RunDir":
        """The run directory of round `number` (1 is this one)."""
        return self if number == 1 else RunDir(self.path / "rounds" / str(number))

    def refuse_missing(self) -> None:
        """Refuse a path that is no directory: most likely it is mistyped.

        Raises:
            ArtifactError: It is none.
        """
        if not self.path.is_dir():
            what = "something else" if self.path.exists() else "nothing"
            raise ArtifactError(
                f"expected a run directory at {self.path}, found {what}; check the path, or begin "
                f"a run with `{KINDS['texts'].maker} --run-dir {self.path}`"
            )

    def lock(
        self, task_shard: TaskShard | None = None, *, begins: bool = False
    ) -> AbstractContextManager[None]:
        """Hold the directory for one command, or for one share of it.

        Args:
            task_shard: Which share; None for a whole command.
            begins: The command may be the first of a run, so that the directory is made where it
                is missing. A later round begins within a run that is there.

        Raises:
            LockedError: Another command holds it, or this very share is at work.
            ArtifactError: The directory cannot be written, or is missing and not begun.
        """
        if not begins or self.is_round:
            (self.first_round if begins else self).refuse_missing()
        return self._lock.hold(task_shard)

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep other shares of the plan out; a plain command has the directory anyway.

        Raises:
            LockedError: Another command holds it.
        """
        return self._lock.exclusive()
