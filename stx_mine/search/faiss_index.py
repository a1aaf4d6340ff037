"""FAISS indexes from factory strings; what they propose is scored like everything else."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from stx_mine.artifacts.vectors import Vectors
from stx_mine.errors import ConfigError
from stx_mine.search.exact import Hits, best_first
from stx_mine.search.score import score_hits

_TRAIN_SAMPLE = 262_144
_BLOCK = 65_536


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
    metric = faiss.METRIC_L2 if passages.similarity == "euclidean" else faiss.METRIC_INNER_PRODUCT
    try:
        index = faiss.index_factory(passages.dim, factory, metric)
        if not index.is_trained:
            size = min(len(passages), _TRAIN_SAMPLE)
            sample = np.random.default_rng(seed).choice(len(passages), size, replace=False)
            index.train(passages.take(np.sort(sample)))
        for _, block in passages.blocks(_BLOCK):
            index.add(block)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[-200:]
        raise ConfigError(
            f"FAISS cannot build --factory {factory!r} from {len(passages):,} passages of "
            f"{passages.dim} dimensions ({reason}); try Flat, HNSW32 or fewer IVF cells"
        ) from error
    return index


def write_index(index: Any, path: Path) -> None:
    """Write an index to a file."""
    faiss.write_index(index, str(path))


@dataclass(frozen=True)
class FaissSearcher:
    """Approximate search: FAISS proposes, the fixed-order score decides order and values.

    Attributes:
        index: The FAISS index.
        passages: The stored vectors.
    """

    index: Any
    passages: Vectors

    @classmethod
    def open(cls, path: Path, passages: Vectors, nprobe: int) -> "FaissSearcher":
        """Map a written index."""
        index = faiss.read_index(str(path))
        set_nprobe(index, nprobe)
        return cls(index, passages)

    def search(self, queries_QD: NDArray[np.float32], num_hits: int) -> Hits:
        """The top `num_hits` that the index finds; -1 pads where it finds fewer."""
        wanted = min(num_hits, len(self.passages))
        _, found_QK = self.index.search(queries_QD, wanted)
        ids_QK = np.asarray(found_QK, np.int64)
        distinct, rows = np.unique(np.maximum(ids_QK, 0), return_inverse=True)
        rows_QK = np.where(ids_QK < 0, -1, rows.reshape(ids_QK.shape))
        vectors = self.passages.take(distinct)
        scores_QK = score_hits(queries_QD, vectors, rows_QK, self.passages.similarity)
        return Hits(*best_first(ids_QK, scores_QK))


def set_nprobe(index: Any, nprobe: int) -> None:
    """Set the cells that an IVF index visits; other indexes have none."""
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
