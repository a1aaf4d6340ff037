"""What the mining benchmark measures, each in a fresh process: one JSON object on stdout.

    python -m benchmarks.mine_workers WORKER WORKPLACE [RUN]

Every worker imports only what it measures (configs need nothing), and reads the
embeddings from the files of the run.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.fresh import PeakMemory
from stx_mine.stages.mine.config import MineConfig

NUM_NEGATIVES = 8
WINDOW = 100
RELATIVE_MARGIN = 0.05
OTHER_MARGINS = (0.1, 0.2)
NUM_HITS = 100
PRODUCT_REPEATS = 100


@dataclass(frozen=True)
class Workplace:
    """Where the benchmark keeps what its processes share.

    Attributes:
        folder: The folder.
        run_name: Which run directory of ours, below it.
    """

    folder: Path
    run_name: str = "all"

    @property
    def run(self) -> Path:
        """Our run directory, with texts and embeddings."""
        return self.folder / self.run_name

    @property
    def pairs(self) -> Path:
        """The pairs as Parquet."""
        return self.folder / "pairs.parquet"

    @property
    def model(self) -> Path:
        """The model that embedded both sides, in a folder."""
        return self.folder / "model"

    @property
    def peer_cache(self) -> Path:
        """The peer's embedding cache: links to the files of our run."""
        return self.folder / "peer-cache"

    @property
    def peer_negatives(self) -> Path:
        """What the peer mined, saved by `datasets`."""
        return self.folder / "peer-negatives"

    def vectors(self, role: str) -> Path:
        """The one embedding file of `queries` or `passages`."""
        return self.run / "embeddings" / f"{role}-00000-of-00001.npy"

    def ids(self, tool: str) -> Path:
        """The hits that a search of `tool` found, as int32 (queries, NUM_HITS)."""
        return self.folder / f"{tool}-ids.npy"


def ours(place: Workplace) -> dict[str, float]:
    """Mine from texts and embeddings on disk to negatives on disk.

    The search lasts from the plan of `hits/` to its manifest, which are its first and its last
    file; everything later is `after_s`.
    """
    from stx_mine.stages.mine.stage import run_mine

    hits, config = place.run / "hits" / "dense", mine_config(place, RELATIVE_MARGIN)
    with PeakMemory() as memory:
        started = time.time()
        report = run_mine(config)
        ended = time.time()
    planned, searched = ((hits / name).stat().st_mtime for name in ("plan.json", "manifest.json"))
    return {
        "total_s": ended - started,
        "before_s": planned - started,
        "search_s": searched - planned,
        "after_s": ended - searched,
        "rss_mb": memory.rss_mb,
        "anonymous_mb": memory.anonymous_mb,
        "rows": report.counts["rows"],
        "rows_full": report.counts["rows_full"],
    }


def reselect(place: Workplace) -> dict[str, float]:
    """Mine again with another margin: the hits are there, only the selection runs.

    Twice in one process: `first_s` loads numba's machine code from the disk, `second_s` has it.
    """
    from stx_mine.stages.mine.stage import run_mine

    seconds = []
    for margin in OTHER_MARGINS:
        config = mine_config(place, margin)
        started = time.perf_counter()
        run_mine(config)
        seconds.append(time.perf_counter() - started)
    return {"first_s": seconds[0], "second_s": seconds[1]}


def mine_config(place: Workplace, relative_margin: float) -> MineConfig:
    """The settings that mean to us what the library's arguments in `peer` mean to it."""
    return MineConfig(
        run_dir=str(place.run),
        k=NUM_NEGATIVES,
        range_max=WINDOW,
        relative_margin=relative_margin,
        search="exact",
        device="cpu",
    )


