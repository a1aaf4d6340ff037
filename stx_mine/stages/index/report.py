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
    warnings = [
        f"{1 - counts.recall:.1%} of the nearest {config.recall_depth} passages of a query are "
        "missed: a larger --nprobe or --refine-factor finds more, `stx-mine mine --search exact` "
        "finds all"
    ]
    return make_report(artifact, [line], warnings if counts.is_low else [], skipped=skipped)
