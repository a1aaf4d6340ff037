"""What looks wrong with texts: numbers, markup, lists, words for nothing, one repeated positive."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.core.reach import MOST_CHARACTERS
from stx_mine.stages.ingest.counts import TextCounts

_LOOKED_AT, _FEWEST, _BYTES = 100_000, 1_000, 1 << 28
_NUMBER = r"^\s*[-+]?\d+([.,]\d+)?\s*$"
_MARKUP = (
    r"</?(?i:p|br|div|span|a|b|i|em|strong|li|ul|ol|table|tr|td|th|h[1-6]|img|html|body|pre|code|"
    r"script|style|sup|sub|blockquote)(\s[^<>]*)?/?>"
)
# A list of texts that a program wrote as one text.
_LIST = r"(?s)^\s*\[\s*['\"].*['\"]\s*,?\s*\]\s*$"
# What models put before texts themselves.
_PROMPT = r"^\s*(?i:(query|passage|search_query|search_document)\s*:\s)"
# Words that programs write where there is no text.
_NOTHING = ("null", "nan", "n/a", "na", "none", "nil", "<na>", "#n/a", "-", "undefined")
_LONGEST_NOTHING = 12


def text_counts(
    tables: dict[str, pa.Table],
    pair_passage_ids: NDArray[np.int64],
    query_texts: NDArray[np.int64],
    negative_passage_ids: NDArray[np.int64],
    num_broken: int,
) -> TextCounts:
    """Look at up to 100,000 texts of each role (256 MB), spread evenly, and at all positives.

    Args:
        tables: `queries`, `passages` -> their texts, by id.
        pair_passage_ids: int64 (N,) the positive of each pair.
        query_texts: int64 (num queries,) the passage of equal text, or an id after all passages.
        negative_passage_ids: int64 (M,) the passage of each known negative.
        num_broken: Texts that were no Unicode.
    """
    looked_at, numbers, markup = dict[str, int](), dict[str, int](), dict[str, int]()
    prompts, lists = dict[str, int](), dict[str, int]()
    columns = {role: table.column("text") for role, table in tables.items()}
    beyond = {role: _num_beyond_reach(texts) for role, texts in columns.items()}
    samples = {role: _spread(column, np.arange(len(column))) for role, column in columns.items()}
    if len(negative_passage_ids):
        samples["negatives"] = _spread(columns["passages"], np.unique(negative_passage_ids))
    for role, texts in samples.items():
        looked_at[role] = len(texts)
        prompts[role] = _num_matching(texts, _PROMPT)
        lists[role] = _num_matching(texts, _LIST)
        numbers[role] = _num_matching(texts, _NUMBER)
        markup[role] = _num_matching(texts, _MARKUP)
    num_passages = len(tables["passages"])
    of_passage = np.bincount(pair_passage_ids, minlength=num_passages)
    nothing = np.concatenate(list(_is_nothing(tables["passages"].column("text"))))
    most = int(of_passage.argmax())
    # A passage of no pair, as that of a pair of equal texts, is no positive of another query.
    in_passages = np.minimum(query_texts, num_passages)
    return TextCounts(
        texts_looked_at=looked_at,
        texts_of_a_number=numbers,
        texts_with_markup=markup,
        pairs_of_nothing=int(of_passage[nothing].sum()),
        most_frequent_positive=most,
        pairs_of_most_frequent=int(of_passage[most]),
        texts_in_both_roles=int((np.append(of_passage, 0)[in_passages] > 0).sum()),
        texts_not_unicode=num_broken,
        negatives_of_nothing=int(nothing[negative_passage_ids].sum()),
        texts_with_prompt=prompts,
        texts_of_a_list=lists,
        texts_beyond_reach=beyond,
    )


def _spread(column: pa.ChunkedArray, rows: NDArray[np.int64]) -> pa.ChunkedArray:
    """Some of these texts of a column, evenly spread: fewer where texts are long."""
    bytes_each = column.nbytes / max(1, len(column))
    number = min(_LOOKED_AT, max(_FEWEST, int(_BYTES / max(1.0, bytes_each))))
    if len(rows) > number:
        rows = rows[np.linspace(0, len(rows) - 1, number).astype(np.int64)]
    elif len(rows) == len(column):
        return column
    return column.take(pa.array(rows))


def _num_beyond_reach(texts: pa.ChunkedArray) -> int:
    """How many texts have more characters than models are given."""
    found = 0
    for chunk in texts.chunks:
        # No text has more characters than bytes.
        long = chunk.filter(pc.greater(pc.binary_length(chunk), MOST_CHARACTERS))
        found += int(pc.sum(pc.greater(pc.utf8_length(long), MOST_CHARACTERS)).as_py() or 0)
    return found


def _num_matching(texts: pa.ChunkedArray, pattern: str) -> int:
    return int(pc.sum(pc.match_substring_regex(texts, pattern)).as_py() or 0)


def _is_nothing(texts: pa.ChunkedArray) -> Iterator[NDArray[np.bool_]]:
    yield np.empty(0, bool)
    words = pa.array(_NOTHING, pa.large_string())
    for chunk in texts.chunks:
        short = pc.less_equal(pc.binary_length(chunk), _LONGEST_NOTHING)
        found = np.array(short.to_numpy(zero_copy_only=False))
        places = np.flatnonzero(found)
        plain = pc.utf8_lower(pc.utf8_trim_whitespace(chunk.take(pa.array(places))))
        found[places] = pc.is_in(plain, value_set=words).to_numpy(zero_copy_only=False)
        yield found
