"""Layouts of columns: texts or lists of texts as anchors, positives and negatives, with labels."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.errors import InputError
from stx_mine.inputs.column_file import ColumnFile
from stx_mine.stages.verify.config import VerifyConfig
from stx_mine.stages.verify.readers.blocks import RowBlock, RowColumn, RowReader
from stx_mine.stages.verify.readers.by_ids import first_of
from stx_mine.stages.verify.readers.tables import TEXT, by_label, list_texts

# sentence-transformers takes these for labels, never for texts.
_LABELS = ("label", "labels", "score", "scores")
_FIRST = "first"


@dataclass(frozen=True)
class _Columns:
    """Which columns are read as what.

    Attributes:
        anchor: The column of anchors, texts.
        positive: The column of positives, texts or lists of them.
        negatives: The columns of negatives, texts or lists of them.
        kinds: Column -> `text` or `texts`.
        label: What tells the positives from the negatives in the column of positives: a column of
            0 and 1, `first` where the first of each list is the positive, or nothing.
    """

    anchor: str
    positive: str
    negatives: tuple[str, ...]
    kinds: dict[str, str]
    label: str = ""

    @property
    def read(self) -> list[str]:
        """All of them."""
        label = [self.label] if self.label not in ("", _FIRST) else []
        return [self.anchor, self.positive, *self.negatives, *label]

    @property
    def described(self) -> str:
        """What is read as what, for a person."""
        if self.label == _FIRST:
            return (
                f"read anchor {self.anchor!r}, positive the first of {self.positive!r}, negatives "
                "the others"
            )
        if self.label:
            return (
                f"read anchor {self.anchor!r}, positives where {self.label!r} of {self.positive!r} "
                "is 1, negatives where it is 0"
            )
        negatives = ", ".join(map(repr, self.negatives))
        return f"read anchor {self.anchor!r}, positive {self.positive!r}, " + (
            f"negatives {negatives}" if negatives else "no negatives"
        )


def column_rows(paths: tuple[Path, ...], config: VerifyConfig) -> RowReader:
    """Read files of columns.

    Raises:
        InputError: A column is missing, or files differ in their columns.
    """
    files = {path: ColumnFile.open(path) for path in paths}
    columns = _choose(files[paths[0]], config)
    for path, file in files.items():
        missing = [name for name in columns.read if name not in file.columns]
        if missing:
            raise InputError(
                f"expected the columns {', '.join(columns.read)} of {paths[0]} in every file, "
                f"{path} has no {missing[0]!r}; verify one of the files by its name"
            )

    def read(path: Path, negatives: bool) -> Iterator[RowBlock]:
        names = columns.read if negatives or columns.label else columns.read[:2]
        for arrays in _arrays(files[path], names, columns.kinds):
            yield _block(path, columns, arrays)

    ignored = [name for name in files[paths[0]].columns if name not in columns.read]
    described = columns.described + (
        f"; ignored {', '.join(map(repr, ignored))}" if ignored else ""
    )
    return RowReader(paths, read, described)


def _arrays(
    file: ColumnFile, names: list[str], kinds: dict[str, str]
) -> Iterator[dict[str, pa.Array]]:
    """Columns of texts as large strings, others as they are."""
    if all(kinds.get(name) == "text" for name in names):
        yield from (dict(zip(names, texts, strict=True)) for texts in file.batches(names))
        return
    yield from (dict(zip(names, arrays, strict=True)) for arrays in file.arrays(names))


def _block(path: Path, columns: _Columns, arrays: dict[str, pa.Array]) -> RowBlock:
    def column(name: str) -> RowColumn:
        if columns.kinds[name] == "texts":
            return RowColumn(name, *list_texts(arrays[name]))
        found = arrays[name]
        decoded = found.dictionary_decode() if pa.types.is_dictionary(found.type) else found
        return RowColumn(name, None, decoded.cast(TEXT))

    anchors, positives = column(columns.anchor), column(columns.positive)
    if not columns.label:
        present = [name for name in columns.negatives if name in arrays]
        return RowBlock(anchors, (positives,), tuple(map(column, present)))
    if columns.label == _FIRST:
        assert positives.lengths is not None
        is_positive = first_of(positives.lengths)
    else:
        labels = arrays[columns.label]
        values = labels if positives.lengths is None else pc.list_flatten(labels)
        if len(values) != len(positives.texts):
            raise InputError(
                f"expected a label for every text in {path}, found {len(values):,} in "
                f"{columns.label!r} and {len(positives.texts):,} in {columns.positive!r}; fix them"
            )
        is_positive = _is_one(values, path, columns.label)
    roles = by_label(columns.positive, positives.lengths, positives.texts, is_positive)
    return RowBlock(anchors, roles[:1], roles[1:])


def _is_one(labels: pa.Array, path: Path, name: str) -> NDArray[np.bool_]:
    values = labels.cast(pa.float64()).to_numpy(zero_copy_only=False)
    others = values[~np.isin(values, (0, 1))]
    if len(others):
        raise InputError(
            f"expected 0 or 1 in {name!r} of {path}, found {others[0]:g}; give the column of "
            "negatives with --negative-column, or leave the labels out"
        )
    found: NDArray[np.bool_] = values == 1
    return found


def _choose(file: ColumnFile, config: VerifyConfig) -> _Columns:
    """Columns by the options, else by their names, else by their order."""
    kinds = file.column_kinds()
    free = [name for name, kind in kinds.items() if kind == "text" and name not in _LABELS]
    lists = [name for name, kind in kinds.items() if kind == "texts" and name not in _LABELS]
    anchor = _pick(file, "anchor", config.anchor_column, ["anchor"], free)
    free = [name for name in free if name != anchor]
    of_lists: list[str] = [name for name in ("positive", "pos") if name in lists]
    positive = _pick(file, "positive", config.positive_column, ["positive"], free, of_lists)
    if anchor == positive:
        raise InputError(
            f"expected two columns of {file.path} for anchor and positive, found {anchor!r} for "
            "both; name the other with --anchor-column or --positive-column"
        )
    chosen = {anchor, positive}
    if config.negative_column:
        names = [file.column(name, "--negative-column") for name in config.negative_column]
        negatives = tuple(dict.fromkeys(names))
    else:
        free = [name for name in free if name not in chosen]
        named = [one for one in free if one == "negative" or one.startswith("negative_")]
        named += [one for one in lists if one.startswith("neg") and one not in chosen]
        negatives = tuple(named or ([] if kinds[positive] == "texts" else free))
    unread = [name for name in (anchor, positive, *negatives) if kinds[name] == "other"]
    # Numbers are texts where an option names them.
    kinds |= dict.fromkeys(unread, "text")
    label = "" if negatives else _label(file, positive, kinds)
    return _Columns(anchor, positive, negatives, kinds, label)


def _pick(
    file: ColumnFile,
    role: str,
    given: str | None,
    names: list[str],
    free: list[str],
    lists: list[str] | None = None,
) -> str:
    """The column of a role: the given one, one of these names, a list, or the first text."""
    named = [name for name in names if name in free]
    candidates = [*named, *(lists or []), *free]
    if given is None and not candidates:
        raise InputError(
            f"expected a column of texts for the {role} in {file.path}, found none that is "
            f"left ({', '.join(file.columns)}); name it with --{role}-column"
        )
    return file.column(given or candidates[0], f"--{role}-column")


def _label(file: ColumnFile, positive: str, kinds: dict[str, str]) -> str:
    """What tells the positives from the negatives where no column holds negatives."""
    if kinds[positive] == "texts":
        return "labels" if kinds.get("labels") == "other" else _FIRST * ("scores" in kinds)
    if kinds.get("label") != "other":
        return ""
    kind = file.schema.field("label").type
    return "label" if pa.types.is_integer(kind) or pa.types.is_boolean(kind) else ""
