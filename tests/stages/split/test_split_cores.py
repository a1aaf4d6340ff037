"""Components and parts beside brute force; ids of what is written."""

from collections import defaultdict, deque

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stx_mine.stages.ingest.numbering import number_texts
from stx_mine.stages.split.core.parts import PARTS, TRAIN, Leaks, parts_of_pairs, target_size
from stx_mine.stages.split.core.units import PairGraph, PairUnits, connected
from stx_mine.stages.split.output_ids import OutputIds

NUM_TEXTS = 30
EDGES = st.lists(
    st.tuples(st.integers(0, NUM_TEXTS - 1), st.integers(0, NUM_TEXTS - 1)).filter(
        lambda edge: edge[0] != edge[1]
    ),
    min_size=1,
    max_size=40,
    unique=True,
)
DIGESTS = np.random.default_rng(5).integers(0, 2**63, NUM_TEXTS).astype(np.uint64)


def graph_of(edges: list[tuple[int, int]]) -> PairGraph:
    queries, passages = np.array(edges, np.int64).T
    return PairGraph(queries, passages, DIGESTS)


def walked(edges: list[tuple[int, int]]) -> dict[int, int]:
    """Node -> the smallest node that can be walked to, breadth first."""
    beside = defaultdict(set)
    for one, other in edges:
        beside[one].add(other)
        beside[other].add(one)
    found: dict[int, int] = {}
    for start in sorted(beside):
        waiting = deque([start])
        while waiting:
            node = waiting.popleft()
            if node not in found:
                found[node] = start
                waiting.extend(beside[node])
    return found


# Compiles on first use.
@settings(deadline=None)
@given(EDGES)
def test_components_are_what_can_be_walked_to(edges: list[tuple[int, int]]) -> None:
    units, by_node = graph_of(edges).components(), walked(edges)
    names = [by_node[query] for query, _ in edges]
    assert len(units) == len(set(names))
    by_unit = dict(zip(units.of_pair_N.tolist(), names, strict=True))
    assert [by_unit[unit] for unit in units.of_pair_N.tolist()] == names
    assert units.sizes_U.tolist() == np.bincount(units.of_pair_N).tolist()


@settings(deadline=None)
@given(EDGES, st.lists(st.tuples(*[st.integers(0, NUM_TEXTS - 1)] * 2), max_size=12))
def test_texts_that_count_as_one_are_one_node(
    edges: list[tuple[int, int]], ties: list[tuple[int, int]]
) -> None:
    first, second = np.array([*ties, (0, 0)], np.int64).T
    names = connected(first, second, NUM_TEXTS)
    by_tie = walked([*ties, *((one, one) for one in range(NUM_TEXTS))])
    assert names.tolist() == [by_tie[one] for one in range(NUM_TEXTS)]
    queries, passages = np.array(edges, np.int64).T
    graph = PairGraph(queries, passages, DIGESTS, names)
    by_node = walked([*edges, *ties])
    roots = [by_node[query] for query, _ in edges]
    units = graph.components().of_pair_N.tolist()
    assert len(set(zip(units, roots, strict=True))) == len(set(units)) == len(set(roots))
    asked = graph.by_query().of_pair_N.tolist()
    tied = [by_tie[query] for query, _ in edges]
    assert len(set(zip(asked, tied, strict=True))) == len(set(asked)) == len(set(tied))
    parts = np.arange(len(edges)) % 3
    leaks = Leaks.of(graph, parts.astype(np.int8))
    train = [edge for edge, part in zip(edges, parts, strict=True) if part == TRAIN]
    positives = {by_tie[passage] for _, passage in train}
    texts = positives | {by_tie[query] for query, _ in train}
    held = [edge for edge, part in zip(edges, parts, strict=True) if part != TRAIN]
    assert leaks.positives == sum(by_tie[passage] in positives for _, passage in held)
    assert leaks.texts == sum(bool({by_tie[q], by_tie[p]} & texts) for q, p in held)


def test_a_long_chain_is_one_component() -> None:
    """In the order that is worst for a union by numbers."""
    number = 200_000
    nodes = np.arange(number, dtype=np.int64)
    graph = PairGraph(nodes[::-1][:-1], nodes[::-1][1:], nodes.astype(np.uint64))
    assert len(graph.components()) == 1
    shuffled = np.random.default_rng(0).permutation(nodes)
    assert len(PairGraph(shuffled[:-1], shuffled[1:], graph.digests).components()) == 1


