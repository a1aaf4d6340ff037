"""Layouts of nested JSON with the texts in it: Tevatron, ms-swift, DPR."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from stx_mine.stages.verify.readers.blocks import RowBlock, RowColumn, RowReader
from stx_mine.stages.verify.readers.documents import checked, json_items, json_lines, lists_of_items

_ROWS_AT_ONCE = 2_048


@dataclass(frozen=True)
class Nest:
    """A layout of nested JSON.

    Attributes:
        layout: Its name.
        anchor: Field of the anchor.
        positives: Field of the positives; only this layout has it.
        negatives: Fields of negatives, in their order.
        text: The text of an item of these fields.
    """

    layout: str
    anchor: str
    positives: str
    negatives: tuple[str, ...]
    text: Callable[[Any], str]


def _titled(passage: dict[str, str]) -> str:
    title, text = passage.get("title") or "", passage["text"]
    return f"{title} {text}" if title else text


def _message(messages: list[dict[str, str]] | str) -> str:
    """The text of messages; an anchor is a list of them as a positive is."""
    if isinstance(messages, str):
        return messages
    return "\n".join(one["content"] for one in messages)


NESTS = (
    Nest("Tevatron", "query", "positive_passages", ("negative_passages",), _titled),
    Nest("ms-swift", "messages", "positive_messages", ("negative_messages",), _message),
    Nest("DPR", "question", "positive_ctxs", ("negative_ctxs", "hard_negative_ctxs"), _titled),
)


def nest_of(row: Any) -> Nest | None:
    """The layout of which a row is; None for another one."""
    return next((one for one in NESTS if isinstance(row, dict) and one.positives in row), None)


def nested_rows(paths: tuple[Path, ...], nest: Nest) -> RowReader:
    """Read files of such a layout, JSON lines or JSON documents."""

    def read(path: Path, negatives: bool) -> Iterator[RowBlock]:
        items = json_items(path) if ".json" in path.suffixes else json_lines(path)
        blocks = (_block(rows, nest) for rows in lists_of_items(items, _ROWS_AT_ONCE))
        return checked(f"{nest.layout} ({nest.anchor!r}, {nest.positives!r})", path, blocks)

    fields = ", ".join(map(repr, nest.negatives))
    described = (
        f"read rows of {nest.layout}: anchor {nest.anchor!r}, positives {nest.positives!r}, "
        f"negatives {fields}"
    )
    return RowReader(paths, read, described)


def _block(rows: list[dict[str, Any]], nest: Nest) -> RowBlock:
    def texts(field: str) -> RowColumn:
        found = [[nest.text(item) for item in row.get(field) or ()] for row in rows]
        return RowColumn.of_lists(field, found)

    anchors = [_message(row[nest.anchor]) for row in rows]
    return RowBlock(
        RowColumn(nest.anchor, None, pa.array(anchors, pa.large_string())),
        (texts(nest.positives),),
        tuple(map(texts, nest.negatives)),
    )
