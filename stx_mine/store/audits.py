"""`audits/`: how many of the mined negatives are false, as far as somebody can tell."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from stx_mine.errors import ArtifactError
from stx_mine.store.artifact import Manifest
from stx_mine.store.manifest import finished_names, read_finished, stale_input
from stx_mine.store.run_dir import RunDir

AUDIT = "audit.json"


@dataclass(frozen=True)
class AuditFinding:
    """The share of false negatives that an audit found.

    Attributes:
        name: Name of the audit.
        negatives: The negatives that were looked at, in words.
        false: What a false one among them is, in words.
        is_estimate: Whether the share is that of false negatives. That of hidden positives is not:
            how many answers nobody has labelled, they do not tell.
        num_audited: Negatives that were looked at.
        num_false: Those of them that are false.
        rate: Share of false ones; of all strata, where the sample is one by strata.
        low: Lower end of its interval of 95%.
        high: Upper end of it.
    """

    name: str
    negatives: str
    false: str
    is_estimate: bool
    num_audited: int
    num_false: int
    rate: float
    low: float
    high: float

    @classmethod
    def read(cls, audit: Manifest) -> Self:
        """That of a finished audit.

        Raises:
            DamagedError: The file is damaged.
        """
        content = audit.json(AUDIT)
        try:
            return cls(audit.folder.name, **content["finding"])
        except (KeyError, TypeError) as error:
            raise audit.damaged(AUDIT, "expected a finding in it, found another") from error

    def to_json(self) -> dict[str, Any]:
        """As the file holds it; its name is that of the folder."""
        return {name: value for name, value in asdict(self).items() if name != "name"}

    @property
    def sentence(self) -> str:
        """What was found, for a person."""
        return (
            f"{self.rate:.1%} ({self.low:.1%} to {self.high:.1%}) of {self.negatives} are "
            f"{self.false}: {self.num_false:,} of {self.num_audited:,}"
        )


def read_audits(run: RunDir) -> tuple[list[AuditFinding], Mapping[str, str]]:
    """What audits say of the negatives that a run has now.

    Returns:
        The findings of those that are finished and of these very negatives, by rising names; and
        of all others why they are not read, by name.
    """
    found, others = list[AuditFinding](), dict[str, str]()
    for name in finished_names(run, "audits"):
        try:
            audit = read_finished(run, "audits", name)
            if changed := stale_input(run, audit):
                others[name] = f"{changed}/ has changed since"
                continue
            audit.refuse_damage(run.checks_all)
            found.append(AuditFinding.read(audit))
        except ArtifactError as error:
            others[name] = str(error)
    return found, others
