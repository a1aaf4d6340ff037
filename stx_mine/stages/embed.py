"""Embed: every distinct text once, in shards that map into memory."""

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from stx_mine.artifacts.artifact import Artifact, read_manifest, require
from stx_mine.artifacts.files import read_array, write_array
from stx_mine.artifacts.run_dir import RunDir
from stx_mine.artifacts.sources import SourceTable, read_sources
from stx_mine.artifacts.texts import TextStore
from stx_mine.artifacts.vectors import shard_names
from stx_mine.config import DEFAULT_MODEL, EmbedConfig, key_fields
from stx_mine.engine.run import make_files
from stx_mine.engine.shares import share_of
from stx_mine.engine.tasks import Worker
from stx_mine.errors import InputError
from stx_mine.models.encoder import SentenceTransformerEncoder
from stx_mine.models.tokenise import Role
from stx_mine.stages.ingest import run_ingest
from stx_mine.stages.report import StageReport, make_report

ROLES: dict[str, Role] = {"queries": "query", "passages": "passage"}


def run_embed(config: EmbedConfig) -> StageReport:
    """Ingest where PAIRS or sources are given, then embed into `embeddings/`.

    Raises:
        ModelError: The model cannot be loaded.
        ArtifactError: There are no texts, or other embeddings are in the way.
        InputError: The model gives vectors that are not finite.
        SharesLeftError: This call did its share, and others are at it.
    """
    given = config.pairs is not None or config.sources is not None
    parts = (run_ingest(config),) if given else ()
    run, share = RunDir(config.run_dir), share_of(config)
    with run.lock(share, begins=run.is_round):
        texts_manifest = require(run, "texts")
        worker = ShardEmbedder(
            config, texts_manifest.folder.absolute(), run.folder("embeddings").absolute()
        )
        contract = worker.encoder.contract()
        if sources := read_sources(texts_manifest):
            contract["source_prompts"] = {one.name: one.prompts for one in sources}
        fields = {**key_fields(config, "embeddings"), "model": contract}
        inputs = {"texts": texts_manifest.digest}
        artifact = Artifact(
            run, "embeddings", fields=fields, inputs=inputs, overwrite=config.overwrite
        )
        if artifact.done:
            return _report(artifact, config, parts, skipped=True)
        artifact.begin(list(worker.shards))
        make_files(artifact, list(worker.shards), worker, config, "embed", share)
        counts = {
            "queries": len(worker.store.queries),
            "passages": len(worker.store.passages),
            "zero_vectors": _zero_vectors(artifact, worker.shards),
        }
        extra = {"contract": contract, "model": config.model}
        artifact.finish(list(worker.shards), config=asdict(config), counts=counts, extra=extra)
        return _report(artifact, config, parts)


@dataclass(frozen=True)
class ShardEmbedder(Worker):
    """Embeds the texts of a shard.

    Attributes:
        config: The config.
        texts: Folder of the texts.
        folder: Folder of the shards.
    """

    config: EmbedConfig
    texts: Path
    folder: Path

    @cached_property
    def encoder(self) -> SentenceTransformerEncoder:
        """The model."""
        config = self.config
        return SentenceTransformerEncoder.load(
            config.model, config.device, config.max_length, config.encode_batch_size
        )

    @cached_property
    def store(self) -> TextStore:
        """The texts."""
        return TextStore.open(read_manifest(self.texts))

    @cached_property
    def shards(self) -> dict[str, tuple[str, int]]:
        """Role and first id of each shard, by its name."""
        size, tables = self.config.shard_size, self._tables
        return {
            name: (role, number * size)
            for role in ROLES
            for number, name in enumerate(shard_names(role, len(tables[role]), size))
        }

    @property
    def wants_gpu(self) -> bool:
        """Unless another device is named."""
        return (self.config.device or "cuda").startswith("cuda")

    def __call__(self, name: str) -> None:
        """Embed one shard.

        Raises:
            InputError: A vector is not finite.
        """
        role, start = self.shards[name]
        texts = self._tables[role].column("text").slice(start, self.config.shard_size)
        vectors = _encode(self.encoder, texts, ROLES[role], self.store.sources, start)
        _refuse_infinite(vectors, texts, role, start)
        write_array(self.folder / name, vectors.astype(self.config.dtype))

    @property
    def _tables(self) -> dict[str, pa.Table]:
        return {"queries": self.store.queries, "passages": self.store.passages}


def _encode(
    encoder: SentenceTransformerEncoder,
    texts: pa.ChunkedArray,
    role: Role,
    sources: SourceTable | None,
    start: int,
) -> NDArray[np.float32]:
    """Vectors of consecutive texts from id `start`, each with the prompt of its source."""
    if sources is None:
        return encoder.encode(texts.to_pylist(), role)
    by_prompt = [one for one in sources.prompts_of(role, start, start + len(texts)) if len(one[1])]
    vectors = [
        encoder.encode(texts.take(pa.array(places)).to_pylist(), role, prompt)
        for prompt, places in by_prompt
    ]
    return np.concatenate(vectors)[np.argsort(np.concatenate([places for _, places in by_prompt]))]


def _refuse_infinite(
    vectors: NDArray[np.float32], texts: pa.ChunkedArray, role: str, start: int
) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise InputError(
            f"the model gave a vector that is not finite for {role} id {start + bad[0]} "
            f"({texts[int(bad[0])].as_py()[:60]!r}); {len(bad)} in this shard; use another model "
            "or --dtype float32, or remove these texts"
        )


def _zero_vectors(artifact: Artifact, tasks: dict[str, tuple[str, int]]) -> dict[str, list[int]]:
    """Role -> ids of the texts whose vector is zero: they score 0 with everything."""
    found: dict[str, list[int]] = {role: [] for role in ROLES}
    for name, (role, start) in tasks.items():
        vectors = read_array(artifact.folder / name)
        found[role] += (start + np.flatnonzero(~vectors.any(axis=1))).tolist()
    return found


def _report(
    artifact: Artifact, config: EmbedConfig, parts: tuple[StageReport, ...], skipped: bool = False
) -> StageReport:
    counts, contract = artifact.result.counts, artifact.result.extra["contract"]
    lines = [
        f"{counts['queries']:,} queries and {counts['passages']:,} passages embedded with "
        f"{config.model} ({contract['dim']} dimensions, {contract['similarity']})"
    ]
    for name, prompts in contract.get("source_prompts", {}).items():
        named = ", ".join(
            f"{role} prompt {prompt!r}" for role, prompt in prompts.items() if prompt is not None
        )
        lines.append(f"source {name}: {named or 'the prompts of the model'}")
    if torch.cuda.is_available() and config.model == DEFAULT_MODEL:
        lines.append(
            "a GPU is here: a transformer, for example --model BAAI/bge-small-en-v1.5, mines "
            "better negatives than the static default"
        )
    warnings = [
        f"{len(ids):,} {role} have a zero vector (ids {', '.join(map(str, ids[:5]))}"
        f"{' ...' if len(ids) > 5 else ''}): the model knows none of their words, they score 0"
        for role, ids in counts["zero_vectors"].items()
        if ids
    ]
    return make_report(artifact, lines, warnings, parts=parts, skipped=skipped)
