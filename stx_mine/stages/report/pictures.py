"""The plots of a run by themselves, for notebooks."""

from dataclasses import dataclass, field

from stx_mine.stages.report.config import ReportConfig
from stx_mine.stages.report.facts import plotted_facts
from stx_mine.stages.report.page import render_picture
from stx_mine.stages.report.parts import RunParts
from stx_mine.stages.report.plots import plots_of
from stx_mine.store.run_dir import RunDir


@dataclass(frozen=True)
class Picture:
    """A plot.

    Attributes:
        title: Its title.
        says: What it shows, as sentences.
        svg: The drawing, which needs no other file.
    """

    title: str
    says: str
    svg: str = field(repr=False)

    def _repr_svg_(self) -> str:
        """What notebooks show."""
        return self.svg


def pictures_of(run_dir: str) -> list[Picture]:
    """The plots that `report` would show of a run: scores, ranks, margins, training.

    Args:
        run_dir: The run directory.

    Raises:
        ArtifactError: The run has no artifact, or one of them is damaged.
    """
    facts = plotted_facts(ReportConfig(run_dir=run_dir), RunParts.open(RunDir(run_dir)))
    return [
        Picture(plot.title, plot.says, render_picture(plot))
        for some in plots_of(facts).values()
        for plot in some
        if plot.lines
    ]
