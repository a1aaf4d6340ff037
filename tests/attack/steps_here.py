"""Make the steps of the small run in this process, which has torch and compiled code already."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from whole_run import arguments

from stx_mine import cli


def make_step(step: str, input_folder: Path, run: Path) -> None:
    """Make one step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["stx-mine", *arguments(step, input_folder, run)])
        cli.main()


def make_steps(steps: Iterable[str], input_folder: Path, run: Path) -> Path:
    """Make some steps, one after the other."""
    for step in steps:
        make_step(step, input_folder, run)
    return run
