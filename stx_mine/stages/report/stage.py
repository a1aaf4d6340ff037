"""Report: a page about a run, and its numbers, into `report/`."""

from stx_mine import __version__
from stx_mine.errors import ArtifactError
from stx_mine.settings import key_fields
from stx_mine.stages.report.atlas import ATLAS, write_atlas
from stx_mine.stages.report.config import ReportConfig
from stx_mine.stages.report.counts import ReportCounts
from stx_mine.stages.report.facts import facts_of
from stx_mine.stages.report.page import render_page
from stx_mine.stages.report.parts import MINED, RunParts
from stx_mine.stages.report.report import NUMBERS, PAGE, page_report
from stx_mine.store.artifact import Artifact
from stx_mine.store.files import atomic, write_json
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import StageReport


def run_report(config: ReportConfig) -> StageReport:
    """Write `report/report.html` and `report/report.json`.

    Raises:
        ArtifactError: The run has no artifact, or one of them is damaged.
    """
    run = RunDir(config.run_dir, config.check)
    with run.lock():
        parts = RunParts.open(run)
        # The log of a training has its seconds: the same model trained anew makes no page stale,
        # and the next `report` shows it.
        inputs = parts.digests
        fields = {**key_fields(config, "report"), "model": inputs.pop("model", None)}
        artifact = Artifact(
            run, "report", config, fields=fields, inputs=inputs, overwrite=config.overwrite
        )
        if artifact.done:
            return page_report(artifact, skipped=True)
        if config.atlas and (lack := parts.lack(*MINED)):
            raise ArtifactError(f"--atlas shows texts with what was mined: {lack}")
        facts = facts_of(config, parts)
        files = [PAGE, NUMBERS, *([ATLAS] if config.atlas else [])]
        artifact.begin(files)
        page = render_page(facts, __version__)
        with atomic(artifact.folder / PAGE) as temporary:
            temporary.write_text(page, "utf-8")
        write_json(artifact.folder / NUMBERS, facts.to_json())
        atlas_texts = 0
        if config.atlas:
            atlas_texts = write_atlas(artifact.folder, parts.views, config.seed)
        counts = ReportCounts(
            sections=facts.sections,
            left_out=facts.left_out,
            samples=facts.samples,
            queries=len(facts.queries or ()),
            page_bytes=len(page.encode()),
            atlas_texts=atlas_texts,
        )
        artifact.finish(files, counts=counts)
        return page_report(artifact)
