"""Results that an earlier call of a benchmark left in its output file."""

import json
from pathlib import Path
from typing import Any


def read_results(output: Path | None) -> dict[str, Any]:
    """What earlier calls left; nothing where there is no file."""
    if output is None or not output.exists():
        return {}
    found: dict[str, Any] = json.loads(output.read_text("utf-8"))
    return found
