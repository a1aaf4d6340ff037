"""Estimate: what a training step will embed, score, hold and take, before anything is trained."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedModel

from stx_mine.errors import ArtifactError, ConfigError
from stx_mine.models.load import is_static, load_model
from stx_mine.models.token_batches import default_tokens
from stx_mine.models.tokenise import Role, Tokeniser
from stx_mine.settings import key_fields
from stx_mine.stages.embed.config import DEFAULT_MODEL
from stx_mine.stages.estimate.config import EstimateConfig
from stx_mine.stages.estimate.core.step_cost import ModelShape, step_memory
from stx_mine.stages.estimate.report import estimate_lines
from stx_mine.stages.estimate.step_texts import DryRun, StepTexts, count_batches
from stx_mine.stages.estimate.step_time import TIMED_ROLES, StepTime, time_step
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.packings import MIN_PACKINGS, MIN_STEPS
from stx_mine.stages.train.trainer import count_parameters
from stx_mine.store.artifact import MANIFEST, Artifact, Manifest, require
from stx_mine.store.batches import BatchShard, list_packings
from stx_mine.store.files import read_json, write_json
from stx_mine.store.groups import TextGroups
from stx_mine.store.report import StageReport, make_report
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

RESULTS = "results.json"
_GRID_KS = (0, 1, 4, 8, 16, 64)
_GRID_ROWS = tuple(4**power for power in range(3, 9))
_SAMPLE = 512
_FORMULA = (
    "16 bytes a parameter; 24 x dimensions a text; for a transformer 66 x hidden units x layers a "
    "token of a mini-batch (and 9 x heads x layers x its longest text, where attention weights are "
    "kept), for a static model 8 a token; 4 a score of a chunk of rows; float32, without inputs, "
    "code, and what allocators keep"
)


def run_estimate(config: EstimateConfig) -> StageReport:
    """Estimate and write `estimates/results.json`.

    Raises:
        ConfigError: No batch of the size asked for can be filled.
        ModelError: The model cannot be loaded.
        ArtifactError: There are no texts.
    """
    run = RunDir(config.run_dir)
    with run.lock():
        texts, grouping = require(run, "texts"), require(run, "groups")
        found, notes = _what_is_there(run)
        name, length = _model_to_train(config, run)
        fields = {**key_fields(config, "estimates"), "model": name, "max_length": length}
        fields |= {"chunk_rows": config.chunk_rows, "batch_tokens": config.batch_tokens}
        inputs = {part: one.digest for part, one in found.items()}
        inputs |= {"texts": texts.digest, "groups": grouping.digest}
        artifact = Artifact(
            run,
            "estimates",
            config,
            fields=fields,
            inputs=inputs,
            view=True,
            overwrite=config.overwrite,
        )
        if artifact.done:
            return _report(artifact, notes, skipped=True)
        store, groups = TextStore.open(texts), TextGroups.open(grouping)
        results = _estimate(config, found, store, groups, name, length)
        artifact.begin([RESULTS])
        write_json(artifact.folder / RESULTS, results)
        artifact.finish([RESULTS], counts={"rows": results["rows"]})
        return _report(artifact, notes)


def _what_is_there(run: RunDir) -> tuple[dict[str, Manifest], list[str]]:
    """Finished artifacts beside the texts that counts may come from, and why others are not read.

    Raises:
        ArtifactError: A manifest lacks what every manifest has.
    """
    found, notes = {}, []
    for name in ("embeddings", "negatives", "batches"):
        if not (run.folder(name) / MANIFEST).exists():
            continue
        try:
            found[name] = require(run, name)
        except ArtifactError as error:
            notes.append(f"{name}/ is not read: {error}")
    if "batches" in found and found["batches"].fields["layout"] == "labels":
        notes.append("batches/ is not read: it holds (text, label) rows")
        del found["batches"]
    return found, notes


def _model_to_train(config: EstimateConfig, run: RunDir) -> tuple[str, int | None]:
    """Name and tokens a text of the model that `train` would take."""
    embedded = run.first_round.folder("embeddings")
    if not (embedded / MANIFEST).exists():
        return config.model or DEFAULT_MODEL, config.max_length
    base = require(run.first_round, "embeddings")
    return config.model or base.extra["model"], config.max_length or base.fields["max_length"]


def _estimate(
    config: EstimateConfig,
    found: dict[str, Manifest],
    store: TextStore,
    groups: TextGroups,
    model_name: str,
    max_length: int | None,
) -> dict[str, Any]:
    """The content of `results.json`."""
    packings = list_packings(found["batches"].folder) if "batches" in found else []
    asked = _asked(config, found.get("negatives"), packings)
    ks = sorted({*_GRID_KS, asked.k})
    dry_run = DryRun.open(
        config.run_dir, store, groups, found.get("negatives"), found.get("embeddings"), ks[-1]
    )
    model = load_model(model_name, config.device, max_length)
    sample: dict[Role, list[str]] = {
        "query": _sample(store.queries.column("text")),
        "passage": _sample(store.passages.column("text")),
    }
    shape = model_shape(model, sample)
    tokens = config.batch_tokens or default_tokens(model.device.type)
    measured = None
    if config.time:
        means: dict[Role, float] = {"query": shape.query_tokens, "passage": shape.passage_tokens}
        measured = time_step(model, sample, means, tokens)
    costs = _Costs(shape, config.chunk_rows, tokens, measured)
    cells = []
    for size in sorted({asked.batch_size, *(s for s in _GRID_ROWS if s <= dry_run.num_rows)}):
        texts = dry_run.count(size, ks)
        if texts is None:
            if size == asked.batch_size:
                raise ConfigError(
                    f"no batch of {size:,} rows can be filled with the {dry_run.num_rows:,} rows "
                    "that a packing takes; give a smaller --batch-size, or add pairs"
                )
            continue
        passes = asked.passes or _default_passes(texts.num_batches)
        cells += [costs.cell(size, k, texts, passes) for k in ks]
    if packings:
        shard = packings[0][0]
        passes = config.epochs or len(packings)
        packed = costs.cell(shard.batch_size, shard.num_negatives, count_batches(packings), passes)
        where = (packed["batch_size"], packed["k"])
        cells = [packed if (one["batch_size"], one["k"]) == where else one for one in cells]
    return {
        "batch_size": asked.batch_size,
        "k": asked.k,
        "rows": dry_run.num_rows,
        "model": {"name": model_name, "static": is_static(model), **asdict(shape)},
        "chunk_rows": config.chunk_rows,
        "batch_tokens": tokens,
        "memory_formula": _FORMULA,
        "measured_seconds": None if measured is None else asdict(measured),
        "cells": cells,
    }


@dataclass(frozen=True)
class _Asked:
    """What was asked for, with defaults from what is there.

    Attributes:
        batch_size: Rows a step.
        k: Negatives a row.
        passes: Over the rows; None where it follows from the batches of a packing.
    """

    batch_size: int
    k: int
    passes: int | None


def _asked(
    config: EstimateConfig, negatives: Manifest | None, packings: list[list[BatchShard]]
) -> _Asked:
    size, k = PackConfig.batch_size, MineConfig.k
    if negatives is not None:
        k = int(negatives.extra["k"])
    if packings:
        size, k = packings[0][0].batch_size, packings[0][0].num_negatives
    return _Asked(config.batch_size or size, k if config.k is None else config.k, config.epochs)


def _default_passes(num_batches: int) -> int:
    """Passes of `train` over the packings that `pack` makes by itself."""
    return max(MIN_PACKINGS, -(-MIN_STEPS // num_batches))


@dataclass(frozen=True)
class _Costs:
    """Turns texts a step into scores, memory and time.

    Attributes:
        shape: Of the model.
        chunk_rows: Rows whose scores exist at one time.
        batch_tokens: Tokens that go through a network at one time.
        measured: Seconds of the parts of a step; None where they were not measured.
    """

    shape: ModelShape
    chunk_rows: int
    batch_tokens: int
    measured: StepTime | None

    def cell(self, size: int, k: int, counted: StepTexts, passes: int) -> dict[str, Any]:
        """The costs of one batch size and number of negatives."""
        texts, most = counted.means[k], counted.most[k]
        steps = counted.num_batches * passes
        bound = counted.bounded and k > 0
        cell: dict[str, Any] = {
            "batch_size": size,
            "k": k,
            "counted": "at most" if bound else counted.how,
            "batches_counted": counted.num_counted,
            "texts": texts.distinct,
            "queries": texts.anchors,
            "passages": texts.passages,
            "most_texts": most.distinct,
            "texts_without_sharing": texts.slots,
            "steps": steps,
        }
        for name, in_batch, num_scores in (
            ("in_batch", True, size * texts.passages),
            ("own_negatives", False, texts.slots - size),
        ):
            memory = step_memory(
                most,
                self.shape,
                size,
                k,
                in_batch=in_batch,
                chunk_rows=self.chunk_rows,
                batch_tokens=self.batch_tokens,
            )
            cell[name] = {
                "scores": num_scores,
                "bytes": {**asdict(memory), "total": memory.total},
                "seconds_a_step": None,
                "seconds": None,
            }
            if self.measured is not None:
                seconds = self.measured.seconds(texts, num_scores, in_batch)
                cell[name] |= {"seconds_a_step": seconds, "seconds": seconds * steps}
        return cell


def model_shape(model: SentenceTransformer, sample: dict[Role, list[str]]) -> ModelShape:
    """What memory depends on, with the lengths of a sample of texts."""
    lengths = {role: _lengths(model, sample[role], role) for role in TIMED_ROLES}
    shape = ModelShape(
        parameters=count_parameters(model),
        dim=int(model.get_embedding_dimension() or 0),
        query_tokens=float(lengths["query"].mean()),
        passage_tokens=float(lengths["passage"].mean()),
        longest_tokens=int(max(one.max() for one in lengths.values())),
    )
    networks = [one for one in model.modules() if isinstance(one, PreTrainedModel)]
    if not networks:
        return shape
    network = networks[0].config
    kept = network._attn_implementation == "eager"
    return replace(
        shape,
        layers=int(network.num_hidden_layers),
        hidden=int(network.hidden_size),
        heads=int(network.num_attention_heads) if kept else 0,
    )


def _lengths(model: SentenceTransformer, texts: list[str], role: Role) -> NDArray[np.int64]:
    """int64: tokens of each text."""
    features = Tokeniser(model)(texts, role)
    if "attention_mask" in features:
        return np.asarray(features["attention_mask"].sum(1), np.int64)
    ends = np.append(np.asarray(features["offsets"]), len(features["input_ids"]))
    return np.diff(ends)


def _sample(column: pa.ChunkedArray) -> list[str]:
    """Some texts, evenly spaced."""
    places = np.linspace(0, len(column) - 1, min(_SAMPLE, len(column))).astype(np.int64)
    texts: list[str] = column.take(pa.array(places)).to_pylist()
    return texts


def _report(artifact: Artifact, notes: list[str], skipped: bool = False) -> StageReport:
    results = read_json(artifact.result.folder / RESULTS)
    warnings = list(notes)
    if not results["model"]["static"] and not results["model"]["layers"]:
        warnings.append("activations of this kind of model are not known, memory is without them")
    return make_report(artifact, estimate_lines(results), warnings, skipped=skipped)
