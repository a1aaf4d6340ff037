"""What an evaluation writes and says: means, intervals, paired differences, per-query values."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stx_mine.stages.evaluate.core.metrics import METRICS
from stx_mine.stages.evaluate.core.resampling import (
    LEVEL,
    NUM_DRAWS,
    bootstrap_intervals,
    randomisation_p_values,
)
from stx_mine.store.artifact import Manifest
from stx_mine.store.files import atomic, read_json
from stx_mine.store.report import plain_table

RESULTS, QUERIES = "results.json", "queries.parquet"
_SHOWN_METRIC = "ndcg@10"
_MISSING = "seen and unseen in training are not told apart: the run has no finished texts/"


@dataclass(frozen=True)
class Scored:
    """The metrics of one model, or of the first dimensions of its embeddings.

    Attributes:
        model: Its name.
        dims: How many dimensions; None for all.
        metrics: Metric -> float64 (Q,), all of the same queries.
    """

    model: str
    dims: int | None
    metrics: Mapping[str, NDArray[np.float64]]

    def values(self) -> NDArray[np.float64]:
        """float64 (Q, metrics)."""
        return np.stack([self.metrics[metric] for metric in METRICS], axis=1)


def metric_summaries(
    scored: Sequence[Scored], seen: NDArray[np.bool_] | None, seed: int
) -> dict[str, Any]:
    """Means with intervals, and paired differences: the content of `results.json`.

    Args:
        scored: Every model at every number of dimensions, all dimensions first.
        seen: Bool (Q,): whether training knows the query; None if nobody can tell.
        seed: Seed of all resampling.
    """
    scores: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    pairs = [(one, other) for other, one in combinations(scored, 2) if _comparable(one, other)]
    for name, rows in _parts(seen, len(scored[0].values())):
        means = [one.values()[rows] for one in scored]
        gaps = [one.values()[rows] - other.values()[rows] for one, other in pairs]
        # One pass of draws for all: a pair's gap and its means are of the same draws.
        ends = bootstrap_intervals(np.concatenate([*means, *gaps], axis=1), seed)
        cells: list[dict[str, Any]] = [
            {metric: {"mean": mean, "low": low, "high": high} for metric, mean, low, high in one}
            for one in _cells([*means, *gaps], ends)
        ]
        part = {"queries": name, "num_queries": len(rows)}
        for one, cell in zip(scored, cells[: len(scored)], strict=True):
            scores.append({"model": one.model, "dims": one.dims, **part, **cell})
        for (one, other), gap, cell in zip(pairs, gaps, cells[len(scored) :], strict=True):
            for metric, p in zip(METRICS, randomisation_p_values(gap, seed), strict=True):
                cell[metric]["p"] = float(p)
            names = {"model": one.model, "dims": one.dims}
            names |= {"other": other.model, "other_dims": other.dims}
            differences.append({**names, **part, **cell})
    return {
        "metrics": list(METRICS),
        "models": {
            one["model"]: {metric: one[metric]["mean"] for metric in METRICS}
            for one in scores
            if one["dims"] is None and one["queries"] == "all"
        },
        "seen_in_training": None
        if seen is None
        else {"seen": int(seen.sum()), "unseen": int((~seen).sum())},
        "scores": scores,
        "differences": differences,
        "method": {
            "interval": "percentile bootstrap over queries, paired for differences",
            "p": "two-sided paired randomisation test (random signs)",
            "level": LEVEL,
            "draws": NUM_DRAWS,
            "seed": seed,
        },
    }


def _comparable(one: Scored, other: Scored) -> bool:
    """Models at equal dimensions, and a model's first dimensions with all of them."""
    return one.dims == other.dims or (one.model == other.model and other.dims is None)


