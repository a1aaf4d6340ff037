"""Audit: how many of the mined negatives are false, into `audits/NAME/`."""

from pathlib import Path

import numpy as np

from stx_mine.errors import ConfigError
from stx_mine.inputs.column_file import ColumnFile, file_checksum
from stx_mine.models.devices import refuse_device
from stx_mine.settings import key_fields
from stx_mine.stages.audit.audited_run import AuditedRun
from stx_mine.stages.audit.config import AuditConfig
from stx_mine.stages.audit.curve import HIDDEN, hidden_curve
from stx_mine.stages.audit.hidden import HiddenPositives
from stx_mine.stages.audit.report import audit_report, sheet_report
from stx_mine.stages.audit.results import Audit, hidden_audit, sampled_audit
from stx_mine.stages.audit.sample import NegativeSampler, SampledNegatives
from stx_mine.stages.audit.sheet import Answers, read_answers, write_sheet
from stx_mine.stages.mine.core.opinions import Opinion
from stx_mine.stages.mine.selector import Selector
from stx_mine.store.artifact import Artifact, require
from stx_mine.store.audits import AUDIT
from stx_mine.store.files import write_json
from stx_mine.store.judgements import StoredJudgements
from stx_mine.store.manifest import refuse_damaged
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import StageReport

ANSWERS = "answers"


def run_audit(config: AuditConfig) -> StageReport:
    """Measure the share of false negatives; or write a sheet for a person to tell them.

    Raises:
        ConfigError: Nothing can be hidden, or the judge has made these negatives or knows none.
        InputError: The answers are not those of the sample.
        ArtifactError: Negatives or judgements are missing, stale or damaged.
    """
    run = RunDir(config.run_dir, config.check)
    refuse_damaged(config.answers)
    refuse_device(config.device)
    with run.lock():
        mined = AuditedRun.open(run, config.device)
        if config.sheet is not None:
            sample = _sampler(mined).draw(config.sample, config.seed)
            cut = write_sheet(Path(config.sheet), mined.store, sample, config.overwrite)
            return sheet_report(config, sample, cut)
        name, inputs = _name(config), {"negatives": mined.negatives.digest}
        fields = key_fields(config, "audits")
        if config.judge is not None:
            _refuse_own_judge(config.judge, mined)
            inputs[f"judgements/{config.judge}"] = require(run, "judgements", config.judge).digest
        elif config.answers is not None:
            fields["content"] = file_checksum(ColumnFile.open(config.answers))
        artifact = Artifact(
            run,
            "audits",
            config,
            subfolder=name,
            fields=fields,
            inputs=inputs,
            overwrite=config.overwrite,
        )
        if artifact.done:
            return audit_report(artifact, config, skipped=True)
        audit = _audit(name, config, mined)
        artifact.begin([AUDIT])
        write_json(artifact.folder / AUDIT, audit.to_json())
        artifact.finish([AUDIT], counts=audit.counts)
        return audit_report(artifact, config)


def _name(config: AuditConfig) -> str:
    if config.judge is not None:
        return f"judged-{config.judge}"
    return HIDDEN if config.answers is None else ANSWERS


def _audit(name: str, config: AuditConfig, mined: AuditedRun) -> Audit:
    if config.judge is not None:
        sample = _judged_sample(config, mined)
        false = sample.opinions == Opinion.BETTER
        answers = Answers(false, np.ones(len(sample), np.bool_))
        close = int((sample.opinions == Opinion.CLOSE).sum())
        return sampled_audit(name, f"the judge {config.judge}", sample, answers, close)
    if config.answers is not None:
        sample = _sampler(mined).draw(config.sample, config.seed)
        answers = read_answers(config.answers, mined.store, sample)
        return sampled_audit(name, "a person", sample, answers)
    hidden = HiddenPositives.draw(
        mined.store, mined.groups, config.hide, config.seed, config.queries
    )
    if not len(hidden.keys):
        raise ConfigError(
            f"expected queries with several positives, found none of {mined.store.num_queries:,}: "
            "nothing can be hidden; give --judge NAME, or --sheet FILE for a person to fill in"
        )
    return hidden_audit(name, hidden, hidden_curve(mined, hidden))


def _sampler(mined: AuditedRun, judgements: StoredJudgements | None = None) -> NegativeSampler:
    selector = Selector.of_negatives(mined.run, mined.negatives, mined.store)
    return NegativeSampler(mined.negatives, selector, judgements)


def _judged_sample(config: AuditConfig, mined: AuditedRun) -> SampledNegatives:
    """A sample of the negatives that a judge knows.

    Raises:
        ConfigError: It knows none.
    """
    assert config.judge is not None
    sampler = _sampler(mined, mined.judgements(config.judge))
    sample = sampler.draw(config.sample, config.seed)
    if not len(sample):
        raise ConfigError(
            f"expected negatives that {config.judge} has judged, found none of "
            f"{sample.num_unjudged:,}; run `stx-mine judge` with a wider --band, or give --sheet "
            "FILE for a person to fill in"
        )
    return sample


def _refuse_own_judge(judge: str, mined: AuditedRun) -> None:
    """Refuse a judge that has left out what it finds false already.

    Raises:
        ConfigError: It has.
    """
    if judge in mined.config.judges:
        raise ConfigError(
            f"--judge {judge} has decided about these negatives (mine --judges), and would find "
            "none of them false; give another judge, or --sheet FILE for a person to fill in"
        )
