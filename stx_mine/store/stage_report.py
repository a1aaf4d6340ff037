"""What a stage did, in numbers and sentences; the CLI prints it."""

from dataclasses import dataclass, field
from typing import Any

from stx_mine.masking import escaped, masked
from stx_mine.store.artifact import Artifact
from stx_mine.store.names import NEW

# Of a line of a table, and of its first column where that would take more.
_WIDTH, _LEAST_FIRST = 78, 14


@dataclass(frozen=True)
class StageReport:
    """The closing summary of a stage.

    Attributes:
        stage: Name of the stage.
        counts: What came in, was kept, was dropped by reason.
        lines: Sentences for a person, in order.
        warnings: Sentences that deserve attention.
        skipped: Whether the artifact was finished before.
        folder: Where the artifact lies; empty where none is made or read.
        parts: Reports of the stages that ran as a part of it.
        document: Printed instead of all this where a program will read it.
    """

    stage: str
    counts: dict[str, Any]
    lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    skipped: bool = False
    folder: str = ""
    parts: tuple["StageReport", ...] = field(default=())
    document: str = ""

    def __post_init__(self) -> None:
        """Leave credentials out, and control characters that names and texts may hold."""
        for name in ("lines", "warnings"):
            kept = tuple(escaped(masked(line)) for line in getattr(self, name))
            object.__setattr__(self, name, kept)
        object.__setattr__(self, "folder", escaped(masked(self.folder)))


def make_report(
    artifact: Artifact,
    lines: list[str],
    warnings: list[str] | None = None,
    parts: tuple[StageReport, ...] = (),
    skipped: bool = False,
) -> StageReport:
    """The report of a finished artifact, with what it means to the others of its run."""
    counts, run = artifact.result.counts, artifact.run
    name = artifact.name + (f"/{artifact.target.name}" if artifact.kind.several else "")
    if stale := [] if skipped else run.stale_after(name, artifact.result.digest):
        lines = [
            *lines,
            f"stale now, made from the earlier {name}/: {', '.join(stale)}; their own commands "
            "with --overwrite renew them",
        ]
    begun = [
        f"{name}{NEW}/ was begun beside {name}/ and is not finished; the command that began it "
        "continues it; delete it if it is not wanted"
        for name in run.begun_beside()
    ]
    return StageReport(
        artifact.name,
        counts,
        tuple(lines),
        (*(warnings or ()), *begun),
        skipped,
        str(artifact.target),
        parts,
    )


def percent(part: int, whole: int) -> str:
    """A count with its percentage."""
    return f"{part:,} ({part / whole:.1%})" if whole else f"{part:,}"


def rounded(share: float) -> str:
    """A share as percent with two digits, or with one behind the point."""
    return f"{share:.1%}" if share < 0.0995 else f"{share:.0%}"


def listed(counts: dict[str, int]) -> str:
    """The counts above zero with their names; empty where there are none."""
    return ", ".join(f"{name} {n:,}" for name, n in counts.items() if n)


def plain_table(rows: list[list[str]]) -> list[str]:
    """Lines with columns of equal width; the first column to the left, the others to the right.

    What is too long in the first column, as the path of a model, loses its beginning.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = _WIDTH - sum(width + 2 for width in widths[1:])
    widest = min(widths[0], max(left, _LEAST_FIRST))
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        shown = first if len(first) <= widest else f"…{first[1 - widest :]}"
        lines.append("  ".join([shown.ljust(widest), *cells]).rstrip())
    return lines
