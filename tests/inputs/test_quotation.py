"""Quotation marks: whether values are closed, and whether marks enclose the values of a TSV."""

import csv
import io
import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from stx_mine.inputs.quotation import QuoteCheck, Unclosed, is_quoted


@given(st.text('"",\na', max_size=14), st.integers(1, 5))
def test_marks_are_closed_where_a_strict_reader_says_so(text: str, size: int) -> None:
    def strict() -> bool:
        try:
            list(csv.reader(io.StringIO(text, newline=""), strict=True))
        except csv.Error:
            return False
        return True

    def checked() -> bool:
        check, content = QuoteCheck(","), text.encode()
        try:
            for start in range(0, len(content), size):
                check.add(content[start : start + size])
            check.add(b"", last=True)
        except Unclosed as error:
            assert content[error.place : error.place + 1] == b'"'
            return False
        return True

    assert checked() == strict()


@given(
    st.sampled_from(["", '"a\tb"\t"c"\n', '"a"\t"c"\n', "a\tb\n"]),
    st.text('""\t\n\ra', max_size=24),
    st.integers(1, 9),
)
def test_marks_enclose_values_however_the_file_is_cut(first: str, text: str, size: int) -> None:
    # The first line is judged as a whole, which the first block of a file holds.
    end = len((first + text).partition("\n")[0]) + 1
    content = (first + text).encode()
    cuts = [0, *range(end, len(content), size), len(content)]
    blocks = [content[start:stop] for start, stop in pairwise(cuts)]
    assert is_quoted(blocks) == enclosed(first + text)


def enclosed(text: str) -> bool:
    """What `is_quoted` says, value by value over the whole text."""
    quoted = r'"(?:[^"]|"")*"'
    needed, place = False, 0
    while start := re.compile(r'(?:(?<=[\t\n])|\A)"').search(text, place):
        found = re.compile(quoted + r"(?=[\t\r\n]|\Z)").match(text, start.start())
        if not found:
            return False
        needed = needed or bool(re.search(r'\t|\n|""', found.group()[1:-1]))
        place = found.end()
    line = text.split("\n", 1)[0].removesuffix("\r")
    return needed or bool(re.fullmatch(r"({0})(\t{0})*".format('"[^"\t]*"'), line))
