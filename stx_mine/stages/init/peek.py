"""What lies at a path: columns as `ingest` reads them, counts, and a sample of its texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.terms import num_words
from stx_mine.core.titles import TitleShares, title_shares
from stx_mine.errors import ConfigError, InputError
from stx_mine.inputs.column_file import ColumnFile
from stx_mine.inputs.config import SourceFields
from stx_mine.inputs.folders import open_corpus
from stx_mine.inputs.names import LABEL_NAMES, is_query, plain
from stx_mine.inputs.pairs import PairSource, TextStream
from stx_mine.inputs.text_column import TextColumn
from stx_mine.inputs.text_table import text_column, text_like
from stx_mine.stages.ingest.numbering import Distinct, number_texts
from stx_mine.stages.ingest.pairs import Ingested, read_source

_SAMPLE, _SEED = 2_000, 42


@dataclass(frozen=True)
class WordLengths:
    """Lengths of some texts in words.

    Attributes:
        median: Half of the texts are shorter.
        most: 95% of them are shorter.
    """

    median: int
    most: int

    @classmethod
    def of(cls, texts: Sequence[str]) -> "WordLengths":
        """Measure texts, at least one."""
        lengths = [num_words(text) for text in texts]
        return cls(*(int(one) for one in np.percentile(lengths, [50, 95])))


@dataclass(frozen=True)
class PairPeek:
    """Pairs that someone brought.

    Attributes:
        source: The tables, and what their columns hold.
        found: What `ingest` would keep, and count as dropped.
        sample: Texts of the first, a middle and the last pair, then of pairs drawn at random.
    """

    source: PairSource
    found: Ingested
    sample: list[tuple[str, str]]

    @classmethod
    def read(cls, source: PairSource) -> "PairPeek":
        """Read all pairs, and the texts of some.

        Raises:
            InputError: A row is broken, or no pair is left.
        """
        found = read_source(source)
        num_pairs = len(found.pairs)
        drawn = np.random.default_rng(_SEED).permutation(num_pairs)[:_SAMPLE]
        rows = list(dict.fromkeys([0, num_pairs // 2, num_pairs - 1, *drawn.tolist()]))
        pairs = found.pairs[rows]
        queries = _texts(source.queries(), found.queries, pairs[:, 0])
        passages = _texts(source.passages(), found.passages, pairs[:, 1])
        sample = [(queries[query], passages[passage]) for query, passage in pairs.tolist()]
        return cls(source, found, sample)

    @property
    def num_pairs(self) -> int:
        """Pairs that can be trained on."""
        return len(self.found.pairs)

    @property
    def num_texts(self) -> int:
        """Distinct texts of both roles, each role by itself."""
        return len(self.found.queries.digests) + len(self.found.passages.digests)

    @cached_property
    def lengths(self) -> dict[str, WordLengths]:
        """`queries`, `passages` -> lengths in the sample."""
        queries, passages = zip(*self.sample, strict=True)
        return {"queries": WordLengths.of(queries), "passages": WordLengths.of(passages)}

    @cached_property
    def titles(self) -> TitleShares:
        """How title-like the queries of the sample are."""
        return title_shares(self.sample)

    @property
    def num_in_both_roles(self) -> int:
        """Queries whose text is a passage too."""
        return int((self.found.query_texts < len(self.found.passages.digests)).sum())

    @property
    def num_of_most_frequent(self) -> int:
        """Pairs of the passage that is the positive of most."""
        return int(np.bincount(self.found.pairs[:, 1]).max())

    @property
    def held_out(self) -> tuple[str, ...]:
        """Splits beside the one that was read, which the data hold out themselves."""
        return self.source.other_splits


@dataclass(frozen=True)
class PassagePeek:
    """Passages that someone brought without queries.

    Attributes:
        column: The table and its column of texts.
        num_rows: Rows.
        num_distinct: Distinct texts that are not empty.
        num_empty: Rows without text.
        sample: The first, a middle and the last text, then texts drawn at random.
    """

    column: TextColumn
    num_rows: int
    num_distinct: int
    num_empty: int
    sample: list[str]

    @classmethod
    def read(cls, column: TextColumn) -> "PassagePeek":
        """Read all passages, and the texts of some.

        Raises:
            InputError: A row is broken, or no text is left.
        """
        found = number_texts((block.texts, block.ids) for block in column.blocks())
        number = len(found.digests)
        if not number:
            raise InputError(
                f"no text in column {column.column!r} of {column.file.name}; check its columns"
            )
        drawn = np.random.default_rng(_SEED).permutation(number)[:_SAMPLE]
        ids = list(dict.fromkeys([0, number // 2, number - 1, *drawn.tolist()]))
        texts = _texts(
            ((block.texts, block.ids) for block in column.blocks()), found, np.array(ids)
        )
        sample = [texts[one] for one in ids]
        return cls(column, len(found.ids), number, found.num_empty, sample)

    @cached_property
    def lengths(self) -> dict[str, WordLengths]:
        """`passages` -> lengths in the sample."""
        return {"passages": WordLengths.of(self.sample)}


def open_peek(path: str | None, fields: SourceFields) -> PairPeek | PassagePeek:
    """Read what lies at a path; without one the passages of `corpus`.

    What has one column of texts, and none that is named as one of queries, holds passages.

    Raises:
        ConfigError: An option does not fit the kind of input.
        InputError: It is missing or malformed, or it cannot be told what its columns hold.
    """
    if path is None:
        assert fields.corpus is not None
        file = open_corpus(fields.corpus, fields)
        return PassagePeek.read(text_column(file, fields.corpus_column, "--corpus-column"))
    try:
        source = PairSource.open(path, fields, "train")
    except InputError as error:
        column = _passages_alone(path, fields, error)
        if column is None:
            raise
        return PassagePeek.read(column)
    return PairPeek.read(source)


def _passages_alone(path: str, fields: SourceFields, error: InputError) -> TextColumn | None:
    """The passages of an input that has no queries; None where that cannot be told.

    Raises:
        InputError: It holds queries without passages, or texts with labels.
    """
    named = (fields.query_column, fields.passage_column, fields.queries, fields.corpus)
    if any(named) or fields.negative_column or fields.columns:
        return None
    try:
        file = open_corpus(path, fields)
        column = text_column(file, None, "--passage-column")
    except (InputError, ConfigError):
        return None
    _refuse_others(file, column, error)
    return column


def _refuse_others(file: ColumnFile, column: TextColumn, error: InputError) -> None:
    """Refuse a table that may hold more, or something else, than passages, by its names.

    Raises:
        InputError: It has labels, queries alone, or other texts beside titles.
    """
    labels = [name for name in file.columns if plain(name) in LABEL_NAMES]
    if labels:
        raise InputError(
            f"expected pairs in {file.name}, found texts ({column.column}) with labels "
            f"({labels[0]}); train on labels: `stx-mine pack --layout labels --labeled FILE`"
        ) from error
    others = set(text_like(file, nested=False)) - {column.column, column.title_column}
    if others:
        raise InputError(
            f"{error}; or, if there are no queries, give passages as --corpus {file.name} alone"
        ) from error
    if is_query(column.column):
        raise InputError(
            f"expected pairs in {file.name}, found queries ({column.column}) and no passages; "
            "write the passage that answers each into a second column, passage"
        ) from error


def is_plain_english(texts: Sequence[str]) -> bool:
    """Whether at least nine of ten letters are a to z."""
    letters = [letter for text in texts for letter in text[:1_000] if letter.isalpha()]
    return sum(letter.isascii() for letter in letters) >= 0.9 * len(letters)


def _texts(stream: TextStream, distinct: Distinct, ids: NDArray[np.int64]) -> dict[int, str]:
    """The texts of some ids: of each the first of its rows."""
    wanted = distinct.first_rows() & np.isin(distinct.ids, ids)
    found, start = dict[int, str](), 0
    for texts, _ in stream:
        for row in np.flatnonzero(wanted[start : start + len(texts)]).tolist():
            found[int(distinct.ids[start + row])] = str(texts[row].as_py())
        start += len(texts)
    return found
