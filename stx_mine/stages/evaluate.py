"""Evaluate: nDCG@10, MRR@10 and Recall@100 of models on held-out pairs, by exact search."""

from collections.abc import Mapping
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
from stx_mine.artifacts.sources import prompts_differ, read_sources
from stx_mine.artifacts.vectors import Vectors, prepare
from stx_mine.config import DEFAULT_MODEL, EvaluateConfig, key_fields
from stx_mine.core.metrics import METRICS, retrieval_metrics
from stx_mine.errors import ConfigError
from stx_mine.models.encoder import SentenceTransformerEncoder
from stx_mine.models.tokenise import Role
from stx_mine.ragged import ragged_sets
from stx_mine.search.exact import ExactSearcher
from stx_mine.stages.distinct import Distinct
from stx_mine.stages.read_pairs import Ingested, read_source
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
        prompts, warnings = _prompts(config, run)
        fields["prompts"] = prompts
        name = config.name or Path(config.data).name.split(".")[0]
        artifact = Artifact(run, "evaluations", fields=fields, inputs={}, view=True, subfolder=name)
        if artifact.done:
            return _report(artifact, warnings, skipped=True)
        artifact.begin([RESULTS])
        found = read_source(source)
        texts: dict[Role, pa.Array] = {
            "query": _distinct_texts(source.queries(), found.queries),
            "passage": _distinct_texts(source.passages(), found.passages),
        }
        results = {
            one.name: {
                metric: float(values.mean())
                for metric, values in evaluate(one, texts, found, config.device, prompts).items()
            }
            for one in encoders
        }
        write_json(artifact.folder / RESULTS, {"metrics": list(METRICS), "models": results})
        artifact.finish([RESULTS], config=asdict(config), counts=found.counts)
        return _report(artifact, warnings)


def _prompts(config: EvaluateConfig, run: RunDir) -> tuple[dict[str, str | None], list[str]]:
    """Role -> prompt of the source of the data, and a warning where it is not known.

    Raises:
        ConfigError: The run has no such source.
    """
    made = (run.folder("texts") / MANIFEST).exists()
    sources = read_sources(read_manifest(run.folder("texts"))) if made else ()
    names = ", ".join(one.name for one in sources)
    if config.source is not None:
        chosen = [one for one in sources if one.name == config.source]
        if not chosen:
            raise ConfigError(
                f"--source {config.source!r} is no source of {run.path}, which has "
                f"{names or 'none'}; name one of them, or leave it out"
            )
        return chosen[0].prompts, []
    if not prompts_differ(sources):
        return (sources[0].prompts if sources else {}), []
    warning = (
        f"the sources of this run have different prompts ({names}), the data was encoded with "
        "those of each model; give --source NAME for the prompts of one"
    )
    return {}, [warning]


def evaluate(
    encoder: SentenceTransformerEncoder,
    texts: dict[Role, pa.Array],
    found: Ingested,
    device: str | None = None,
    prompts: Mapping[str, str | None] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Per-query metrics of one model.

    Args:
        encoder: The model.
        texts: Distinct texts of each role, by id.
        found: The pairs that are relevant.
        device: Where the search runs.
        prompts: Role -> prompt; the model's own where there is none.

    Returns:
        Metric -> float64 (queries with a relevant passage,).
    """
    similarity = encoder.similarity()
    prompts = prompts or {}
    passages = Vectors((_encode(encoder, texts, "passage", prompts),), similarity)
    asked, rows = np.unique(found.pairs[:, 0], return_inverse=True)
    queries = prepare(_encode(encoder, texts, "query", prompts)[asked], similarity)
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
    encoder: SentenceTransformerEncoder,
    texts: dict[Role, Any],
    role: Role,
    prompts: Mapping[str, str | None],
) -> NDArray[np.float32]:
    rows = texts[role]
    return np.concatenate(
        [
            encoder.encode(rows.slice(start, _ENCODE_ROWS).to_pylist(), role, prompts.get(role))
            for start in range(0, len(rows), _ENCODE_ROWS)
        ]
    )


def _report(artifact: Artifact, warnings: list[str], skipped: bool = False) -> StageReport:
    counts = artifact.result.counts
    results = dict(read_json(artifact.result.folder / RESULTS)["models"])
    lines = [
        f"{counts['queries']:,} queries against {counts['passages']:,} passages",
        *metrics_table(results),
    ]
    if (source := artifact.result.fields["source"]) is not None:
        lines[0] += f", with the prompts of source {source}"
    return make_report(artifact, lines, warnings, skipped=skipped)
