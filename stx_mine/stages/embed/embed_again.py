"""Embed other texts just as a run embedded its own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.core.role import Role
from stx_mine.errors import ConfigError
from stx_mine.models.config import Reading
from stx_mine.settings import names_of
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.model_task import ROLE_OF_SHARDS, ShardEmbedder
from stx_mine.stages.ingest.config import IngestConfig
from stx_mine.store.artifact import Manifest, digest_of
from stx_mine.store.sources import SourceInfo, prompts_differ, stored_sources


@dataclass(frozen=True)
class OtherTexts:
    """Embeds texts that are none of a run, with its model, prompts, limits and precision.

    Attributes:
        worker: What embedded the texts of the run.
        prompts: Role -> prompt put before its texts; None for the model's own.
        notes: What had to be decided, as sentences.
    """

    worker: ShardEmbedder
    prompts: dict[Role, str | None]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, embeddings: Manifest, texts: Manifest, device: str | None, trusts_code: bool
    ) -> "OtherTexts | None":
        """Open the model of a run; None where files, a function or a server gave its vectors.

        Trust in code is not taken over, as a run directory may come from elsewhere.

        Args:
            embeddings: The `embeddings/` of the run.
            texts: Its `texts/`.
            device: Where the model runs; None for the best one seen.
            trusts_code: Whether code in the files of the model may run.

        Raises:
            ModelError: The model cannot be loaded.
            ConfigError: It is another one now.
        """
        recorded = embeddings.content["config"]
        if embeddings.extra["model"] is None:
            return None
        of_input = {*names_of(IngestConfig), "engine", "ray_address", "workers", "worker_gpus"}
        of_input |= {"task", "device", "embedding_cache", "trust_remote_code"}
        known = [name for name in names_of(EmbedConfig) if name not in of_input]
        config = EmbedConfig(**{name: recorded[name] for name in known if name in recorded})
        reading = Reading(trusts_code).as_recorded(embeddings.extra["reading"])
        config = replace(
            config,
            trust_remote_code=trusts_code,
            revision=reading.revision,
            pooling=reading.pooling,
        )
        devices = () if device is None else (device,)
        folders = texts.folder.absolute(), embeddings.folder.absolute()
        worker = ShardEmbedder(config, *folders, Path.cwd(), devices=devices)
        before = dict(embeddings.extra["contract"])
        before.pop("source_prompts", None)
        if digest_of(worker.contract()) != digest_of(before):
            raise ConfigError(
                f"the model {config.model} is another one than that of {embeddings.folder}/ "
                "(weights, prompts or limits differ), so that its vectors are not comparable; run "
                "`stx-mine embed --overwrite`, or leave --cosine out"
            )
        sources = stored_sources(texts)
        notes = tuple[str, ...]()
        if prompts_differ(sources):
            names = ", ".join(source.name for source in sources)
            notes = (
                f"the sources of this run have different prompts ({names}); other texts are "
                "embedded with those of none of them",
            )
        return cls(worker, _prompts(config, sources), notes)

    def vectors(self, texts: pa.ChunkedArray, role: Role) -> NDArray[np.float32]:
        """Vectors of texts, float32 (texts, dim), rounded as those of the run are.

        Raises:
            InputError: A vector is not finite.
            ModelError: Memory does not suffice for a single text.
        """
        found = self.worker.encoder.embed(texts, role, self.prompts[role])
        stored = self.worker.stored(
            found.vectors,
            lambda row: f"the vector of the text {texts[row].as_py()[:60]!r}",
            "remove these texts",
        )
        return stored.astype(np.float32)


def _prompts(config: EmbedConfig, sources: Sequence[SourceInfo]) -> dict[Role, str | None]:
    """The prompts of the run: of its sources where these agree, else those that were asked for."""
    of_sources = {} if not sources or prompts_differ(sources) else sources[0].prompts
    asked = {"query": config.query_prompt, "passage": config.passage_prompt}
    return {
        role: asked[role] if of_sources.get(role) is None else of_sources[role]
        for role in ROLE_OF_SHARDS.values()
    }
