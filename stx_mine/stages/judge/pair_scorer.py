"""Scores pairs with a CrossEncoder, or with a function that a person wrote."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder

from stx_mine.errors import ConfigError, ModelError
from stx_mine.models.encoder import modules_digest, token_limit, weights_digest
from stx_mine.models.load import OpenedModel, open_cross_encoder
from stx_mine.models.text_tokens import text_pairs
from stx_mine.models.token_inputs import TokenInputs
from stx_mine.models.user_function import UserFunction
from stx_mine.stages.embed.devices import DeviceWorker
from stx_mine.stages.embed.token_encoder import TokenEncoder, Tuning
from stx_mine.stages.embed.trials import Asked, default_tuning, tune
from stx_mine.stages.judge.asked import AskedPairs
from stx_mine.stages.judge.config import JudgeConfig
from stx_mine.store.artifact import PLAN, read_manifest
from stx_mine.store.files import read_json, write_array
from stx_mine.store.texts import TextStore, take_texts

# Pairs of a trial, and the fewest pairs of a run for which trials pay.
_TRIAL_PAIRS, _FEWEST = 256, 20_000
_PREDICT_BATCH = 32


@dataclass(frozen=True)
class PairScorer(DeviceWorker):
    """Scores the pairs of a task; what a score is depends on the judge, more is more relevant.

    Attributes:
        config: The config.
        texts: Folder of `texts/`.
        folder: Folder of the judgements, with the pairs to judge.
        place: Working directory of the caller, where the module of a function may lie.
    """

    config: JudgeConfig
    texts: Path
    folder: Path
    place: Path

    @property
    def wants_gpu(self) -> bool:
        """Unless another device is named, or a function judges."""
        return not self.config.is_function and self.may_be_gpu

    @cached_property
    def function(self) -> UserFunction | None:
        """The function that judges, where one is named instead of a model."""
        if not self.config.is_function:
            return None
        return UserFunction.find("--cross-encoder", str(self.config.cross_encoder), self.place)

    @cached_property
    def opened(self) -> OpenedModel[CrossEncoder]:
        """The model, and how it was read.

        Raises:
            ModelError: It cannot be loaded, or is no cross-encoder.
        """
        self.share_cores()
        config = self.config
        return open_cross_encoder(
            str(config.cross_encoder), self.device, config.max_length, config.reading
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What was guessed or put right when the model was loaded, as sentences."""
        return () if self.function is not None else self.opened.notes

    def contract(self) -> dict[str, Any]:
        """What decides scores, JSON-ready; the name is not part of it."""
        if self.function is not None:
            name, digest = self.config.cross_encoder, self.function.source_digest()
            return {"function": name, "source": digest}
        model = self.opened.model
        return {
            "weights": weights_digest(model),
            "modules": modules_digest(model),
            "prompts": dict(model.prompts),
            "default_prompt": model.default_prompt_name,
            "max_length": token_limit(model),
            "precision": self.config.precision,
        }

    @cached_property
    def store(self) -> TextStore:
        """The texts."""
        return TextStore.open(read_manifest(self.texts))

    @cached_property
    def asked(self) -> AskedPairs:
        """The pairs to judge."""
        return AskedPairs.open(self.folder)

    @cached_property
    def _encoder(self) -> TokenEncoder:
        """As the plan in the folder says, else by default."""
        return TokenEncoder(self.opened.model, self._tuning())

    def __call__(self, task: str) -> None:
        """Write the scores of one task."""
        rows, asked = self.asked.rows_of(task), self.asked
        texts = self.texts_of(asked.query_ids[rows], asked.passage_ids[rows])
        write_array(self.folder / task, self.score(*texts))

    def texts_of(
        self, query_ids: NDArray[np.int64], passage_ids: NDArray[np.int64]
    ) -> tuple[pa.Array, pa.Array]:
        """The two texts of each pair, large strings."""
        queries = take_texts(self.store.queries.column("text"), query_ids)
        passages = take_texts(self.store.passages.column("text"), passage_ids)
        return queries.dictionary_decode(), passages.dictionary_decode()

    def score(self, queries: pa.Array, passages: pa.Array) -> NDArray[np.float32]:
        """float32 (N,): the score of each pair; NaN where the judge gives none.

        Args:
            queries: (N,) large strings.
            passages: (N,) large strings.

        Raises:
            ModelError: The judge failed, or does not give one score a pair.
        """
        if not len(queries):
            return np.empty(0, np.float32)
        if self.function is not None:
            return self._by_function(queries, passages)
        inputs = TokenInputs.of_pairs(self.opened.model, queries, passages)
        if inputs is None:
            logits = self._by_predict(queries, passages)
        else:
            logits = self._encoder.encode(inputs, inputs.pairs(queries, passages))[:, 0]
        # Whatever the model says about itself: shares of a score need one that is not negative.
        return (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)

    def num_tokens(self, queries: pa.Array, passages: pa.Array) -> int:
        """Tokens of pairs; 0 where the judge does not tell."""
        if self.function is not None or not len(queries):
            return 0
        inputs = TokenInputs.of_pairs(self.opened.model, queries, passages)
        return 0 if inputs is None else len(inputs.pairs(queries, passages).ids)

    def _tuning(self) -> Tuning:
        """As the plan says, else the default."""
        plan = self.folder / PLAN
        tuned = read_json(plan).get("choices", {}).get("tuning") if plan.exists() else None
        if tuned is not None:
            return Tuning(**tuned)
        return default_tuning(self.opened.model.device.type, self._fixed)

    @property
    def _fixed(self) -> Asked:
        return Asked(self.config.precision, self.config.batch_tokens)

    def tune(self, queries: pa.Array, passages: pa.Array, num_pairs: int) -> Tuning | None:
        """How pairs go through the model; None where it decides that itself.

        Args:
            queries: Some of the queries to judge.
            passages: The passages of the same pairs.
            num_pairs: Pairs to judge.
        """
        if self.function is not None or not len(queries):
            return None
        model = self.opened.model
        inputs = TokenInputs.of_pairs(model, queries, passages)
        if inputs is None:
            return None
        if num_pairs < _FEWEST:
            return default_tuning(model.device.type, self._fixed)
        some = queries[:_TRIAL_PAIRS], passages[:_TRIAL_PAIRS]
        return tune(model, inputs, inputs.pairs(*some), self._fixed)[0]

    def _by_predict(self, queries: pa.Array, passages: pa.Array) -> NDArray[np.float32]:
        if self.config.precision != "float32":
            raise ConfigError(
                f"--precision {self.config.precision} is for models that take token ids, "
                f"{self.config.cross_encoder} makes its own inputs of pairs; leave it out"
            )
        found = self.opened.model.predict(
            text_pairs(queries, passages),
            batch_size=_PREDICT_BATCH,
            show_progress_bar=False,
            activation_fn=torch.nn.Identity(),
        )
        return np.asarray(found, np.float32).reshape(len(queries))

    def _by_function(self, queries: pa.Array, passages: pa.Array) -> NDArray[np.float32]:
        assert self.function is not None
        pairs = list(zip(queries.to_pylist(), passages.to_pylist(), strict=True))
        found = self.function(pairs)
        if found.shape != (len(pairs),) or found.dtype.kind not in "fiub":
            raise ModelError(
                f"expected {len(pairs)} numbers from --cross-encoder {self.config.cross_encoder}, "
                f"one a pair, found {found.dtype} of shape {found.shape}; fix the function"
            )
        scores = found.astype(np.float32)
        beyond = scores[(scores < 0) | (scores > 1)]
        if len(beyond):
            raise ModelError(
                f"expected scores from 0 to 1 from --cross-encoder {self.config.cross_encoder}, "
                f"found {beyond[0]:g}; put them through a sigmoid"
            )
        return scores
