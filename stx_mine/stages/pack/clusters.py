"""Topics: k-means clusters of vectors, laid along a line so that neighbours are alike."""

import numpy as np
from numpy.typing import NDArray

from stx_mine.store.vectors import Vectors

_TEXTS_A_CLUSTER, _MAX_CLUSTERS, _SAMPLE_A_CLUSTER, _ITERATIONS = 64, 4_096, 128, 10
_BLOCK = 65_536


def topic_positions(vectors: Vectors, seed: int) -> NDArray[np.float64]:
    """Where each vector's topic lies on a line of all topics.

    K-means (FAISS) on a sample; then a walk from centroid to its nearest unvisited one.

    Args:
        vectors: N vectors.
        seed: Seed of sample and k-means.

    Returns:
        float64 (N,) in [0, 1); equal for all vectors of a cluster.
    """
    import faiss  # it takes a fifth of a second, and few packings need it

    num_clusters = max(1, min(len(vectors) // _TEXTS_A_CLUSTER, _MAX_CLUSTERS))
    size = min(len(vectors), num_clusters * _SAMPLE_A_CLUSTER)
    sample = np.random.default_rng(seed).choice(len(vectors), size, replace=False)
    means = faiss.Kmeans(
        vectors.dim, num_clusters, niter=_ITERATIONS, seed=seed, min_points_per_centroid=1
    )
    means.train(vectors.take(np.sort(sample)))
    walk = _walk(np.asarray(means.centroids))
    position: NDArray[np.float64] = np.empty(num_clusters)
    position[walk] = np.arange(num_clusters) / num_clusters
    clusters = [means.index.search(block, 1)[1][:, 0] for _, block in vectors.blocks(_BLOCK)]
    found: NDArray[np.float64] = position[np.concatenate(clusters)]
    return found


def _walk(centroids: NDArray[np.float32]) -> NDArray[np.int64]:
    """All centroids, each followed by the nearest one that is left."""
    walk = np.zeros(len(centroids), np.int64)
    left = np.ones(len(centroids), bool)
    left[0] = False
    for step in range(1, len(centroids)):
        distances = np.square(centroids - centroids[walk[step - 1]]).sum(1)
        distances[~left] = np.inf
        walk[step] = int(distances.argmin())
        left[walk[step]] = False
    return walk
