"""The rows of pairs in any layout that inputs reads, with their positives and negatives."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.errors import ConfigError, InputError
from stx_mine.inputs.column_file import ColumnFile, is_column_file
from stx_mine.inputs.config import SourceFields
from stx_mine.inputs.files import suffix_of
from stx_mine.inputs.labels import NEGATIVE, POSITIVE
from stx_mine.inputs.pairs import PairSource
from stx_mine.inputs.text_column import IdColumn, TextColumn, flat_values
from stx_mine.settings import flag
from stx_mine.stages.verify.config import VerifyConfig
from stx_mine.stages.verify.row_blocks import RowBlock, RowColumn, RowReader
from stx_mine.stages.verify.run_rows import run_rows
from stx_mine.stages.verify.text_table import TextTable

_ROWS_AT_ONCE = 8_192
_QRELS_WIDTH = 4


def open_rows(name: str, config: VerifyConfig) -> RowReader:
    """Recognise the layout of a file, a folder, or whatever else `ingest` takes.

    Raises:
        InputError: There are no rows, or they are broken.
        ConfigError: An option is given for a run, which has none to choose.
    """
    path = Path(name)
    run = _run_of(path)
    if run is not None:
        refuse_source_options(config, f"{run} is a TREC run")
        return run_rows(run)
    if path.is_dir() and not any(map(is_column_file, path.rglob("*"))):
        raise InputError(
            f"expected packed batches (epoch-000/train-*.parquet) or files of rows in {path}, "
            "found neither; run `stx-mine pack`, or give the right folder"
        )
    source = PairSource.open(name, config, "train")
    codes, note = _codes(source)
    return RowReader(
        tuple(Path(file.name) for file in source.pairs.files),
        _PairRows(source, codes).read,
        (*source.description(), *([note] if note else [])),
        TextTable.read(source.asked) if source.roles.query is None else None,
        TextTable.read(source.corpus) if source.corpus and _names_passages(source) else None,
    )


def refuse_source_options(config: VerifyConfig, because: str) -> None:
    """Refuse options that say how rows of others are read.

    Raises:
        ConfigError: One is given.
    """
    for one in fields(SourceFields):
        if getattr(config, one.name) != one.default:
            raise ConfigError(f"{flag(one)} is for rows of others, {because}; leave it out")


def _run_of(path: Path) -> Path | None:
    """The TREC run that a file is, or that a folder without qrels/ holds."""
    if path.is_dir():
        runs = sorted(path.glob("run*.trec"))
        return runs[0] if runs and not (path / "qrels").is_dir() else None
    if suffix_of(path) != ".trec" or len(ColumnFile.open(path).columns) == _QRELS_WIDTH:
        return None
    return path


def _codes(source: PairSource) -> tuple[NDArray[np.int8] | None, str]:
    """What the label of each row, or of each passage, says; None where there are none."""
    labels = source.labels()
    if labels is None or source.label is None:
        return None, ""
    codes, note = source.label.codes(labels)
    if source.label.is_judgement:
        # Grades say of every passage whether it is relevant.
        codes = np.where(codes == POSITIVE, POSITIVE, NEGATIVE).astype(np.int8)
    return codes, note


def _names_passages(source: PairSource) -> bool:
    return source.roles.positive_ids is not None or bool(source.roles.negative_ids)


@dataclass(frozen=True)
class _PairRows:
    """The rows of a source.

    Attributes:
        source: The source.
        codes: int8: of each row or each passage `POSITIVE`, `NEGATIVE` or neither; None for none.
    """

    source: PairSource
    codes: NDArray[np.int8] | None

    def read(self, negatives: bool) -> Iterator[tuple[int, RowBlock]]:
        """Yield the number of a file and rows of it, in their order."""
        roles, pairs, judged = self.source.roles, self.source.pairs, 0
        columns = [roles.query or roles.query_ids, roles.positive or roles.positive_ids]
        columns += [*roles.negatives, *roles.negative_ids] if negatives else []
        found = [_texts_alone(one) for one in columns if one]
        names = [name for one in found for name in one.read]
        names += [roles.label] if self.source.roles.is_label_list else []
        for number, (file, one) in enumerate(zip(pairs.files, pairs.formats, strict=True)):
            for arrays in replace(pairs, files=(file,), formats=(one,)).arrays(names):
                for start in range(0, len(arrays[0]), _ROWS_AT_ONCE):
                    some = [array.slice(start, _ROWS_AT_ONCE) for array in arrays]
                    block, judged = self._block(found, dict(zip(names, some, strict=True)), judged)
                    yield number, block

    def _block(
        self,
        columns: list[TextColumn | IdColumn],
        arrays: dict[str, pa.Array],
        judged: int,
    ) -> tuple[RowBlock, int]:
        """Some rows; and how many of the codes they and those before them have."""
        anchors, positives, *negatives = (
            self._column(one, [arrays[name] for name in one.read], place)
            for place, one in enumerate(columns)
        )
        if not self.source.pairs.has_names and len(negatives) > 1:
            negatives = [RowColumn.merged("negative", negatives)]
        if self.codes is None:
            return RowBlock(anchors, (positives,), tuple(negatives)), judged
        if self.source.roles.is_label_list:
            self._refuse_unlike(positives, arrays[self.source.roles.label])
            codes = self.codes[judged : judged + len(positives.texts)]
            judged += len(codes)
        else:
            codes = self.codes[judged : judged + len(anchors.texts)]
            judged += len(codes)
            codes = codes if positives.lengths is None else np.repeat(codes, positives.lengths)
        labeled = positives.chosen(codes == NEGATIVE)
        return RowBlock(
            anchors, (positives.chosen(codes == POSITIVE),), (labeled, *negatives)
        ), judged

    def _column(
        self, column: TextColumn | IdColumn, arrays: list[pa.Array], place: int
    ) -> RowColumn:
        name = column.column
        if not self.source.pairs.has_names:
            # Their names are their places.
            name = ("anchor", "positive", "negative")[min(place, 2)]
        if isinstance(column, IdColumn):
            ids, lengths = column.block(arrays)
            return RowColumn(name, lengths, ids, are_ids=True)
        block = column.block(arrays)
        return RowColumn(name, block.lengths, block.texts)

    def _refuse_unlike(self, texts: RowColumn, labels: pa.Array) -> None:
        """Refuse lists of labels that are not as long as those of the texts."""
        _, lengths = flat_values(labels)
        if lengths is None or texts.lengths is None or not np.array_equal(lengths, texts.lengths):
            found = 0 if lengths is None else int(lengths.sum())
            raise InputError(
                f"expected a label for every text in each row of {self.source.pairs.name}, found "
                f"{found:,} in {self.source.roles.label!r} and {len(texts.texts):,} in "
                f"{texts.name!r}; fix them, or give --label-column none"
            )


def _texts_alone(column: TextColumn | IdColumn) -> TextColumn | IdColumn:
    """The same column without what is beside it and is no part of its texts."""
    if isinstance(column, IdColumn):
        return column
    return replace(column, id_column="", id_field="", language_column="")
