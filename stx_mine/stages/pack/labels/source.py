"""Where labels come from when batches are packed: a file of (text, label) rows, or the pairs."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.core.groups import members_of
from stx_mine.core.ragged import Ragged, offsets_of
from stx_mine.errors import InputError
from stx_mine.inputs.labeled import LabeledFile
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.labels.core.labels import (
    Labels,
    kept_apart,
    labels_of_pairs,
    labels_of_rows,
)
from stx_mine.store.batches import LANGUAGE
from stx_mine.store.groups import TextGroups
from stx_mine.store.labels import SHARD_COLUMNS
from stx_mine.store.stage_report import listed
from stx_mine.store.texts import TextStore, take_texts

_SHOWN_TEXT, _SHOWN_LABELS = 60, 3


@dataclass(frozen=True)
class LabelSource:
    """Labels and their texts, from wherever they come.

    Attributes:
        labels: The labels.
        names: (L,) what a person calls each.
        texts: The text of each id.
        anchor_ids: Texts with known positives, where pairs made the labels.
        positives: Ids of the known positives of each of them.
        counts: What came in, was kept, was dropped.
        example: A text that stood under several labels, and the labels; empty if there is none.
        languages: The language of each id; None where the input names none.
    """

    labels: Labels
    names: pa.Array
    texts: pa.ChunkedArray
    counts: dict[str, Any]
    anchor_ids: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    positives: Ragged = field(
        default_factory=lambda: Ragged(np.zeros(1, np.int64), np.empty(0, np.int64))
    )
    example: str = ""
    languages: pa.Array | None = None

    @classmethod
    def of_file(cls, config: PackConfig) -> "LabelSource":
        """Read (text, label) rows.

        Raises:
            InputError: The file is malformed, or has fewer than two labels with two texts.
        """
        assert config.labeled is not None
        file = LabeledFile.read(config.labeled, config.text_column, config.label_column)
        found = labels_of_rows(file.text_ids, file.label_ids, len(file.names))
        reasons = listed(found.dropped)
        if len(found.kept) < 2:
            raise InputError(
                "expected at least two labels with two texts each, which a batch can tell apart, "
                f"found {len(found.kept)} in {config.labeled} ({reasons or 'no rows'} dropped); "
                "check --text-column and --label-column, or add other labels"
            )
        counts = {
            "rows_in": len(file.text_ids),
            "rows_kept": len(found.labels.texts.values),
            "rows_dropped": found.dropped,
            "contradictory_texts": len(found.contradictory),
            "labels_dropped": len(file.names) - len(found.kept),
        }
        names = file.names.take(pa.array(found.kept))
        example = _example(file, found.contradictory)
        return cls(found.labels, names, file.texts, counts, example=example)

    @classmethod
    def of_pairs(cls, store: TextStore, groups: TextGroups) -> "LabelSource":
        """Queries that have the same positives are a label, together with those positives.

        Raises:
            InputError: All queries have the same positives.
        """
        kept = groups.kept_pairs(store.num_pairs)
        anchors = store.query_texts[store.pair_query_ids[kept]]
        labels, heads = labels_of_pairs(anchors, store.pair_passage_ids[kept], store.num_texts)
        if len(heads) < 2:
            raise InputError(
                f"expected pairs of at least two labels, found {len(heads)}: queries with the same "
                "positives are one, and a batch needs two to tell apart; add pairs, or leave out "
                "--layout labels"
            )
        # Row number = id of the text.
        texts = pa.chunked_array(
            [
                *store.passages.column("text").chunks,
                *store.queries.column("text").chunks,
            ],
            pa.large_string(),
        )
        rows = len(labels.texts.values)
        counts = {
            "pairs": len(anchors),
            "pairs_dropped": store.num_pairs - len(anchors),
            "rows_in": rows,
            "rows_kept": rows,
            "rows_dropped": {},
            "contradictory_texts": 0,
            "labels_dropped": 0,
        }
        known = _never_negatives(store, groups)
        labels = kept_apart(labels, store.query_texts, known, store.num_texts)
        names = take_texts(texts, heads).dictionary_decode()
        languages = store.languages
        if languages is not None:
            languages = languages.named(np.concatenate([languages.passages, languages.queries]))
        return cls(labels, names, texts, counts, store.query_texts, known, languages=languages)

    def table(self, rows: NDArray[np.int64]) -> pa.Table:
        """(text, label) rows with the ids of their texts."""
        ids = self.labels.texts.values[rows]
        texts = take_texts(self.texts, ids).dictionary_decode()
        columns = [texts, pa.array(self.labels.of_rows[rows]), pa.array(ids)]
        table = pa.table(columns, names=list(SHARD_COLUMNS))
        if self.languages is None:
            return table
        return table.append_column(LANGUAGE, self.languages.take(pa.array(ids)))


def _never_negatives(store: TextStore, groups: TextGroups) -> Ragged:
    """(num queries,) texts of the groups of a query's positives, and others of its own group."""
    texts = np.arange(store.num_texts)
    found = members_of(groups.forbidden(store), texts, groups.of_text_ids(store))
    queries = np.repeat(np.arange(store.num_queries), found.lengths())
    others = found.values != store.query_texts[queries]
    lengths = np.bincount(queries[others], minlength=store.num_queries)
    return Ragged(offsets_of(lengths), found.values[others])


def _example(file: LabeledFile, contradictory: NDArray[np.int64]) -> str:
    """The first text that stands under several labels, and the first of these."""
    if not len(contradictory):
        return ""
    text = file.texts[int(contradictory[0])].as_py()
    labels = np.unique(file.label_ids[file.text_ids == contradictory[0]])
    names = file.names.take(pa.array(labels[labels >= 0][:_SHOWN_LABELS])).to_pylist()
    return f"{text[:_SHOWN_TEXT]!r} under {', '.join(map(repr, names))}"
