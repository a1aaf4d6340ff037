"""What the backend, attention and precision of a run do to its vectors, measured on a sample."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from stx_mine.errors import ModelError
from stx_mine.models.encoder import similarity_of
from stx_mine.models.runtime import PLAIN
from stx_mine.stages.embed.choices import Choices
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.core.fidelity import Fidelity, measure_fidelity
from stx_mine.stages.embed.fast_encoder import FastEncoder
from stx_mine.stages.embed.model_task import ROLE_OF_SHARDS, ShardEmbedder
from stx_mine.stages.embed.token_encoder import Tuning

# Texts of the sample.
_QUERIES, _PASSAGES = 200, 2_000


def refuse_overlap(config: EmbedConfig, choices: Choices) -> None:
    """Refuse a way that changes the top 100 more than `min_overlap` allows.

    Raises:
        ModelError: It does.
    """
    fidelity = choices.fidelity
    if fidelity is not None and fidelity.overlap_100 < config.min_overlap:
        raise ModelError(
            f"expected an overlap of at least {config.min_overlap:g} with the top 100 of float32, "
            f"found {fidelity.overlap_100:.4f} with {choices.way}; leave out that option "
            "(--precision float32), or give a smaller --min-overlap"
        )


def fidelity_of(embedder: ShardEmbedder, tuning: Tuning | None) -> Fidelity:
    """Measure what backend, attention and precision of a run do to vectors.

    Args:
        embedder: What embeds.
        tuning: How; compared with float32 and plain torch.

    Raises:
        ModelError: The weights of torch are not there to compare with.
    """
    wanted = {"queries": _QUERIES, "passages": _PASSAGES}
    exact_tuning = tuning and replace(tuning, precision="float32")
    plain = embedder.model if embedder.runtime == PLAIN else _plain(embedder)

    def vectors(
        model: SentenceTransformer, tuning: Tuning | None
    ) -> dict[str, NDArray[np.float32]]:
        encoder = FastEncoder(model, tuning)
        samples = {role: embedder.sample(role, number) for role, number in wanted.items()}
        return {
            role: encoder.embed(texts, ROLE_OF_SHARDS[role], prompt).vectors
            for role, (texts, prompt) in samples.items()
        }

    exact, lower = vectors(plain, exact_tuning), vectors(embedder.model, tuning)
    similarity = similarity_of(embedder.model, embedder.config.model)
    return measure_fidelity(
        exact["queries"], lower["queries"], exact["passages"], lower["passages"], similarity
    )


def _plain(embedder: ShardEmbedder) -> SentenceTransformer:
    """The model as torch runs it.

    Raises:
        ModelError: Its weights are not there.
    """
    try:
        return embedder.load(PLAIN).model
    except ModelError as error:
        raise ModelError(
            f"what {embedder.runtime.label} does to vectors cannot be known without the weights of "
            f"torch; put them into the folder of the model too ({error})"
        ) from error
