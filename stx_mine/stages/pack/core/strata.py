"""Strata: which rows may meet in a batch, and in what order batches come.

Rows are sorted by a key and cut into strata of whole batches; each stratum is assigned by itself.
With difficulty as the key that is a curriculum, with topics as the key batches of like rows.
The rows of a source are a stratum too: alone in their batches, or beside those of the others.

Shape letters: S sources, P batches.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from stx_mine.stages.pack.core.assign import Assignment

AssignStratum = Callable[[NDArray[np.int64], int], Assignment]


def cut_strata(
    order: NDArray[np.int64], keys: NDArray[np.float64], stratum_rows: int
) -> list[NDArray[np.int64]]:
    """Cut rows into strata of rising keys.

    Args:
        order: int64 (N,) rows by priority.
        keys: float64, by row number.
        stratum_rows: Rows of every stratum but the last.

    Returns:
        Rows of each stratum, in their order of priority.
    """
    ranks = np.empty(len(order), np.int64)
    ranks[np.argsort(keys[order], kind="stable")] = np.arange(len(order))
    strata = ranks // stratum_rows
    by_stratum = order[np.argsort(strata, kind="stable")]
    return np.split(by_stratum, np.arange(stratum_rows, len(order), stratum_rows))


def blended(
    positions: NDArray[np.float64], strength: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Positions in [0, 1) mixed with chance: 1 keeps them, 0 is random.

    Args:
        positions: float64 (N,), in [0, 1).
        strength: In [0, 1].
        rng: Decides.
    """
    return strength * positions + (1 - strength) * rng.random(len(positions))


def rows_to_take(
    sizes_S: NDArray[np.int64], weights_S: NDArray[np.float64], temperature: float
) -> NDArray[np.int64]:
    """Rows of each source in one packing: as many as there can be in the wanted proportion.

    A source's share is (weight x rows)^(1 / temperature) over the sum of all sources. With equal
    weights and temperature 1 that is every row; else one source at least gives all its rows.

    Args:
        sizes_S: int64, rows of each source.
        weights_S: float64, above 0.
        temperature: Above 0; higher is more even.

    Returns:
        int64 (S,), at most `sizes_S`.
    """
    taken = np.zeros(len(sizes_S), np.int64)
    filled = np.flatnonzero(sizes_S)
    if len(filled):
        sizes = sizes_S[filled]
        logs = np.log(weights_S[filled] * sizes) / temperature
        shares = np.exp(logs - logs.max())
        total = (sizes[shares > 0] / shares[shares > 0]).min()
        # Rounding must not cost a row.
        taken[filled] = np.minimum(np.floor(total * shares * (1 + 1e-9) + 1e-6), sizes)
    return taken


def take_rows(
    order: NDArray[np.int64],
    sources: NDArray[np.int16],
    num_rows_S: NDArray[np.int64],
    uses: NDArray[np.int64],
) -> list[NDArray[np.int64]]:
    """Rows of each source for one packing: those that earlier ones used least.

    Args:
        order: int64 (N,) rows by priority, which decides among rows used as often.
        sources: int16, by row number.
        num_rows_S: int64 (S,) rows to take.
        uses: int64, by row number: earlier packings that hold the row.

    Returns:
        Rows of each source, by priority.
    """
    taken = []
    for source, count in enumerate(num_rows_S.tolist()):
        rows = order[sources[order] == source]
        least = np.argsort(uses[rows], kind="stable")[:count]
        taken.append(rows[np.sort(least)])
    return taken


def places(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Where each row stands in its part, in (0, 1): sorted by it, every stretch is a fair mix."""
    return np.concatenate([(np.arange(len(rows)) + 0.5) / max(1, len(rows)) for rows in parts])


def interleaved(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """All rows, of which every stretch holds each part in proportion; each part in its order."""
    return np.concatenate(parts)[np.argsort(places(parts), kind="stable")]


def assign_beside(
    order: NDArray[np.int64],
    sources: NDArray[np.int16],
    batch_size: int,
    assign: AssignStratum,
    rng: np.random.Generator,
) -> Assignment:
    """Batches that each hold the same number of rows of a source, give or take one.

    Each source is assigned to slices of batches by itself, as many as there are batches, and the
    slices are put beside one another. So what `assign` promises holds within a source.

    Args:
        order: int64 (N,) rows by priority; the first floor(N / B) * B are assigned.
        sources: int16, by row number.
        batch_size: B.
        assign: (rows, batch size) -> all whole batches of the rows.
        rng: Decides which rows fill what the slices leave.
    """
    num_batches = len(order) // batch_size
    used = order[: num_batches * batch_size]
    slices, rest = [np.empty((num_batches, 0), np.int64)], [np.empty(0, np.int64)]
    for source in np.unique(sources[used]):
        rows = used[sources[used] == source]
        width = len(rows) // num_batches
        # Any row may be over: those of low priority stay in the packing too.
        rows = rng.permutation(rows)
        if width:
            slices.append(assign(rows[: width * num_batches], width).rows_PB)
        rest.append(rows[width * num_batches :])
    # Fewer than P rows are over in each source: dealt in turn, at most one a batch.
    left = np.concatenate(rest)
    slices.append(left.reshape(-1, num_batches).T if num_batches else slices[0])
    rows_PB = rng.permuted(np.concatenate(slices, axis=1), axis=1)
    return Assignment(rows_PB.reshape(num_batches, batch_size), np.sort(order[len(used) :]))