@settings(deadline=None)
@given(
    EDGES,
    st.integers(0, 2**32),
    st.sampled_from(["components", "by_query", "by_pair"]),
    st.randoms(use_true_random=False),
)
def test_parts_are_whole_units_and_know_no_order(edges, seed, unit, random) -> None:
    targets = {"train": 0, "test": len(edges) // 4, "dev": len(edges) // 8}
    graph = graph_of(edges)
    units: PairUnits = getattr(graph, unit)()
    parts = parts_of_pairs(units, targets, seed)
    for name in ("test", "dev"):
        assert targets[name] or not (parts == PARTS.index(name)).any()
    assert len({*zip(units.of_pair_N.tolist(), parts.tolist(), strict=True)}) == len(units)
    shuffled = edges.copy()
    random.shuffle(shuffled)
    # Another order of rows numbers the texts in another way too.
    renamed = np.array(random.sample(range(NUM_TEXTS), NUM_TEXTS))
    digests = np.empty_like(DIGESTS)
    digests[renamed] = DIGESTS
    queries, passages = renamed[np.array(shuffled)].T
    again = parts_of_pairs(getattr(PairGraph(queries, passages, digests), unit)(), targets, seed)
    found = dict(zip(edges, parts.tolist(), strict=True))
    assert dict(zip(shuffled, again.tolist(), strict=True)) == found
    leaks = Leaks.of(graph, parts)
    assert leaks == brute_leaks(edges, parts)
    if unit == "components":
        assert leaks.texts == 0


def brute_leaks(edges: list[tuple[int, int]], parts: np.ndarray) -> Leaks:
    train = [edge for edge, part in zip(edges, parts, strict=True) if part == TRAIN]
    held = [edge for edge, part in zip(edges, parts, strict=True) if part != TRAIN]
    positives = {passage for _, passage in train}
    texts = positives | {query for query, _ in train}
    return Leaks(
        len(held),
        sum(passage in positives for _, passage in held),
        sum(query in texts or passage in texts for query, passage in held),
    )


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=40),
    st.integers(0, 60),
    st.integers(0, 60),
    st.integers(0, 99),
)
def test_a_part_is_as_near_to_its_size_as_one_more_unit_allows(sizes, test, dev, seed) -> None:
    of_pair = np.repeat(np.arange(len(sizes)), sizes)
    units = PairUnits(of_pair, np.array(sizes), np.arange(len(sizes)).astype(np.uint64))
    parts = parts_of_pairs(units, {"test": test, "dev": dev}, seed)
    of_unit = parts[np.cumsum([0, *sizes[:-1]])]
    left = list(sizes)
    for name, target in (("test", test), ("dev", dev)):
        taken = [size for size, p in zip(sizes, of_unit, strict=True) if p == PARTS.index(name)]
        for size in taken:
            left.remove(size)
        gap = abs(target - sum(taken))
        if target == 0:
            assert not taken
        elif sum(taken) < target:
            # No unit that is left over would have fitted, nor brought it nearer.
            for size in left:
                assert size > target - sum(taken)
                assert abs(target - sum(taken) - size) >= gap
        elif sum(taken) > target:
            # Without its last unit it would be no nearer.
            assert gap <= max(taken) / 2


@pytest.mark.parametrize(
    ("size", "num_pairs", "expected"),
    [(0.1, 1_000, 100), (0.05, 30, 2), (0.015, 100, 2), (1, 10, 1), (500, 10, 500), (0, 10, 0)],
)
def test_a_size_is_a_share_or_a_number(size: float, num_pairs: int, expected: int) -> None:
    assert target_size(size, num_pairs) == expected


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", " a ", "", "d"]),
        st.sampled_from(["x", "y", "0", "passage-0", "passage-1", "_passage-1", None]),
    ),
    min_size=1,
    max_size=12,
)


@settings(deadline=None)
@given(ROWS)
def test_ids_are_those_of_the_input_or_new_ones(rows: list[tuple[str, str | None]]) -> None:
    texts, ids = (pa.array(column, pa.large_string()) for column in zip(*rows, strict=True))
    distinct = number_texts([(texts, ids)])
    found = OutputIds.of("passage", distinct)
    written = found.of_rows.to_pylist()
    assert len(set(written)) == len(written) == found.kept.sum()
    usable = [(text.strip(), name) for text, name in rows if text.strip()]
    by_id = dict(reversed([(name, text) for text, name in usable if name is not None]))
    kept = [text.strip() for (text, _), keep in zip(rows, found.kept, strict=True) if keep]
    # An id stands for its first text; a text that has none gets one that is not taken.
    of_written = dict(zip(written, kept, strict=True))
    assert {name: of_written[name] for name in by_id} == by_id
    new = [text for name, text in of_written.items() if name not in by_id]
    assert sorted(new) == sorted({text for text, _ in usable} - set(by_id.values()))
    assert [of_written[name] for name in found.of_texts.to_pylist()] == list(
        dict.fromkeys(text for text, _ in usable)
    )
