"""The one table of commands: what each is called, takes and runs."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from stx_mine.settings import StageConfig
from stx_mine.stages.audit.config import AuditConfig
from stx_mine.stages.calibrate.config import CalibrateConfig
from stx_mine.stages.dedup.config import DedupConfig
from stx_mine.stages.diff.config import DiffConfig
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.estimate.config import EstimateConfig
from stx_mine.stages.evaluate.config import EvaluateConfig
from stx_mine.stages.export.config import ExportConfig
from stx_mine.stages.index.config import IndexConfig
from stx_mine.stages.ingest.config import IngestConfig
from stx_mine.stages.init.config import InitConfig
from stx_mine.stages.judge.config import JudgeConfig
from stx_mine.stages.merge.config import MergeConfig
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.queries.config import QueriesConfig
from stx_mine.stages.report.config import ReportConfig
from stx_mine.stages.show.config import ShowConfig
from stx_mine.stages.split.config import SplitConfig
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.transfer.config import FetchConfig, PublishConfig
from stx_mine.stages.tune.config import TuneConfig
from stx_mine.stages.verify.config import VerifyConfig

if TYPE_CHECKING:
    from stx_mine.store.stage_report import StageReport

_DATA, _NEGATIVES, _MODEL = "Data", "Negatives and batches", "Models"
LOOK, _MOVE = "Look and check", "Move"


_CONTINUES = "finished files stay, the same command continues where it stopped"
_ANEW = "what was there before stays, the same command starts anew"
_CHECKPOINTS = (
    "checkpoints stay (one every --checkpoint-steps), the same command continues from the last one"
)
_READS = "nothing was changed, run the same command again"


class Command(NamedTuple):
    """One command.

    Attributes:
        config: Its options.
        entry: `module:function` below `stx_mine.stages`, from a config to a report.
        panel: The heading of `stx-mine --help` under which it stands.
        in_pipeline: Whether a pipeline file may name it.
        after_signal: What stays where a signal ends it, and how to go on.
    """

    config: type[StageConfig]
    entry: str
    panel: str
    in_pipeline: bool = True
    after_signal: str = _CONTINUES


# In the order of `stx-mine --help`; a pipeline runs its stages in this order.
COMMANDS: dict[str, Command] = {
    "init": Command(
        InitConfig, "init.stage:run_init", _DATA, in_pipeline=False, after_signal=_READS
    ),
    "queries": Command(QueriesConfig, "queries.stage:run_queries", _DATA),
    "split": Command(SplitConfig, "split.stage:run_split", _DATA, True, _ANEW),
    "ingest": Command(IngestConfig, "ingest.stage:run_ingest", _DATA, in_pipeline=False),
    "embed": Command(EmbedConfig, "embed.stage:run_embed", _DATA),
    "dedup": Command(DedupConfig, "dedup.stage:run_dedup", _DATA),
    "index": Command(IndexConfig, "index.stage:run_index", _DATA),
    "calibrate": Command(
        CalibrateConfig,
        "calibrate.stage:run_calibrate",
        _NEGATIVES,
        in_pipeline=False,
        after_signal=_READS,
    ),
    "mine": Command(MineConfig, "mine.stage:run_mine", _NEGATIVES),
    "judge": Command(JudgeConfig, "judge.stage:run_judge", _NEGATIVES),
    "audit": Command(AuditConfig, "audit.stage:run_audit", _NEGATIVES, after_signal=_ANEW),
    "export": Command(ExportConfig, "export.stage:run_export", _NEGATIVES, after_signal=_ANEW),
    "pack": Command(PackConfig, "pack.stage:run_pack", _NEGATIVES),
    "show": Command(ShowConfig, "show.stage:run_show", LOOK, True, _READS),
    "verify": Command(VerifyConfig, "verify.stage:run_verify", LOOK, True, _READS),
    "diff": Command(
        DiffConfig, "diff.stage:run_diff", LOOK, in_pipeline=False, after_signal=_READS
    ),
    "estimate": Command(EstimateConfig, "estimate.stage:run_estimate", LOOK, after_signal=_ANEW),
    "train": Command(TrainConfig, "train.stage:run_train", _MODEL, True, _CHECKPOINTS),
    "merge": Command(MergeConfig, "merge.stage:run_merge", _MODEL, False, _ANEW),
    "evaluate": Command(EvaluateConfig, "evaluate.stage:run_evaluate", _MODEL, after_signal=_ANEW),
    "tune": Command(
        TuneConfig, "tune.stage:run_tune", _MODEL, in_pipeline=False, after_signal=_CONTINUES
    ),
    "report": Command(ReportConfig, "report.stage:run_report", LOOK, after_signal=_ANEW),
    "publish": Command(PublishConfig, "transfer.publish:run_publish", _MOVE, in_pipeline=False),
    "fetch": Command(FetchConfig, "transfer.fetch:run_fetch", _MOVE, in_pipeline=False),
}
PIPELINE_STAGES = {name: one.config for name, one in COMMANDS.items() if one.in_pipeline}


def stage_of(name: str) -> Callable[[Any], "StageReport"]:
    """The function of a command, from its config to a report; its stage is imported now."""
    module, _, function = COMMANDS[name].entry.partition(":")
    found: Callable[[Any], StageReport] = getattr(
        import_module(f"stx_mine.stages.{module}"), function
    )
    return found
