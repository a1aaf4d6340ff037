"""Sentences, crops, keywords and titles: decisions on one text, in any script."""

import math
import unicodedata
from collections import Counter
from itertools import pairwise
from zlib import crc32

import bm25s
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stx_mine.core.terms import (
    merged_spans,
    num_words,
    same_text,
    sentences,
    term_of,
    terms,
    without,
)
from stx_mine.core.titles import cut_title, find_title, title_shares
from stx_mine.stages.queries.core.crop import crop, is_removed
from stx_mine.stages.queries.core.keywords import K1, B, TermStatistics, keywords

# Letters of several scripts, stops, white space, marks.
ALPHABET = "abc Ab 1.!?,\n\t。！？、字漢かなกานदिनमी।ءهل؟éﬁ\u0301\u200d-_()"
TEXTS = st.text(alphabet=ALPHABET, max_size=160) | st.text(max_size=60)
PROSE = st.lists(
    st.lists(st.sampled_from(["alpha", "beta", "gamma", "delta", "eps"]), min_size=1, max_size=9)
    .map(" ".join)
    .map(lambda words: words.capitalize() + "."),
    min_size=1,
    max_size=8,
).map(" ".join)
KEYS = st.integers(0, 2**63 - 1)


def bare(text: str) -> str:
    return "".join(text.split())


# --- terms and sentences ---


@given(TEXTS)
def test_sentences_hold_everything_but_white_space_once(text: str) -> None:
    spans = sentences(text)
    assert "".join(bare(text[a:b]) for a, b in spans) == bare(text)
    assert all(text[a:b] == text[a:b].strip() != "" for a, b in spans)
    assert spans == sorted(spans)
    assert all(one[1] <= two[0] for one, two in pairwise(spans))


@given(TEXTS)
def test_terms_are_letters_marks_and_digits_and_none_is_left_out(text: str) -> None:
    covered = {place for a, b in terms(text) for place in range(a, b)}
    for place, letter in enumerate(text):
        kind = unicodedata.category(letter)[0]
        if kind in "LN" and ord(letter) < 0x20000:
            assert place in covered
        if kind in "PZ":
            assert place not in covered


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One two. Three four! Five?", ["One two.", "Three four!", "Five?"]),
        ("Use e.g. this one. Then 3.5 of it.", ["Use e.g. this one.", "Then 3.5 of it."]),
        ('He said "no." She left.', ['He said "no."', "She left."]),
        ("第一句。第二句！（第三句？）第四", ["第一句。", "第二句！", "（第三句？）", "第四"]),
        ("पहला वाक्य। दूसरा वाक्य।", ["पहला वाक्य।", "दूसरा वाक्य।"]),
        ("هل هذا سؤال؟ نعم.", ["هل هذا سؤال؟", "نعم."]),
        ("a title\nits text\r\n\nmore", ["a title", "its text", "more"]),
        ("  ", []),
        ("wait... What", ["wait...", "What"]),
    ],
)
def test_sentences_of_several_scripts(text: str, expected: list[str]) -> None:
    assert [text[a:b] for a, b in sentences(text)] == expected


def test_a_long_line_of_dots_takes_no_time() -> None:
    assert len(sentences("." * 200_000 + "x")) == 1


def test_words_keep_their_marks_and_scripts_without_spaces_give_pairs() -> None:
    def found(text: str) -> list[str]:
        return [text[a:b] for a, b in terms(text)]

    assert found("हिन्दी में don't") == ["हिन्दी", "में", "don", "t"]
    assert found("iPhone手机壳 x") == ["iPhone", "手机", "机壳", "x"]
    assert found("字") == ["字"]
    assert num_words("two words") == 2
    assert num_words("机器学习") == 1.5
    assert term_of("ＡＢｃ ﬁne", (0, 3)) == "abc"


@given(TEXTS, st.lists(st.tuples(st.integers(0, 160), st.integers(0, 160)), max_size=4))
def test_without_leaves_exactly_the_rest(text: str, pairs: list[tuple[int, int]]) -> None:
    spans = [(min(a, b, len(text)), min(max(a, b), len(text))) for a, b in pairs]
    gone = {place for a, b in spans for place in range(a, b)}
    rest = "".join(letter for place, letter in enumerate(text) if place not in gone)
    assert bare(without(text, spans)) == bare(rest)
    union = {place for a, b in merged_spans(spans) for place in range(a, b)}
    assert union == gone


