"""The checks of batches of labels find what naive, quadratic loops find, in the same order."""

from itertools import pairwise

import numpy as np
import pytest
from cores import named, ragged
from hypothesis import given, settings
from hypothesis import strategies as st

from stx_mine.stages.verify.core.labels import LabelTable, check_label_batches


def naive_labels(rows, size, members, known, each):  # noqa: C901
    """Violations of rows (label, text)."""
    for start in range(0, len(rows), size):
        batch = list(enumerate(rows[start : start + size], start))
        unknown = [(number, label) for number, (label, _) in batch if label not in members]
        for number, label in unknown:
            yield number, f"label {label} is not in the table of labels", ()
        if unknown:
            continue
        present = sorted({label for _, (label, _) in batch})
        if len(present) == 1:
            yield start, f"label {present[0]} is the only one in the batch", ()
        for number, (_, text) in batch:
            if [other for _, (_, other) in batch].count(text) > 1:
                yield number, "a text stands twice in the batch", (text,)
        first = {label: number for number, (label, _) in reversed(batch)}
        for label in present:
            count = [other for _, (other, _) in batch].count(label)
            if not 2 <= count <= each:
                what = f"label {label} has {count} texts in the batch, not 2 to {each}"
                yield first[label], what, ()
        for number, (label, text) in batch:
            if text not in members[label]:
                yield number, f"the text is none of label {label}", (text,)
        held = sorted((text, label) for label in present for text in members[label])
        for (one, label), (two, other) in pairwise(held):
            if one == two:
                what = f"labels {label} and {other} share a text and are in one batch"
                yield first[other], what, (one,)
        for text, label in held:
            for positive in sorted(known.get(text, ())):
                owners = [other for one, other in held if one == positive]
                if owners and owners[0] != label:
                    what = f"labels {label} and {owners[0]} are joined by a known pair and are in"
                    yield first[owners[0]], f"{what} one batch", (positive,)


label_texts = st.integers(0, 13)
label_tables = st.lists(st.sets(label_texts, min_size=1, max_size=4), min_size=2, max_size=5)


@settings(deadline=None, max_examples=60)
@given(st.data(), label_tables, st.dictionaries(label_texts, st.sets(label_texts, max_size=3)))
def test_labels_are_judged_as_by_naive_loops(data, tables, known):
    members = dict(enumerate(tables))
    size = data.draw(st.integers(2, 6))
    own = [(label, text) for label, held in members.items() for text in held]
    anything = st.tuples(st.integers(-1, len(tables)), label_texts)
    row = st.sampled_from(own) | st.sampled_from(own) | st.sampled_from(own) | anything
    rows = data.draw(st.lists(row, min_size=size, max_size=4 * size))
    rows = rows[: len(rows) - len(rows) % size]
    table = LabelTable.of(
        ragged([sorted(held, reverse=True) for held in tables]),
        np.array(list(known), np.int64),
        ragged([sorted(found) for found in known.values()]),
    )
    labels, ids = (np.array(one, np.int64) for one in zip(*rows, strict=True))
    checked = check_label_batches(ids, labels, table, 3, size)
    found = named([checked], size)
    assert found == list(naive_labels(rows, size, members, known, 3))
    assert checked.rows.tolist() == sorted({row - row % size for row, _, _ in found})


@pytest.mark.parametrize(
    ("tables", "known"),
    [
        ([{0, 1}, {1, 2}], {}),
        ([{0, 1}, {2, 3}], {0: {3}}),
        ([{0, 1}, {2, 3}], {3: {0}}),
        ([{0, 1, 4, 5, 6}, {2, 3}], {5: {3}}),
        ([{0, 1, 4, 5, 6}, {2, 3}], {3: {5}}),
        ([{0, 1}, {2, 3}, {4, 5, 6, 7}], {1: {2}}),
        ([{0, 1}, {2, 3, 0}, {4, 5, 6, 7}], {}),
        ([{0, 1}, {2, 3}, {4, 5, 6, 7}], {2: {0}}),
        ([{0, 1}, {2, 3}, {4, 5, 6, 7}, {5, 6, 7}], {2: {0}}),
        ([{0, 1}, {2, 3}, {4, 5, 6, 7}, {5, 6, 7}], {0: {3}}),
        ([{0, 1, 9}, {2, 3, 9}, {4, 5, 6, 7}, {5, 6, 7}], {}),
        ([{0, 1}, {2, 3, 9}, {4, 5, 6, 9}, {5, 6, 9}], {}),
        ([{0, 1, 9}, {2, 3}, {4, 5, 6, 9}, {5, 6, 9}], {}),
        ([{0, 1, 9}, {2, 3, 9}], {}),
        ([{0, 1, 9}, {2, 3, 9}, {4, 5, 6, 7}], {}),
        ([{0, 1, 8}, {4, 5, 6, 7}, {2, 3, 9}], {8: {9}}),
        ([{0, 1, 8}, {4, 5, 6, 7}, {2, 3, 9}], {9: {8}}),
        ([{0, 1}, {2, 3}, {4, 5, 6, 7}], {0: {7}}),
        ([{0, 1}, {2, 3}, {4, 5, 6, 7}], {7: {3}}),
    ],
)
def test_labels_that_may_not_meet_are_found_whichever_is_longer(tables, known):
    # The fourth label, which is in no batch, gives the third one a long list of shared texts.
    rows = [(label, text) for label, held in enumerate(tables[:3]) for text in sorted(held)[:2]]
    table = LabelTable.of(
        ragged([sorted(held) for held in tables]), np.array(list(known), np.int64),
        ragged([sorted(found) for found in known.values()]),
    )  # fmt: skip
    labels, ids = (np.array(one, np.int64) for one in zip(*rows, strict=True))
    found = named([check_label_batches(ids, labels, table, 8, len(rows))], len(rows))
    assert found == list(naive_labels(rows, len(rows), dict(enumerate(tables)), known, 8)) != []


