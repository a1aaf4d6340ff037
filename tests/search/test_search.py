"""Exact search against a float64 oracle, FAISS search, and the fixed-order score."""

import json
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stx_mine.core.ragged import Ragged
from stx_mine.core.similarity import Similarity
from stx_mine.errors import ConfigError
from stx_mine.models.load import load_model
from stx_mine.search.exact import ExactSearcher, best_first
from stx_mine.search.faiss_index import FaissSearcher, build_index, recall
from stx_mine.search.product import (
    Rounded,
    error_bound,
    honest_products,
    product_values,
    products,
    rounding_share,
)
from stx_mine.search.propose import DeviceCorpus, two_level_top
from stx_mine.search.running_top import nth_largest
from stx_mine.search.score import score_hits
from stx_mine.stages.mine.closeness import close_to_positive
from stx_mine.store.vectors import Vectors


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
    queries = Similarity(similarity).prepare(make_vectors(seed + 1, 7, dim, integer=integer))
    shard = max(1, num // 3)
    shards = tuple(passages[i : i + shard] for i in range(0, num, shard))
    searcher = ExactSearcher(Vectors(shards, similarity), block)
    found = searcher.search(queries, wanted)
    wanted = min(wanted, num)
    assert found.ids_QK.shape == (7, wanted)
    expected = oracle_scores(queries, Similarity(similarity).prepare(passages), similarity)
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


@pytest.mark.parametrize("proposes", [False, True])
def test_exact_ties_across_the_whole_corpus_go_to_the_lowest_ids(proposes):
    passages = np.tile(make_vectors(0, 1, 8), (500, 1))
    found = ExactSearcher(Vectors((passages,), "cosine"), 64, proposes=proposes).search(
        Similarity("cosine").prepare(make_vectors(1, 3, 8)), 10
    )
    assert (found.ids_QK == np.arange(10)).all()
    # Proposals cannot be certain here; one pass needs none.
    assert found.num_redone == (3 if proposes else 0)


def fixed_order_top(queries, passages, similarity, wanted):
    """Every score of the corpus in fixed order, sorted: what any search must return, bit by bit."""
    everything = np.tile(np.arange(len(passages)), (len(queries), 1))
    scores = score_hits(queries, Similarity(similarity).prepare(passages), everything, similarity)
    ids, scores = best_first(everything, scores)
    return ids[:, :wanted], scores[:, :wanted]


@st.composite
def searches(draw):
    """Searchers over all settings, with vectors that tie, vanish, differ in length or lie far."""
    similarity = draw(st.sampled_from(["cosine", "dot", "euclidean"]))
    num, dim = draw(st.integers(1, 400)), draw(st.integers(1, 70))
    seed = draw(st.integers(0, 10_000))
    rng = np.random.default_rng(seed)
    passages = make_vectors(seed, num, dim, draw(st.integers(0, num)), draw(st.booleans()))
    queries = make_vectors(seed + 1, 9, dim, integer=draw(st.booleans()))
    kind = draw(st.sampled_from(["plain", "zeros", "lengths", "far", "negative", "copies"]))
    if kind == "zeros":
        passages[rng.random(num) < 0.5] = 0
        queries[::3] = 0
    elif kind == "lengths":
        passages *= 10 ** rng.uniform(-4, 4, (num, 1)).astype(np.float32)
    elif kind == "far":
        passages += 100
        queries += 100
    elif kind == "negative":
        passages, queries = np.abs(passages), -np.abs(queries)
    elif kind == "copies":
        passages = passages[rng.integers(0, min(num, 3), num)]
    precisions = ["float32", "bfloat16"] + ["float16"] * (similarity == "cosine")
    shard = draw(st.integers(1, num))
    searcher = ExactSearcher(
        Vectors(tuple(passages[i : i + shard] for i in range(0, num, shard)), similarity),
        draw(st.integers(1, 450)),
        draw(st.sampled_from(["cpu", ("cpu", "cpu"), ("cpu",) * 3])),
        draw(st.sampled_from(precisions)),
        draw(st.booleans()),
        resident=draw(st.sampled_from([None, True, False])),
    )
    return (
        searcher,
        Similarity(similarity).prepare(queries),
        passages,
        draw(st.integers(1, num + 10)),
    )


@settings(deadline=None, max_examples=150)
@given(searches())
def test_any_setting_finds_the_same_bits(search):
    searcher, queries, passages, wanted = search
    ids, scores = fixed_order_top(queries, passages, searcher.passages.similarity, wanted)
    found = searcher.search(queries, wanted)
    np.testing.assert_array_equal(found.ids_QK, ids)
    np.testing.assert_array_equal(found.scores_QK, scores)
    assert found.num_redone <= len(queries) * 3
    assert found.num_scored >= ids.size


@settings(deadline=None, max_examples=100)
@given(
    st.integers(0, 10_000),
    st.integers(1, 300),
    st.sampled_from(["float32", "bfloat16", "float16"]),
    st.booleans(),
    st.sampled_from([1e-3, 1.0, 30.0]),
)
def test_no_product_lies_further_from_the_score_than_its_bound(
    seed, dim, precision, euclidean, length
):
    queries_QD = make_vectors(seed, 20, dim)
    passages_PD = make_vectors(seed + 1, 50, dim) * np.float32(length)
    queries = Rounded.of(queries_QD, "cpu", precision)
    passages = Rounded.of(passages_PD, "cpu", precision)
    bounds_Q = error_bound(
        queries,
        float(passages.norms.max()),
        float(passages.residuals.max()),
        dim,
        Similarity("euclidean" if euclidean else "dot"),
    )
    with honest_products():
        values_QP = product_values(
            queries.vectors, passages.vectors, passages.norms.square() if euclidean else None
        ).numpy()
    everything = np.tile(np.arange(50), (20, 1))
    similarity = "euclidean" if euclidean else "dot"
    scores_QP = score_hits(queries_QD, passages_PD, everything, similarity).astype(np.float64)
    if euclidean:
        scores_QP = (queries_QD.astype(np.float64) ** 2).sum(1)[:, None] - scores_QP**2
    errors_Q = np.abs(values_QP - scores_QP).max(1)
    assert (errors_Q <= bounds_Q).all()
    # A bound that is never near would let nothing be ruled out.
    lengths = np.linalg.norm(queries_QD, axis=1) + float(passages.norms.max())
    unit = {"float32": 1e-6 * (dim + 60), "bfloat16": 0.02, "float16": 0.0025}[precision]
    assert (bounds_Q <= unit * lengths**2 + 1e-6).all()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 1_000),
    st.integers(1, 300),
    st.sampled_from(["cosine", "dot"]),
    st.sampled_from([1e-3, 1.0, 30.0]),
)
def test_products_in_bfloat16_lose_no_larger_share_than_is_said(seed, dim, name, length):
    similarity = Similarity(name)
    queries_QD = similarity.prepare(make_vectors(seed, 20, dim))
    passages_PD = similarity.prepare(make_vectors(seed + 1, 50, dim) * np.float32(length))
    queries, passages = (Rounded.of(one, "cpu", "bfloat16") for one in (queries_QD, passages_PD))
    sizes = float(passages.norms.max()), float(passages.residuals.max())
    bounds_Q = error_bound(queries, *sizes, dim, similarity, wide=True)
    assert (bounds_Q < 0.75 * error_bound(queries, *sizes, dim, similarity)).all()
    values_QP = products(queries.vectors, passages.vectors).double().numpy()
    scores_QP = score_hits(
        queries_QD, passages_PD, np.tile(np.arange(50), (20, 1)), similarity
    ).astype(np.float64)
    share = rounding_share("bfloat16", similarity)
    for exact in (values_QP, scores_QP):
        # From the one to the other, and back.
        errors_QP = np.abs(values_QP - scores_QP) - share * np.abs(exact)
        assert (errors_QP <= bounds_Q[:, None] * (1 + (exact is scores_QP) * share)).all()


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 1_000), st.integers(1, 900), st.integers(1, 20), st.booleans())
def test_two_levels_find_the_top_of_one(seed, num_columns, num, ties):
    values = torch.from_numpy(make_vectors(seed, 5, num_columns, integer=ties))
    found, columns = two_level_top(values, num)
    expected = values.topk(min(num, num_columns), dim=1).values
    assert torch.equal(found.sort(dim=1, descending=True).values, expected)
    assert torch.equal(values.gather(1, columns), found)
    assert all(len(set(row)) == len(row) for row in columns.tolist())


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40), st.integers(1, 40))
def test_the_nth_largest_score_is_that_of_a_sort(scores, num):
    num = min(num, len(scores))
    found = nth_largest(np.array(scores, np.float32), num)
    assert found == sorted(scores, reverse=True)[num - 1]


