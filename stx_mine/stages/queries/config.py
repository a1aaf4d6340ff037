"""Options of `queries`."""

from dataclasses import dataclass
from typing import Literal

from stx_mine.errors import ConfigError
from stx_mine.models.config import RequestFields, is_server
from stx_mine.settings import MAX_SEED, WHERE, flag, given_fields, option
from stx_mine.stages.embed.config import DEFAULT_MODEL
from stx_mine.stages.ingest.config import unlike_chunks

_LOCAL, _SERVER = "Generation", "Generator behind a server"
_FILTERS, _CHUNKS = "Filters", "Long documents"
# What only a generator in this process heeds, and what only a server does.
_OF_MODELS = ("prompt_file", "max_passage_tokens", "generate_batch_size")
_OF_SERVERS = ("generator_model", "kind", "prompt", "max_calls")
_TOP, _NEAR = 20, 0.6


@dataclass(frozen=True, kw_only=True)
class QueriesConfig(RequestFields):
    """Make queries out of passages: pairs that embed reads, for data that has no queries."""

    pairs: str | None = option(
        None,
        "Pairs or a BEIR folder whose passages get queries (none: those of --corpus).",
        "queries",
        argument=True,
        group="Input",
    )
    corpus: str | None = option(None, "A file of more passages.", "queries", group="Input")
    query_column: str | None = option(
        None,
        "Column of PAIRS with titles or queries (default: by its name).",
        "queries",
        group="Input",
    )
    passage_column: str | None = option(
        None, "Column of PAIRS with passages (default: by its name).", "queries", group="Input"
    )
    corpus_column: str | None = option(
        None,
        "Column of the corpus' passages (default: by its name).",
        "queries",
        group="Input",
    )
    encoding: str | None = option(
        None, "Encoding of text files (default: UTF-8).", "queries", group="Input"
    )
    chunk: tuple[int, ...] = option(
        (),
        "Cut longer passages into chunks of at most TOKENS tokens, each of which repeats at most "
        "OVERLAP of the one before, as TOKENS,OVERLAP; queries are of chunks then.",
        "queries",
        group=_CHUNKS,
        check=unlike_chunks,
    )
    tokenizer: str | None = option(
        None,
        f"Model whose tokens --chunk counts (default: --model, or {DEFAULT_MODEL}).",
        group=_CHUNKS,
        needs="chunk",
    )
    method: tuple[Literal["crop", "keywords", "generate", "titles"], ...] = option(
        ("crop",),
        "crop: a sentence; keywords: its telling terms; generate: by a language model (a server as "
        "--generator adds it, and takes the place of the default); titles: what PAIRS has; "
        "repeatable.",
        "queries",
        group="Queries",
    )
    per_passage: int = option(
        1, "Queries per passage and method, at most.", "queries", minimum=1, group="Queries"
    )
    remove_share: float = option(
        0.0,
        "Fraction of the passages that lose the sentences cropped from them.",
        "queries",
        minimum=0,
        group="Queries",
        maximum=1,
        needs="method=crop",
    )
    cut_titles: bool = option(
        False,
        "Cut each title (query of PAIRS) out of its passage where it stands there.",
        "queries",
        group="Queries",
    )
    min_words: int = option(
        3,
        "Fewest words of a made query; where no spaces are, 2 characters.",
        "queries",
        minimum=1,
        group="Queries",
    )
    max_words: int = option(
        32,
        "Most words of a cropped query.",
        "queries",
        minimum=1,
        group="Queries",
        needs="method=crop",
    )
    terms: int = option(
        6,
        "Terms of a keyword query.",
        "queries",
        minimum=1,
        group="Queries",
        needs="method=keywords",
    )
    generator: str | None = option(
        None,
        "Of generate: a seq2seq or causal model (hub id or folder), or a server with a language "
        "model (POST chat/completions), such as http://localhost:8000/v1.",
        "queries",
        group=_LOCAL,
        needs="method=generate",
    )
    prompt_file: str | None = option(
        None,
        "Its prompt, with {passage} (default: the passage, or for causal models a request).",
        group=_LOCAL,
        needs="method=generate",
    )
    max_passage_tokens: int = option(
        384,
        "Tokens of a passage that it reads.",
        "queries",
        minimum=1,
        group=_LOCAL,
        needs="method=generate",
    )
    max_new_tokens: int = option(
        48,
        "Tokens of a query that it writes.",
        "queries",
        minimum=1,
        group=_LOCAL,
        needs="method=generate",
    )
    temperature: float = option(
        1.0,
        "Its sampling temperature; 0: greedy.",
        "queries",
        minimum=0,
        group=_LOCAL,
        needs="method=generate",
    )
    top_p: float = option(
        0.95,
        "It samples from the most probable tokens that sum up to this probability.",
        "queries",
        minimum=0.01,
        group=_LOCAL,
        maximum=1,
        needs="method=generate",
    )
    generator_model: str | None = option(
        None,
        "Name of the model at the server (default: the only one that it has).",
        "queries",
        group=_SERVER,
        needs="generator",
    )
    kind: tuple[Literal["keyword", "question", "multi"], ...] = option(
        (),
        "keyword: words as typed into a search box; question; multi: a question that 2 or 3 "
        "neighbouring chunks answer together; repeatable (default: keyword and question, with "
        "--chunk also multi).",
        "queries",
        group=_SERVER,
        needs="generator",
    )
    prompt: str = option(
        "queries",
        "What it is asked: queries (the shipped prompt), or a Jinja file.",
        group=_SERVER,
        needs="generator",
    )
    max_calls: int | None = option(
        None,
        "Ask at most so many questions, each about a passage or a window of chunks; which ones, "
        "the seed says.",
        "queries",
        minimum=1,
        group=_SERVER,
        needs="generator",
    )
    model: str | None = option(
        None,
        "Embedding model of --round-trip: a hub id, a folder, or package:NAME.",
        "queries",
        group=_FILTERS,
    )
    round_trip: int | None = option(
        None,
        "Drop a query whose passage is not among the first N that the model finds for it "
        f"(default: {_TOP} for generate where --model is given; 0: off). Given, it is for all "
        "methods.",
        "queries",
        minimum=0,
        group=_FILTERS,
        needs="model",
    )
    jaccard: float | None = option(
        None,
        "Drop a query that shares at least this much of its pairs of words with an earlier one, "
        "by MinHash (needs rensa); 1: what is equal but for case and punctuation; 0: none "
        f"(default: {_NEAR:g} with a server as --generator, else 0). Given, it is for all methods.",
        "queries",
        minimum=0,
        maximum=1,
        group=_FILTERS,
    )
    filter_judge: str | None = option(
        None,
        "Drop pairs whose passage does not answer the query, as this judge says: a server with a "
        "language model, a CrossEncoder, or package.module:function.",
        group=_FILTERS,
    )
    judge_model: str | None = option(
        None,
        "Name of the model at the server that judges (default: the only one that it has).",
        "queries",
        group=_FILTERS,
        needs="filter_judge",
    )
    min_judge_score: float = option(
        0.5,
        "Least score of a pair that is kept, from 0 to 1.",
        "queries",
        minimum=0,
        maximum=1,
        group=_FILTERS,
        needs="filter_judge",
    )
    format: Literal["parquet", "jsonl"] = option(
        "parquet", "Format of the pairs.", "queries", group="Output"
    )
    seed: int = option(
        42,
        "Seed; a passage's draws depend on it and its text.",
        "queries",
        minimum=0,
        maximum=MAX_SEED,
        group="Output",
    )
    block_size: int = option(
        8_192, "Passages per task, and in memory.", "queries", minimum=1, group=WHERE
    )
    generate_batch_size: int = option(
        16,
        "Prompts per batch of the generator.",
        minimum=1,
        group=_LOCAL,
        needs="method=generate",
    )
    device: str | None = option(
        None, "cpu, cuda, mps ... (default: the best one seen).", group=WHERE
    )

    def __post_init__(self) -> None:
        """Check what one range alone cannot tell.

        Raises:
            ConfigError: An option is missing, or does not fit the methods.
        """
        methods = (self.method,) if isinstance(self.method, str) else tuple(self.method)
        is_served = isinstance(self.generator, str) and is_server(self.generator)
        if is_served and "generate" not in methods:
            others = () if methods == QueriesConfig.method else methods
            object.__setattr__(self, "method", (*others, "generate"))
        super().__post_init__()
        self._check_servers()
        if not self.method or len(set(self.method)) < len(self.method):
            raise ConfigError(
                f"--method must name each method once, found {' '.join(self.method) or 'none'}; "
                "leave out the repetition"
            )
        for name, method in (("max_words", "crop"), ("terms", "keywords")):
            if method in self.method and getattr(self, name) < self.min_words:
                raise ConfigError(
                    f"--{name.replace('_', '-')} must be at least --min-words {self.min_words}, "
                    f"found {getattr(self, name)}; give a smaller --min-words"
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

    def _check_servers(self) -> None:
        """Refuse addresses that are none, and options of another kind of generator or judge."""
        for name, url in (("--generator", self.generator), ("--filter-judge", self.filter_judge)):
            if url is not None and is_server(url):
                self.check_server(name, url)
        found, of_kind = "a model in this process", "servers"
        unheeded: tuple[str, ...] = _OF_SERVERS
        if self.is_served:
            found, of_kind, unheeded = "a server", "models in this process", _OF_MODELS
        for one in given_fields(self):
            if self.generator is not None and one.name in unheeded:
                raise ConfigError(
                    f"{flag(one)} is for {of_kind}, found {found} (--generator {self.generator}); "
                    "leave it out"
                )
        if self.judge_model is not None and not is_server(self.filter_judge):
            raise ConfigError(
                f"--judge-model is for servers, found --filter-judge {self.filter_judge}; leave it "
                "out"
            )
        if len(set(self.kind)) < len(self.kind):
            raise ConfigError(
                f"--kind must name each kind once, found {' '.join(self.kind)}; leave out the "
                "repetition"
            )
        if "multi" in self.kind and not self.chunk:
            raise ConfigError(
                "--kind multi needs --chunk, which makes the neighbours that it is about, found "
                "none; give --chunk 256,32, for example"
            )

    @property
    def is_served(self) -> bool:
        """Whether a server generates."""
        return is_server(self.generator)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of queries that a server is asked for."""
        return self.kind or ("keyword", "question", *(("multi",) if self.chunk else ()))

    @property
    def chunk_model(self) -> str:
        """The model whose tokens are counted."""
        return self.tokenizer or self.model or DEFAULT_MODEL

    @property
    def top(self) -> int:
        """How far from the first a passage may be found by its query; 0: any."""
        default = _TOP if self.model is not None and "generate" in self.method else 0
        return default if self.round_trip is None else self.round_trip

    @property
    def near(self) -> float:
        """From which share of equal shingles on queries count as one; 0: they never do."""
        return (_NEAR if self.is_served else 0.0) if self.jaccard is None else self.jaccard

    def filters(self, name: str, method: str) -> bool:
        """Whether a filter is for the queries of a method: by default for what is written.

        Args:
            name: The field of the filter.
            method: How queries are made.
        """
        return method == "generate" or getattr(self, name) is not None
