"""The rows of one source: its texts numbered, its pairs joined, every row that is none counted."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.errors import InputError
from stx_mine.inputs.labels import LABEL_REASONS, NEGATIVE, POSITIVE
from stx_mine.inputs.pairs import PairSource
from stx_mine.inputs.text_column import IdColumn, TextColumn
from stx_mine.stages.ingest.numbering import Distinct, number_texts
from stx_mine.store.columns import find_rows, number_values

_NONE = np.empty(0, np.int64)
# The id of a text that an id names and no table holds; -1 is that of an empty text.
_UNKNOWN = -2
# Texts of each row of each block, or the rows of a block of one text each.
_Lengths = list[NDArray[np.int64] | int]


@dataclass(frozen=True)
class SourceRows:
    """The rows of one source, ids counted within it.

    Attributes:
        passages: Its passages.
        queries: Its queries.
        query_ids: int64 (pairs,); -1 for an empty text.
        passage_ids: int64 (pairs,); -1 for an empty text.
        negatives: int64 (2, negatives) query ids and passage ids of known negatives.
        corpus_rows: Rows of passages that stand before those of pairs.
        dropped: Rows that are not among `query_ids`, by reason.
        num_broken: Texts that are no Unicode, which count as empty.
        notes: What was decided about labels, and what is odd about ids.
        unknown: An id that names no text, beside one that does, in a sentence; empty for none.
    """

    passages: Distinct
    queries: Distinct
    query_ids: NDArray[np.int64]
    passage_ids: NDArray[np.int64]
    negatives: NDArray[np.int64]
    corpus_rows: int
    dropped: dict[str, int]
    num_broken: int
    notes: tuple[str, ...]
    unknown: str

    @classmethod
    def read(cls, source: PairSource) -> "SourceRows":
        """Read a source.

        Raises:
            InputError: A row is broken, labels do not say which rows are pairs, or ids name
                several texts.
        """
        reading = _Reading(source)
        passages = number_texts(reading.streamed("passage", source.passage_columns))
        links = reading.links(passages)
        codes, note = reading.codes(links)
        is_positive = codes == POSITIVE
        queries, asking = reading.queries(links, is_positive)
        dropped = {
            reason: int((codes == code).sum())
            for code, reason in enumerate(LABEL_REASONS, 2)
            if (codes == code).any()
        }
        if (codes == NEGATIVE).any():
            dropped["known_negative"] = int((codes == NEGATIVE).sum())
        if source.label and source.label.is_judgement:
            # A reason that says something even where no row is dropped for it.
            reason = "not_relevant" if source.label.min_grade is None else "below_min_grade"
            dropped.setdefault(reason, 0)
        if without := links.num_rows - len(np.unique(links.rows)):
            dropped["no_positive"] = without
        query_ids, passage_ids = asking[links.rows], links.positives
        unknown_queries = is_positive & (query_ids == _UNKNOWN)
        unknown_passages = is_positive & (passage_ids == _UNKNOWN) & ~unknown_queries
        unknown = {"unknown_query_id": unknown_queries, "unknown_passage_id": unknown_passages}
        dropped |= {reason: int(rows.sum()) for reason, rows in unknown.items() if rows.any()}
        kept = is_positive & ~unknown_queries & ~unknown_passages
        of_labels = np.stack([query_ids, passage_ids])[:, codes == NEGATIVE]
        of_columns = np.stack([asking[links.negative_rows], links.negatives])
        negatives = np.concatenate([of_columns, of_labels], axis=1)
        kept_query_ids, kept_passage_ids = query_ids[kept], passage_ids[kept]
        if source.reverse_pairs:
            rows = links.rows[kept]
            back_queries, back_passages = reading.reversed_ids(queries, passages, rows, kept)
            kept_query_ids = np.concatenate([kept_query_ids, back_queries])
            kept_passage_ids = np.concatenate([kept_passage_ids, back_passages])
        return cls(
            passages=passages,
            queries=queries,
            query_ids=kept_query_ids,
            passage_ids=kept_passage_ids,
            negatives=negatives[:, (negatives >= 0).all(axis=0)],
            corpus_rows=reading.num_corpus,
            dropped=dropped,
            num_broken=reading.num_broken,
            notes=tuple(filter(None, (note, *reading.unknown, *reading.shared(queries, passages)))),
            unknown="; ".join(reading.unknown),
        )


@dataclass(frozen=True)
class _Links:
    """Which texts stand in which row.

    Attributes:
        rows: int64 (pairs,) the row of each positive.
        positives: int64 (pairs,) passage ids.
        negative_rows: int64 (negatives,).
        negatives: int64 (negatives,) passage ids.
        num_rows: Rows of the table, those without a positive too.
    """

    rows: NDArray[np.int64]
    positives: NDArray[np.int64]
    negative_rows: NDArray[np.int64]
    negatives: NDArray[np.int64]
    num_rows: int


@dataclass
class _Reading:
    """A source while it is read."""

    source: PairSource
    # Texts of each row of each column, by the order of streams; and all texts of each.
    _lengths: dict[str, _Lengths] = field(default_factory=dict)
    num_broken: int = 0
    # Sentences about ids that no table has.
    unknown: list[str] = field(default_factory=list)

    @property
    def num_corpus(self) -> int:
        """Rows of the corpus."""
        return self._num_texts("passage", 0) if self.source.corpus else 0

    def streamed(self, role: str, columns: list[TextColumn]) -> Iterator[tuple[pa.Array, pa.Array]]:
        """Stream the texts of columns and remember how many each row has."""
        for place, column in enumerate(columns):
            lengths = self._lengths.setdefault(f"{role}{place}", [])
            for block in column.blocks(self.source.titles):
                lengths.append(len(block.texts) if block.lengths is None else block.lengths)
                yield block.texts, block.ids
            self.num_broken += column.file.num_broken

    def _num_texts(self, role: str, place: int) -> int:
        lengths = self._lengths[f"{role}{place}"]
        return sum(one if isinstance(one, int) else int(one.sum()) for one in lengths)

    def links(self, passages: Distinct) -> _Links:
        """The positives and known negatives of each row."""
        roles, corpus = self.source.roles, self.source.corpus
        start, place = self.num_corpus, int(corpus is not None)
        found, rows = list[NDArray[np.int64]](), list[NDArray[np.int64]]()
        own_lengths = self._lengths.get(f"passage{place}", [])
        for _ in (one for one in (roles.positive, *roles.negatives) if one):
            stop = start + self._num_texts("passage", place)
            found.append(passages.ids[start:stop])
            rows.append(_rows_of(self._lengths[f"passage{place}"]))
            start, place = stop, place + 1
        if roles.positive is None:
            assert roles.positive_ids is not None
            ids, own_rows, own_lengths = self._named(roles.positive_ids, passages)
            found.insert(0, ids)
            rows.insert(0, own_rows)
        for column in roles.negative_ids:
            ids, own_rows, _ = self._named(column, passages)
            found.append(ids[ids != _UNKNOWN])
            rows.append(own_rows[ids != _UNKNOWN])
        return _Links(
            rows[0],
            found[0],
            np.concatenate([_NONE, *rows[1:]]),
            np.concatenate([_NONE, *found[1:]]),
            sum(one if isinstance(one, int) else len(one) for one in own_lengths),
        )

    def _named(
        self, column: IdColumn, passages: Distinct
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], _Lengths]:
        """Passage ids of the ids in a column, `_UNKNOWN` for none, their rows and lengths."""
        corpus = self.source.corpus
        assert corpus is not None
        wanted, lengths = _all_ids(column)
        own = passages.original_ids.slice(0, self.num_corpus)
        ids = passages.ids[: self.num_corpus]
        found = _joined(wanted, own, ids, corpus)
        self._note_unknown(column, wanted, found, own, corpus)
        return found, _rows_of(lengths), lengths

    def _note_unknown(
        self,
        column: IdColumn,
        wanted: pa.Array,
        found: NDArray[np.int64],
        own: pa.ChunkedArray,
        texts: TextColumn,
    ) -> None:
        """Keep a sentence about an id that no row of a table has, if there is one."""
        is_unknown = (found == _UNKNOWN) & wanted.is_valid().to_numpy(zero_copy_only=False)
        if is_unknown.any():
            name = wanted[int(is_unknown.argmax())].as_py()
            known = ", ".join(map(repr, own.slice(0, 1_000).drop_null().slice(0, 2).to_pylist()))
            self.unknown.append(
                f"no row of {texts.file.name} has the id {name!r} of column {column.column!r}; its "
                f"ids in {texts.id_column!r} are {known} ..."
            )

    def shared(self, queries: Distinct, passages: Distinct) -> Iterator[str]:
        """A sentence for each column of ids beside texts in which one names several texts."""
        roles = self.source.roles
        for column, texts, start in (
            (roles.query, queries, 0),
            (roles.positive, passages, self.num_corpus),
        ):
            if column is None or not (column.id_column or column.id_field):
                continue
            number, name = texts.shared_ids(start)
            if number:
                yield (
                    f"{column.id_column or column.id_field}: {number:,} ids stand beside several "
                    f"texts, {name!r} for example; exports by id need one for each text"
                )

    def queries(
        self, links: _Links, is_positive: NDArray[np.bool_]
    ) -> tuple[Distinct, NDArray[np.int64]]:
        """The queries, and int64 (rows,) the query of each row; by id only those of pairs."""
        source = self.source
        if source.roles.query is not None:
            queries = number_texts(self.streamed("query", source.query_columns))
            return queries, queries.ids[: self._num_texts("query", 0)]
        assert source.roles.query_ids is not None
        wanted, _ = _all_ids(source.roles.query_ids)
        named = wanted.take(pa.array(np.unique(links.rows[is_positive]))).unique()
        queries = number_texts(self.streamed("query", source.query_columns), wanted=named)
        found = _joined(wanted, queries.original_ids, queries.ids, source.asked)
        own = queries.original_ids
        self._note_unknown(source.roles.query_ids, wanted, found, own, source.asked)
        return queries, found

    def codes(self, links: _Links) -> tuple[NDArray[np.int8], str]:
        """int8 (pairs,) what the label of each pair says of it, and what was decided."""
        source, num_pairs = self.source, len(links.positives)
        labels = source.labels()
        if labels is None or source.label is None:
            return np.full(num_pairs, POSITIVE, np.int8), ""
        codes, note = source.label.codes(labels)
        if not source.roles.is_label_list:
            return codes[links.rows], note
        if len(codes) != num_pairs:
            raise InputError(
                f"expected a label for each passage in column {source.label.column!r} of "
                f"{source.pairs.name}, found {len(codes):,} for {num_pairs:,}; fix the file, "
                "or give --label-column none"
            )
        return codes, note

    def reversed_ids(
        self,
        queries: Distinct,
        passages: Distinct,
        rows: NDArray[np.int64],
        kept: NDArray[np.bool_],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Query and passage ids of the reverse of each kept pair, which stands in one of `rows`."""
        start = self._num_texts("query", 0)
        last = len(self.source.passage_columns) - 1
        as_passages = passages.ids[-self._num_texts("passage", last) :]
        return queries.ids[start:][kept], as_passages[rows]