def test_a_resident_corpus_is_read_once():
    vectors = Vectors((make_vectors(0, 100, 8),), "dot")
    for resident in (True, False):
        corpus = DeviceCorpus(vectors, 20, 90, 32, "cpu", "bfloat16", resident)
        first, second = list(corpus.blocks()), list(corpus.blocks())
        assert [start for start, _ in first] == [start for start, _ in second] == [20, 52, 84]
        for (_, one), (_, other) in zip(first, second, strict=True):
            assert (one is other) == resident
            assert torch.equal(one.vectors, other.vectors)
        np.testing.assert_array_equal(
            torch.cat([one.vectors for _, one in first]).float().numpy(),
            torch.from_numpy(vectors.rows(20, 90)).bfloat16().float().numpy(),
        )


def test_the_number_of_threads_changes_nothing():
    passages, queries = make_vectors(0, 3_000, 24, copies=800), make_vectors(1, 300, 24)
    searcher = ExactSearcher(Vectors((passages,), "dot"), 700, "cpu")
    many = searcher.search(queries, 40)
    threads = torch.get_num_threads()
    for num_threads in (1, 3):
        torch.set_num_threads(num_threads)
        try:
            other = searcher.search(queries, 40)
            assert torch.get_num_threads() == num_threads
        finally:
            torch.set_num_threads(threads)
        np.testing.assert_array_equal(many.ids_QK, other.ids_QK)
        np.testing.assert_array_equal(many.scores_QK, other.scores_QK)


