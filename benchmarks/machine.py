"""What a result was measured with: versions and the machine."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

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
    """Versions of the packages, Python, processor, its number of cores, and the GPU if any."""
    import torch  # not with the module: processes whose memory is measured import it, too

    found: dict[str, object] = {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "processor": _processor(),
        "cores": os.cpu_count(),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:  # run from a checkout, or a package that this run does without
        return None


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
