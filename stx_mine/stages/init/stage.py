"""Init: look at someone's data, propose a pipeline, write it with the reasons."""

from pathlib import Path

from stx_mine.errors import ConfigError
from stx_mine.inputs.column_file import is_column_file
from stx_mine.models.devices import refuse_device
from stx_mine.settings import command_line_of
from stx_mine.stages.init.config import InitConfig
from stx_mine.stages.init.peek import open_peek
from stx_mine.stages.init.pipeline_file import pipeline_text, refuse_existing, write_pipeline
from stx_mine.stages.init.problems import problems_of
from stx_mine.stages.init.proposals import propose_pipeline
from stx_mine.stages.init.report import init_report
from stx_mine.store.artifact import MANIFEST
from stx_mine.store.manifest import refuse_damaged
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import StageReport

_MOST_LISTED = 5


def run_init(config: InitConfig) -> StageReport:
    """Write a pipeline file for what lies at a path.

    Raises:
        ConfigError: No data are named, or an option does not fit them.
        InputError: They are missing or malformed, or the file is in the way.
    """
    file = Path(config.file)
    refuse_existing(file, config.overwrite)
    if config.path is None and config.corpus is None:
        raise ConfigError(f"expected PATH, found none; {_way_out()}")
    refuse_damaged(config.path, config.corpus)
    peek = open_peek(config.path, config)
    proposal = propose_pipeline(peek, config, _on_gpu(config.device))
    problems = problems_of(peek, proposal.sections)
    if (RunDir(config.run_dir).folder("texts") / MANIFEST).exists():
        problems.append(
            f"{config.run_dir}/ holds a run already; give another --run-dir, or replace it with "
            f"`stx-mine run {config.file} --overwrite`"
        )
    head = [
        f"Written by `{command_line_of('init', config, ('overwrite',))}`. Run it with "
        f"`stx-mine run {config.file}`, in the folder from which the paths below lead on.",
        *(f"Warning: {one}." for one in problems),
    ]
    text = pipeline_text(config.run_dir, head, proposal.sections)
    write_pipeline(file, text)
    return init_report(peek, proposal, config, problems)


def _way_out() -> str:
    """What may be given, of the folder in which the command runs."""
    found = sorted(one.name for one in Path().iterdir() if is_column_file(one))
    if not found:
        return "name a file of pairs, a BEIR folder, or a folder of passages"
    more = " ..." if len(found) > _MOST_LISTED else ""
    return f"name a file or a folder; here are {', '.join(found[:_MOST_LISTED])}{more}"


def _on_gpu(device: str | None) -> bool:
    """Whether an accelerator will embed and train.

    Raises:
        ConfigError: The device is not here.
    """
    refuse_device(device)
    if device is not None:
        return not device.startswith("cpu")
    import torch

    return bool(torch.cuda.is_available() or torch.backends.mps.is_available())
