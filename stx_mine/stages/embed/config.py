"""Options of `embed`."""

from dataclasses import dataclass
from typing import Literal

from stx_mine.engine.config import EngineConfig
from stx_mine.errors import ConfigError
from stx_mine.models.config import ModelFields, ServerFields, is_server
from stx_mine.settings import WHERE, given_fields, option, option_words
from stx_mine.stages.ingest.config import IngestConfig

DEFAULT_MODEL = "package:wordllama"
# What a server decides.
_OF_OWN_MODEL = (
    "precision",
    "backend",
    "attention",
    "max_length",
    "truncate_dim",
    "min_overlap",
    "batch_tokens",
    "batches_at_once",
    "device",
    "trust_remote_code",
    "revision",
    "pooling",
)


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(ModelFields, ServerFields, EngineConfig, IngestConfig):
    """Ingest PAIRS or sources where given, then embed every distinct text once."""

    model: str = option(
        DEFAULT_MODEL,
        "A hub id, a local folder, package:NAME, or a server (http://localhost:8000/v1).",
        "embeddings",
        group="Model",
        conflicts="encoder query_vectors",
        because="which leaves nothing to it",
    )
    encoder: str | None = option(
        None,
        "Instead of a model: package.module:function, from a list of texts to floats.",
        "embeddings",
        group="Vectors without a model",
        conflicts="query_vectors",
        because="which leaves nothing to it",
    )
    query_vectors: str | None = option(
        None,
        "Instead of a model: vectors of the queries (.npy), in the order of the input.",
        "embeddings",
        group="Vectors without a model",
        needs="passage_vectors",
    )
    passage_vectors: str | None = option(
        None,
        "And those of the passages, or of the corpus if it has them all.",
        "embeddings",
        group="Vectors without a model",
        needs="query_vectors",
    )
    similarity: Literal["cosine", "dot", "euclidean"] | None = option(
        None,
        "How vectors without a model compare (default: cosine).",
        "embeddings",
        group="Vectors without a model",
    )
    dtype: Literal["float32", "float16"] = option(
        "float32", "Number format of the stored vectors.", "embeddings", group="Model"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto",
        "Number format of the network; auto: bfloat16 where it is measured to be faster.",
        "embeddings",
        group="Network",
        conflicts="backend=openvino|onnx encoder query_vectors",
        because="which decides it itself",
    )
    backend: Literal["torch", "openvino", "onnx"] = option(
        "torch",
        "What runs the network of a transformer.",
        "embeddings",
        group="Network",
        conflicts="encoder query_vectors",
        because="which leaves nothing to it",
    )
    model_file: str | None = option(
        None,
        "With openvino and onnx: the exported network (int8, say) in the model's folder.",
        "embeddings",
        group="Network",
        needs="backend=openvino|onnx",
        conflicts="encoder query_vectors",
        because="which leaves nothing to it",
    )
    attention: str | None = option(
        None,
        "How transformers computes attention: sdpa, flash_attention_2 ... (default: its choice).",
        "embeddings",
        group="Network",
        conflicts="backend=openvino|onnx encoder query_vectors",
        because="which decides it itself",
    )
    max_length: int | None = option(
        None,
        "Tokens kept of a text (default: the model's own).",
        "embeddings",
        minimum=1,
        group="Model",
        conflicts="encoder query_vectors",
        because="which leaves nothing to it",
    )
    truncate_dim: int | None = option(
        None,
        "Dimensions kept of a vector, the first ones (default: all).",
        "embeddings",
        minimum=1,
        group="Model",
        conflicts="encoder",
        because="which leaves nothing to it",
    )
    normalize: bool = option(False, "Scale vectors to unit length.", "embeddings", group="Model")
    query_prompt: str | None = option(
        None,
        "Put before queries (default: the model's own; empty: none).",
        "embeddings",
        empty=True,
        group="Model",
        conflicts="query_vectors",
        because="which leaves nothing to it",
    )
    passage_prompt: str | None = option(
        None,
        "Put before passages (default: the model's own; empty: none).",
        "embeddings",
        empty=True,
        group="Model",
        conflicts="query_vectors",
        because="which leaves nothing to it",
    )
    shard_size: int = option(
        65_536, "Texts a shard (one task each).", "embeddings", minimum=1, group="Speed"
    )
    min_overlap: float = option(
        0.0,
        "Below this overlap with the top 100 of float32, half precision is refused.",
        minimum=0,
        group="Network",
        maximum=1,
        conflicts="encoder query_vectors",
        because="which leaves nothing to it",
    )
    embedding_cache: str | None = option(
        None,
        "A folder of vectors by content, for runs to share: only new texts are embedded.",
        group="Speed",
        conflicts="query_vectors",
        because="which leaves nothing to it",
    )
    batch_tokens: int | None = option(
        None,
        "Tokens of a forward pass, padding included (default: measured).",
        minimum=1,
        group="Speed",
        conflicts="encoder query_vectors",
        because="which leaves nothing to it",
    )
    batches_at_once: int | None = option(
        None,
        "Forward passes at once on a CPU, cores shared (default: measured).",
        minimum=1,
        group="Speed",
        conflicts="backend=openvino|onnx encoder query_vectors",
        because="which decides it itself",
    )
    device: str | None = option(
        None,
        "cpu, cuda, cuda:0,cuda:1 ... a process each (default: all GPUs, or the best seen).",
        group=WHERE,
        conflicts="encoder query_vectors",
        because="which leaves nothing to it",
    )

    def __post_init__(self) -> None:
        """Check what one range alone cannot tell.

        Raises:
            ConfigError: Devices that Ray or the backend would not use.
        """
        super().__post_init__()
        if self.encoder or self.query_vectors:
            self._refuse_reading()
        elif self.is_function:
            self._refuse_own()
        else:
            self._refuse_of_others()
        if self.engine == "ray" and "," in (self.device or ""):
            raise ConfigError(
                f"--device {self.device} and --engine ray both give devices to processes; leave "
                "one of them out"
            )
        if self.backend == "openvino" and self.device not in (None, "cpu"):
            raise ConfigError(
                f"--device {self.device} does not fit --backend openvino, which runs on the CPU; "
                "leave one of them out"
            )

    def _refuse_reading(self) -> None:
        """Refuse options of a model where none embeds; a tokenizer may need trust all the same."""
        of_tokenizer = self.chunk and self.tokenizer
        given = {
            "--trust-remote-code": self.trust_remote_code and not of_tokenizer,
            f"--revision {self.revision}": self.revision,
            f"--pooling {self.pooling}": self.pooling,
            f"--server-model {self.server_model}": self.server_model,
        }
        for words in (one for one, value in given.items() if value):
            raise ConfigError(
                f"{words} says how a model is read, found vectors that come from {self.miner}; "
                "leave it out"
            )

    def _refuse_own(self) -> None:
        """Refuse options of a model that runs here where a server has it."""
        self.check_server("--model", self.model)
        for one in given_fields(self):
            if one.name in _OF_OWN_MODEL:
                raise ConfigError(
                    f"{option_words(one, getattr(self, one.name))} is for a model that runs here, "
                    f"found the server {self.model}, which decides it itself; leave it out"
                )

    def _refuse_of_others(self) -> None:
        """Refuse options of functions and servers where a model runs here."""
        for one in given_fields(self):
            if one.name in ("similarity", "server_model"):
                others = "--encoder or --query-vectors, or " * (one.name == "similarity")
                raise ConfigError(
                    f"{option_words(one, getattr(self, one.name))} needs {others}a server as "
                    f"--model, found {self.model}; leave it out"
                )

    @property
    def is_function(self) -> bool:
        """Whether a function or a server embeds, whose network is not this process's."""
        return self.encoder is not None or (self.query_vectors is None and is_server(self.model))

    @property
    def embedding_model(self) -> str | None:
        """The model that embeds, where its files can be read."""
        return None if is_server(self.model) else self.model

    @property
    def kept_tokens(self) -> int | None:
        """Tokens of a text that are embedded; None for what the model reads."""
        return self.max_length

    @property
    def miner(self) -> str:
        """What embeds, in words: the files of vectors, the function or the model."""
        if self.query_vectors is not None:
            return f"{self.query_vectors} and {self.passage_vectors}"
        return self.encoder or self.model
