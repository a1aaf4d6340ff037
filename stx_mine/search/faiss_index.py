"""FAISS indexes from factory strings; what they propose is scored like everything else.

FAISS is imported where it is called: it takes a fifth of a second, and few commands need it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stx_mine.errors import ConfigError, one_line
from stx_mine.search.score import score_hits
from stx_mine.search.stream import Hits, best_first
from stx_mine.store.vectors import Vectors

_TRAIN_SAMPLE = 262_144
_BLOCK = 65_536
_GATHERED_BYTES = 1 << 28


def build_index(factory: str, passages: Vectors, seed: int) -> Any:
    """Train a FAISS index on a sample and add all passages.

    Args:
        factory: A factory string, e.g. `IVF1024,Flat` or `HNSW32`.
        passages: The stored vectors.
        seed: Seed of the sample.

    Returns:
        The FAISS index.

    Raises:
        ConfigError: FAISS does not know the string, or cannot build it on so few passages.
    """
    import faiss

    metric = faiss.METRIC_L2 if passages.similarity.by_distance else faiss.METRIC_INNER_PRODUCT
    try:
        index = faiss.index_factory(passages.dim, factory, metric)
        if not index.is_trained:
            size = min(len(passages), _TRAIN_SAMPLE)
            sample = np.random.default_rng(seed).choice(len(passages), size, replace=False)
            index.train(passages.take(np.sort(sample)))
        for _, block in passages.blocks(_BLOCK):
            index.add(block)
    except RuntimeError as error:
        reason = one_line(error)[-200:]
        raise ConfigError(
            f"FAISS cannot build --factory {factory!r} from {len(passages):,} passages of "
            f"{passages.dim} dimensions ({reason}); try Flat, HNSW32 or fewer IVF cells"
        ) from error
    return index


def write_index(index: Any, path: Path) -> None:
    """Write an index to a file."""
    import faiss

    faiss.write_index(index, str(path))


@dataclass(frozen=True)
class FaissSearcher:
    """Approximate search: FAISS proposes, the fixed-order score decides order and values.

    Attributes:
        index: The FAISS index.
        passages: The stored vectors.
        refine_factor: Proposals a hit wanted; a coarse index needs several.
    """

    index: Any
    passages: Vectors
    refine_factor: int = 1

    @classmethod
    def open(
        cls, path: Path, passages: Vectors, nprobe: int, refine_factor: int
    ) -> "FaissSearcher":
        """Map a written index."""
        import faiss

        index = faiss.read_index(str(path))
        set_nprobe(index, nprobe)
        return cls(index, passages, refine_factor)

    def search(self, queries_QD: NDArray[np.float32], num_hits: int) -> Hits:
        """The top `num_hits` of what the index proposes; -1 pads where it finds fewer.

        Raises:
            ConfigError: FAISS cannot search the index, as one without cells.
        """
        wanted = min(num_hits, len(self.passages))
        proposed = min(wanted * self.refine_factor, len(self.passages))
        try:
            _, found_QK = self.index.search(queries_QD, proposed)
        except RuntimeError as error:
            raise ConfigError(
                f"FAISS cannot search this index ({one_line(error)[-200:]}); build one of another "
                "--factory"
            ) from error
        ids_QK = np.asarray(found_QK, np.int64)
        at_a_time = max(1, _GATHERED_BYTES // (proposed * self.passages.dim * 4))
        best = [
            self._best(queries_QD[start : start + at_a_time], ids_QK[start : start + at_a_time])
            for start in range(0, len(ids_QK), at_a_time)
        ]
        return Hits(
            np.concatenate([ids[:, :wanted] for ids, _ in best]),
            np.concatenate([scores[:, :wanted] for _, scores in best]),
            num_scored=ids_QK.size,
        )

    def _best(
        self, queries_QD: NDArray[np.float32], ids_QK: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        distinct, rows = np.unique(np.maximum(ids_QK, 0), return_inverse=True)
        rows_QK = np.where(ids_QK < 0, -1, rows.reshape(ids_QK.shape))
        vectors = self.passages.take(distinct)
        return best_first(
            ids_QK, score_hits(queries_QD, vectors, rows_QK, self.passages.similarity)
        )


def set_nprobe(index: Any, nprobe: int) -> None:
    """Set the cells that an IVF index visits; other indexes have none."""
    import faiss

    inner = faiss.try_extract_index_ivf(index)
    if inner is not None:
        inner.nprobe = min(nprobe, inner.nlist)


def recall(found_QK: NDArray[np.int64], exact_QK: NDArray[np.int64]) -> float:
    """Mean share of the exact hits that were found.

    Args:
        found_QK: int64 (Q, K) ids; -1 pads.
        exact_QK: int64 (Q, K) ids of exact search.
    """
    shares = [
        len(np.intersect1d(found, exact)) / len(exact)
        for found, exact in zip(found_QK, exact_QK, strict=True)
    ]
    return float(np.mean(shares))
