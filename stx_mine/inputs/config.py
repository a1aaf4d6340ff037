"""Options of what is read: files of pairs, their columns and languages; several sources."""

from dataclasses import dataclass

from stx_mine.errors import ConfigError
from stx_mine.settings import option


@dataclass(frozen=True, kw_only=True)
class SourceFields:
    """How input files are read; shared by the stages that read pairs."""

    corpus: str | None = option(
        None,
        "A file of passages; those that only pairs name are added to it.",
        "texts",
        group="Input",
    )
    query_column: str | None = option(
        None, "Column of the queries (default: the first).", "texts", group="Input"
    )
    passage_column: str | None = option(
        None, "Column of the positive passages (default: the second).", "texts", group="Input"
    )
    negative_column: tuple[str, ...] = option(
        (),
        "Column of known negatives, which become candidates of their query; repeatable.",
        "texts",
        group="Input",
    )
    corpus_column: str | None = option(
        None,
        "Column of the corpus file's passages (default: the only or first).",
        "texts",
        group="Input",
    )
    split: str | None = option(
        None,
        "Which qrels of a BEIR folder (default: train, or the only one).",
        "texts",
        group="Input",
    )
    min_grade: float | None = option(
        None,
        "Lowest grade of a positive in the qrels (default: any above 0).",
        "texts",
        group="Input",
    )


@dataclass(frozen=True, kw_only=True)
class LanguageFields:
    """What languages the texts of an input are in."""

    language_column: str | None = option(
        None,
        "Column of languages, of any file of the input; NAME with query_ or passage_ before it is "
        "for one role (default: language, where there is one).",
        "texts",
        group="Languages",
    )
    language: str | None = option(
        None, "Language of the texts for which no column names one.", "texts", group="Languages"
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
