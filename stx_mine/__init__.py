"""Turn (query, passage) pairs into training data for embedding models, offline."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """What is loaded when it is used: it needs torch, and `--help` does not."""
    if name == "PackedBatchSampler":
        from stx_mine.stages.train.packed_sampler import PackedBatchSampler

        return PackedBatchSampler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
