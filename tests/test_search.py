"""Exact search against a float64 oracle, FAISS search, and the fixed-order score."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stx_mine.artifacts.vectors import Vectors, prepare
from stx_mine.errors import ConfigError
from stx_mine.ragged import Ragged
from stx_mine.search.closeness import close_to_positive
from stx_mine.search.exact import ExactSearcher
from stx_mine.search.faiss_index import FaissSearcher, build_index, recall
from stx_mine.search.score import score_hits


def oracle_scores(queries, passages, similarity):
    queries, passages = queries.astype(np.float64), passages.astype(np.float64)
    if similarity == "euclidean":
        return -np.sqrt(((queries[:, None] - passages[None]) ** 2).sum(-1))
    return queries @ passages.T


def make_vectors(seed, num, dim, copies=0, integer=False):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((num, dim)).astype(np.float32)
    if integer:
        rows = np.round(rows)
    for _ in range(copies):
        rows[rng.integers(num)] = rows[rng.integers(num)]
    return rows


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10_000),
    st.integers(1, 60),
    st.integers(1, 40),
    st.integers(1, 70),
    st.sampled_from(["cosine", "dot", "euclidean"]),
    st.integers(1, 64),
    st.booleans(),
)
def test_exact_search_equals_the_oracle(seed, num, dim, wanted, similarity, block, integer):
    passages = make_vectors(seed, num, dim, copies=num // 3, integer=integer)
    queries = prepare(make_vectors(seed + 1, 7, dim, integer=integer), similarity)
    shard = max(1, num // 3)
    shards = tuple(passages[i : i + shard] for i in range(0, num, shard))
    searcher = ExactSearcher(Vectors(shards, similarity), block)
    found = searcher.search(queries, wanted)
    wanted = min(wanted, num)
    assert found.ids_QK.shape == (7, wanted)
    expected = oracle_scores(queries, prepare(passages, similarity), similarity)
    for row in range(7):
        ids, scores = found.ids_QK[row], found.scores_QK[row]
        assert len(set(ids)) == wanted
        np.testing.assert_allclose(scores, expected[row, ids], atol=2e-6, rtol=2e-6)
        # Best first, ties by passage_id.
        keys = list(zip(-scores, ids, strict=True))
        assert keys == sorted(keys)
        # Nothing outside is better than the worst inside by more than rounding.
        outside = np.setdiff1d(np.arange(num), ids)
        if len(outside):
            assert expected[row, outside].max() <= scores.min() + 1e-5


def test_exact_ties_across_the_whole_corpus_go_to_the_lowest_ids():
    passages = np.tile(make_vectors(0, 1, 8), (500, 1))
    found = ExactSearcher(Vectors((passages,), "cosine"), 64).search(
        prepare(make_vectors(1, 3, 8), "cosine"), 10
    )
    assert (found.ids_QK == np.arange(10)).all()
    assert found.num_redone == 3


def test_the_result_does_not_depend_on_block_sizes():
    passages, queries = make_vectors(0, 3_000, 24, copies=800), make_vectors(1, 50, 24)
    results = [
        ExactSearcher(Vectors((passages,), "dot"), block).search(queries, 40)
        for block in (17, 512, 10_000)
    ]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].ids_QK, other.ids_QK)
        np.testing.assert_array_equal(results[0].scores_QK, other.scores_QK)


def test_zero_vectors_score_zero_not_nan():
    passages = np.zeros((5, 4), np.float32)
    passages[3, 0] = 2
    found = ExactSearcher(Vectors((passages,), "cosine")).search(
        prepare(np.eye(1, 4, dtype=np.float32), "cosine"), 5
    )
    assert found.ids_QK.tolist() == [[3, 0, 1, 2, 4]]
    assert found.scores_QK.tolist() == [[1, 0, 0, 0, 0]]


def test_score_pads_with_minus_infinity():
    vectors = make_vectors(0, 3, 5)
    scores = score_hits(vectors[:1], vectors, np.array([[2, -1]]), "dot")
    assert scores[0, 1] == -np.inf
    np.testing.assert_allclose(scores[0, 0], vectors[0] @ vectors[2], rtol=1e-6)


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_flat_faiss_finds_what_exact_search_finds(similarity):
    passages = Vectors((make_vectors(0, 400, 16),), similarity)
    queries = prepare(make_vectors(1, 20, 16), similarity)
    index = build_index("Flat", passages, seed=1)
    found = FaissSearcher(index, passages).search(queries, 10)
    exact = ExactSearcher(passages).search(queries, 10)
    np.testing.assert_array_equal(found.ids_QK, exact.ids_QK)
    np.testing.assert_array_equal(found.scores_QK, exact.scores_QK)
    assert recall(found.ids_QK, exact.ids_QK) == 1


def test_faiss_padding_is_never_a_passage():
    passages = Vectors((make_vectors(0, 200, 8),), "cosine")
    index = build_index("IVF50,Flat", passages, seed=1)
    found = FaissSearcher(index, passages).search(prepare(make_vectors(1, 5, 8), "cosine"), 100)
    padded = found.ids_QK < 0
    assert padded.any()
    assert (found.scores_QK[padded] == -np.inf).all()
    for row in found.ids_QK:
        real = row[row >= 0]
        assert len(set(real)) == len(real)
        assert (row[len(real) :] == -1).all()


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(0.2, 1.2))
def test_closeness_is_the_sum_of_two_cosines_against_the_middle(seed, factor):
    rng = np.random.default_rng(seed)
    queries, positives, candidates = (
        prepare(rng.standard_normal((num, 6)).astype(np.float32), "cosine") for num in (4, 7, 9)
    )
    pairs = Ragged(np.array([0, 1, 4, 4, 7]), np.arange(7))
    lengths = rng.integers(0, 9, 4)
    rows = [rng.permutation(9)[:length] for length in lengths]
    hits = Ragged(np.concatenate([[0], np.cumsum(lengths)]), np.concatenate(rows))
    found = close_to_positive(queries, positives, pairs, candidates, hits, factor)
    for unit in range(4):
        for place, row in enumerate(rows[unit]):
            q, c = queries[unit].astype(float), candidates[row].astype(float)
            gaps = [
                q @ c + p @ c - factor * (1 + q @ p)
                for p in positives[pairs.row(unit)].astype(float)
            ]
            if all(abs(gap) > 1e-5 for gap in gaps):
                assert found[hits.offsets[unit] + place] == any(gap > 0 for gap in gaps)


def test_unknown_factory_string_names_itself():
    with pytest.raises(ConfigError, match="Nonsense99"):
        build_index("Nonsense99", Vectors((make_vectors(0, 50, 8),), "dot"), seed=1)
