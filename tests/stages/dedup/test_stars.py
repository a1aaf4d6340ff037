"""Groups of similar texts: no chains, and nothing depends on the order of pairs."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stx_mine.stages.dedup.core.stars import stars
from stx_mine.stages.dedup.joins import Joins, ScoredPairs

SIZE = 12
EDGES = st.sets(st.tuples(st.integers(0, SIZE - 1), st.integers(0, SIZE - 1)), max_size=30)


def ends_of(edges: set[tuple[int, int]]) -> np.ndarray:
    distinct = sorted({(min(one), max(one)) for one in edges if one[0] != one[1]})
    return np.array(distinct, np.int64).reshape(-1, 2).T


@settings(deadline=None)
@given(EDGES, st.randoms())
def test_every_member_is_a_pair_with_its_representative(edges, random) -> None:
    left, right = ends_of(edges)
    found = stars(SIZE, left, right)
    pairs = set(zip(left.tolist(), right.tolist(), strict=True))
    for text, centre in enumerate(found.centres.tolist()):
        assert found.centres[centre] == centre
        if text == centre:
            assert found.pairs[text] == -1
            continue
        assert (min(text, centre), max(text, centre)) in pairs
        number = found.pairs[text]
        assert {int(left[number]), int(right[number])} == {text, centre}
    # No text is left alone that could be with a representative.
    for a, b in pairs:
        assert found.centres[a] != a or found.centres[b] != b
    assert found.num_cut == sum(found.centres[a] != found.centres[b] for a, b in pairs)
    order = list(range(len(left)))
    random.shuffle(order)
    swapped = [random.random() < 0.5 for _ in order]
    mixed = np.stack([left, right])[:, order]
    mixed[:, swapped] = mixed[::-1, swapped]
    again = stars(SIZE, *mixed)
    np.testing.assert_array_equal(again.centres, found.centres)


def test_a_chain_is_cut() -> None:
    left = np.arange(6)
    found = stars(7, left, left + 1)
    sizes = np.bincount(found.centres)
    assert sizes.max() == 3
    assert found.num_cut > 0


@settings(deadline=None)
@given(EDGES, EDGES, st.lists(st.integers(0, SIZE - 1), min_size=SIZE, max_size=SIZE))
def test_groups_are_named_by_their_smallest_text_and_say_why(near, close, forms) -> None:
    firsts = np.array([forms.index(form) for form in forms], np.int64)
    kinds = []
    for kind, edges in (("jaccard", near), ("cosine", close)):
        ends = np.array(sorted(edges), np.int64).reshape(-1, 2).T
        scores = np.linspace(0.5, 1, ends.shape[1]).astype(np.float32)
        kinds.append(ScoredPairs.of(kind, ends, scores, firsts))
    joins = Joins.make(firsts, kinds)
    for text in range(SIZE):
        members = np.flatnonzero(joins.centres == joins.centres[text])
        assert joins.groups[text] == members.min()
        assert joins.groups[firsts[text]] == joins.groups[text]
    rows = joins.table().to_pylist()
    assert [row["text_id"] for row in rows] == np.flatnonzero(
        joins.centres != np.arange(SIZE)
    ).tolist()
    known = {
        (pairs.kind, int(a), int(b)): float(score)
        for pairs in kinds
        for a, b, score in zip(pairs.left, pairs.right, pairs.scores, strict=True)
    }
    for row in rows:
        text, like = row["text_id"], row["like_id"]
        if row["kind"] == "exact":
            assert like == firsts[text] != text and row["score"] == 1
        else:
            first = int(firsts[text])
            assert known[row["kind"], min(first, like), max(first, like)] == row["score"]
    assert len(rows) == joins.num_joined
