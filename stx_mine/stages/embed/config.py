"""Options of `embed`."""

from dataclasses import dataclass, fields
from typing import Literal

from stx_mine.engine.config import EngineConfig
from stx_mine.errors import ConfigError
from stx_mine.settings import flag, option
from stx_mine.stages.ingest.config import IngestConfig

DEFAULT_MODEL = "package:wordllama"


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(EngineConfig, IngestConfig):
    """Ingest PAIRS or sources where given, then embed every distinct text once."""

    model: str = option(DEFAULT_MODEL, "A hub id, a local folder, or package:NAME.", "embeddings")
    encoder: str | None = option(
        None,
        "Instead of a model: package.module:function, from a list of texts to floats.",
        "embeddings",
    )
    query_vectors: str | None = option(
        None,
        "Instead of a model: vectors of the queries (.npy), in the order of the input.",
        "embeddings",
    )
    passage_vectors: str | None = option(
        None, "And those of the passages, or of the corpus if it has them all.", "embeddings"
    )
    similarity: Literal["cosine", "dot", "euclidean"] | None = option(
        None, "How vectors without a model compare (default: cosine).", "embeddings"
    )
    dtype: Literal["float32", "float16"] = option(
        "float32", "Number format of the stored vectors.", "embeddings"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto",
        "Number format of the network; auto: bfloat16 where it is measured to be faster.",
        "embeddings",
    )
    backend: Literal["torch", "openvino", "onnx"] = option(
        "torch", "What runs the network of a transformer.", "embeddings"
    )
    model_file: str | None = option(
        None,
        "With openvino and onnx: the exported network (int8, say) in the model's folder.",
        "embeddings",
    )
    attention: str | None = option(
        None,
        "How transformers computes attention: sdpa, flash_attention_2 ... (default: its choice).",
        "embeddings",
    )
    max_length: int | None = option(
        None, "Tokens kept of a text (default: the model's own).", "embeddings", minimum=1
    )
    truncate_dim: int | None = option(
        None, "Dimensions kept of a vector, the first ones (default: all).", "embeddings", minimum=1
    )
    normalize: bool = option(False, "Scale vectors to unit length.", "embeddings")
    query_prompt: str | None = option(
        None, "Put before queries (default: the model's own; empty: none).", "embeddings"
    )
    passage_prompt: str | None = option(
        None, "Put before passages (default: the model's own; empty: none).", "embeddings"
    )
    shard_size: int = option(65_536, "Texts a shard (one task each).", "embeddings", minimum=1)
    min_overlap: float = option(
        0.0,
        "Below this overlap with the top 100 of float32, half precision is refused.",
        minimum=0,
    )
    embedding_cache: str | None = option(
        None, "A folder of vectors by content, for runs to share: only new texts are embedded."
    )
    batch_tokens: int | None = option(
        None, "Tokens of a forward pass, padding included (default: measured).", minimum=1
    )
    batches_at_once: int | None = option(
        None, "Forward passes at once on a CPU, cores shared (default: measured).", minimum=1
    )
    device: str | None = option(
        None, "cpu, cuda, cuda:0,cuda:1 ... a process each (default: all GPUs, or the best seen)."
    )

    def __post_init__(self) -> None:
        """Check what one range alone cannot tell.

        Raises:
            ConfigError: An overlap above 1, two ways to vectors at once, or devices beside Ray.
        """
        super().__post_init__()
        if self.min_overlap > 1:
            raise ConfigError(
                f"--min-overlap is a share, found {self.min_overlap:g}; give at most 1, as in .98"
            )
        if self.engine == "ray" and "," in (self.device or ""):
            raise ConfigError(
                f"--device {self.device} and --engine ray both give devices to processes; leave "
                "one of them out"
            )
        self._check_ways()
        self._check_backend()

    def _check_backend(self) -> None:
        """Refuse options that the backend would not heed.

        Raises:
            ConfigError: There is one.
        """
        if self.backend == "torch":
            if self.model_file is not None:
                raise ConfigError(
                    f"--model-file {self.model_file} is for --backend openvino and onnx, torch "
                    "reads the weights of the model; leave it out"
                )
            return
        unfit = {
            "--attention": self.attention,
            "--precision": None if self.precision == "auto" else self.precision,
            "--batches-at-once": self.batches_at_once,
        }
        if self.backend == "openvino":
            unfit["--device"] = None if self.device == "cpu" else self.device
        for name, value in unfit.items():
            if value is not None:
                raise ConfigError(
                    f"{name} {value} does not fit --backend {self.backend}, which decides it "
                    "itself; leave it out"
                )

    def _check_ways(self) -> None:
        """Refuse options that the way to vectors (model, function, files) would not heed.

        Raises:
            ConfigError: There is one.
        """
        if (self.query_vectors is None) != (self.passage_vectors is None):
            raise ConfigError(
                "expected --query-vectors and --passage-vectors, found one of them; give both"
            )
        if self.query_vectors is None and self.encoder is None:
            if self.similarity is not None:
                raise ConfigError(
                    f"--similarity {self.similarity} is for --encoder and --query-vectors, a model "
                    "has its own; leave it out"
                )
            return
        unfit = ["model", "max_length", "precision", "min_overlap", "batch_tokens", "backend"]
        unfit += ["batches_at_once", "device", "model_file", "attention"]
        if self.query_vectors is None:
            given, unfit = "--encoder", [*unfit, "truncate_dim"]
        else:
            given = "--query-vectors"
            unfit += ["encoder", "query_prompt", "passage_prompt", "embedding_cache"]
        for one in fields(self):
            if one.name in unfit and getattr(self, one.name) != one.default:
                raise ConfigError(
                    f"{flag(one)} does not fit {given}, which leaves nothing to it; leave out one "
                    "of them"
                )

    @property
    def embedding_model(self) -> str | None:
        """The model that embeds."""
        return self.model

    @property
    def kept_tokens(self) -> int | None:
        """Tokens of a text that are embedded; None for what the model reads."""
        return self.max_length
