"""The run directory: where each artifact lies, and who holds it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from stx_mine.errors import ArtifactError
from stx_mine.store.files import read_json
from stx_mine.store.kinds import KINDS
from stx_mine.store.listing import MANIFEST, PLAN
from stx_mine.store.lock import RunLock, TaskShard
from stx_mine.store.names import NEW, SCRATCH, name_problem
from stx_mine.store.places import beside, finished_below, is_ours, settle_all
from stx_mine.store.small_files import found_at


class RunDir:
    """One local directory with a folder per artifact."""

    def __init__(self, path: str | Path, check: str = "once") -> None:
        """Name a run directory.

        Args:
            path: Where it lies.
            check: `full` where every checksum of what is read is computed, whatever is known.
        """
        self.path, self._check = Path(path), check
        self._lock = RunLock(self.path)

    @property
    def checks_all(self) -> bool:
        """Whether checksums are computed that this machine has found right before."""
        return self._check == "full"

    @property
    def is_round(self) -> bool:
        """Whether this is a later round (`RUN/rounds/N`) of another run."""
        return self.path.absolute().parent.name == "rounds"

    @property
    def first_round(self) -> "RunDir":
        """The run that this round belongs to; itself in round 1."""
        return self._of(self.path.absolute().parent.parent) if self.is_round else self

    def folder(self, artifact: str, subfolder: str | None = None) -> Path:
        """Where an artifact lies.

        Args:
            artifact: Its kind.
            subfolder: Its name, where a run holds several of the kind.

        Raises:
            ArtifactError: The name can be that of no folder.
        """
        run = self.first_round if KINDS[artifact].shared_by_rounds else self
        if subfolder is None:
            return run.path / artifact
        if problem := name_problem(subfolder):
            raise ArtifactError(
                f"expected the name of a folder of {run.path / artifact}/, found {subfolder!r}: "
                f"{problem}; give another name"
            )
        return run.path / artifact / subfolder

    def round_dir(self, number: int) -> "RunDir":
        """The run directory of round `number` (1 is this one)."""
        return self if number == 1 else self._of(self.path / "rounds" / str(number))

    def _of(self, path: Path) -> "RunDir":
        """Another one that is checked as this one is."""
        return RunDir(path, self._check)

    def refuse_missing(self) -> None:
        """Refuse a path that is no directory: most likely it is mistyped.

        Raises:
            ArtifactError: It is none.
        """
        if not self.path.is_dir():
            raise ArtifactError(
                f"expected a run directory at {self.path}, found {found_at(self.path)}; check "
                f"the path, or begin a run with `{KINDS['texts'].maker} --run-dir {self.path}`"
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
        if (found := found_at(self.path)) not in ("nothing", "a folder"):
            raise ArtifactError(
                f"expected a run directory at {self.path}, or nothing, found {found}; give another "
                "--run-dir"
            )
        return self._held(task_shard)

    @contextmanager
    def _held(self, task_shard: TaskShard | None) -> Iterator[None]:
        """Hold the lock; what killed commands left of their swaps is cleared first."""
        with self._lock.hold(task_shard):
            with self._lock.exclusive():
                shared = not self.is_round
                here = [name for name, kind in KINDS.items() if shared or not kind.shared_by_rounds]
                settle_all(self.path, here, is_alone=task_shard is None)
                for path in self.path.glob(f"{SCRATCH}*"):
                    path.unlink()
            yield

    def begun_beside(self) -> list[str]:
        """Names of artifacts that were begun beside earlier ones and are not finished."""
        targets = [self.path / name for name, kind in KINDS.items() if kind.resumes]
        for path in [one for one in targets if KINDS[one.name].several]:
            targets += [one.with_suffix("") for one in sorted(path.glob(f"*{NEW}"))]
        begun = [one for one in targets if (beside(one) / PLAN).exists() and is_ours(beside(one))]
        return [one.relative_to(self.path).as_posix() for one in begun]

    def stale_after(self, artifact: str, digest: str) -> list[str]:
        """Names of finished artifacts that were made from an earlier state of one.

        Args:
            artifact: Its name.
            digest: Its digest now.
        """
        changed, stale = {artifact: digest}, list[str]()
        for name in KINDS:
            for folder in finished_below(self.path / name, name):
                inputs = _inputs_of(folder)
                if any(inputs.get(one, now) != now for one, now in changed.items()):
                    full = folder.relative_to(self.path).as_posix()
                    stale.append(full)
                    # What is made from what is stale is stale as well, whatever its digest.
                    changed[full] = ""
        return stale

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep other shares of the plan out; a plain command has the directory anyway.

        Raises:
            LockedError: Another command holds it.
        """
        return self._lock.exclusive()


def _inputs_of(folder: Path) -> dict[str, Any]:
    """Digests of what an artifact was made from; none where its manifest is damaged."""
    try:
        inputs = read_json(folder / MANIFEST).get("inputs")
    except ArtifactError:
        # Whoever reads the artifact says so.
        return {}
    return inputs if isinstance(inputs, dict) else {}
