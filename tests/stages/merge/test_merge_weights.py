"""The arithmetic of merging, beside plain NumPy; what has to hold for every method and weight."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from stx_mine.stages.merge.core import weights as core
from stx_mine.stages.merge.core.weights import Distance, linear, shares_of, slerp, task

_VALUES = st.floats(-(2.0**100), 2.0**100, width=32)


def tensors(num: int) -> st.SearchStrategy[list[np.ndarray]]:
    """Tensors of one shape, float32."""
    shapes = array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    return shapes.flatmap(
        lambda shape: st.lists(
            arrays(np.float32, shape, elements=_VALUES), min_size=num, max_size=num
        )
    )


def bits(tensor: np.ndarray) -> bytes:
    return tensor.tobytes()


def drawn(num: int, shape: tuple[int, ...] = (7, 5), seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for _ in range(num)]


def test_linear_is_the_weighted_mean():
    found = drawn(3)
    merged = linear(found, [0.5, 0.3, 0.2])
    wide = [one.astype(np.float64) for one in found]
    expected = 0.5 * wide[0] + 0.3 * wide[1] + 0.2 * wide[2]
    assert merged.dtype == np.float32
    np.testing.assert_array_equal(merged, expected.astype(np.float32))


def test_blocks_change_nothing(monkeypatch):
    found = drawn(3, (11, 13))
    whole = [
        linear(found, [0.2, 0.3, 0.5]),
        slerp(*found[:2], 0.3),
        task(found[0], found[1:], [2.0, -0.7]),
    ]
    monkeypatch.setattr(core, "_BLOCK", 8)
    parts = [
        linear(found, [0.2, 0.3, 0.5]),
        slerp(*found[:2], 0.3),
        task(found[0], found[1:], [2.0, -0.7]),
    ]
    assert [bits(one) for one in whole[::2]] == [bits(one) for one in parts[::2]]
    # Sums of squares of blocks are rounded otherwise.
    np.testing.assert_allclose(whole[1], parts[1], rtol=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.7])
def test_slerp_is_the_arc(share):
    first, second = drawn(2)
    a, b = first.ravel().astype(np.float64), second.ravel().astype(np.float64)
    angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    expected = (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)
    merged = slerp(first, second, share)
    np.testing.assert_allclose(merged.ravel(), expected, rtol=1e-6)
    unit = slerp(*(one / np.linalg.norm(one) for one in (first, second)), share)
    assert np.linalg.norm(unit) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("factor", [3.0, -2.0, 1 + 1e-7])
def test_slerp_of_parallel_vectors_is_the_mean(factor):
    first = drawn(1)[0]
    second = (first * np.float32(factor)).astype(np.float32)
    np.testing.assert_array_equal(slerp(first, second, 0.25), linear([first, second], [0.75, 0.25]))


def test_slerp_with_zero_is_the_mean():
    first = drawn(1)[0]
    np.testing.assert_array_equal(slerp(first, np.zeros_like(first), 0.5), first * np.float32(0.5))


def test_slerp_of_nearly_parallel_vectors_is_near_the_mean():
    first = drawn(1)[0]
    second = first + np.float32(1e-3) * drawn(1, seed=1)[0]
    np.testing.assert_allclose(
        slerp(first, second, 0.3), linear([first, second], [0.7, 0.3]), rtol=1e-3, atol=1e-6
    )


def test_task_adds_weighted_differences_to_the_base():
    base, *others = drawn(3)
    wide = base.astype(np.float64)
    expected = wide + 0.8 * (others[0] - wide) - 0.4 * (others[1] - wide)
    np.testing.assert_allclose(task(base, others, [0.8, -0.4]), expected, rtol=1e-5, atol=1e-6)


@given(tensors(1), st.lists(st.floats(0.01, 100), min_size=1, max_size=4))
def test_a_model_merged_with_itself_is_itself(found, raw):
    tensor, shares = found[0], shares_of(raw)
    expected = bits(tensor)
    assert bits(linear([tensor] * len(raw), shares)) == expected
    assert bits(slerp(tensor, tensor, shares[0])) == expected
    assert bits(task(tensor, [tensor] * len(raw), raw)) == expected
    assert bits(task(tensor, [tensor], [-raw[0]])) == expected


@given(tensors(3))
def test_a_weight_of_one_is_that_model(found):
    assert bits(linear(found, [1, 0, 0])) == bits(found[0])
    assert bits(linear(found, [0, 0, 1])) == bits(found[2])
    assert bits(slerp(found[0], found[1], 0)) == bits(found[0])
    assert bits(slerp(found[0], found[1], 1)) == bits(found[1])
    assert bits(task(found[0], found[1:], [1, 0])) == bits(found[1])
    assert bits(task(found[0], found[1:], [0, 0])) == bits(found[0])


@given(tensors(3), st.lists(st.floats(0.1, 10), min_size=3, max_size=3))
@settings(max_examples=50)
def test_the_order_matters_as_the_weights_do(found, raw):
    shares, scale = shares_of(raw), np.max(np.abs(found), axis=0) if found[0].size else 0
    expected = linear(found, shares).astype(np.float64)
    for order in permutations(range(3)):
        merged = linear([found[n] for n in order], [shares[n] for n in order])
        assert np.all(np.abs(merged - expected) <= 2.0**-23 * scale)
    np.testing.assert_allclose(
        slerp(found[0], found[1], 0.3), slerp(found[1], found[0], 0.7), rtol=1e-5, atol=1e-30
    )


@given(tensors(2), st.floats(0, 1))
def test_a_mean_lies_between(found, share):
    merged = linear(found, [1 - share, share])
    assert np.all(merged >= np.minimum(*found) - 1e-6 * np.abs(np.minimum(*found)))
    assert np.all(merged <= np.maximum(*found) + 1e-6 * np.abs(np.maximum(*found)))


def test_task_of_one_model_is_linear_with_its_base():
    base, other = drawn(2)
    np.testing.assert_array_equal(task(base, [other], [0.3]), linear([base, other], [0.7, 0.3]))


def test_float64_stays_float64():
    found = [one.astype(np.float64) for one in drawn(2)]
    assert linear(found, [0.5, 0.5]).dtype == np.float64


def test_distances_are_of_all_tensors_as_one_vector():
    first, second = drawn(2, seed=4), drawn(2, seed=5)
    distance = Distance()
    for own, other in zip(second, first, strict=True):
        distance.add(own, other)
    a, b = (np.concatenate([one.ravel() for one in side]).astype(float) for side in (first, second))
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert distance.cosine == pytest.approx(cosine, abs=1e-12)
    assert distance.relative == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(a), rel=1e-12)


def test_distances_to_zero_are_defined():
    same, apart = Distance(), Distance()
    same.add(np.zeros(3, np.float32), np.zeros(3, np.float32))
    apart.add(np.ones(3, np.float32), np.zeros(3, np.float32))
    assert (same.cosine, same.relative) == (0, 0)
    assert (apart.cosine, apart.relative) == (0, np.inf)


def test_shares_sum_to_one():
    assert shares_of([3, 7]) == [0.3, 0.7]
