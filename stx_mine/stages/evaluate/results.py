"""The files of an evaluation: `results.json` and the per-query values, written and read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stx_mine.stages.evaluate.core.metrics import METRICS
from stx_mine.stages.evaluate.core.shares import SeenShares, Share
from stx_mine.stages.evaluate.core.summaries import Difference, Score, Scored, Summary
from stx_mine.stages.evaluate.counts import EvaluationCounts
from stx_mine.store.files import atomic, read_json, write_json
from stx_mine.store.run_dir import RunDir

RESULTS, QUERIES = "results.json", "queries.parquet"
INTERVAL = "percentile bootstrap over queries, paired for differences"
PAIRED_TEST = "two-sided paired randomisation test (random signs)"


def write_summary(
    folder: Path, summary: Summary, judged_with: Mapping[str, Any], counts: EvaluationCounts
) -> None:
    """Write `results.json` of one data set.

    Args:
        folder: Where to.
        summary: The results.
        judged_with: Model -> what its texts are encoded with.
        counts: What the data holds.
    """
    about = {"judged_with": dict(judged_with), "data": counts.to_json()}
    write_json(folder / RESULTS, summary_json(summary) | about)


def summary_json(summary: Summary) -> dict[str, Any]:
    """The content of `results.json` of one data set."""
    return {
        "metrics": list(METRICS),
        "models": summary.means(),
        "seen_in_training": None if summary.seen is None else shares_json(summary.seen),
        "scores": [_flat(score) for score in summary.scores],
        "differences": [_flat(difference) for difference in summary.differences],
        "method": {
            "interval": INTERVAL,
            "p": PAIRED_TEST,
            "level": summary.level,
            "draws": summary.num_draws,
            "seed": summary.seed,
        },
    }


def read_summary(folder: Path) -> Summary:
    """Read `results.json` of one data set."""
    content = read_json(folder / RESULTS)
    seen, method = content["seen_in_training"], content["method"]
    return Summary(
        [Score(**_nested(score)) for score in content["scores"]],
        [Difference(**_nested(difference)) for difference in content["differences"]],
        None if seen is None else read_shares(seen),
        method["seed"],
        method["level"],
        method["draws"],
    )


def shares_json(shares: SeenShares) -> dict[str, dict[str, int]]:
    """By what -> `seen` and `of`."""
    return {name: share._asdict() for name, share in vars(shares).items()}


def read_shares(content: Mapping[str, Mapping[str, int]]) -> SeenShares:
    """Back from `shares_json`."""
    return SeenShares(**{name: Share(**share) for name, share in content.items()})


def _flat(row: Score | Difference) -> dict[str, Any]:
    """A score or difference as JSON has it: its metrics stand beside its other fields."""
    fields = {name: value for name, value in vars(row).items() if name != "metrics"}
    return fields | dict(row.metrics)


def _nested(row: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `_flat`."""
    fields = {name: value for name, value in row.items() if name not in METRICS}
    return fields | {"metrics": {metric: row[metric] for metric in METRICS}}


@dataclass(frozen=True)
class Overview:
    """The results of several data sets together.

    Attributes:
        means: Model -> metric -> mean over the data sets.
        scores: Data set -> its scores.
    """

    means: dict[str, dict[str, float]]
    scores: dict[str, list[Score]]

    @classmethod
    def of(cls, summaries: Mapping[str, Summary]) -> "Overview":
        """Bring the summaries of data sets, by name, together; each has the same models."""
        by_data = [summary.means() for summary in summaries.values()]
        means = {
            model: {
                metric: float(np.mean([models[model][metric] for models in by_data]))
                for metric in METRICS
            }
            for model in by_data[0]
        }
        return cls(means, {name: summary.scores for name, summary in summaries.items()})

    def write(self, folder: Path) -> None:
        """Write `results.json` of an overview."""
        scores = [
            {"data": name, **_flat(score)} for name, some in self.scores.items() for score in some
        ]
        content = {"metrics": list(METRICS), "models": self.means, "scores": scores}
        write_json(folder / RESULTS, content)

    @classmethod
    def read(cls, folder: Path) -> "Overview":
        """Read `results.json` of an overview."""
        content = read_json(folder / RESULTS)
        scores: dict[str, list[Score]] = {}
        for row in content["scores"]:
            fields = _nested(row)
            scores.setdefault(fields.pop("data"), []).append(Score(**fields))
        return cls(content["models"], scores)


def query_table(
    scored: Sequence[Scored],
    query_ids: NDArray[np.int64],
    original_ids: pa.Array,
    seen: NDArray[np.bool_] | None,
) -> pa.Table:
    """Per-query values: a row per model, number of dimensions and query.

    Args:
        scored: As `metric_summaries` takes it.
        query_ids: int64 (Q,): number of each query, in order of its first appearance in the data.
        original_ids: (Q,) its id in the data; null where it has none.
        seen: Bool (Q,): whether training knows the query; None if nobody can tell.

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


def read_results(run: RunDir, name: str) -> dict[str, dict[str, float]]:
    """Model -> metric -> mean, of a finished evaluation; of an overview over its data sets."""
    results = read_json(run.folder("evaluations") / name / RESULTS)
    return dict(results["models"])
