"""One frozen dataclass per stage: the CLI options, the YAML keys and the Python arguments.

A field declares its help text and the artifacts that it affects. Fields that affect none
(block sizes, devices, where the run lives) never make a finished artifact stale.
"""

from dataclasses import Field, dataclass, field, fields
from shlex import quote
from typing import Any, Literal, TypeVar

from stx_mine.errors import ConfigError

T = TypeVar("T")
DEFAULT_MODEL = "package:wordllama"


def option(
    default: T,
    help_text: str,
    affects: str = "",
    minimum: float | None = None,
    argument: bool = False,
) -> T:
    """Declare a config field.

    Args:
        default: The default value.
        help_text: One line for `--help`.
        affects: Space-separated names of the artifacts whose key holds this field.
        minimum: The smallest valid value (inclusive), if there is one.
        argument: Whether the CLI takes it by position.

    Returns:
        A dataclass field, typed as its default.
    """
    metadata = {
        "help": help_text,
        "affects": tuple(affects.split()),
        "minimum": minimum,
        "argument": argument,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """What every stage takes."""

    run_dir: str = option("stx-run", "The run directory: one folder per artifact.")
    overwrite: bool = option(
        False, "Replace what this command owns where it was made with other settings."
    )

    def __post_init__(self) -> None:
        """Check ranges; a single string is a list of one where a list is expected.

        Raises:
            ConfigError: A value is below its minimum.
        """
        for one in fields(self):
            if isinstance(one.default, tuple) and isinstance(getattr(self, one.name), str):
                object.__setattr__(self, one.name, (getattr(self, one.name),))
            minimum, value = one.metadata.get("minimum"), getattr(self, one.name)
            is_number = isinstance(value, int | float)
            if minimum is not None and is_number and value < minimum:
                raise ConfigError(
                    f"{flag(one)} must be at least {minimum:g}, found {value}; give a larger value"
                )


@dataclass(frozen=True, kw_only=True)
class SourceFields:
    """How input files are read; shared by the stages that read pairs."""

    corpus: str | None = option(
        None, "A file of passages; those that only pairs name are added to it.", "texts"
    )
    query_column: str | None = option(None, "Column of the queries (default: the first).", "texts")
    passage_column: str | None = option(
        None, "Column of the positive passages (default: the second).", "texts"
    )
    negative_column: tuple[str, ...] = option(
        (),
        "Column of known negatives, which become candidates of their query; repeatable.",
        "texts",
    )
    corpus_column: str | None = option(
        None, "Column of the corpus file's passages (default: the only or first).", "texts"
    )
    split: str | None = option(
        None, "Which qrels of a BEIR folder (default: train, or the only one).", "texts"
    )
    min_grade: float | None = option(
        None, "Lowest grade of a positive in the qrels (default: any above 0).", "texts"
    )


@dataclass(frozen=True, kw_only=True)
class LanguageFields:
    """What languages the texts of an input are in."""

    language_column: str | None = option(
        None,
        "Column of languages, of any file of the input; NAME with query_ or passage_ before it is "
        "for one role (default: language, where there is one).",
        "texts",
    )
    language: str | None = option(
        None, "Language of the texts for which no column names one.", "texts"
    )


@dataclass(frozen=True, kw_only=True)
class Source(LanguageFields, SourceFields):
    """One of several sources of pairs: an entry of `--sources`, and of the YAML key `sources`."""

    name: str = option("", "Name of the source, in reports and shards.", "texts")
    path: str = option("", "Its pairs: what PAIRS may be.", "texts")
    weight: float = option(1.0, "How much its size counts in a packing.", "texts")
    query_prompt: str | None = option(
        None, "Put before its queries (default: the model's own; empty: none).", "texts"
    )
    passage_prompt: str | None = option(
        None, "Put before its passages (default: the model's own; empty: none).", "texts"
    )

    def __post_init__(self) -> None:
        """Check what has no sensible default.

        Raises:
            ConfigError: There is no name or path, or the weight is not above 0.
        """
        for one in ("name", "path"):
            if not getattr(self, one):
                raise ConfigError(f"every source needs a {one}, found none for {self}; add {one}:")
        if not 0 < self.weight < float("inf"):
            raise ConfigError(
                f"the weight of source {self.name!r} must be above 0, found {self.weight:g}; "
                "leave the source out instead"
            )

    @property
    def prompts(self) -> tuple[str | None, str | None]:
        """The prompts of queries and of passages."""
        return self.query_prompt, self.passage_prompt


MANY_SOURCES = tuple[Source, ...] | None


@dataclass(frozen=True, kw_only=True)
class ChunkFields:
    """How long passages are cut."""

    chunk: tuple[int, ...] = option(
        (),
        "Cut longer passages into chunks of so many tokens, of which the next repeats so many, as "
        "TOKENS,OVERLAP.",
        "texts",
    )
    title: Literal["every", "first", "none"] = option(
        "every",
        "Titles of a BEIR corpus stand before every chunk, the first, or are left out (none).",
        "texts",
    )
    positive_chunk: Literal["best", "first", "all"] = option(
        "best",
        "The positive among the chunks of a positive passage: the best by the words of the query, "
        "the first, or all, a row each.",
        "texts",
    )
    tokenizer: str | None = option(
        None, "Model whose tokens --chunk counts (default: the --model of embed).", "texts"
    )

    def check_chunk(self, model: str | None) -> None:
        """Check the options of chunks.

        Args:
            model: The model to embed with, if that is known.

        Raises:
            ConfigError: A value is out of range, missing, or needs `chunk`.
        """
        for name in ("positive_chunk", "tokenizer"):
            value = getattr(self, name)
            if not self.chunk and value not in (None, "best"):
                raise ConfigError(
                    f"--{name.replace('_', '-')} {value} needs --chunk TOKENS,OVERLAP, found none; "
                    "leave it out"
                )
        if not self.chunk:
            return
        if len(self.chunk) != 2 or not 0 <= self.chunk[1] < self.chunk[0]:
            raise ConfigError(
                "--chunk must be TOKENS,OVERLAP with an overlap from 0 to below the tokens, found "
                f"{','.join(map(str, self.chunk))}; give such as 256,32"
            )
        if self.tokenizer is None and model is None:
            raise ConfigError(
                f"--chunk {','.join(map(str, self.chunk))} counts tokens of a model, found none; "
                "give --tokenizer MODEL, or use embed, which takes that of its --model"
            )


@dataclass(frozen=True, kw_only=True)
class IngestConfig(ChunkFields, LanguageFields, SourceFields, StageConfig):
    """Read pairs and a corpus, count what is dropped, merge exact duplicates."""

    pairs: str | None = option(
        None,
        "Pairs: Parquet, JSONL, CSV or TSV (also .gz, .zst), or a BEIR folder.",
        "texts",
        argument=True,
    )
    sources: tuple[Source, ...] | None = option(
        None,
        "Several sources instead of PAIRS: a YAML list of name, path, weight, query_prompt ...",
        "texts",
    )

    def __post_init__(self) -> None:
        """Check that the input is said once.

        Raises:
            ConfigError: PAIRS or its options stand beside sources, or a name stands twice.
        """
        super().__post_init__()
        self.check_chunk(self.embedding_model)
        if self.chunk and self.pairs is None and self.sources is None:
            raise ConfigError(
                "--chunk cuts the passages of PAIRS or --sources, found neither; name them"
            )
        if self.sources is None:
            return
        of_source = (*names_of(SourceFields), *names_of(LanguageFields))
        beside = [one for one in ("pairs", *of_source) if getattr(self, one)]
        if beside:
            named = "PAIRS" if beside[0] == "pairs" else "--" + beside[0].replace("_", "-")
            raise ConfigError(
                f"expected {named} or --sources, found both; write {beside[0]} into the entry of "
                "its source"
            )
        names = [one.name for one in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or not names:
            raise ConfigError(
                f"expected sources of different names, found {', '.join(twice) or 'none'}"
                f"{' more than once' if twice else ''}; mend --sources"
            )

    @property
    def embedding_model(self) -> str | None:
        """The model that will embed, where that is known."""
        return None

    @property
    def kept_tokens(self) -> int | None:
        """Tokens of a text that will be embedded; None for what the model reads."""
        return None


@dataclass(frozen=True, kw_only=True)
class QueriesConfig(StageConfig):
    """Make queries out of passages: pairs that embed reads, for data that has titles only."""

    pairs: str | None = option(
        None,
        "Pairs or a BEIR folder whose passages get queries (none: those of --corpus).",
        "queries",
        argument=True,
    )
    corpus: str | None = option(None, "A file of more passages.", "queries")
    query_column: str | None = option(
        None, "Column of PAIRS with titles or queries (default: the first).", "queries"
    )
    passage_column: str | None = option(
        None, "Column of PAIRS with passages (default: the second).", "queries"
    )
    corpus_column: str | None = option(
        None, "Column of the corpus file's passages (default: text, or the first).", "queries"
    )
    method: tuple[Literal["crop", "keywords", "generate", "titles"], ...] = option(
        ("crop",),
        "crop: a sentence; keywords: its telling terms; generate: by a language model; titles: "
        "what PAIRS has; repeatable.",
        "queries",
    )
    per_passage: int = option(1, "Queries a passage and method, at most.", "queries", minimum=1)
    remove_share: float = option(
        0.0,
        "Share of the passages that lose the sentences cropped from them.",
        "queries",
        minimum=0,
    )
    cut_titles: bool = option(
        False,
        "Cut each title (query of PAIRS) out of its passage where it stands there.",
        "queries",
    )
    min_words: int = option(
        3, "Fewest words of a made query; where no spaces are, 2 characters.", "queries", minimum=1
    )
    max_words: int = option(32, "Most words of a cropped query.", "queries", minimum=1)
    terms: int = option(6, "Terms of a keyword query.", "queries", minimum=1)
    generator: str | None = option(
        None, "Seq2seq or causal model of generate: a hub id or a local folder.", "queries"
    )
    prompt_file: str | None = option(
        None, "Its prompt, with {passage} (default: the passage, or for causal models a request)."
    )
    max_passage_tokens: int = option(384, "Tokens of a passage it reads.", "queries", minimum=1)
    max_new_tokens: int = option(48, "Tokens of a query it writes.", "queries", minimum=1)
    temperature: float = option(1.0, "Its sampling temperature; 0: greedy.", "queries", minimum=0)
    top_p: float = option(
        0.95, "It samples from the likeliest tokens of this share.", "queries", minimum=0.01
    )
    format: Literal["parquet", "jsonl"] = option("parquet", "Format of the pairs.", "queries")
    seed: int = option(
        42, "Seed; a passage's draws depend on it and its text.", "queries", minimum=0
    )
    block_size: int = option(8_192, "Passages a task, and in memory.", "queries", minimum=1)
    generate_batch_size: int = option(16, "Prompts a batch of the generator.", minimum=1)
    device: str | None = option(None, "cpu, cuda, mps ... (default: the best one seen).")

    def __post_init__(self) -> None:
        """Check what one range alone cannot tell.

        Raises:
            ConfigError: An option is missing, does not fit the methods, or is out of range.
        """
        super().__post_init__()
        if not self.method or len(set(self.method)) < len(self.method):
            raise ConfigError(
                f"--method must name each method once, found {' '.join(self.method) or 'none'}; "
                "leave out the repetition"
            )
        for name in ("remove_share", "top_p"):
            if getattr(self, name) > 1:
                raise ConfigError(
                    f"--{name.replace('_', '-')} must be at most 1, found {getattr(self, name):g}"
                )
        for name, method in (("max_words", "crop"), ("terms", "keywords")):
            if method in self.method and getattr(self, name) < self.min_words:
                raise ConfigError(
                    f"--{name.replace('_', '-')} must be at least --min-words {self.min_words}, "
                    f"found {getattr(self, name)}; give a smaller --min-words"
                )
        self._check_methods()

    def _check_methods(self) -> None:
        """Refuse options that no method would heed, and methods that lack one.

        Raises:
            ConfigError: There is one.
        """
        users = dict.fromkeys(("remove_share", "max_words"), "crop")
        users |= dict.fromkeys(("terms",), "keywords")
        users |= dict.fromkeys(
            (
                "generator",
                "prompt_file",
                "max_passage_tokens",
                "max_new_tokens",
                "temperature",
                "top_p",
                "generate_batch_size",
            ),
            "generate",
        )
        for one in fields(self):
            method, value = users.get(one.name), getattr(self, one.name)
            if method and method not in self.method and value != one.default:
                raise ConfigError(
                    f"{flag(one)} {value} needs --method {method}, found "
                    f"{' '.join(self.method)}; leave out one of them"
                )
        if "generate" in self.method and self.generator is None:
            raise ConfigError(
                "--method generate needs --generator MODEL, found none; name a seq2seq or causal "
                "model, a hub id or a local folder"
            )
        for words, asked in (
            ("--method titles", "titles" in self.method),
            ("--cut-titles", self.cut_titles),
        ):
            if asked and self.pairs is None:
                raise ConfigError(
                    f"{words} needs titles, a corpus file has none; give PAIRS, or leave it out"
                )


@dataclass(frozen=True, kw_only=True)
class EngineConfig(StageConfig):
    """Where the tasks of a stage run; shared by the stages that have many."""

    engine: Literal["local", "ray"] = option(
        "local", "Where tasks run: local (this process), or ray (needs stx-mine[ray])."
    )
    ray_address: str | None = option(
        None, "Address of a Ray cluster (default: Ray is started on this machine)."
    )
    workers: int | None = option(
        None, "Ray actors at work at a time (default: one a GPU, else one a core).", minimum=1
    )
    worker_gpus: float | None = option(
        None, "GPUs of a Ray actor (default: 1 where Ray has any and the task gains).", minimum=0
    )
    task: str | None = option(
        None,
        "Do share i (from 0) of n of the tasks, as i/n (default: of a Slurm array or torchrun).",
    )

    def __post_init__(self) -> None:
        """Refuse options that the engine would not heed.

        Raises:
            ConfigError: There is one.
        """
        super().__post_init__()
        for one in ("ray_address", "workers", "worker_gpus"):
            value = getattr(self, one)
            if value is not None and self.engine != "ray":
                raise ConfigError(
                    f"--{one.replace('_', '-')} {value} needs --engine ray, found --engine "
                    f"{self.engine}; leave it out"
                )
        if self.task is not None and self.engine == "ray":
            raise ConfigError(
                f"--task {self.task} and --engine ray both divide the tasks; leave one of them out"
            )


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


@dataclass(frozen=True, kw_only=True)
class IndexConfig(StageConfig):
    """Build a FAISS index of the passages and measure its recall against exact search."""

    factory: str = option("IVF1024,Flat", "A FAISS index factory string.", "index")
    nprobe: int = option(16, "Cells that an IVF index visits a query.", "index", minimum=1)
    refine_factor: int = option(
        1,
        "Hits proposed by the index for each one wanted; the best by their true score stay.",
        "index",
        minimum=1,
    )
    recall_depth: int = option(100, "Recall is measured at this depth.", "index", minimum=1)
    recall_queries: int = option(1_000, "Queries of the recall sample.", "index", minimum=1)
    min_recall: float = option(0.0, "Below this measured recall the index is refused.", minimum=0)
    seed: int = option(42, "Seed of the recall sample.", "index", minimum=0)


SOURCES = ("dense", "bm25")


@dataclass(frozen=True, kw_only=True)
class MineConfig(EngineConfig):
    """Search deeply, filter, keep an ordered pool of negatives a pair."""

    k: int = option(8, "Negatives a row that pack will bind.", "negatives", minimum=1)
    pool: int = option(30, "Negatives kept a pair; never fewer than k.", "negatives", minimum=1)
    depth: int = option(
        100, "Candidates searched a query, beyond its known positives.", "negatives", minimum=1
    )
    max_depth: int | None = option(
        None,
        "Queries with fewer than k negatives are searched again, four times deeper, up to this.",
        "negatives",
        minimum=1,
    )
    search: Literal["auto", "exact", "faiss"] = option(
        "auto", "exact, faiss (needs index/), or auto: faiss where index/ exists.", "hits"
    )
    sources: str = option(
        "dense", "Where candidates come from: dense, or dense,bm25 (needs bm25s).", "negatives"
    )
    candidates: str | None = option(
        None, "Candidates of another retriever: a TREC run, or a file of query and passage texts."
    )
    negative_language: Literal["any", "same", "cross"] = option(
        "any",
        "Negatives in the language of their query (same), in others (cross), or in any; what is "
        "unknown is kept.",
        "negatives",
    )
    range_min: int = option(
        0, "First rank that may be a negative (0-based).", "negatives", minimum=0
    )
    range_max: int | None = option(
        None, "Rank at which the window ends (exclusive).", "negatives", minimum=1
    )
    min_score: float | None = option(None, "Lowest score of a negative.", "negatives")
    max_score: float | None = option(None, "Highest score of a negative.", "negatives")
    absolute_margin: float | None = option(
        None, "Keep a candidate if score <= positive - margin.", "negatives", minimum=0
    )
    relative_margin: float | None = option(
        0.05,
        "Keep a candidate if score <= positive - |positive| * margin; none: off.",
        "negatives",
        minimum=0,
    )
    upper_margin: float | None = option(
        None, "Keep a candidate if score >= positive - margin (semi-hard).", "negatives", minimum=0
    )
    positive_score: Literal["lowest", "pair"] = option(
        "lowest", "Margins count from the query's lowest positive, or the pair's own.", "negatives"
    )
    closeness: float | None = option(
        None,
        "Drop a candidate c if cos(q,c) + cos(p,c) > closeness x (1 + cos(q,p)); 0.7 is measured.",
        "negatives",
        minimum=0,
    )
    min_positive_percentile: float | None = option(
        None,
        "Drop pairs whose positive scores above fewer than this percent of random passages.",
        "negatives",
        minimum=0,
    )
    max_uses: int | None = option(
        None, "How often one passage may be a negative: its best uses stay.", "negatives", minimum=1
    )
    sampling: Literal["top", "random", "weighted"] = option(
        "top",
        "The pool takes the best candidates, draws evenly, or draws by exp(score / temperature).",
        "negatives",
    )
    sampling_temperature: float = option(
        0.05, "Temperature of weighted sampling.", "negatives", minimum=1e-6
    )
    short_rows: Literal["keep", "drop"] = option(
        "keep", "What becomes of rows with fewer than k negatives.", "negatives"
    )
    seed: int = option(42, "Seed of sampling.", "negatives", minimum=0)
    query_block: int = option(4_096, "Queries a search task.", "hits", minimum=1)
    passage_block: int = option(16_384, "Passages a matrix product.", minimum=1)
    corpus_parts: int = option(
        1, "Parts of a corpus larger than one device: searched by tasks of their own.", minimum=1
    )
    device: str | None = option(None, "cpu, cuda, mps ... (default: the best one seen).")

    def __post_init__(self) -> None:
        """Check what one range alone cannot tell.

        Raises:
            ConfigError: An empty window, or values that do not fit one another.
        """
        super().__post_init__()
        if self.range_max is not None and self.range_max <= self.range_min:
            raise ConfigError(
                f"--range-max must be above --range-min, found {self.range_max} and "
                f"{self.range_min}; ranks are 0-based and the window is half-open"
            )
        if None not in (self.min_score, self.max_score) and self.min_score > self.max_score:  # type: ignore[operator]
            raise ConfigError(
                f"--min-score must not be above --max-score, found {self.min_score} and "
                f"{self.max_score}; swap them"
            )
        if self.depth < self.k:
            raise ConfigError(
                f"--depth must be at least k={self.k}, found {self.depth}; give --depth {self.k}"
            )
        if self.max_depth is not None and self.max_depth < self.depth:
            raise ConfigError(
                f"--max-depth must be at least --depth {self.depth}, found {self.max_depth}; "
                f"give --depth {self.max_depth} or a larger --max-depth"
            )
        if not set(self.source_names) <= set(SOURCES) or "dense" not in self.source_names:
            raise ConfigError(
                f"--sources must be dense or dense,bm25, found {self.sources!r}; "
                "other retrievers come in by --candidates"
            )

    @property
    def source_names(self) -> tuple[str, ...]:
        """The names in `sources`."""
        return tuple(name.strip() for name in self.sources.split(","))


_PAIRS, _LABELS, _FILE = "--layout inline or ids", "--layout labels", "--labeled"
# Option of pack -> what heeds it.
_LAYOUT_OPTIONS = {
    **dict.fromkeys(("policy", "k", "near_positive_margin", "rotate", "order", "cluster"), _PAIRS),
    **dict.fromkeys(("scores", "engine", "task"), _PAIRS),
    **dict.fromkeys(("labeled", "texts_per_label"), _LABELS),
    **dict.fromkeys(("text_column", "label_column"), _FILE),
}


@dataclass(frozen=True, kw_only=True)
class PackConfig(EngineConfig):
    """Bind negatives and write batches into Parquet shards, one packing per epoch."""

    batch_size: int = option(2_048, "Rows that one optimizer step sees.", "batches", minimum=2)
    policy: Literal["merge", "strict"] = option(
        "merge",
        "merge: each text once a batch, known positives masked; strict: for any trainer.",
        "batches",
    )
    k: int | None = option(None, "Negatives a row (default: the k of mine).", "batches", minimum=0)
    layout: Literal["inline", "ids", "labels"] = option(
        "inline",
        "inline: texts in the shards; ids: texts beside them; labels: (text, label) rows.",
        "batches",
    )
    labeled: str | None = option(
        None,
        "Rows of --layout labels: Parquet, JSONL, CSV or TSV (default: labels of the run's pairs).",
        "batches",
    )
    text_column: str | None = option(
        None, "Its column of texts (default: text, or the first).", "batches"
    )
    label_column: str | None = option(
        None, "Its column of labels (default: label, or the second).", "batches"
    )
    texts_per_label: int = option(
        4, "Texts that a label has in a batch of --layout labels, at most.", "batches", minimum=2
    )
    near_positive_margin: float | None = option(
        None,
        "Passages that score above a row's positive - margin are no negatives of it, of any kind.",
        "batches",
    )
    rotate: bool = option(False, "Bind other negatives of the pool in other packings.", "batches")
    order: Literal["random", "easy-to-hard", "hard-to-easy"] = option(
        "random",
        "Order of the batches; a hard row has candidates near or above its positive.",
        "batches",
    )
    cluster: float | None = option(
        None,
        "Batches of like queries, from 0 (random) to 1 (neighbouring topics only).",
        "batches",
        minimum=0,
    )
    sources_per_batch: Literal["auto", "one", "mixed"] = option(
        "auto",
        "Sources in a batch: one, mixed in proportion, or auto: one where their prompts differ.",
        "batches",
    )
    source_temperature: float = option(
        1.0,
        "A source's share of a packing: (weight x rows) ^ (1 / temperature).",
        "batches",
        minimum=0.01,
    )
    scores: bool = option(
        False, "Store the scores of each row by the model that mined, to be distilled.", "batches"
    )
    dry_run: bool = option(False, "Write nothing; say what each policy would give, and advise.")
    packings: int | None = option(
        None, "Different packings (default: 2, or as many as make 12 steps).", "batches", minimum=1
    )
    seed: int = option(42, "Seed; packing e is seeded by (seed, e).", "batches", minimum=0)
    shard_rows: int = option(
        65_536, "Rows a shard; rounded to whole batches.", "batches", minimum=1
    )

    def __post_init__(self) -> None:
        """Check what one range alone cannot tell.

        Raises:
            ConfigError: A value is too large, or two do not fit one another.
        """
        super().__post_init__()
        if self.cluster is not None and self.cluster > 1:
            raise ConfigError(f"--cluster must be at most 1, found {self.cluster:g}; give 1")
        if self.cluster is not None and self.order != "random":
            raise ConfigError(
                f"--cluster {self.cluster:g} and --order {self.order} both decide which rows meet; "
                "give one of them"
            )
        self._check_layout()

    def _check_layout(self) -> None:
        """Refuse options that the layout would not heed.

        Raises:
            ConfigError: There is one, or batches would not hold whole groups of texts.
        """
        heeded = {_LABELS if self.layout == "labels" else _PAIRS, _FILE if self.labeled else ""}
        for one in fields(self):
            value, needs = getattr(self, one.name), _LAYOUT_OPTIONS.get(one.name)
            if needs is not None and needs not in heeded and value != one.default:
                raise ConfigError(
                    f"{flag(one)} {value} needs {needs}, found --layout {self.layout}"
                    f"{f' and {_FILE} {self.labeled}' if self.labeled else ''}; leave out one of "
                    "them"
                )
        if self.layout == "labels" and self.batch_size % self.texts_per_label:
            lower = self.batch_size // self.texts_per_label * self.texts_per_label
            raise ConfigError(
                f"--batch-size must be a multiple of --texts-per-label {self.texts_per_label}, "
                f"found {self.batch_size}; give {lower or self.texts_per_label} or "
                f"{lower + self.texts_per_label}"
            )

    def with_layout(self, layout: Literal["inline", "labels"]) -> "PackConfig":
        """The same packing in another layout, without what that layout would not heed."""
        kept: dict[str, Any] = {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if one.name not in _LAYOUT_OPTIONS
        }
        kept["layout"] = layout
        if layout == "labels":
            each = PackConfig.texts_per_label
            kept["batch_size"] = max(each, self.batch_size // each * each)
        return PackConfig(**kept)


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(StageConfig):
    """Check every invariant and checksum of packed batches, or rows of others in their order."""

    directory: str | None = option(
        None,
        "A folder of packed batches (default: batches/ of the run), or a file or folder of rows.",
        argument=True,
    )
    batch_size: int | None = option(
        None, "Rows a batch of rows that `stx-mine pack` did not write.", minimum=2
    )
    anchor_column: str | None = option(
        None, "Column of their anchors (default: anchor, or the first of texts)."
    )
    positive_column: str | None = option(
        None, "Column of their positives (default: positive, or the next of texts)."
    )
    negative_column: tuple[str, ...] = option(
        (), "Column of their negatives, repeatable (default: negative*, or all that are left)."
    )
    max_violations: int = option(10, "Violations to name before stopping.", minimum=1)


@dataclass(frozen=True, kw_only=True)
class DiffConfig(StageConfig):
    """Say which negatives differ between two runs, and why; texts are matched by content."""

    run_a: str | None = option(None, "A run directory, mined.", argument=True)
    run_b: str | None = option(None, "Another one (default: --run-dir).", argument=True)
    k: int | None = option(
        None,
        "Front of the pools whose overlap is told (default: the smaller k of mine).",
        minimum=1,
    )
    query: str | None = option(None, "Compare one query only: its text, or its original id.")
    limit: int = option(10, "Changes to show as examples, of every reason.", minimum=0)
    json: str | None = option(
        None, "Write all of it as JSON to this file; -: print it instead of the table."
    )

    def __post_init__(self) -> None:
        """Check that two runs are named.

        Raises:
            ConfigError: One is missing, or there are three.
        """
        super().__post_init__()
        if self.run_a is None:
            raise ConfigError(
                "expected two run directories, found none; name them, as in "
                "`stx-mine diff RUN_A RUN_B`"
            )
        if self.run_b is not None and self.run_dir != StageConfig.run_dir:
            raise ConfigError(
                f"expected two run directories, found {self.run_a}, {self.run_b} and --run-dir "
                f"{self.run_dir}; leave one of them out"
            )


@dataclass(frozen=True)
class LossKind:
    """What a loss of `train` reads.

    Attributes:
        options: Names of the options that decide its value; another loss's options are refused.
        labels: Whether it reads (text, label) batches.
        negatives: Whether rows without any negative teach it nothing.
        scores: Whether it reads the scores of the model that mined.
        rows: Whether it is the library's and takes the rows as they stand: it needs a transformer,
            batches of the policy strict, and one process.
    """

    options: tuple[str, ...]
    labels: bool = False
    negatives: bool = False
    scores: bool = False
    rows: bool = False


REPORTERS = ("tensorboard", "wandb")
_OWN_BATCH = ("symmetric", "negatives", "shared_negatives", "hardness", "weight")
_GUIDE, _MARGIN = ("guide", "guide_margin"), ("metric", "triplet_margin")
LOSSES = {
    "mnr": LossKind(("temperature", *_OWN_BATCH, *_GUIDE, "matryoshka_dims")),
    "triplet": LossKind((*_MARGIN, "matryoshka_dims"), negatives=True),
    "margin-mse": LossKind(("matryoshka_dims",), negatives=True, scores=True),
    "kl": LossKind(("temperature", "matryoshka_dims"), negatives=True, scores=True),
    "cached-mnr": LossKind(("temperature",), rows=True),
    "gist": LossKind(("temperature", *_GUIDE), rows=True),
    "batch-all": LossKind((*_MARGIN, "matryoshka_dims"), labels=True),
    "batch-hard": LossKind((*_MARGIN, "matryoshka_dims"), labels=True),
    "batch-semi-hard": LossKind((*_MARGIN, "matryoshka_dims"), labels=True),
    "batch-hard-soft-margin": LossKind(("metric", "matryoshka_dims"), labels=True),
}
# Triplet margins that suit a distance: of sentence-transformers for Euclidean.
_TRIPLET_MARGINS = {"cosine": 0.3, "euclidean": 5.0}


@dataclass(frozen=True, kw_only=True)
class EstimateConfig(StageConfig):
    """What a training step will embed, score, hold and take, before anything is trained."""

    batch_size: int | None = option(
        None, "Rows a step (default: of batches/, or 2,048).", "estimates", minimum=2
    )
    k: int | None = option(
        None, "Negatives a row (default: of batches/, of mine, or 8).", "estimates", minimum=0
    )
    epochs: int | None = option(
        None, "Passes over the rows (default: the packings there are).", "estimates", minimum=1
    )
    model: str | None = option(
        None, "The model to train (default: the one that embedded round 1).", "estimates"
    )
    max_length: int | None = option(
        None, "Tokens kept of a text (default: as it was embedded).", "estimates", minimum=1
    )
    time: bool = option(
        False, "Time a few mini-batches of the model, to tell seconds too.", "estimates"
    )
    chunk_rows: int = option(2_048, "Anchors whose logits exist at one time.", minimum=1)
    batch_tokens: int | None = option(
        None,
        "Tokens that a transformer takes at one time (default: 2,048 on a CPU, 32,768 else).",
        minimum=1,
    )
    device: str | None = option(None, "cpu, cuda, mps ... (default: the best one seen).")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(StageConfig):
    """Train a model on the packed batches."""

    model: str | None = option(
        None, "The model to train (default: the one that embedded round 1).", "model"
    )
    loss: Literal[
        "mnr",
        "triplet",
        "margin-mse",
        "kl",
        "cached-mnr",
        "gist",
        "batch-all",
        "batch-hard",
        "batch-semi-hard",
        "batch-hard-soft-margin",
    ] = option(
        "mnr",
        "mnr: softmax over all passages of the batch; triplet: own negatives only; margin-mse, kl: "
        "scores of the miner; cached-mnr, gist: the library's, on rows; batch-*: on labels.",
        "model",
    )
    epochs: int | None = option(
        None, "Passes over the rows (default: the packings there are).", "model", minimum=1
    )
    learning_rate: Literal["auto", "probe"] | float = option(
        "auto",
        "Peak rate: auto (by kind of model and batch size), probe (the best of three), a number.",
        "model",
        minimum=0,
    )
    warmup: float = option(0.1, "Share of the steps that warm up.", "model", minimum=0)
    schedule: Literal["linear", "cosine", "constant"] = option(
        "linear", "How the rate falls after warming up.", "model"
    )
    floor: float = option(
        0.0, "Where linear and cosine end, as a share of the peak rate.", "model", minimum=0
    )
    evaluation: tuple[str, ...] = option(
        (),
        "Held-out pairs or a BEIR folder to evaluate on while training; repeatable.",
        "model",
    )
    evaluation_split: str | None = option(
        None, "Which qrels of BEIR folders (default: dev, or the only one).", "model"
    )
    evaluation_corpus: str | None = option(
        None, "A file of passages to search beside those of held-out pairs.", "model"
    )
    evaluation_steps: int | None = option(
        None, "Steps between evaluations (default: 20 evaluations a run).", "model", minimum=1
    )
    patience: int = option(
        5, "Evaluations without a new best before training stops; 0: never.", "model", minimum=0
    )
    validation_share: float = option(
        0.0,
        "Share of the batches that are never trained on, to watch the loss.",
        "model",
        minimum=0,
    )
    report_to: tuple[str, ...] = option((), "Where else to log: tensorboard or wandb; repeatable.")
    temperature: float = option(
        0.05, "Softmax temperature of mnr, kl, cached-mnr and gist.", "model", minimum=1e-6
    )
    guide: str | None = option(
        None, "A frozen model; a passage that it scores above the positive is masked.", "model"
    )
    guide_margin: float = option(
        0.0, "With --guide: mask above its score (cosine) of the positive - margin.", "model"
    )
    symmetric: bool = option(
        False, "Also rank the anchors of the batch for each positive; the mean of both.", "model"
    )
    negatives: Literal["batch", "hard"] = option(
        "batch", "batch: all passages of the batch; hard: the row's own negatives.", "model"
    )
    shared_negatives: int = option(
        0, "With hard: random passages of the batch that all rows see beside.", "model", minimum=0
    )
    hardness: float = option(
        0.0, "Adds this times its score to the logit of each negative.", "model", minimum=0
    )
    weight: Literal["one", "count", "logq"] = option(
        "one",
        "A text of the batch counts once, as often as it stands there, or by its rareness.",
        "model",
    )
    matryoshka_dims: tuple[int, ...] = option(
        (), "Sum the loss over the first so many dimensions; repeatable.", "model"
    )
    metric: Literal["cosine", "euclidean"] = option(
        "cosine", "Distance of triplet and batch-*.", "model"
    )
    triplet_margin: float | None = option(
        None, "Its margin (default: 0.3 for cosine, 5 for euclidean).", "model", minimum=0
    )
    max_length: int | None = option(
        None, "Tokens kept of a text (default: as it was embedded).", "model", minimum=1
    )
    seed: int = option(42, "Seed of batch order and dropout.", "model", minimum=0)
    chunk_rows: int = option(2_048, "Anchors whose logits exist at one time.", minimum=1)
    batch_tokens: int | None = option(
        None,
        "Tokens that a transformer takes at one time (default: 2,048 on a CPU, 32,768 else).",
        minimum=1,
    )
    checkpoint_steps: int = option(100, "Steps between checkpoints.", minimum=1)
    precision: Literal["float32", "bf16", "fp16"] = option(
        "float32", "What the network computes in; weights and loss stay float32.", "model"
    )
    lora_rank: int | None = option(
        None, "Train low-rank adapters only, merged into the model at the end.", "model", minimum=1
    )
    lora_alpha: int | None = option(
        None, "Adapters are scaled by alpha / rank (default: 2 x rank).", "model", minimum=1
    )
    trainer_option: tuple[str, ...] = option(
        (), "NAME=VALUE for the Trainer, as in optim=adafactor; repeatable.", "model"
    )
    gradient_checkpointing: bool = option(
        False, "Keep fewer values of a transformer and compute its layers again backwards."
    )
    compile: bool = option(False, "Compile the network (torch.compile); best with --pad-to.")
    pad_to: int | None = option(
        None,
        "Pad texts to multiples of so many tokens, and fill up mini-batches: few shapes, for XLA.",
        minimum=1,
    )
    device: str | None = option(None, "cpu, cuda, mps ... (default: the best one seen).")

    def __post_init__(self) -> None:
        """Check what one range alone cannot tell.

        Raises:
            ConfigError: Options of one loss with another.
        """
        super().__post_init__()
        self._check_scale()
        if any(dim < 1 for dim in self.matryoshka_dims):
            raise ConfigError(
                f"--matryoshka-dims must be at least 1, found {min(self.matryoshka_dims)}; "
                "give numbers of dimensions"
            )
        self._check_loss()
        hard = self.negatives == "hard"
        clashes = {
            "--symmetric": self.symmetric and hard,
            f"--weight {self.weight}": self.weight != "one" and hard,
            f"--shared-negatives {self.shared_negatives}": self.shared_negatives and not hard,
        }
        for words, clash in clashes.items():
            if clash:
                raise ConfigError(
                    f"{words} does not fit --negatives {self.negatives}; leave one of them out"
                )
        if self.guide is None and (self.guide_margin or self.loss == "gist"):
            needs = f"--guide-margin {self.guide_margin:g}" if self.guide_margin else "--loss gist"
            raise ConfigError(f"{needs} needs --guide MODEL, found none; give one")
        self._check_schedule()

    def _check_loss(self) -> None:
        """Refuse options that the loss would not heed.

        Raises:
            ConfigError: There is one; the message names the losses that read it.
        """
        for one in fields(self):
            readers = [name for name, kind in LOSSES.items() if one.name in kind.options]
            value = getattr(self, one.name)
            if readers and self.loss not in readers and value != one.default:
                raise ConfigError(
                    f"{_said(one, value)} is an option of --loss {', '.join(readers)}, found "
                    f"--loss {self.loss}; leave it out"
                )

    @property
    def kind(self) -> LossKind:
        """What the loss reads."""
        return LOSSES[self.loss]

    @property
    def margin(self) -> float:
        """The margin of a triplet loss, in its distance."""
        default = _TRIPLET_MARGINS[self.metric]
        return default if self.triplet_margin is None else self.triplet_margin

    def _check_schedule(self) -> None:
        """Refuse what makes no schedule, or would not be heeded.

        Raises:
            ConfigError: There is such an option.
        """
        if isinstance(self.learning_rate, str) and self.learning_rate not in ("auto", "probe"):
            raise ConfigError(
                f"--learning-rate must be auto, probe or a number, found {self.learning_rate!r}; "
                "give one of them"
            )
        for name, limit in (("warmup", 1.0), ("floor", 1.0), ("validation_share", 0.5)):
            if getattr(self, name) > limit:
                raise ConfigError(
                    f"--{name.replace('_', '-')} must be at most {limit:g}, found "
                    f"{getattr(self, name):g}; give a smaller share"
                )
        if self.floor and self.schedule == "constant":
            raise ConfigError(
                f"--floor {self.floor:g} does not fit --schedule constant, which stays at the peak "
                "rate; leave one of them out"
            )
        unknown = set(self.report_to) - set(REPORTERS)
        if unknown:
            raise ConfigError(
                f"--report-to must be {' or '.join(REPORTERS)}, found "
                f"{', '.join(sorted(unknown))}; training_log.jsonl is always written"
            )
        for one in fields(self):
            needs = one.name in ("evaluation_split", "evaluation_corpus", "patience")
            if needs and not self.evaluation and getattr(self, one.name) != one.default:
                raise ConfigError(
                    f"{flag(one)} {getattr(self, one.name)} needs --evaluation, found none; name "
                    "held-out pairs or a BEIR folder, or leave it out"
                )

    def _check_scale(self) -> None:
        """Refuse half an option.

        Raises:
            ConfigError: A scale of adapters without adapters, or no NAME=VALUE.
        """
        if self.lora_alpha is not None and self.lora_rank is None:
            raise ConfigError(
                f"--lora-alpha {self.lora_alpha} needs --lora-rank, found none; give one"
            )
        for word in self.trainer_option:
            if "=" not in word:
                raise ConfigError(
                    f"--trainer-option must be NAME=VALUE, found {word!r}; add =VALUE"
                )


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


@dataclass(frozen=True, kw_only=True)
class ExportConfig(StageConfig):
    """Write the rows in the layout of another trainer, loadable without stx-mine."""

    to: Literal[
        "triplet", "n-tuple", "labeled-pair", "labeled-list", "flagembedding", "three-table"
    ] = option(
        "triplet",
        "Columns of sentence-transformers, JSONL of FlagEmbedding, or tables for distillation.",
        "exports",
    )
    k: int | None = option(None, "Negatives a row (default: the k of mine).", "exports", minimum=1)
    scores: bool = option(
        False,
        "Scores as sentence-transformers' layouts hold them (the others always do).",
        "exports",
    )

    def __post_init__(self) -> None:
        """Check what one range alone cannot tell.

        Raises:
            ConfigError: `scores` for a layout that always has them.
        """
        super().__post_init__()
        if self.scores and self.to in ("flagembedding", "three-table"):
            raise ConfigError(
                f"--scores changes the layouts of sentence-transformers, found --to {self.to}, "
                "which always has scores; leave --scores out"
            )


@dataclass(frozen=True, kw_only=True)
class StorageConfig(StageConfig):
    """Which artifacts move between the run directory and a URL."""

    url: str | None = option(
        None, "Where published artifacts lie: s3://, gs://, file:// ... (fsspec).", argument=True
    )
    artifact: tuple[str, ...] = option(
        (), "An artifact, as texts or hits/dense; repeatable (default: all that are finished)."
    )


@dataclass(frozen=True, kw_only=True)
class PublishConfig(StorageConfig):
    """Send finished artifacts to a URL; resumable, the manifest of each last."""


@dataclass(frozen=True, kw_only=True)
class FetchConfig(StorageConfig):
    """Fetch published artifacts from a URL into the run directory; checksums are checked."""


def names_of(config_type: type) -> list[str]:
    """Names of the fields of a config, in the order of declaration."""
    return [one.name for one in fields(config_type)]


def flag(one: "Field[Any]") -> str:
    """The CLI spelling of a field."""
    return one.name.upper() if one.metadata.get("argument") else "--" + one.name.replace("_", "-")


def spelt(command: str, config: StageConfig) -> str:
    """The command line of a config: what is not at its default."""
    words = ["stx-mine", command]
    for one in fields(config):
        value = getattr(config, one.name)
        if value == one.default:
            continue
        words.append(quote(str(value)) if one.metadata["argument"] else _said(one, value))
    return " ".join(words)


def _said(one: "Field[Any]", value: Any) -> str:
    """An option with its value or values, as one would write it."""
    values = value if isinstance(value, tuple) else (value,)
    return flag(one) if value is True else " ".join(f"{flag(one)} {quote(str(v))}" for v in values)


def key_fields(config: StageConfig | SourceFields, artifact: str) -> dict[str, Any]:
    """The fields of a config that decide the bytes of an artifact.

    Args:
        config: A stage's config, or a source.
        artifact: Name of the artifact.

    Returns:
        Field name -> JSON-ready value, in the order of declaration.
    """
    found = {}
    for one in fields(config):
        if artifact in one.metadata.get("affects", ()):
            value = getattr(config, one.name)
            found[one.name] = list(value) if isinstance(value, tuple) else value
    return found
