"""Units: which pairs stay in one part.

Texts are nodes of a graph, and every pair is an edge between its query and its passage. A text
that is a query here and a passage there is one node, and so are texts that count as one. A
component is all that edges tie together.

Shape letters: N pairs, U units.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from stx_mine.core.random import mix


@dataclass(frozen=True)
class PairGraph:
    """Pairs as edges between texts.

    Attributes:
        queries_N: int64 (N,) the text of each pair's query.
        passages_N: int64 (N,) the text of its passage.
        digests: uint64 (num texts,) of the content of each text, whatever its number.
        counts_as: int64 (num texts,) the text that each text counts as; None for itself.
    """

    queries_N: NDArray[np.int64]
    passages_N: NDArray[np.int64]
    digests: NDArray[np.uint64]
    counts_as: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.queries_N)

    @cached_property
    def names(self) -> NDArray[np.int64]:
        """int64 (num texts,): the text that each text counts as."""
        return np.arange(len(self.digests)) if self.counts_as is None else self.counts_as

    def components(self) -> "PairUnits":
        """All pairs that texts tie together are a unit."""
        queries_N, passages_N = self.names[self.queries_N], self.names[self.passages_N]
        roots = connected(queries_N, passages_N, len(self.digests))
        of_queries, of_passages = self.digests[self.queries_N], self.digests[self.passages_N]
        return PairUnits.of(roots[queries_N], np.minimum(of_queries, of_passages))

    def by_query(self) -> "PairUnits":
        """The pairs of a query are a unit."""
        return PairUnits.of(self.names[self.queries_N], self.digests[self.queries_N])

    def by_pair(self) -> "PairUnits":
        """Every pair is a unit."""
        digests = _mixed(0, self.digests[self.queries_N], self.digests[self.passages_N])
        return PairUnits.of(np.arange(len(self)), digests)


@dataclass(frozen=True)
class PairUnits:
    """Which pairs stay together.

    Attributes:
        of_pair_N: int64 (N,) the unit of each pair, in [0, U).
        sizes_U: int64 (U,) pairs of each unit.
        digests_U: uint64 (U,) that follow from the texts of each unit alone.
    """

    of_pair_N: NDArray[np.int64]
    sizes_U: NDArray[np.int64]
    digests_U: NDArray[np.uint64]

    @classmethod
    def of(cls, labels_N: NDArray[np.int64], digests_N: NDArray[np.uint64]) -> "PairUnits":
        """Number the units.

        Args:
            labels_N: int64 (N,) equal for pairs of a unit.
            digests_N: uint64 (N,); the digest of a unit is the smallest of its pairs.
        """
        _, units_N, sizes_U = np.unique(labels_N, return_inverse=True, return_counts=True)
        digests_U = np.full(len(sizes_U), np.iinfo(np.uint64).max)
        np.minimum.at(digests_U, units_N, digests_N)
        return cls(units_N, sizes_U, digests_U)

    def __len__(self) -> int:
        return len(self.sizes_U)

    def order(self, seed: int) -> NDArray[np.int64]:
        """int64 (U,): the units in a random order that depends on seed and texts alone."""
        keys_U = _mixed(seed, self.digests_U, np.zeros_like(self.digests_U))
        return np.lexsort((self.digests_U, keys_U))

    def num_in(self, of_part_N: NDArray[np.bool_]) -> int:
        """How many units have a pair in a part.

        Args:
            of_part_N: bool (N,) whether each pair is in it.
        """
        return len(np.unique(self.of_pair_N[of_part_N]))


def connected(
    first_E: NDArray[np.int64], second_E: NDArray[np.int64], num_nodes: int
) -> NDArray[np.int64]:
    """int64 (num_nodes,): the smallest node that edges tie each node to.

    Args:
        first_E: int64 (E,) a node of each edge.
        second_E: int64 (E,) the other one.
        num_nodes: Nodes.
    """
    roots: NDArray[np.int64] = _roots(first_E, second_E, num_nodes)
    return roots


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _roots(first_E: Any, second_E: Any, num_nodes: Any) -> Any:
    """As `connected` says, by union-find."""
    parents = np.arange(num_nodes)
    for edge in range(len(first_E)):
        one, other = first_E[edge], second_E[edge]
        while parents[one] != one:
            parents[one] = parents[parents[one]]
            one = parents[one]
        while parents[other] != other:
            parents[other] = parents[parents[other]]
            other = parents[other]
        if one < other:
            parents[other] = one
        else:
            parents[one] = other
    for node in range(num_nodes):
        # A parent is smaller than its child, so that it is a root by now.
        parents[node] = parents[parents[node]]
    return parents


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _mixed(seed: Any, first: Any, second: Any) -> Any:
    """uint64: `mix` of a seed and two arrays, element by element."""
    mixed = np.empty(len(first), np.uint64)
    for place in range(len(first)):
        mixed[place] = mix(seed, first[place], second[place])
    return mixed
