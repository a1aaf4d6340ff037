"""Turn (query, passage) pairs into training data for embedding models, offline."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stx_mine.api import Run as Run
    from stx_mine.stages.train.packed_sampler import PackedBatchSampler as PackedBatchSampler

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """What is loaded when it is used."""
    if name == "Run":
        from stx_mine.api import Run

        return Run
    if name == "PackedBatchSampler":
        from stx_mine.stages.train.packed_sampler import PackedBatchSampler

        return PackedBatchSampler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
