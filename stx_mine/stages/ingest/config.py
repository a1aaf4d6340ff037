"""Options of `ingest`, and of everything that reads pairs."""

from dataclasses import dataclass
from typing import Literal

from stx_mine.errors import ConfigError
from stx_mine.inputs.config import LanguageFields, Source, SourceFields, SymmetryFields
from stx_mine.settings import StageConfig, given_fields, names_of, option


def unlike_chunks(chunk: tuple[int, ...]) -> str:
    """The error of a value of `chunk`; empty where it is valid."""
    if len(chunk) == 2 and 0 <= chunk[1] < chunk[0]:
        return ""
    return (
        "--chunk must be TOKENS,OVERLAP with an overlap from 0 to below the tokens, found "
        f"{','.join(map(str, chunk))}; give 256,32, for example"
    )


@dataclass(frozen=True, kw_only=True)
class ChunkFields:
    """How long passages are cut."""

    chunk: tuple[int, ...] = option(
        (),
        "Cut longer passages into chunks of at most TOKENS tokens, each of which repeats at most "
        "OVERLAP of the one before, as TOKENS,OVERLAP.",
        "texts",
        group="Long passages",
        needs="pairs|sources",
        check=unlike_chunks,
    )
    title: Literal["every", "first", "none"] = option(
        "every",
        "Titles of a BEIR corpus stand before every chunk, the first, or are left out (none).",
        "texts",
        group="Long passages",
    )
    positive_chunk: Literal["best", "first", "all"] = option(
        "best",
        "The positive among the chunks of a positive passage: the best by the words of the query, "
        "the first, or all, one row each.",
        "texts",
        group="Long passages",
        needs="chunk",
    )
    tokenizer: str | None = option(
        None,
        "Model whose tokens --chunk counts (default: the --model of embed).",
        "texts",
        group="Long passages",
        needs="chunk",
    )

    def check_tokenizer(self, model: str | None) -> None:
        """Refuse `chunk` where no model says what a token is.

        Args:
            model: The model to embed with, if that is known.

        Raises:
            ConfigError: There is none.
        """
        if self.chunk and self.tokenizer is None and model is None:
            raise ConfigError(
                f"--chunk {','.join(map(str, self.chunk))} counts tokens of a model, found none; "
                "give --tokenizer MODEL, or use embed, which takes that of its --model"
            )


@dataclass(frozen=True, kw_only=True)
class IngestConfig(ChunkFields, LanguageFields, SymmetryFields, SourceFields, StageConfig):
    """Read pairs and a corpus, count what is dropped, merge exact duplicates."""

    pairs: str | None = option(
        None,
        "Pairs: a file, a folder, a pattern of files, a BEIR folder, or a dataset of the hub.",
        "texts",
        argument=True,
        group="Input",
    )
    sources: tuple[Source, ...] | None = option(
        None,
        "Several sources instead of PAIRS: a YAML list of name, path, weight, query_prompt ...",
        "texts",
        group="Input",
    )

    def __post_init__(self) -> None:
        """Check that the input is named once.

        Raises:
            ConfigError: PAIRS or its options stand beside sources, or a name stands twice.
        """
        super().__post_init__()
        self.check_tokenizer(self.embedding_model)
        if self.sources is None:
            return
        kinds = (SourceFields, SymmetryFields, LanguageFields)
        of_source = {name for kind in kinds for name in names_of(kind)}
        given = [one.name for one in given_fields(self)]
        beside = [name for name in given if name == "pairs" or name in of_source]
        if beside:
            named = "PAIRS" if beside[0] == "pairs" else "--" + beside[0].replace("_", "-")
            raise ConfigError(
                f"expected {named} or --sources, found both; write {beside[0]} into the entry of "
                "its source"
            )
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or not names:
            raise ConfigError(
                f"expected sources of different names, found {', '.join(twice) or 'none'}"
                f"{' more than once' if twice else ''}; fix --sources"
            )

    @property
    def embedding_model(self) -> str | None:
        """The model that will embed, where that is known."""
        return None

    @property
    def kept_tokens(self) -> int | None:
        """Tokens of a text that will be embedded; None for what the model reads."""
        return None
