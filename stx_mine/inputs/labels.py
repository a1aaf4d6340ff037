"""Labels and scores of pairs: which rows are positives, which known negatives."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.errors import InputError
from stx_mine.inputs.names import plain

POSITIVE, NEGATIVE = 0, 1
# Why a row that has neither is dropped, by its code from 2.
LABEL_REASONS = ("no_label", "other_label", "below_min_grade", "not_relevant")
_NO_LABEL, _OTHER, _BELOW, _NOT_RELEVANT = range(2, 6)

_GOOD = frozenset({"positive", "duplicate", "relevant", "entailment", "entailed", "equivalent"})
_YES = _GOOD | {"1", "true", "yes", "y", "t", "match", "paraphrase"}
_NO = frozenset({"0", "false", "no", "n", "f", "negative", "irrelevant", "contradiction"}) | {
    f"{no}_{word}" for word in (*_GOOD, "match", "paraphrase") for no in ("not", "non", "no")
}
# Columns in which `true` speaks against the pair.
_INVERTED = frozenset({"is_impossible"})
_SHOWN, _MOST_LABELS = 6, 10_000


@dataclass(frozen=True)
class LabelRule:
    """How labels are read.

    Attributes:
        column: Their column, as messages name it.
        table: Their table, as messages name it.
        min_grade: Lowest number of a positive; None for none.
        positive: Labels of positives; empty to find out.
        negative: Labels of known negatives.
        is_judgement: Whether they are grades of qrels, where all above 0 are positive.
    """

    column: str
    table: str
    min_grade: float | None = None
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    is_judgement: bool = False

    def codes(self, labels: pa.ChunkedArray) -> tuple[NDArray[np.int8], str]:
        """What each row is.

        Args:
            labels: Large strings (rows,).

        Returns:
            int8 (rows,): `POSITIVE`, `NEGATIVE`, or 2 + the place of the reason in
            `LABEL_REASONS`; and a sentence that says what was decided.

        Raises:
            InputError: The labels are of several kinds, and no option says which are positive.
        """
        plain = _plain_array(labels)
        missing = plain.is_null().to_numpy()
        if self.positive or self.negative:
            return self._by_name(plain, missing)
        numbers = _numbers(plain)
        if self.is_judgement or self.min_grade is not None:
            return self._by_grade(self._required(numbers, plain), missing)
        return self._by_guess(plain, numbers, missing)

    def grades(self, labels: pa.ChunkedArray) -> NDArray[np.float64]:
        """float64 (rows,): the labels as numbers; NaN where one is missing.

        Raises:
            InputError: A label is no number.
        """
        plain = _plain_array(labels)
        return self._required(_numbers(plain), plain)

    def _required(
        self, numbers: NDArray[np.float64] | None, labels: pa.ChunkedArray
    ) -> NDArray[np.float64]:
        if numbers is None:
            wrong = next(v for v in pc.unique(labels).to_pylist() if not _is_number(v))
            raise InputError(
                f"expected numbers in column {self.column!r} of {self.table}, found {wrong!r}; fix "
                "that row (numbers have decimal points and no %), or name another --label-column"
            )
        return numbers

    def _by_grade(
        self, numbers: NDArray[np.float64], missing: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int8], str]:
        if self.min_grade is None:
            codes = np.where(numbers > 0, POSITIVE, _NOT_RELEVANT)
            codes[missing] = _NO_LABEL
            return codes.astype(np.int8), ""
        codes = np.where(numbers >= self.min_grade, POSITIVE, _BELOW)
        codes[missing] = _NO_LABEL
        said = f"{self.column}: {self.min_grade:g} and above is a positive"
        return codes.astype(np.int8), "" if self.is_judgement else said

    def _by_name(
        self, labels: pa.ChunkedArray, missing: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int8], str]:
        names = _plain_labels(labels)
        for label in (*self.positive, *self.negative):
            if _plain_label(label) not in names:
                raise InputError(
                    f"no row of {self.table} has the label {label!r} in column {self.column!r}, "
                    f"which holds {_listed(names)}; name one of those"
                )
        positive = {_plain_label(label) for label in self.positive}
        negative = {_plain_label(label) for label in self.negative}
        rest = [name for name in names if name not in positive | negative]
        if not negative and len(rest) == 1 and len(names) == 2:
            negative = set(rest)
        if not positive and len(rest) == 1 and len(names) == 2:
            positive = set(rest)
        of_name = {name: _OTHER for name in names}
        of_name |= dict.fromkeys(positive, POSITIVE) | dict.fromkeys(negative, NEGATIVE)
        return self._coded(labels, missing, of_name)

    def _by_guess(
        self,
        labels: pa.ChunkedArray,
        numbers: NDArray[np.float64] | None,
        missing: NDArray[np.bool_],
    ) -> tuple[NDArray[np.int8], str]:
        names = _plain_labels(labels)
        yes, no = (_NO, _YES) if self.column.lower() in _INVERTED else (_YES, _NO)
        if names and all(plain(name) in yes | no for name in names):
            of_name = {name: POSITIVE if plain(name) in yes else NEGATIVE for name in names}
            return self._coded(labels, missing, of_name)
        if not names:
            return np.zeros(len(labels), np.int8), f"{self.column} is empty and decides nothing"
        kinds = f"{len(names):,} labels ({_listed(names)})"
        way = "--positive-label LABEL [--negative-label LABEL]"
        if numbers is not None:
            known = numbers[~missing]
            kinds = f"numbers from {known.min():g} to {known.max():g}"
            way = f"--min-grade NUMBER for the lowest of a positive, or {way}"
        raise InputError(
            f"column {self.column!r} of {self.table} holds {kinds}, and nothing says which rows "
            f"are positives; give {way}, or --label-column none to take all rows"
        )

    def _coded(
        self,
        labels: pa.ChunkedArray,
        missing: NDArray[np.bool_],
        of_name: dict[str, int],
    ) -> tuple[NDArray[np.int8], str]:
        encoded = pc.dictionary_encode(labels).combine_chunks()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.chunk(0)
        names = encoded.dictionary.to_pylist()
        own = [of_name.get(_plain_label(name), _OTHER) for name in names]
        places = pc.fill_null(encoded.indices, 0).to_numpy(zero_copy_only=False)
        codes = np.array([*own, _NO_LABEL], np.int8)[np.where(missing, len(own), places)]
        what = {
            "a positive": [name for name, code in of_name.items() if code == POSITIVE],
            "a known negative": [name for name, code in of_name.items() if code == NEGATIVE],
            "dropped": [name for name, code in of_name.items() if code == _OTHER],
        }
        said = ", ".join(f"{_listed(names)} is {word}" for word, names in what.items() if names)
        return codes, f"{self.column}: {said}"


def _plain_array(labels: pa.ChunkedArray) -> pa.ChunkedArray:
    """Labels without white space around them, and null where there is nothing else."""
    plain = pc.utf8_trim_whitespace(labels)
    return pc.if_else(pc.equal(plain, ""), pa.scalar(None, plain.type), plain)


def _numbers(labels: pa.ChunkedArray) -> NDArray[np.float64] | None:
    """The labels as numbers, NaN where one is missing; None where one is no finite number."""
    try:
        cast = pc.cast(labels, pa.float64())
    except pa.ArrowInvalid:
        return None
    if not pc.all(pc.is_finite(cast)).as_py() and cast.null_count < len(cast):
        return None
    numbers: NDArray[np.float64] = cast.fill_null(np.nan).to_numpy()
    return numbers


def _is_number(label: str | None) -> bool:
    try:
        return isfinite(float(label or "0"))
    except ValueError:
        return False


def _plain_label(label: str) -> str:
    """A label as it is compared: 1.0 is 1."""
    try:
        number = float(label)
    except ValueError:
        return label.strip()
    return f"{number:g}"


def _plain_labels(labels: pa.ChunkedArray) -> list[str]:
    """The distinct labels as they are compared, in the order of their first rows."""
    distinct = pc.unique(labels).drop_null().slice(0, _MOST_LABELS).to_pylist()
    return list(dict.fromkeys(map(_plain_label, distinct)))


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} ..." if len(names) > _SHOWN else shown
