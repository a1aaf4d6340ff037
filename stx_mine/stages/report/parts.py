"""The artifacts of a run that a page is about, and why others are not."""

from dataclasses import dataclass
from functools import cached_property

from stx_mine.errors import ArtifactError, DamagedError
from stx_mine.stages.show.mined_views import MinedViews
from stx_mine.store.artifact import PLAN, Manifest, require
from stx_mine.store.kinds import KINDS
from stx_mine.store.mined_run import MinedRun
from stx_mine.store.run_dir import RunDir

# What negatives are looked at with.
MINED = ("texts", "groups", "embeddings", "negatives")
_SINGLE = ("texts", "groups", "embeddings", "negatives", "batches", "model", "tuning")
_SEVERAL = ("judgements", "audits", "evaluations")


@dataclass(frozen=True)
class RunParts:
    """What is there of a run.

    Attributes:
        run: The run directory.
        manifests: Artifact -> its manifest; where a run holds several of a kind, `kind/name`.
        missing: Artifact -> why it is not read: it is missing, unfinished or stale, and the command
            that makes it.
    """

    run: RunDir
    manifests: dict[str, Manifest]
    missing: dict[str, str]

    @classmethod
    def open(cls, run: RunDir) -> "RunParts":
        """Read the manifests of all artifacts that are finished and not stale.

        Raises:
            DamagedError: One is damaged.
            ArtifactError: There is none.
        """
        run.refuse_missing()
        wanted: list[tuple[str, str | None]] = [(name, None) for name in _SINGLE]
        missing = dict[str, str]()
        for kind in _SEVERAL:
            folder = run.path / kind
            names = sorted(path.parent.name for path in folder.glob(f"*/{PLAN}"))
            wanted += [(kind, name) for name in names if not name.endswith(".new")]
            if not names:
                missing[kind] = f"{folder}/ is missing; `{KINDS[kind].maker}` makes it"
        found = dict[str, Manifest]()
        for kind, name in wanted:
            full = kind if name is None else f"{kind}/{name}"
            try:
                found[full] = require(run, kind, name)
            except DamagedError:
                raise
            except ArtifactError as error:
                missing[full] = str(error)
        if not found:
            raise ArtifactError(missing["texts"])
        return cls(run, found, missing)

    @cached_property
    def views(self) -> MinedViews:
        """What was mined; asked for only where `lack` names nothing of `MINED`."""
        check = "full" if self.run.checks_all else "once"
        return MinedViews(self.run, MinedRun.open(str(self.run.path), check))

    @property
    def digests(self) -> dict[str, str]:
        """Artifact -> digest."""
        return {name: one.digest for name, one in self.manifests.items()}

    def of_kind(self, kind: str) -> dict[str, Manifest]:
        """Name -> manifest, of a kind of which a run holds several."""
        return {
            name.partition("/")[2]: one
            for name, one in self.manifests.items()
            if name.startswith(f"{kind}/")
        }

    def lack_of_kind(self, kind: str) -> str:
        """Why nothing of a kind is there of which a run holds several."""
        return "; ".join(why for name, why in self.missing.items() if name.startswith(kind))

    def lack(self, *kinds: str) -> str:
        """Why something that needs all of these cannot be shown; empty where it can."""
        return next((self.missing[kind] for kind in kinds if kind in self.missing), "")
