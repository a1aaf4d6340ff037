"""Options of what is read: files of pairs, their columns and languages; several sources."""

from dataclasses import dataclass
from typing import Literal

from stx_mine.errors import ConfigError, shortened
from stx_mine.settings import option


@dataclass(frozen=True, kw_only=True)
class SourceFields:
    """How input files are read; shared by the stages that read pairs."""

    corpus: str | None = option(
        None,
        "Passages to mine from: a file, a folder or a pattern; those that only pairs name are "
        "added to it.",
        "texts",
        group="Input",
    )
    queries: str | None = option(
        None, "Queries, for pairs that name them by id.", "texts", group="Input"
    )
    query_column: str | None = option(
        None, "Column of the queries (default: by its name).", "texts", group="Columns"
    )
    passage_column: str | None = option(
        None, "Column of the positive passages (default: by its name).", "texts", group="Columns"
    )
    negative_column: tuple[str, ...] = option(
        (),
        "Column of known negatives, which come first in the pools of their query; repeatable "
        "(default: by their names; none: not read).",
        "texts",
        group="Columns",
    )
    corpus_column: str | None = option(
        None,
        "Column of the corpus' passages (default: by its name).",
        "texts",
        group="Columns",
        needs="corpus",
    )
    label_column: str | None = option(
        None,
        "Column of labels or scores of the pairs (default: by its name; none: not read).",
        "texts",
        group="Columns",
    )
    positive_label: tuple[str, ...] = option(
        (), "Label of pairs; repeatable (default: 1, true, yes).", "texts", group="Columns"
    )
    negative_label: tuple[str, ...] = option(
        (),
        "Label of known negatives; repeatable (default: 0, false, no).",
        "texts",
        group="Columns",
    )
    min_grade: float | None = option(
        None,
        "Lowest score of a pair, or grade of one in qrels (default there: any above 0).",
        "texts",
        group="Columns",
    )
    columns: tuple[str, ...] = option(
        (),
        "Names of the columns of a CSV or TSV file without a header line, as in query,passage.",
        "texts",
        group="Columns",
    )
    no_header: bool = option(
        False, "The first line of a CSV or TSV file is a row.", "texts", group="Columns"
    )
    delimiter: str | None = option(
        None,
        "Between the values of a CSV or TSV file: one character, tab or space (default: found "
        "out).",
        "texts",
        empty=True,
        group="Files",
    )
    quoting: Literal["auto", "csv", "backslash", "none"] = option(
        "auto",
        "Whether quotation marks enclose values of a CSV or TSV file, those within doubled (csv) "
        "or after a backslash (backslash), or are text (none).",
        "texts",
        group="Files",
    )
    encoding: str | None = option(
        None, "Of text files, as in cp1252 (default: UTF-8).", "texts", group="Files"
    )
    split: str | None = option(
        None,
        "Which split of a folder, saved dataset or BEIR folder (default: train, or the only one).",
        "texts",
        group="Input",
    )
    subset: str | None = option(
        None, "Which configuration of a dataset that has several.", "texts", group="Input"
    )


@dataclass(frozen=True, kw_only=True)
class SymmetryFields:
    """Whether the two texts of a pair may change their roles."""

    symmetric: bool = option(
        False,
        "Each pair holds both ways, as of duplicate questions: no text is a negative of the other.",
        "texts",
        group="Input",
    )
    reverse_pairs: bool = option(
        False,
        "Train on the reverse of each pair too.",
        "texts",
        group="Input",
        needs="symmetric",
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
class Source(SymmetryFields, LanguageFields, SourceFields):
    """One of several sources of pairs: an entry of `--sources`, and of the YAML key `sources`."""

    name: str = option("", "Name of the source, in reports and shards.", "texts")
    path: str = option("", "Its pairs: what PAIRS may be.", "texts")
    weight: float = option(1.0, "How much its size counts in a packing.", "texts")
    query_prompt: str | None = option(
        None,
        "Put before its queries (default: the model's own; empty: none).",
        "texts",
        empty=True,
    )
    passage_prompt: str | None = option(
        None,
        "Put before its passages (default: the model's own; empty: none).",
        "texts",
        empty=True,
    )

    def __post_init__(self) -> None:
        """Check what has no sensible default.

        Raises:
            ConfigError: There is no name or path, or the weight is not above 0.
        """
        for one in ("name", "path"):
            if not getattr(self, one):
                raise ConfigError(
                    f"every source needs a {one}, found none for "
                    f"{shortened((self.name, self.path))} (name, path); add {one}:"
                )
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
