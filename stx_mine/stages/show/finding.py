"""Finds the text that a person means."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stx_mine.core.terms import term_of, terms
from stx_mine.errors import InputError
from stx_mine.store.mined_run import texts_named

# Words of a name that are looked for, the longest first.
_WORDS = 12


def find_text(table: pa.Table, name: str, role: str) -> tuple[int, str]:
    """The id of a text, and a sentence about a guess, if one was needed.

    Args:
        table: `text` and `original_id` of a role.
        name: The text, its original id, or words of it.
        role: query or passage, for what is told.

    Raises:
        InputError: No text has any of its words.
    """
    if len(ids := texts_named(table, name)):
        also = f"{len(ids)} {role} texts are {name!r}, the first is shown" if len(ids) > 1 else ""
        return int(ids[0]), also
    words = sorted({term_of(name, span) for span in terms(name)}, key=lambda w: (-len(w), w))
    shares = np.zeros(table.num_rows)
    for word in words[:_WORDS]:
        column = pc.match_substring(table.column("text"), word, ignore_case=True)
        shares += column.combine_chunks().to_numpy(zero_copy_only=False) * len(word)
    if not shares.any():
        raise InputError(
            f"no {role} has the text or the original id {name!r}, or a word of it; give one as it "
            "stands in the data"
        )
    best = np.flatnonzero(shares == shares.max())
    # Of those with the same words the shortest is the most alike.
    lengths = pc.utf8_length(table.column("text").take(pa.array(best)))
    found = int(best[int(np.argmin(lengths.combine_chunks().to_numpy()))])
    return found, f"no {role} is {name!r}; the most alike by its words is shown"
