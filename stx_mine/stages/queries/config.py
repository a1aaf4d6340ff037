"""Options of `queries`."""

from dataclasses import dataclass
from typing import Literal

from stx_mine.errors import ConfigError
from stx_mine.settings import MAX_SEED, WHERE, StageConfig, option


@dataclass(frozen=True, kw_only=True)
class QueriesConfig(StageConfig):
    """Make queries out of passages: pairs that embed reads, for data that has titles only."""

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
    method: tuple[Literal["crop", "keywords", "generate", "titles"], ...] = option(
        ("crop",),
        "crop: a sentence; keywords: its telling terms; generate: by a language model; titles: "
        "what PAIRS has; repeatable.",
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
        "Seq2seq or causal model of generate: a hub id or a local folder.",
        "queries",
        group="Generation",
        needs="method=generate",
    )
    prompt_file: str | None = option(
        None,
        "Its prompt, with {passage} (default: the passage, or for causal models a request).",
        group="Generation",
        needs="method=generate",
    )
    max_passage_tokens: int = option(
        384,
        "Tokens of a passage that it reads.",
        "queries",
        minimum=1,
        group="Generation",
        needs="method=generate",
    )
    max_new_tokens: int = option(
        48,
        "Tokens of a query that it writes.",
        "queries",
        minimum=1,
        group="Generation",
        needs="method=generate",
    )
    temperature: float = option(
        1.0,
        "Its sampling temperature; 0: greedy.",
        "queries",
        minimum=0,
        group="Generation",
        needs="method=generate",
    )
    top_p: float = option(
        0.95,
        "It samples from the most probable tokens that sum up to this probability.",
        "queries",
        minimum=0.01,
        group="Generation",
        maximum=1,
        needs="method=generate",
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
        group="Generation",
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
        super().__post_init__()
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
