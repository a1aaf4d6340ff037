"""A sheet for a person: a row a negative, and a column to fill in what is false."""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.errors import ConfigError, InputError
from stx_mine.inputs.column_file import ColumnFile
from stx_mine.inputs.delimited import DelimitedForm
from stx_mine.stages.audit.core.cells import as_cell, of_cell
from stx_mine.stages.audit.sample import SampledNegatives
from stx_mine.store.digests import text_digests
from stx_mine.store.files import atomic
from stx_mine.store.texts import TextStore, take_texts

ANSWER = "false_negative"
_TEXTS = ("query", "positive", "negative")
COLUMNS = (*_TEXTS, "rank", "score", ANSWER)
# No spreadsheet takes a cell of more than 32,767 units of UTF-16.
_LONGEST = 16_000
_WORDS = {"yes": True, "y": True, "true": True, "1": True}
_WORDS |= {"no": False, "n": False, "false": False, "0": False}
_SHOWN = 3


@dataclass(frozen=True)
class Answers:
    """What a person said of a sample.

    Attributes:
        false: bool (N,) which negatives are false.
        known: bool (N,) of which an answer is there.
    """

    false: NDArray[np.bool_]
    known: NDArray[np.bool_]


def write_sheet(path: Path, store: TextStore, sample: SampledNegatives, replaces: bool) -> int:
    """Write a sample as CSV, in the order of queries and ranks.

    Args:
        path: Where to.
        store: The texts.
        sample: The sample.
        replaces: Whether a file that is there is replaced, whatever was filled in.

    Returns:
        Texts that were cut, as no cell takes them whole.

    Raises:
        ConfigError: There is something already, or no folder for it, or another suffix.
    """
    if not path.parent.is_dir():
        raise ConfigError(
            f"--sheet {path} needs the folder {path.parent}, found none; make it, or give another "
            "path"
        )
    if path.suffix.lower() != ".csv":
        raise ConfigError(f"--sheet {path} is written as CSV; give a name that ends in .csv")
    if path.is_dir() or (path.exists() and not replaces):
        raise ConfigError(
            f"expected no file at --sheet {path}, found one, in which answers may stand; give "
            "another name, or --overwrite"
        )
    texts, cut = _shown(store, sample)
    order = np.lexsort([sample.ranks, sample.query_ids])
    # Not written by pieces: what is there stays whole until this is.
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, quoting=csv.QUOTE_ALL)
    writer.writerow(COLUMNS)
    for row in order.tolist():
        cells = [as_cell(column[row]) for column in texts]
        writer.writerow([*cells, int(sample.ranks[row]), f"{sample.scores[row]:.6g}", ""])
    with atomic(path) as temporary:
        # With a byte order mark, by which spreadsheets know UTF-8.
        temporary.write_text(sink.getvalue(), "utf-8-sig", newline="")
    return cut


def read_answers(path: str, store: TextStore, sample: SampledNegatives) -> Answers:
    """Read a sheet that was filled in.

    Args:
        path: The file.
        store: The texts.
        sample: What the sheet was written of.

    Raises:
        InputError: It is no such sheet, has rows of another sample, a row twice, words that are no
            answer, or no answer at all.
    """
    places = {key: row for row, key in enumerate(_keys(_shown(store, sample)[0]))}
    false, known = np.zeros(len(sample), np.bool_), np.zeros(len(sample), np.bool_)
    seen, unknown, wrong = Counter[int](), list[int](), list[str]()
    for number, (key, word) in enumerate(_rows(path), 1):
        row, answer = places.get(key), word.strip().lower()
        if row is None:
            unknown.append(number)
            continue
        seen[row] += 1
        if answer and answer not in _WORDS:
            wrong.append(f"{word.strip()[:40]!r} in row {number:,}")
        elif answer:
            known[row], false[row] = True, _WORDS[answer]
    twice = sum(times > 1 for times in seen.values())
    if unknown:
        raise InputError(
            f"expected rows of the sample in {path}, found {len(unknown):,} that are not in it, "
            f"the first in row {unknown[0]:,}; give the --sample and --seed that the sheet was "
            "written by, or write another one if the negatives have changed since"
        )
    if twice:
        raise InputError(
            f"expected each negative once in {path}, found {twice:,} in several rows; leave one "
            "row of each"
        )
    if wrong:
        raise InputError(
            f"expected yes, no or nothing in the column {ANSWER} of {path}, found "
            f"{', '.join(wrong[:_SHOWN])}{' ...' if len(wrong) > _SHOWN else ''}; write one of them"
        )
    if not known.any():
        raise InputError(
            f"expected answers in the column {ANSWER} of {path}, found none in {len(seen):,} rows; "
            "write yes where the negative answers the query, no where it does not"
        )
    return Answers(false, known)


def _shown(store: TextStore, sample: SampledNegatives) -> tuple[list[list[str]], int]:
    """The texts of each column of the sheet, and how many of them are cut."""
    columns, cut = [], 0
    for table, ids in (
        (store.queries, sample.query_ids),
        (store.passages, sample.positive_ids),
        (store.passages, sample.passage_ids),
    ):
        texts = take_texts(table.column("text"), ids).to_pylist()
        cut += sum(len(text) > _LONGEST for text in texts)
        # A zero byte makes a text file a binary one.
        columns.append([text[:_LONGEST].replace("\0", "\ufffd") for text in texts])
    return columns, cut


def _keys(columns: list[list[str]]) -> Iterator[tuple[bytes, ...]]:
    """What stands for each row: the digests of its texts, as white space does not survive."""
    digests = (text_digests(pa.array(texts, pa.large_string())).to_pylist() for texts in columns)
    return zip(*digests, strict=True)


def _rows(path: str) -> Iterator[tuple[tuple[bytes, ...], str]]:
    """The key and the answer of each row of a sheet."""
    file = ColumnFile.open(path, DelimitedForm(quoting="csv", header=True))
    columns = [file.column(name, "--answers") for name in (*_TEXTS, ANSWER)]
    for *texts, words in file.batches(columns):
        cells = [[of_cell(cell or "") for cell in column.to_pylist()] for column in texts]
        yield from zip(_keys(cells), [word or "" for word in words.to_pylist()], strict=True)