def test_a_hole_leaves_one_space() -> None:
    text = "One two. Three four. Five."
    assert without(text, [(9, 20)]) == "One two. Five."
    assert without(text, [(0, 8)]) == "Three four. Five."
    assert without(text, [(21, 26)]) == "One two. Three four."
    assert without("一。二。三。", [(2, 4)]) == "一。三。"


# --- crop ---


@settings(deadline=None)  # the first draw compiles
@given(PROSE | TEXTS, st.integers(1, 4), st.integers(1, 3), st.integers(3, 6), KEYS)
def test_a_crop_stands_in_its_passage_and_can_be_removed(
    text: str, num_queries: int, min_words: int, max_words: int, key: int
) -> None:
    spans = crop(text, num_queries, min_words, max_words, 7, key)
    assert len(set(spans)) == len(spans) <= num_queries
    assert spans == crop(text, num_queries, min_words, max_words, 7, key)
    for start, end in spans:
        query = text[start:end]
        assert query == query.strip()
        assert 0 < num_words(query) <= max_words
        assert not same_text(query, text)
    gone = {place for a, b in spans for place in range(a, b)}
    rest = "".join(letter for place, letter in enumerate(text) if place not in gone)
    assert bare(without(text, spans)) == bare(rest)


@settings(deadline=None)
@given(PROSE, KEYS)
def test_a_crop_is_a_sentence_where_there_are_several(text: str, key: int) -> None:
    places = sentences(text)
    long_enough = {s for s in places if num_words(text[s[0] : s[1]]) >= 3}
    spans = crop(text, 3, 3, 32, 1, key)
    if len(places) > 1 and long_enough:
        assert set(spans) <= long_enough
        assert len(spans) == min(3, len(long_enough))
    elif num_words(text) >= 6:
        assert all(num_words(text[a:b]) == int(num_words(text) / 2) for a, b in spans)
    else:
        assert spans == []


def test_every_sentence_and_every_part_is_drawn_about_as_often() -> None:
    text = "Aa bb cc. Dd ee ff. Gg hh ii. Jj kk ll."
    counts = Counter(crop(text, 1, 3, 32, 0, key)[0] for key in range(2_000))
    assert set(counts) == set(sentences(text))
    assert max(abs(n - 500) for n in counts.values()) < 100
    starts = Counter(crop("a b c d e f g h", 1, 2, 32, 0, key)[0][0] for key in range(2_000))
    assert sorted(starts) == [0, 2, 4, 6, 8]
    assert max(abs(n - 400) for n in starts.values()) < 90


def test_the_share_that_is_removed_is_the_share_asked_for() -> None:
    share = sum(is_removed(0.3, 5, key * 977) for key in range(4_000)) / 4_000
    assert abs(share - 0.3) < 0.03
    assert not any(is_removed(0.0, 5, key) for key in range(100))
    assert all(is_removed(1.0, 5, key) for key in range(100))


def test_short_chinese_passages_fall_back_to_a_part() -> None:
    text = "机器学习是人工智能的一个分支"
    ((start, end),) = crop(text, 1, 3, 32, 0, 1)
    assert 5 <= end - start <= 8
    assert crop("人工智能", 1, 3, 32, 0, 1) == []


# --- keywords ---


def oracle_weights(text: str, corpus: list[str]) -> dict[str, float]:
    """BM25 in Lucene's form by definition, over words of ASCII letters."""
    bags = [one.lower().split() for one in corpus]
    words = text.lower().split()
    mean = sum(map(len, bags)) / len(bags)
    found = {}
    for word in dict.fromkeys(words):
        n = sum(word in bag for bag in bags)
        idf = math.log(1 + (len(bags) - n + 0.5) / (n + 0.5))
        tf = words.count(word)
        found[word] = idf * tf / (tf + K1 * (1 - B + B * len(words) / mean))
    return found


WORDS = st.lists(st.sampled_from([f"w{n}" for n in range(12)]), min_size=1, max_size=25)


