"""The ids of texts in the files that `split` writes: those of the input, else made ones."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.core.role import Role
from stx_mine.stages.ingest.numbering import Distinct
from stx_mine.store.columns import number_values
from stx_mine.store.made_ids import made_ids


@dataclass(frozen=True)
class OutputIds:
    """Which rows of a stream of texts are written, and under which ids.

    Attributes:
        kept: bool (rows,): the first row of each original id, and of each text without one.
        of_rows: Id of each kept row, in their order.
        of_texts: Id of each distinct text, by its number: that of its first kept row, or null.
        texts: int64 (kept rows,): number of the text of each kept row.
    """

    kept: NDArray[np.bool_]
    of_rows: pa.Array
    of_texts: pa.Array
    texts: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        role: Role,
        distinct: Distinct,
        wanted: NDArray[np.bool_] | None = None,
    ) -> "OutputIds":
        """Keep the ids of the input; a text without one gets one made of its number.

        Args:
            role: What the texts are.
            distinct: The rows.
            wanted: bool (num texts,) whether each text is written; None for all.
        """
        numbers, originals = distinct.ids, distinct.original_ids.combine_chunks()
        codes, _ = number_values(pc.if_else(pa.array(numbers >= 0), originals, None))
        kept = np.zeros(len(numbers), bool)
        named = np.flatnonzero(codes >= 0)
        kept[named[np.unique(codes[named], return_index=True)[1]]] = True
        has_own = kept.copy()
        with_id = np.zeros(len(distinct.digests), bool)
        with_id[numbers[kept]] = True
        firsts = np.flatnonzero(distinct.first_rows())
        kept[firsts[~with_id[numbers[firsts]]]] = True
        if wanted is not None:
            kept &= wanted[numbers] & (numbers >= 0)
        rows = np.flatnonzero(kept)
        of_rows = pc.if_else(
            pa.array(has_own[rows]),
            originals.take(pa.array(rows)),
            _made(role, numbers[rows], originals),
        )
        texts, first_kept = np.unique(numbers[rows], return_index=True)
        places = np.full(len(distinct.digests), -1)
        places[texts] = first_kept
        of_texts = of_rows.take(pa.array(places, mask=places < 0))
        return cls(kept, of_rows, of_texts, numbers[rows])


def _made(role: Role, texts: NDArray[np.int64], originals: pa.Array) -> pa.Array:
    """Ids made of the numbers of texts, which no text of the input has."""
    found = made_ids(role, texts)
    nothing, mark = (pa.scalar(word, pa.large_string()) for word in ("", "_"))
    while pc.any(pc.is_in(found, value_set=originals)).as_py():
        found = pc.binary_join_element_wise(mark, found, nothing)
    return found
