"""`training_log.jsonl`: a JSON object per logged step, appended while training runs."""

import json
import math
from pathlib import Path
from typing import Any

from stx_mine.store.files import atomic

TRAINING_LOG = "training_log.jsonl"
# What the name of a term of a loss stands after.
TERM = "loss_"


class TrainingLog:
    """The writer. A line stands in the file before the checkpoint of its step is written."""

    def __init__(self, path: Path, steps_done: int) -> None:
        """Keep the lines of the steps that a checkpoint has; drop those that come again.

        Args:
            path: The file; it need not be there.
            steps_done: Steps before the checkpoint that training continues from; 0: from nothing.
        """
        self.path = path
        found = read_log(path) if steps_done and path.exists() else []
        self.kept = [one for one in found if one["step"] <= steps_done]
        with atomic(path) as temporary:
            temporary.write_text("".join(map(_line, self.kept)), "utf-8")

    def append(self, record: dict[str, Any]) -> None:
        """Add a line; it is with the operating system when this returns."""
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(_line(record))


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a training log, in the order of their steps; a last line cut short is left out.

    Returns:
        One dict a line: `step`, and of the keys below those that were measured at that step.
        `seconds` since training began, over all starts; `learning_rate`; `loss` (mean of the
        steps since the line before), and of a sum of losses `loss_NAME` (its weighted terms);
        `validation_loss`; `grad_norm` (before clipping);
        `samples_per_second` (without evaluations); `eta_seconds`; `slots`, `distinct`, `tokens`
        (places for texts, distinct texts and their tokens in the batch of the step);
        `peak_rss_bytes`, `peak_device_bytes` (of the first process); `cosine`: `positive`, `hard`,
        `random` -> `mean`, `deciles` (9); `evaluations`: name of a set -> metric -> value.
        A number that is not finite is None.
    """
    lines = path.read_text("utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _line(record: dict[str, Any]) -> str:
    return json.dumps(_finite(record), allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """The value with None for NaN and infinity, which JSON cannot hold."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
