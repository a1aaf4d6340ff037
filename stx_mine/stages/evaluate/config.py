"""Options of `evaluate`."""

from dataclasses import dataclass

from stx_mine.errors import ConfigError
from stx_mine.inputs.config import SourceFields
from stx_mine.settings import StageConfig, option


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(SourceFields, StageConfig):
    """nDCG@10, MRR@10 and Recall@100 of models on held-out pairs, with 95% intervals."""

    data: tuple[str, ...] = option(
        (), "Held-out pairs or BEIR folders, one or several.", "evaluations", argument=True
    )
    models: tuple[str, ...] = option(
        (), "Models to compare (default: the base model and the trained one).", "evaluations"
    )
    dims: tuple[int, ...] = option(
        (), "Also the first so many dimensions of the embeddings, as in 64,128.", "evaluations"
    )
    source: str | None = option(
        None, "Source of the run whose prompts the data takes.", "evaluations"
    )
    name: str | None = option(
        None, "Name of the evaluation, or of the overview of several (default: that of the data)."
    )
    seed: int = option(42, "Seed of intervals and of the paired test.", "evaluations", minimum=0)
    encode_batch_size: int = option(256, "Texts a forward pass.", minimum=1)
    device: str | None = option(None, "cpu, cuda, mps ... (default: the best one seen).")

    def __post_init__(self) -> None:
        """Check what one range alone cannot tell.

        Raises:
            ConfigError: No number of dimensions.
        """
        super().__post_init__()
        if any(dim < 1 for dim in self.dims):
            raise ConfigError(
                f"--dims must be at least 1, found {min(self.dims)}; give numbers of dimensions"
            )
