"""What a result was measured with: versions and the machine."""

import os
import platform
from importlib.metadata import version

PACKAGES = (
    "stx-mine",
    "sentence-transformers",
    "torch",
    "faiss-cpu",
    "datasets",
    "pyarrow",
    "numpy",
    "numba",
    "wordllama",
)


def describe() -> dict[str, object]:
    """Versions of the packages, Python, processor and its number of cores."""
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
