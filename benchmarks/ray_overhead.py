"""What Ray costs: 200,000 texts embedded by two actors, beside the local engine with both cores.

    python -m benchmarks.ray_overhead [--quick] [--texts N] [--repeats R]

Both engines embed the same texts with the static model `package:wordllama` in shards of equal size,
in a process of their own. Start-up is measured apart, on a run of one shard a worker, which loads
the model and warms what is warmed once; what is compared is the time that the other shards add. The
vectors have to be the same bytes. Prints one JSON object as its last line:
{"ray_overhead": share by which Ray is slower beyond start-up, ...}.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.fresh import run_fresh
from benchmarks.machine import describe
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.ingest.config import IngestConfig

QUICKSTART = Path(__file__).parent.parent / "data" / "quickstart"
WORKERS = 2
ENGINES = ("local", "ray")


def write_texts(folder: Path, num_texts: int, seed: int = 42) -> None:
    """Distinct texts: sentences of the quickstart's corpus, three of them put together."""
    sentences = pq.read_table(QUICKSTART / "corpus.parquet").column(0).to_pylist()
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(sentences), (num_texts, 3))
    texts = [
        f"{number}: " + " ".join(sentences[i] for i in row) for number, row in enumerate(drawn)
    ]
    half = num_texts // 2
    pairs = pa.table({"query": texts[:half], "passage": texts[half : 2 * half]})
    pq.write_table(pairs, folder / f"pairs-{num_texts}.parquet")


def worker(engine: str, pairs: str, run_dir: str, shard_size: int) -> dict[str, float]:
    """Embed in this process; the seconds that `run_embed` takes, with model and engine started."""
    from stx_mine.cli import quiet
    from stx_mine.stages.embed.stage import run_embed
    from stx_mine.stages.ingest.stage import run_ingest
    from stx_mine.store.artifact import require
    from stx_mine.store.run_dir import RunDir

    quiet()
    run_ingest(IngestConfig(pairs=pairs, run_dir=run_dir))
    on_ray = {"engine": "ray", "workers": WORKERS} if engine == "ray" else {}
    started = time.perf_counter()
    run_embed(EmbedConfig(run_dir=run_dir, shard_size=shard_size, device="cpu", **on_ray))
    seconds = time.perf_counter() - started
    digest = int(require(RunDir(run_dir), "embeddings").digest, 16) % 2**52
    return {"seconds": seconds, "digest": digest}


def measure(num_texts: int, repeats: int) -> dict[str, object]:
    """Seconds of each engine for all texts and for start-up alone, medians of repeats."""
    shard_size = max(1, num_texts // 32)
    small = 2 * WORKERS * shard_size
    found: dict[str, dict[str, list[float]]] = {one: {"all": [], "start": []} for one in ENGINES}
    digests: dict[str, set[float]] = {"all": set(), "start": set()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in (num_texts, small):
            write_texts(folder, size)
        for repeat in range(repeats):
            for engine in ENGINES:
                for what, size in (("all", num_texts), ("start", small)):
                    run = folder / f"{engine}-{what}-{repeat}"
                    pairs = folder / f"pairs-{size}.parquet"
                    arguments = ["--worker", engine, str(pairs), str(run), str(shard_size)]
                    done = run_fresh("benchmarks.ray_overhead", arguments, WORKERS)
                    found[engine][what].append(done["seconds"])
                    digests[what].add(done["digest"])
                    print(f"{engine} {size:,} texts: {done['seconds']:.1f} s", file=sys.stderr)
    medians = {
        engine: {what: statistics.median(times) for what, times in one.items()}
        for engine, one in found.items()
    }
    beyond = {engine: one["all"] - one["start"] for engine, one in medians.items()}
    return {
        "ray_overhead": round(beyond["ray"] / beyond["local"] - 1, 3),
        "texts": num_texts,
        "texts_of_start": small,
        "seconds": medians,
        "seconds_beyond_start": beyond,
        "same_bytes": all(len(one) == 1 for one in digests.values()),
        "repeats": repeats,
        "machine": describe(),
    }


def main() -> None:
    """Measure, print, and end with one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20,000 texts, one repeat")
    parser.add_argument("--texts", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        engine, pairs, run_dir, shard_size = given.worker
        print(json.dumps(worker(engine, pairs, run_dir, int(shard_size))))
        return
    print(json.dumps(measure(20_000 if given.quick else given.texts, given.repeats)))


if __name__ == "__main__":
    main()