@given(st.lists(WORDS, min_size=1, max_size=8), st.integers(1, 5), st.integers(1, 3))
def test_keywords_are_the_weightiest_terms_in_the_order_of_the_text(
    bags: list[list[str]], num_terms: int, num_queries: int
) -> None:
    corpus = [" ".join(bag) for bag in bags]
    text = corpus[0]
    statistics = TermStatistics.of(corpus)
    oracle = oracle_weights(text, corpus)
    words = text.split()
    ranked = sorted(oracle, key=lambda word: (-round(oracle[word], 9), words.index(word)))
    best = ranked[: min(num_terms * num_queries, len(ranked) // 2)]
    expected = [" ".join(sorted(best[n::num_queries], key=words.index)) for n in range(num_queries)]
    assert keywords(text, statistics, num_terms, num_queries, 1) == [one for one in expected if one]


def test_weights_are_those_of_the_bm25_index(repo_root) -> None:
    table = pq.read_table(repo_root / "data/quickstart/corpus.parquet").slice(0, 400)
    corpus = [text for text in table["passage"].to_pylist() if text.isascii() and "_" not in text]
    index = bm25s.BM25()
    tokens = bm25s.tokenize(corpus, token_pattern=r"(?u)\b\w+\b", stopwords=[], show_progress=False)
    index.index(tokens, show_progress=False)
    statistics = TermStatistics.of(corpus)
    places = Counter(crc32(term.encode()) % len(statistics.documents) for term in tokens.vocab)
    compared = 0
    for number in range(0, len(corpus), 37):
        text = corpus[number]
        for weight, (start, end) in statistics.weights(text):
            term = text[start:end].lower()
            # Terms that share a place in the table are counted together.
            if places[crc32(term.encode()) % len(statistics.documents)] == 1:
                assert index.get_scores([term])[number] == pytest.approx(weight, rel=1e-4)
                compared += 1
    assert compared > 50


def test_keywords_of_chinese_join_pairs_that_overlap() -> None:
    corpus = ["今天天气很好今天去公园", "今天天气很坏今天不去", "深度学习很好今天天气"]
    (query,) = keywords(corpus[2], TermStatistics.of(corpus), 3, 1, 2)
    assert query in ("深度学习", "深度 学习", "深度学 习") or "深度" in query
    assert keywords("今天", TermStatistics.of(corpus), 3, 1, 2) == []


def test_statistics_survive_their_array() -> None:
    one = TermStatistics.of(["a b", "b c c"])
    two = TermStatistics.from_array(one.to_array())
    assert (two.num_passages, two.num_terms) == (2, 5)
    np.testing.assert_array_equal(one.documents, two.documents)


# --- titles ---


@pytest.mark.parametrize(
    ("title", "passage", "rest", "place"),
    [
        ("Deep Nets", "Deep nets: they learn.", "they learn.", "prefix"),
        ("Super_Bowl_50", "In 2016 Super Bowl 50 was played.", "In 2016 was played.", "inside"),
        ("Ｆｕｌｌ width", "full WIDTH letters", "letters", "prefix"),
        ("a cat", "A cat. I saw a cat today", "I saw today", "prefix"),
        ("cat", "concatenate", "concatenate", "absent"),
        ("long title here", "long title", "long title", "absent"),
        ("only", "Only!", "", "prefix"),
        ("...", "some text", "some text", "absent"),
        ("机器学习", "机器学习：一个分支", "一个分支", "prefix"),
    ],
)
def test_titles_are_cut_out(title: str, passage: str, rest: str, place: str) -> None:
    assert cut_title(title, passage) == (rest, place)


@given(TEXTS, TEXTS, TEXTS)
def test_a_title_between_two_lines_is_found_and_gone(before: str, title: str, after: str) -> None:
    passage = f"{before} | {title} | {after}"
    if not terms(title):
        return
    assert find_title(title, passage)
    rest, place = cut_title(title, passage)
    assert place == ("inside" if terms(before) else "prefix") or find_title(title, before + "|")
    assert not Counter(rest) - Counter(passage)


def test_title_shares_count_what_stands_where() -> None:
    shares = title_shares(
        [
            ("a b", "A b c"),
            ("b c", "a b c"),
            ("who is it", "nobody"),
            ("", "text"),
        ]
    )
    assert (shares.num_pairs, shares.prefix, shares.contained) == (4, 0.25, 0.5)
    assert shares.words == 7 / 4
    assert title_shares([]).contained == 0
