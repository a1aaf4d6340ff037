"""Options of `queries`."""

from dataclasses import dataclass, fields
from typing import Literal

from stx_mine.errors import ConfigError
from stx_mine.settings import StageConfig, flag, option


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
