"""Shingles, numbers and forms against plain Python."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stx_mine.core.ragged import Ragged
from stx_mine.core.terms import Class, character_classes, terms
from stx_mine.stages.dedup.core.shingles import jaccards, number_hashes, shingles
from stx_mine.stages.dedup.forms import buffers_of, comparable
from stx_mine.stages.dedup.near_texts import band_length, near_pairs

LETTERS = "ab Z9.é,-你好吗กขか١٢\U00020001\u200c"
TEXTS = st.lists(st.text(alphabet=LETTERS, max_size=24), min_size=1, max_size=6)


def sets_of(texts: list[str], *, of_words: bool, size: int) -> Ragged:
    return shingles(*buffers_of(pa.array(texts, pa.large_string())), of_words=of_words, size=size)


def plain_sets(texts: list[str], *, of_words: bool, size: int) -> list[set[tuple[str, ...]]]:
    found = []
    for text in texts:
        items = [text[a:b] for a, b in terms(text)] if of_words else list(text)
        width = min(size, len(items))
        runs = {tuple(items[i : i + width]) for i in range(len(items) - width + 1)}
        found.append(runs if items else set())
    return found


def all_pairs(count: int) -> np.ndarray:
    return np.array([(a, b) for a in range(count) for b in range(a)], np.int64).reshape(-1, 2).T


@settings(deadline=None)
@given(TEXTS, st.booleans(), st.integers(1, 4))
def test_shingles_are_those_of_plain_python(texts: list[str], of_words: bool, size: int) -> None:
    sets = sets_of(texts, of_words=of_words, size=size)
    plain = plain_sets(texts, of_words=of_words, size=size)
    assert sets.lengths().tolist() == [len(one) for one in plain]
    assert all((np.diff(sets.row(row)) > 0).all() for row in range(len(sets)))
    left, right = all_pairs(len(texts))
    expected = [
        len(plain[a] & plain[b]) / max(1, len(plain[a] | plain[b]))
        for a, b in zip(left, right, strict=True)
    ]
    np.testing.assert_allclose(jaccards(sets, left, right), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("the 3 apples", "3 pears", True),
        ("3 and 5", "5 and 3", False),
        ("35", "3 5", False),
        ("1.5 litres", "15 litres", False),
        ("1,000", "1000", False),
        ("-5 degrees", "5 degrees", False),
        ("\u22125 degrees", "-5 degrees", True),
        ("covid-19", "covid 19", True),
        ("in 2020-01-05", "in 2020 01 05", False),
        ("version 2.", "version 2", True),
        ("no number", "none either", True),
        ("none", "0", False),
        ("٣ أيام", "٤ أيام", False),
        ("room 7a", "room 7b", True),
    ],
)
def test_numbers_are_the_same_or_not(one: str, other: str, same: bool) -> None:
    found = number_hashes(*buffers_of(pa.array([one, other], pa.large_string())))
    assert (found[0] == found[1]) == same


@pytest.mark.parametrize(
    ("one", "other", "ignored", "same"),
    [
        ("Where is it?", "where is it", "case punctuation", True),
        ("Where is it?", "where is it", "case", False),
        ("Where is it?", "where is it?", "", False),
        ("'Hello', she said.", "Hello she said", "punctuation", True),
        ("¿Dónde está?", "Dónde está", "punctuation", True),
        ("Dónde está", "Donde esta", "accents", True),
        ("Dónde está", "Donde esta", "", False),
        ("C++ code", "C code", "case punctuation accents", False),
        ("rm -r x", "rm r x", "case punctuation accents", False),
        ("it costs .5", "it costs 5", "punctuation", False),
        ("don't", "dont", "punctuation", False),
        ("find / x", "find . x", "punctuation", False),
        ("कि", "क", "accents", False),
        ("你好。", "你好", "punctuation", True),
        ("a\u00a0 b", "a b", "", True),
        ("STRASSE", "strasse", "case", True),
    ],
)
def test_forms_are_equal_or_not(one: str, other: str, ignored: str, same: bool) -> None:
    forms = comparable(pa.array([one, other]), ignored.split()).to_pylist()
    assert (forms[0] == forms[1]) == same


@settings(deadline=None)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=5))
def test_a_form_is_its_own_form(texts: list[str]) -> None:
    ignored = ["case", "punctuation", "accents"]
    once = comparable(pa.array(texts, pa.string()), ignored)
    assert comparable(once, ignored).to_pylist() == once.to_pylist()


def test_every_character_has_the_class_that_terms_give_it() -> None:
    classes = character_classes()
    for code in [*range(0x3000), *range(0x4E00, 0x4E80), 0x1F600, 0x20001, 0x10FFFF]:
        cuts = terms("a" + chr(code) + "b")
        expected = {1: (Class.LETTER, Class.DIGIT), 2: (Class.SEPARATOR,), 3: (Class.UNSPACED,)}
        assert classes[code] in expected[len(cuts)], hex(code)


def test_near_pairs_are_those_of_all_pairs() -> None:
    """Edits of one text in each of 200 families; of every pair the score is that of the sets."""
    rng = np.random.default_rng(5)
    texts = []
    for _ in range(200):
        words = [f"w{number}" for number in rng.integers(0, 3_000, 30)]
        for edits in (0, 1, 3, 6):
            changed = list(words)
            for place in rng.choice(30, edits, replace=False):
                changed[place] = f"w{rng.integers(0, 3_000)}"
            texts.append(" ".join(changed))
    sets = sets_of([*texts, "", "?!", texts[0]], of_words=True, size=1)
    left, right = all_pairs(len(sets))
    scores = jaccards(sets, left, right)
    for threshold in (0.5, 0.8, 1.0):
        found = near_pairs(sets, threshold)
        wanted = scores >= np.float32(threshold)
        expected = set(zip(right[wanted].tolist(), left[wanted].tolist(), strict=True))
        pairs = list(zip(found.left.tolist(), found.right.tolist(), strict=True))
        assert len(set(pairs)) == len(pairs) and pairs == sorted(pairs)
        assert set(pairs) <= expected
        assert len(pairs) >= 0.98 * len(expected) > 0
        np.testing.assert_array_equal(found.scores, jaccards(sets, found.left, found.right))


def test_a_crowd_is_counted_and_found_through_its_first_texts() -> None:
    texts = [f"one text that so many have {chr(97 + number % 26)}" for number in range(2_000)]
    found = near_pairs(sets_of(texts, of_words=True, size=1), 0.7)
    assert found.num_crowded > 1_024
    assert set(found.right.tolist()) == set(range(1, 2_000))


def test_longer_bands_propose_fewer_pairs_and_miss_few() -> None:
    lengths = [band_length(one) for one in (0.3, 0.5, 0.7, 0.9, 0.99, 1.0)]
    assert lengths == sorted(lengths)
    for threshold, length in zip((0.5, 0.7, 0.9), lengths[1:4], strict=True):
        assert (1 - threshold**length) ** (128 // length) < 0.02
    for one, other in pairwise(lengths):
        assert one <= other