def test_settings_of_torch_are_as_before():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        searcher = ExactSearcher(Vectors((make_vectors(0, 30, 8),), "dot"))
        searcher.search(make_vectors(1, 3, 8), 5)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.fixture(scope="module")
def real_vectors(shared_data):
    model = load_model("package:wordllama", device="cpu")
    folder = shared_data / "banking77"
    texts = []
    for name in ("queries", "corpus"):
        lines = (folder / f"{name}.jsonl").read_text("utf-8").splitlines()
        texts.append([json.loads(line)["text"] for line in lines])
    return tuple(model.encode(one, show_progress_bar=False) for one in texts)


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_real_vectors_need_little_beside_the_product(real_vectors, similarity):
    queries, passages = Similarity(similarity).prepare(real_vectors[0][:500]), real_vectors[1]
    ids, scores = fixed_order_top(queries, passages, similarity, 100)
    vectors = Vectors((passages,), similarity)
    pairs = ids.size
    for precision in ("float32", "bfloat16"):
        streamed = ExactSearcher(vectors, 4_096, "cpu", precision).search(queries, 100)
        np.testing.assert_array_equal(streamed.ids_QK, ids)
        np.testing.assert_array_equal(streamed.scores_QK, scores)
        assert streamed.num_scored < (2.5 if precision == "float32" else 6) * pairs
        proposed = ExactSearcher(vectors, 4_096, "cpu", precision, True).search(queries, 100)
        np.testing.assert_array_equal(proposed.ids_QK, ids)
        np.testing.assert_array_equal(proposed.scores_QK, scores)
        if precision == "float32":
            assert proposed.num_redone <= 0.05 * len(queries)


def test_thousands_of_ties_take_seconds():
    rng = np.random.default_rng(0)
    passages = make_vectors(0, 3, 256)[rng.integers(0, 3, 20_000)]
    queries = Similarity("cosine").prepare(make_vectors(1, 2_000, 256))
    queries[::20] = 0
    for proposes in (False, True):
        searcher = ExactSearcher(Vectors((passages,), "cosine"), proposes=proposes)
        searcher.search(queries[:1], 1)
        started = time.perf_counter()
        found = searcher.search(queries, 100)
        assert time.perf_counter() - started < 30
        assert (np.diff(found.ids_QK, axis=1) > 0).all()
        assert (np.ptp(found.scores_QK, axis=1) == 0).all()
        assert (found.ids_QK[::20] == np.arange(100)).all()