def peer(place: Workplace) -> dict[str, float]:
    """Mine with the library from its embedding cache to a saved dataset.

    The format is n-tuple, which does the least work of the four a negative. The search lasts from
    adding the corpus to the index to the last answer; everything later is `after_s`. Loading the
    model and opening the pairs, which it maps, count for memory and not for time.

    Raises:
        RuntimeError: The library did not use the cache.
    """
    import faiss
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    stamps: list[float] = []

    class TimedIndex(faiss.IndexFlatIP):
        def add(self, vectors: np.ndarray) -> None:
            stamps.append(time.perf_counter())
            super().add(vectors)

        def search(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
            found = super().search(vectors, k=k)
            stamps.append(time.perf_counter())
            return found

    faiss.IndexFlatIP = TimedIndex
    cached = sorted(place.peer_cache.iterdir())
    model = SentenceTransformer(str(place.model), device="cpu")
    pairs = Dataset.from_parquet(str(place.pairs), cache_dir=str(place.folder / "datasets"))
    with PeakMemory() as memory:
        started = time.perf_counter()
        mined = mine_hard_negatives(
            pairs,
            model,
            num_negatives=NUM_NEGATIVES,
            range_min=0,
            range_max=WINDOW,
            relative_margin=RELATIVE_MARGIN,
            output_format="n-tuple",
            use_faiss=True,
            cache_folder=str(place.peer_cache),
            verbose=False,
        )
        mined.save_to_disk(str(place.peer_negatives))
        ended = time.perf_counter()
    if sorted(place.peer_cache.iterdir()) != cached:
        raise RuntimeError(
            f"expected {[path.name for path in cached]} to be used, but the library wrote other "
            f"files into {place.peer_cache}: it names them in another way now; mend cache_name"
        )
    return {
        "total_s": ended - started,
        "before_s": stamps[0] - started,
        "search_s": stamps[-1] - stamps[0],
        "after_s": ended - stamps[-1],
        "rss_mb": memory.rss_mb,
        "anonymous_mb": memory.anonymous_mb,
        "rows": len(pairs),
        "rows_full": len(mined),
    }


def search_ours(place: Workplace) -> dict[str, float]:
    """Find the `NUM_HITS` best passages of every query, in blocks as `mine` searches them."""
    from stx_mine.search.exact import ExactSearcher
    from stx_mine.store.artifact import require
    from stx_mine.store.run_dir import RunDir
    from stx_mine.store.vectors import Vectors

    embeddings = require(RunDir(place.run), "embeddings")
    started = time.perf_counter()
    queries = Vectors.open(embeddings, "queries")
    searcher = ExactSearcher(Vectors.open(embeddings, "passages"), device="cpu")
    ids_QK = np.empty((len(queries), NUM_HITS), np.int32)
    num_redone = 0
    for first, block in queries.blocks(MineConfig().query_block):
        found = searcher.search(block, NUM_HITS)
        ids_QK[first : first + len(block)] = found.ids_QK
        num_redone += found.num_redone
    seconds = time.perf_counter() - started
    np.save(place.ids("ours"), ids_QK)
    return {"search_s": seconds, "num_redone": num_redone}


def search_faiss(place: Workplace) -> dict[str, float]:
    """Find them with `faiss.knn` in float32; loading the vectors is not timed."""
    import faiss

    queries, passages = (np.load(place.vectors(role)) for role in ("queries", "passages"))
    started = time.perf_counter()
    _, ids_QK = faiss.knn(queries, passages, NUM_HITS, metric=faiss.METRIC_INNER_PRODUCT)
    seconds = time.perf_counter() - started
    np.save(place.ids("faiss"), ids_QK.astype(np.int32))
    return {"search_s": seconds}


def product_rates(place: Workplace) -> dict[str, float]:
    """10^9 operations a second of products as the search makes them, by precision; one thread."""
    import torch

    from stx_mine.search.product import products
    from stx_mine.search.stream import PASSAGE_TILE, QUERY_TILE

    dim = np.load(place.vectors("queries"), mmap_mode="r").shape[1]
    rates = {}
    for name in ("float32", "bfloat16"):
        dtype = getattr(torch, name)
        queries, passages = (torch.randn(n, dim).to(dtype) for n in (QUERY_TILE, PASSAGE_TILE))
        out = torch.empty(QUERY_TILE * PASSAGE_TILE, dtype=dtype)
        seconds = []
        for _ in range(PRODUCT_REPEATS):
            started = time.perf_counter()
            products(queries, passages, out)
            seconds.append(time.perf_counter() - started)
        rates[name] = 2 * out.numel() * dim / statistics.median(seconds) / 1e9
    return rates


WORKERS: dict[str, Callable[[Workplace], dict[str, float]]] = {
    one.__name__: one for one in (ours, reselect, peer, search_ours, search_faiss, product_rates)
}


if __name__ == "__main__":
    worker, folder, *run_name = sys.argv[1:]
    print(json.dumps(WORKERS[worker](Workplace(Path(folder), *run_name))))
