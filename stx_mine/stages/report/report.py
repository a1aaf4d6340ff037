"""The closing report of `report`."""

from shlex import quote

from stx_mine.stages.report.atlas import ATLAS
from stx_mine.stages.report.counts import ReportCounts
from stx_mine.store.artifact import Artifact
from stx_mine.store.stage_report import StageReport, make_report

PAGE, NUMBERS = "report.html", "report.json"


def page_report(artifact: Artifact, skipped: bool = False) -> StageReport:
    """The report of a finished page.

    Args:
        artifact: `report/`.
        skipped: Whether it was finished before.
    """
    counts = ReportCounts.read(artifact.result)
    lines = [
        f"{artifact.target / PAGE} ({counts.page_bytes / 1e6:.1f} MB, {counts.queries:,} queries "
        f"to read): open it in a browser; the numbers are in {NUMBERS}",
        *_atlas_lines(artifact, counts),
        *counts.samples,
        *(f"left out: {name}: {why}" for name, why in counts.left_out.items()),
    ]
    return make_report(artifact, lines, skipped=skipped)


def _atlas_lines(artifact: Artifact, counts: ReportCounts) -> list[str]:
    if not counts.atlas_texts:
        return []
    path = quote(str(artifact.target / ATLAS))
    return [
        f"{counts.atlas_texts:,} texts are in {ATLAS}; for a map of them `pip install "
        f"embedding-atlas` and `embedding-atlas {path} --text text --vector vector`"
    ]
