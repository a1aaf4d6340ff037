"""Options of `init`."""

from dataclasses import dataclass

from stx_mine.inputs.config import SourceFields
from stx_mine.settings import WHERE, StageConfig, option


def _unlike_yaml(file: str) -> str:
    """The error of a value of `file`; empty where it is valid."""
    if file.lower().endswith((".yaml", ".yml")):
        return ""
    return f"--file must end in .yaml or .yml, found {file}; give another name"


@dataclass(frozen=True, kw_only=True)
class InitConfig(SourceFields, StageConfig):
    """Look at your data and write a commented pipeline file for it."""

    path: str | None = option(
        None,
        "Pairs as embed takes them, or passages without queries: a file, a folder, a pattern, a "
        "BEIR folder, or a dataset of the hub.",
        argument=True,
        group="Input",
    )
    model: str | None = option(
        None,
        "The model to train (default: one for the device and the number of texts).",
        group="Proposals",
    )
    file: str = option(
        "pipeline.yaml", "The pipeline file to write.", group="Output", check=_unlike_yaml
    )
    device: str | None = option(
        None, "Propose for this device: cpu, cuda ... (default: the best one seen).", group=WHERE
    )
