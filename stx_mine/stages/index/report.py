"""The closing report of `index`: its recall."""

from stx_mine.stages.index.config import IndexConfig
from stx_mine.stages.index.counts import IndexCounts
from stx_mine.store.artifact import Artifact
from stx_mine.store.stage_report import StageReport, make_report


def index_report(artifact: Artifact, config: IndexConfig, skipped: bool) -> StageReport:
    """The report of a finished `index/`."""
    counts = IndexCounts.read(artifact.result)
    line = (
        f"{config.factory} over {counts.passages:,} passages: "
        f"recall@{config.recall_depth} {counts.recall:.3f} "
        f"on {counts.recall_queries:,} queries"
    )
    return make_report(artifact, [line], skipped=skipped)