def test_a_precision_that_cannot_hold_the_vectors_is_refused():
    vectors = Vectors((make_vectors(0, 3, 4),), "dot")
    with pytest.raises(ConfigError, match="range of float16"):
        ExactSearcher(vectors, precision="float16")
    with pytest.raises(ConfigError, match="expected one of float32, bfloat16, float16"):
        ExactSearcher(vectors, precision="int8")


def test_the_result_does_not_depend_on_block_sizes():
    passages, queries = make_vectors(0, 3_000, 24, copies=800), make_vectors(1, 50, 24)
    results = [
        ExactSearcher(Vectors((passages,), "dot"), block).search(queries, 40)
        for block in (17, 512, 10_000)
    ]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].ids_QK, other.ids_QK)
        np.testing.assert_array_equal(results[0].scores_QK, other.scores_QK)


def in_lanes(query_D, passage_D, by_distance):
    """The sum that every score is: entry d goes to lane d % 16, then the lanes one by one."""
    lanes = np.zeros(16, np.float32)
    for d in range(len(query_D)):
        difference = query_D[d] - passage_D[d]
        term = difference * difference if by_distance else query_D[d] * passage_D[d]
        lanes[d % 16] += term
    total = np.float32(0)
    for lane in lanes:
        total += lane
    return -np.sqrt(total) if by_distance else total


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 100), st.sampled_from(["dot", "euclidean"]))
def test_the_installed_compiler_keeps_the_order_of_summation(seed, dim, similarity):
    vectors = make_vectors(seed, 6, dim) * np.float32(1e3)
    scores = score_hits(vectors[:1], vectors, np.arange(6)[None], similarity)
    expected = [in_lanes(vectors[0], one, similarity == "euclidean") for one in vectors]
    assert scores[0].tolist() == [float(one) for one in expected]


def test_zero_vectors_score_zero_not_nan():
    passages = np.zeros((5, 4), np.float32)
    passages[3, 0] = 2
    found = ExactSearcher(Vectors((passages,), "cosine")).search(
        Similarity("cosine").prepare(np.eye(1, 4, dtype=np.float32)), 5
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
    queries = Similarity(similarity).prepare(make_vectors(1, 20, 16))
    index = build_index("Flat", passages, seed=1)
    found = FaissSearcher(index, passages).search(queries, 10)
    exact = ExactSearcher(passages).search(queries, 10)
    np.testing.assert_array_equal(found.ids_QK, exact.ids_QK)
    np.testing.assert_array_equal(found.scores_QK, exact.scores_QK)
    assert recall(found.ids_QK, exact.ids_QK) == 1


@pytest.mark.parametrize("gathered_bytes", [1, 1 << 28])
def test_more_proposals_of_a_coarse_index_find_more(gathered_bytes, monkeypatch):
    monkeypatch.setattr("stx_mine.search.faiss_index._GATHERED_BYTES", gathered_bytes)
    passages = Vectors((make_vectors(0, 600, 16),), "dot")
    queries = make_vectors(1, 40, 16)
    index = build_index("PQ4x4", passages, seed=1)
    exact = ExactSearcher(passages).search(queries, 10)
    found = [FaissSearcher(index, passages, factor).search(queries, 10) for factor in (1, 5, 60)]
    shares = [recall(one.ids_QK, exact.ids_QK) for one in found]
    assert shares[0] < shares[1] < shares[2]
    np.testing.assert_array_equal(found[2].ids_QK, exact.ids_QK)
    np.testing.assert_array_equal(found[2].scores_QK, exact.scores_QK)


def test_faiss_padding_is_never_a_passage():
    passages = Vectors((make_vectors(0, 200, 8),), "cosine")
    index = build_index("IVF50,Flat", passages, seed=1)
    found = FaissSearcher(index, passages).search(
        Similarity("cosine").prepare(make_vectors(1, 5, 8)), 100
    )
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
        Similarity("cosine").prepare(rng.standard_normal((num, 6)).astype(np.float32))
        for num in (4, 7, 9)
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