# Labels 0 to 3, of which no two share a text or a pair, and 4, which shares text 3 with 0.
MEMBERS = [[0, 1, 2, 3], [4, 5, 6], [7, 8], [9, 10, 11], [3, 12, 13]]
CLEAN = [(0, 0), (0, 1), (1, 4), (1, 5), (2, 7), (2, 8), (3, 9), (3, 10)]


def judged(rows, size, most=2, known=None):
    """Violations, after a look that only their batches were looked at closely."""
    known = known or {}
    table = LabelTable.of(
        ragged(MEMBERS),
        np.array(list(known), np.int64),
        ragged([sorted(one) for one in known.values()]),
    )
    labels, ids = (np.array(one, np.int64) for one in zip(*rows, strict=True))
    checked = check_label_batches(ids, labels, table, most, size)
    found = named([checked], size)
    assert found == list(naive_labels(rows, size, dict(enumerate(MEMBERS)), known, most))
    assert checked.rows.tolist() == sorted({row - row % size for row, _, _ in found})
    return found


@pytest.mark.parametrize("batch", [0, 1, 2])
@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([(0, 0), (-1, 1), (1, 4), (1, 5)], "label -1 is not in the table"),
        ([(5, 0), (0, 1), (1, 4), (1, 5)], "label 5 is not in the table"),
        ([(0, 0), (0, 4), (1, 6), (1, 5)], "the text is none of label 0"),
        ([(0, 0), (0, 1), (0, 2), (0, 3)], "label 0 is the only one"),
        ([(0, 0), (0, 1), (0, 2), (1, 4)], "label 0 has 3 texts in the batch, not 2 to 2"),
        ([(0, 0), (1, 4), (1, 5), (1, 6)], "label 0 has 1 texts in the batch, not 2 to 2"),
        ([(1, 4), (0, 3), (0, 3), (1, 6)], "a text stands twice"),
        ([(4, 12), (4, 13), (0, 1), (0, 2)], "labels 0 and 4 share a text"),
    ],
)
def test_a_planted_violation_is_found_in_its_batch_alone(batch, rows, words):
    batches = [CLEAN[:4], CLEAN[4:], CLEAN[2:6]]
    batches[batch] = rows
    found = judged([row for one in batches for row in one], 4)
    assert {row // 4 for row, _, _ in found} == {batch}
    assert any(what.startswith(words) for _, what, _ in found)


def test_labels_and_texts_may_stand_in_the_next_batch_again():
    again = [(0, 0), (0, 1), (1, 4), (1, 5)]
    assert judged([*again, *again, *again[::-1], *again], 4) == []
    # The highest text of a batch is the lowest of the next, and the label goes on.
    assert judged([(2, 7), (1, 4), (2, 8), (1, 5), (2, 8), (2, 7), (3, 9), (3, 10)], 4) == []


@pytest.mark.parametrize("most", [2, 3, 4])
def test_a_label_may_have_as_many_texts_as_are_allowed(most):
    texts = [(0, text) for text in range(4)]
    for count in (2, 3, 4):
        rows = [*texts[:count], (1, 4), (1, 5)]
        assert (judged(rows, len(rows), most) == []) == (count <= most)


@pytest.mark.parametrize(
    ("known", "clean"),
    [
        ({0: {4}}, False), ({4: {0}}, False), ({2: {6}}, False), ({6: {2}}, False),
        ({0: {1}}, True), ({0: {7}}, True), ({0: {99}}, True), ({99: {0}}, True), ({4: {4}}, True),
        ({4: {5}, 0: {1}, 1: {2}}, True),
    ],
)  # fmt: skip
def test_a_known_pair_keeps_two_labels_of_a_batch_apart(known, clean):
    assert (judged([*CLEAN[:4], *CLEAN[4:]], 4, known=known) == []) == clean
