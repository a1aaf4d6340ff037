"""Numbers are looked up in rising arrays as Python looks them up in lists."""

import numpy as np
from cores import ragged
from hypothesis import given, settings
from hypothesis import strategies as st

from stx_mine.stages.verify.core.sets import are_in, common_counts, find_all

rising = st.lists(st.integers(-1, 9), unique=True, max_size=8).map(sorted)


@settings(deadline=None)
@given(st.lists(rising, min_size=1, max_size=4), st.lists(st.integers(-2, 11), max_size=6))
def test_sets_are_searched_as_by_python(rows, values):
    sets, wanted = ragged(rows), np.array(values, np.int64)
    for number in range(-1, len(rows)):
        found = are_in(sets, np.full(len(values), number), wanted).tolist()
        assert found == [number >= 0 and value in rows[number] for value in values]
    places = find_all(sets.row(0), wanted).tolist()
    assert places == [rows[0].index(value) if value in rows[0] else -1 for value in values]
    bounds = np.stack([sets.offsets[:-1], sets.offsets[1:]], axis=1)
    counts = common_counts(sets.values, bounds, sets.values, bounds[::-1].copy())
    assert counts.tolist() == [
        len(set(one) & set(other)) for one, other in zip(rows, rows[::-1], strict=True)
    ]
