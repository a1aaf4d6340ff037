"""Options of `verify`."""

from dataclasses import dataclass

from stx_mine.inputs.config import SourceFields
from stx_mine.settings import StageConfig, option


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(SourceFields, StageConfig):
    """Check packed batches, rows of others in their order, or every artifact of a run."""

    directory: str | None = option(
        None,
        "Batches (default: those of the run), rows (a file or folder), a run, or an artifact.",
        argument=True,
        group="Input",
    )
    batch_size: int | None = option(
        None,
        "Rows per batch of rows that pack did not write (default: each row by itself).",
        minimum=2,
        group="Input",
    )
    max_false: float | None = option(
        None,
        "Break where an audit of the negatives does not show that at most this share is false.",
        minimum=0,
        maximum=1,
        group="Quality",
    )
    max_violations: int = option(
        10, "Violations to name before stopping.", minimum=1, group="Output"
    )
