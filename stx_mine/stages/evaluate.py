"""Evaluate: nDCG@10, MRR@10 and Recall@100 of models on held-out pairs, by exact search."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.artifacts.artifact import MANIFEST, Artifact, read_manifest
from stx_mine.artifacts.files import read_json, write_json
from stx_mine.artifacts.pair_source import PairSource, TextStream
from stx_mine.artifacts.run_dir import RunDir
from stx_mine.artifacts.vectors import Vectors, prepare
from stx_mine.config import DEFAULT_MODEL, EvaluateConfig, key_fields
from stx_mine.core.metrics import METRICS, retrieval_metrics
from stx_mine.errors import ConfigError
from stx_mine.models.encoder import SentenceTransformerEncoder
from stx_mine.models.tokenise import Role
from stx_mine.ragged import ragged_sets
from stx_mine.search.exact import ExactSearcher
from stx_mine.stages.ingest import Distinct, Ingested, read_source
from stx_mine.stages.report import StageReport, make_report

RESULTS = "results.json"
_ENCODE_ROWS = 65_536
_DEPTH = 100


def run_evaluate(config: EvaluateConfig) -> StageReport:
    """Evaluate models and write `evaluations/NAME/results.json`.

    Raises:
        ConfigError: No data is named.
        InputError: The data is missing or malformed.
        ModelError: A model cannot be loaded.
    """
    if config.data is None:
        raise ConfigError("expected DATA, found none; name held-out pairs or a BEIR folder")
    run = RunDir(config.run_dir)
    source = PairSource.open(config.data, config, "test")
    with run.lock():
        encoders = [
            SentenceTransformerEncoder.load(name, config.device, None, config.encode_batch_size)
            for name in config.models or _default_models(run)
        ]
        fields = {**key_fields(config, "evaluations"), **key_fields(config, "texts")}
        fields["models"] = [[one.name, one.contract()] for one in encoders]
        fields["content"] = source.fingerprint()
        name = config.name or Path(config.data).name.split(".")[0]
        artifact = Artifact(run, "evaluations", fields=fields, inputs={}, view=True, subfolder=name)
        if artifact.done:
            return _report(artifact, skipped=True)
        artifact.begin([RESULTS])
        found = read_source(source)
        texts: dict[Role, pa.Array] = {
            "query": _distinct_texts(source.queries(), found.queries),
            "passage": _distinct_texts(source.passages(), found.passages),
        }
        results = {
            one.name: {
                metric: float(values.mean())
                for metric, values in evaluate(one, texts, found, config.device).items()
            }
            for one in encoders
        }
        write_json(artifact.folder / RESULTS, {"metrics": list(METRICS), "models": results})
        artifact.finish([RESULTS], config=asdict(config), counts=found.counts)
        return _report(artifact)


def evaluate(
    encoder: SentenceTransformerEncoder,
    texts: dict[Role, pa.Array],
    found: Ingested,
    device: str | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Per-query metrics of one model.

    Args:
        encoder: The model.
        texts: Distinct texts of each role, by id.
        found: The pairs that are relevant.
        device: Where the search runs.

    Returns:
        Metric -> float64 (queries with a relevant passage,).
    """
    similarity = encoder.similarity()
    passages = Vectors((_encode(encoder, texts, "passage"),), similarity)
    asked, rows = np.unique(found.pairs[:, 0], return_inverse=True)
    queries = prepare(_encode(encoder, texts, "query")[asked], similarity)
    searcher = ExactSearcher(passages, device=device)
    hits = np.concatenate(
        [
            searcher.search(queries[start : start + 4_096], _DEPTH).ids_QK
            for start in range(0, len(queries), 4_096)
        ]
    )
    return retrieval_metrics(hits, ragged_sets(rows, found.pairs[:, 1], len(asked)))


def read_results(run: RunDir, name: str) -> dict[str, dict[str, float]]:
    """Model -> metric -> mean, of a finished evaluation."""
    results = read_json(run.folder("evaluations") / name / RESULTS)
    return dict(results["models"])


def metrics_table(results: dict[str, dict[str, float]]) -> list[str]:
    """Lines of a plain table, a model each."""
    width = max(len(name) for name in [*results, "model"])
    lines = [f"{'model':<{width}}  " + "  ".join(f"{metric:>10}" for metric in METRICS)]
    for name, values in results.items():
        cells = "  ".join(f"{values[metric]:>10.4f}" for metric in METRICS)
        lines.append(f"{name:<{width}}  {cells}")
    return lines


def _default_models(run: RunDir) -> list[str]:
    """The model that embedded round 1, and the one that this run trained."""
    base = DEFAULT_MODEL
    embedded = run.first_round.folder("embeddings") / MANIFEST
    if embedded.exists():
        base = read_manifest(embedded.parent).extra["model"]
    trained = run.folder("model")
    return [base, str(trained)] if (trained / MANIFEST).exists() else [base]


def _distinct_texts(stream: TextStream, distinct: Distinct) -> pa.ChunkedArray:
    first, start, chunks = distinct.first_rows(), 0, []
    for texts, _ in stream:
        chunks.append(texts.filter(pa.array(first[start : start + len(texts)])))
        start += len(texts)
    return pa.chunked_array(chunks, pa.large_string())


def _encode(
    encoder: SentenceTransformerEncoder, texts: dict[Role, Any], role: Role
) -> NDArray[np.float32]:
    rows = texts[role]
    return np.concatenate(
        [
            encoder.encode(rows.slice(start, _ENCODE_ROWS).to_pylist(), role)
            for start in range(0, len(rows), _ENCODE_ROWS)
        ]
    )


def _report(artifact: Artifact, skipped: bool = False) -> StageReport:
    counts = artifact.result.counts
    results = dict(read_json(artifact.result.folder / RESULTS)["models"])
    lines = [
        f"{counts['queries']:,} queries against {counts['passages']:,} passages",
        *metrics_table(results),
    ]
    return make_report(artifact, lines, skipped=skipped)
