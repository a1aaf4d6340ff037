"""Texts as cells of a spreadsheet, which takes some beginnings for a formula to run."""

# Also in their wide forms, which some spreadsheets take for the same; and the escape itself.
_STARTS = frozenset("=+-@\t\r\n'＝＋－＠")
_ESCAPE = "'"


def as_cell(text: str) -> str:
    """A text that no spreadsheet runs: with an apostrophe before it, where one might."""
    return _ESCAPE + text if text[:1] in _STARTS and text else text


def of_cell(cell: str) -> str:
    """Back from `as_cell`."""
    return cell.removeprefix(_ESCAPE)
