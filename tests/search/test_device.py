"""The search of a device that holds the passages, on the CPU, against brute force."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stx_mine.core.ahead import ahead
from stx_mine.core.similarity import Similarity
from stx_mine.errors import ConfigError
from stx_mine.search import exact, ways
from stx_mine.search.device_score import best_scored, distance_scores, lane_sums
from stx_mine.search.exact import ExactSearcher
from stx_mine.search.groups import MEMBERS, group_maxima, group_members, group_size
from stx_mine.search.product import Rounded, error_bound
from stx_mine.search.resident import ResidentCorpus, find_top
from stx_mine.search.score import score_hits
from stx_mine.search.stream import best_first
from stx_mine.search.threads import BLOCKS_AHEAD
from stx_mine.search.ways import TORCH, way_of
from stx_mine.store.vectors import Vectors


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def resident(vectors, precision="float32", with_exact=True, block=100):
    return ResidentCorpus.load(vectors, 0, len(vectors), block, "cpu", precision, with_exact)


@pytest.mark.parametrize("num", [1, 5, 256, 257, 700, 1_500])
def test_every_passage_has_one_row_and_padding_the_rest(num):
    vectors = Vectors((normal(0, num, 9),), "dot")
    corpus = resident(vectors)
    rows = np.setdiff1d(np.arange(len(corpus.rounded_RW)), corpus.padding)
    assert len(corpus.rounded_RW) % MEMBERS == 0
    assert len(corpus.padding) < MEMBERS
    numbers = corpus.numbers_R[rows].numpy()
    assert sorted(numbers) == list(range(num))
    np.testing.assert_array_equal(
        corpus.rounded_RW[rows, :9].numpy(), vectors.rows(0, num)[numbers]
    )
    assert not corpus.rounded_RW[:, 9:].any()
    np.testing.assert_array_equal(corpus.exact_PD.numpy(), vectors.rows(0, num))
    assert torch.isinf(corpus.bias_R[corpus.padding]).all()
    # Neighbours are not: a group of texts that follow each other would hold all hits of a query.
    if num == 1_500:
        spread = np.abs(np.diff(corpus.numbers_R[:MEMBERS].numpy()))
        assert np.median(spread) > 100


@settings(deadline=None, max_examples=80)
@given(
    st.integers(0, 10_000),
    st.integers(1, 900),
    st.sampled_from([1, 8, 64, 256]),
    st.sampled_from(["dot", "euclidean"]),
    st.sampled_from([(4_096, 2**24), (3, 600)]),
)
def test_maxima_and_members_are_those_of_brute_force(seed, num, size, similarity, cut):
    # Small whole numbers: every product is exact.
    passages, queries = np.round(normal(seed, num, 6)), np.round(normal(seed + 1, 11, 6))
    corpus = resident(Vectors((passages,), similarity))
    left = torch.nn.functional.pad(torch.from_numpy(queries), (0, 58))
    values = queries @ corpus.rounded_RW[:, :6].numpy().T
    if similarity == "euclidean":
        values = 2 * values - corpus.bias_R.numpy()
    values[:, corpus.padding] = -np.inf
    maxima = group_maxima(left, corpus, size, *cut)
    np.testing.assert_array_equal(maxima.numpy(), values.reshape(11, -1, size).max(2))
    wanted = min(3, maxima.shape[1])
    best = maxima.topk(wanted, dim=1)
    floors = best.values.amin(1).float()
    most = 40
    rows, counts = group_members(left, corpus, size, best.indices, floors, most)
    for query in range(11):
        inside = np.concatenate(
            [np.arange(g * size, (g + 1) * size) for g in best.indices[query].tolist()]
        )
        reach = values[query, inside] >= floors[query].item()
        expected = inside[reach & np.isfinite(values[query, inside])]
        assert counts[query] == len(expected)
        found = rows[query, : min(most, len(expected))].tolist()
        assert set(found) <= set(expected.tolist())
        assert len(set(found)) == min(most, len(expected))


def test_groups_are_smaller_where_there_are_few():
    assert group_size(141, 1_000_192) == 256
    assert group_size(141, 100_096) == 128
    assert group_size(141, 1_000_192, largest=64) == 64
    assert group_size(20, 256) == 2
    assert group_size(200, 256) == 1


@settings(deadline=None, max_examples=80)
@given(
    st.integers(0, 10_000),
    st.integers(1, 100),
    st.sampled_from(["dot", "euclidean"]),
    st.sampled_from([1.0, 1e-22, 1e12]),
)
def test_scores_of_a_device_are_those_of_the_cpu_bit_by_bit(seed, dim, similarity, length):
    rng = np.random.default_rng(seed)
    queries, passages = normal(seed, 7, dim) * np.float32(length), normal(seed + 1, 50, dim)
    passages[rng.integers(0, 50, 5)] = 0
    passages[3] = queries[2]
    ids = rng.integers(0, 50, (7, 12)).astype(np.int32)
    counts = rng.integers(0, 13, 7).astype(np.int32)
    by_distance = similarity == "euclidean"
    sums = lane_sums(
        *(torch.from_numpy(one) for one in (queries, passages, ids, counts)), by_distance
    )
    scores = (distance_scores(sums) if by_distance else sums).numpy()
    expected = score_hits(queries, passages, ids.astype(np.int64), similarity)
    there = np.arange(12) < counts[:, None]
    np.testing.assert_array_equal(scores.view(np.int32)[there], expected.view(np.int32)[there])
    numbers, best = best_scored(
        torch.from_numpy(ids), torch.from_numpy(scores), torch.from_numpy(counts), 9
    )
    expected[~there] = -np.inf
    padded_ids = np.where(there, ids, np.iinfo(np.int64).max)
    ids_expected, scores_expected = best_first(padded_ids, expected)
    missing = np.isneginf(scores_expected[:, :9])
    np.testing.assert_array_equal(best.numpy(), scores_expected[:, :9])
    np.testing.assert_array_equal(numbers.numpy(), np.where(missing, -1, ids_expected[:, :9]))


def test_roots_are_rounded_as_those_of_numpy():
    for largest in (1e-38, 1e-3, 1.0, 1e5, 1e37):
        sums = np.random.default_rng(0).random(300_000, np.float32) * np.float32(largest)
        found = distance_scores(torch.from_numpy(sums)).numpy()
        np.testing.assert_array_equal(found.view(np.int32), (-np.sqrt(sums)).view(np.int32))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10_000),
    st.integers(1, 300),
    st.sampled_from(["bfloat16", "float16"]),
    st.booleans(),
    st.sampled_from([1e-3, 1.0, 30.0]),
)
def test_products_that_stay_in_float32_keep_to_a_narrower_bound(
    seed, dim, precision, euclidean, length
):
    queries_QD, passages_PD = normal(seed, 20, dim), normal(seed + 1, 50, dim) * np.float32(length)
    queries = Rounded.of(queries_QD, "cpu", precision)
    passages = Rounded.of(passages_PD, "cpu", precision)
    similarity = Similarity("euclidean" if euclidean else "dot")
    wide_Q, narrow_Q = (
        error_bound(
            queries,
            float(passages.norms.max()),
            float(passages.residuals.max()),
            dim,
            similarity,
            wide=wide,
        )
        for wide in (False, True)
    )
    assert (narrow_Q < wide_Q).all()
    values = queries.vectors.float() @ passages.vectors.float().T
    if euclidean:
        values = 2 * values - passages.norms.square()
    everything = np.tile(np.arange(50), (20, 1))
    scores = score_hits(queries_QD, passages_PD, everything, similarity).astype(np.float64)
    if euclidean:
        scores = (queries_QD.astype(np.float64) ** 2).sum(1)[:, None] - scores**2
    assert (np.abs(values.numpy() - scores).max(1) <= narrow_Q).all()


def test_the_largest_group_changes_nothing():
    vectors = Vectors((normal(0, 9_000, 20),), "dot")
    corpus, queries = resident(vectors), torch.from_numpy(normal(1, 50, 20))
    tops = [
        find_top(corpus, queries, queries, 5, 8, replace(TORCH, group=group))
        for group in (256, 64, 1)
    ]
    for other in tops[1:]:
        assert torch.equal(tops[0].ids_QM, other.ids_QM)
        assert torch.equal(tops[0].scores_QM, other.scores_QM)


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_near_ties_are_searched_again(similarity, precision):
    # Closer to each other than any half-precision product can tell.
    rng = np.random.default_rng(0)
    passages = normal(0, 1, 24) + rng.standard_normal((3_000, 24)).astype(np.float32) * 1e-5
    passages[1_000:] = normal(1, 2_000, 24)
    vectors = Vectors((passages.astype(np.float32),), similarity)
    queries = vectors.similarity.prepare(normal(0, 1, 24) + 0.1 * normal(2, 40, 24))
    expected = ExactSearcher(vectors, device="cpu", precision="float32").search(queries, 30)
    found = ExactSearcher(vectors, 512, "cpu", precision, True, resident=True).search(queries, 30)
    np.testing.assert_array_equal(found.ids_QK, expected.ids_QK)
    np.testing.assert_array_equal(found.scores_QK, expected.scores_QK)
    if precision == "bfloat16":
        assert found.num_redone == 40


def test_more_proposals_spare_the_pass_of_the_cpu():
    # 60 that a product of bfloat16 cannot tell apart, and nothing near behind them.
    passages = normal(1, 20_000, 24)
    passages[:60] = normal(0, 1, 24) + 1e-4 * normal(2, 60, 24)
    vectors = Vectors((passages,), "cosine")
    queries = vectors.similarity.prepare(normal(0, 1, 24) + 0.01 * normal(3, 20, 24))
    expected = ExactSearcher(vectors, device="cpu", precision="float32").search(queries, 5)
    searcher = ExactSearcher(vectors, 512, "cpu", "bfloat16", True, resident=True)
    found = searcher.search(queries, 5)
    np.testing.assert_array_equal(found.ids_QK, expected.ids_QK)
    np.testing.assert_array_equal(found.scores_QK, expected.scores_QK)
    assert found.num_redone == 20
    # The CPU's pass would score hundreds of pairs a query beside what was proposed.
    assert found.num_scored < 20 * (2 * 26 + 2 * 8 * 26)


@pytest.mark.parametrize("device", ["cpu", ("cpu", "cpu", "cpu")])
def test_blocks_of_queries_find_what_one_search_finds(device):
    passages, queries = (
        Vectors((normal(0, 900, 20),), "cosine"),
        Vectors((normal(1, 150, 20),), "cosine"),
    )
    for proposes in (False, True):
        searcher = ExactSearcher(passages, 200, device, "bfloat16", proposes)
        whole = searcher.search(queries.rows(0, 150), 12)
        parts = list(searcher.search_all(queries, 12, 40))
        assert [len(one.ids_QK) for one in parts] == [40, 40, 40, 30]
        np.testing.assert_array_equal(np.concatenate([one.ids_QK for one in parts]), whole.ids_QK)
        np.testing.assert_array_equal(
            np.concatenate([one.scores_QK for one in parts]), whole.scores_QK
        )
        assert [one.ids_QK.shape for one in searcher.search_all(queries, 0, 100)] == [
            (100, 0),
            (50, 0),
        ]


@pytest.mark.parametrize("fits", [(True, False), (False, False)])
def test_the_host_scores_where_a_device_has_no_room(monkeypatch, fits):
    monkeypatch.setattr(exact, "what_fits", lambda *_: fits)
    passages, queries = Vectors((normal(0, 2_000, 20),), "euclidean"), normal(1, 70, 20)
    expected = ExactSearcher(passages, device="cpu").search(queries, 15)
    searcher = ExactSearcher(passages, 300, "cpu", "bfloat16", True)
    part = searcher._slices[0]
    assert (part.resident is not None) == fits[0]
    assert part.resident is None or part.resident.exact_PD is None
    found = searcher.search(queries, 15)
    np.testing.assert_array_equal(found.ids_QK, expected.ids_QK)
    np.testing.assert_array_equal(found.scores_QK, expected.scores_QK)


def test_queries_that_do_not_fit_are_searched_in_smaller_parts():
    vectors = Vectors((normal(0, 3_000, 20),), "dot")
    corpus, queries = resident(vectors), torch.from_numpy(normal(1, 1_000, 20))
    sizes = []

    def short_of_memory(most):
        def maxima(queries_QW, *rest):
            sizes.append(len(queries_QW))
            if len(queries_QW) > most:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return group_maxima(queries_QW, *rest)

        return replace(TORCH, maxima=maxima)

    whole = find_top(corpus, queries, queries, 5, 20, TORCH)
    parts = find_top(corpus, queries, queries, 5, 20, short_of_memory(300))
    for one, other in zip(whole, parts, strict=True):
        assert torch.equal(one, other)
    assert max(sizes[-4:]) <= 300
    with pytest.raises(ConfigError, match="too little free memory for 128 queries"):
        find_top(corpus, queries, queries, 5, 20, short_of_memory(50))


def test_kernels_that_are_not_there_are_said(monkeypatch):
    monkeypatch.setattr(ways, "find_spec", lambda _: None)
    vectors = Vectors((normal(0, 30, 4),), "cosine")
    with pytest.raises(ConfigError, match="expected one of torch, triton"):
        ExactSearcher(vectors, kernels="cutlass")
    way_of.cache_clear()
    searcher = ExactSearcher(
        vectors, device="cpu", proposes=True, precision="float16", kernels="triton"
    )
    with pytest.raises(ConfigError, match="triton is not installed; choose torch"):
        searcher.search(vectors.rows(0, 3), 2)
    with pytest.raises(ConfigError, match="kernels for half precision only; choose torch"):
        way_of("cuda:0", "float32", False, "triton")
    assert way_of("cuda:0", "float16", False) is TORCH


def test_a_few_items_are_read_ahead_in_order():
    begun = []

    def read(item):
        begun.append(item)
        return -item

    with ThreadPoolExecutor(2) as threads:
        found = ahead(read, range(100), threads, BLOCKS_AHEAD)
        assert next(found) == 0
        assert max(begun) < 20
        assert list(found) == [-item for item in range(1, 100)]
    assert sorted(begun) == list(range(100))