def _all_ids(column: IdColumn) -> tuple[pa.Array, _Lengths]:
    ids, lengths = [pa.array([], pa.large_string())], _Lengths()
    for values, own in column.blocks():
        ids.append(values)
        lengths.append(len(values) if own is None else own)
    return pa.chunked_array(ids).combine_chunks(), lengths


def _rows_of(lengths: _Lengths) -> NDArray[np.int64]:
    """The row of each text, for the texts of each row; a number is of so many rows of one."""
    if all(isinstance(one, int) for one in lengths):
        return np.arange(sum(one for one in lengths if isinstance(one, int)))
    of_rows = [np.ones(one, np.int64) if isinstance(one, int) else one for one in lengths]
    return np.repeat(np.arange(sum(map(len, of_rows))), np.concatenate(of_rows))


def _joined(
    wanted: pa.Array, named: pa.ChunkedArray, ids: NDArray[np.int64], texts: TextColumn
) -> NDArray[np.int64]:
    """Text ids of original ids; `_UNKNOWN` where no row has that id.

    Raises:
        InputError: An id names two texts.
    """
    numbers, keys = number_values(named)
    real = np.flatnonzero(numbers >= 0)
    _, first = np.unique(numbers[real], return_index=True)
    first_rows = real[first]
    other = real[(ids[real] != ids[first_rows[numbers[real]]]) & (ids[real] >= 0)]
    if len(other):
        _refuse_two_texts(
            texts, keys[int(numbers[other[0]])].as_py(), first_rows[numbers[other[0]]], other[0]
        )
    rows = find_rows(wanted, keys)
    found: NDArray[np.int64] = np.where(rows >= 0, ids[first_rows[rows]], _UNKNOWN)
    return found


def _refuse_two_texts(texts: TextColumn, name: str, *rows: np.int64) -> None:
    """Refuse an id that two rows of different texts have, and show both."""
    shown, start = list[str](), 0
    for block in texts.blocks():
        inside = [int(row) - start for row in rows if start <= row < start + len(block.texts)]
        shown += [f"{str(block.texts[row].as_py())[:60]!r}" for row in inside]
        start += len(block.texts)
    raise InputError(
        f"expected one text for each id in {texts.file.name}, found two for {name!r}: "
        f"{' and '.join(shown)}; remove one, or give it an id of its own"
    )