def _parts(
    seen: NDArray[np.bool_] | None, num_queries: int
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Name and queries of all, and where known of those seen and unseen in training."""
    yield "all", np.arange(num_queries)
    if seen is not None:
        for name, chosen in (("seen", seen), ("unseen", ~seen)):
            if chosen.any():
                yield name, np.flatnonzero(chosen)


def _cells(
    values: list[NDArray[np.float64]], ends: NDArray[np.float64]
) -> Iterator[list[tuple[str, float, float, float]]]:
    """Of each matrix (Q, metrics): name, mean and interval of each metric."""
    for number, one in enumerate(values):
        first = number * len(METRICS)
        low, high = ends[:, first : first + len(METRICS)].tolist()
        yield list(zip(METRICS, one.mean(0).tolist(), low, high, strict=True))


def query_table(
    scored: Sequence[Scored],
    query_ids: NDArray[np.int64],
    original_ids: pa.Array,
    seen: NDArray[np.bool_] | None,
) -> pa.Table:
    """Per-query values, a row a model, number of dimensions and query.

    Args:
        scored: As `metric_summaries` takes it.
        query_ids: int64 (Q,): number of each query, in order of its first appearance in the data.
        original_ids: (Q,) its id in the data; null where it has none.
        seen: As `metric_summaries` takes it.

    Returns:
        Columns `model`, `dims` (null: all), `query_id`, `original_id`, `seen` (null: unknown), and
        the metrics.
    """
    known = pa.nulls(len(query_ids), pa.bool_()) if seen is None else pa.array(seen)
    return pa.concat_tables(
        pa.table(
            {
                "model": pa.repeat(one.model, len(query_ids)),
                "dims": pa.repeat(pa.scalar(one.dims, pa.int32()), len(query_ids)),
                "query_id": pa.array(query_ids),
                "original_id": original_ids,
                "seen": known,
                **{metric: pa.array(values) for metric, values in one.metrics.items()},
            }
        )
        for one in scored
    )


def write_query_table(path: Path, table: pa.Table) -> None:
    """Write per-query values atomically."""
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def result_lines(manifest: Manifest) -> list[str]:
    """The summary of one data set."""
    counts, results = manifest.counts, read_json(manifest.folder / RESULTS)
    source = manifest.fields["source"]
    prompts = f", with the prompts of source {source}" if source is not None else ""
    known, method = results["seen_in_training"], results["method"]
    lines = [
        f"{counts['queries']:,} queries against {counts['passages']:,} passages{prompts}",
        _MISSING
        if known is None
        else f"{known['seen']:,} queries are seen in training (their text, or a positive of "
        f"theirs, is in the run's pairs), {known['unseen']:,} are not",
        *_scores_table(results["scores"]),
        f"[{method['level']:.0%} interval: {method['interval']}; {method['draws']:,} draws, seed "
        f"{method['seed']}]",
        *(_difference_line(one) for one in results["differences"]),
    ]
    if results["differences"]:
        lines.append(f"[p: {method['p']}; as many draws; of every other metric in {RESULTS}]")
    return lines


def _scores_table(scores: list[dict[str, Any]]) -> list[str]:
    cells = [
        [
            _label(one["model"], one["dims"]),
            one["queries"],
            *("{mean:.4f} [{low:.4f}, {high:.4f}]".format(**one[metric]) for metric in METRICS),
        ]
        for one in scores
    ]
    return plain_table([["model", "queries", *METRICS], *cells])


def _difference_line(one: dict[str, Any]) -> str:
    gap = one[_SHOWN_METRIC]
    return (
        f"{_SHOWN_METRIC} ({one['queries']}): {_label(one['model'], one['dims'])} less "
        f"{_label(one['other'], one['other_dims'])}: {gap['mean']:+.4f} [{gap['low']:+.4f}, "
        f"{gap['high']:+.4f}], p = {gap['p']:.4f}"
    )


def overview_of(results: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Data set -> its results, to the results of all of them.

    Returns:
        `models` (model -> metric -> mean over the data sets), and `scores`: those of every data
        set, each with its name.
    """
    models = next(iter(results.values()))["models"]
    return {
        "metrics": list(METRICS),
        "models": {
            model: {
                metric: float(np.mean([one["models"][model][metric] for one in results.values()]))
                for metric in METRICS
            }
            for model in models
        },
        "scores": [
            {"data": name, **score} for name, one in results.items() for score in one["scores"]
        ],
    }


def overview_lines(overview: dict[str, Any]) -> list[str]:
    """A table of models by data sets, with the mean over the data sets."""
    means: dict[str, dict[str, float]] = {}
    for one in overview["scores"]:
        if one["queries"] == "all":
            label = _label(one["model"], one["dims"])
            means.setdefault(label, {})[one["data"]] = one[_SHOWN_METRIC]["mean"]
    names = list(dict.fromkeys(one["data"] for one in overview["scores"]))
    rows = []
    for label, by_data in means.items():
        values = [*(by_data[name] for name in names), float(np.mean(list(by_data.values())))]
        rows.append([label, *map("{:.4f}".format, values)])
    return plain_table([[_SHOWN_METRIC, *names, "mean"], *rows])


def _label(model: str, dims: int | None) -> str:
    return model if dims is None else f"{model} [:{dims}]"
