"""A cross-encoder as a judge, its network in this process."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder

from stx_mine.errors import ConfigError
from stx_mine.models.encoder import modules_digest, token_limit, weights_digest
from stx_mine.models.load import OpenedModel
from stx_mine.models.text_tokens import text_pairs
from stx_mine.models.token_inputs import TokenInputs
from stx_mine.stages.embed.token_encoder import TokenEncoder, Tuning
from stx_mine.stages.embed.trials import Asked, default_tuning, tune
from stx_mine.stages.judge.config import JudgeConfig
from stx_mine.stages.judge.judge import Judge, PairScores, PairTexts

# Pairs of a trial, and the fewest pairs of a run for which trials pay.
_TRIAL_PAIRS, _FEWEST = 256, 20_000
_PREDICT_BATCH = 32


@dataclass(frozen=True)
class NetworkJudge(Judge):
    """Scores pairs by a CrossEncoder.

    Attributes:
        config: The config.
        opened: The model, and how it was read.
    """

    config: JudgeConfig
    opened: OpenedModel[CrossEncoder]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was guessed or put right when the model was loaded."""
        return self.opened.notes

    @property
    def _model(self) -> CrossEncoder:
        return self.opened.model

    def contract(self) -> dict[str, Any]:
        """Weights, prompts and what else decides scores."""
        model = self._model
        return {
            "weights": weights_digest(model),
            "modules": modules_digest(model),
            "prompts": dict(model.prompts),
            "default_prompt": model.default_prompt_name,
            "max_length": token_limit(model),
            "precision": self.config.precision,
        }

    def _encoder(self, tuning: Tuning | None) -> TokenEncoder:
        wanted = tuning or default_tuning(self._model.device.type, self._fixed)
        if wanted not in self._encoders:
            self._encoders[wanted] = TokenEncoder(self._model, wanted)
        return self._encoders[wanted]

    @cached_property
    def _encoders(self) -> dict[Tuning, TokenEncoder]:
        """Kept, since one learns what memory allows."""
        return {}

    @property
    def _fixed(self) -> Asked:
        return Asked(self.config.precision, self.config.batch_tokens)

    def score(self, pairs: PairTexts, tuning: Tuning | None = None) -> PairScores:
        """Logits through a sigmoid."""
        if not len(pairs):
            return PairScores(np.empty(0, np.float32))
        inputs = self._inputs(pairs)
        if inputs is None:
            logits = self._by_predict(pairs)
        else:
            tokens = inputs.pairs(pairs.queries, pairs.passages)
            logits = self._encoder(tuning).encode(inputs, tokens)[:, 0]
        # Whatever the model says about itself: shares of a score need one that is not negative.
        scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
        return PairScores.of_numbers(scores.astype(np.float32))

    def _inputs(self, pairs: PairTexts) -> TokenInputs | None:
        """How pairs become token ids; None where only the model knows."""
        return TokenInputs.of_pairs(self._model, pairs.queries, pairs.passages)

    def num_tokens(self, pairs: PairTexts) -> int:
        """Tokens of pairs; 0 where only the model knows."""
        inputs = self._inputs(pairs) if len(pairs) else None
        return 0 if inputs is None else len(inputs.pairs(pairs.queries, pairs.passages).ids)

    def tune(self, pairs: PairTexts, num_pairs: int) -> Tuning | None:
        """How pairs go through the network; None where it decides that itself."""
        inputs = self._inputs(pairs) if len(pairs) else None
        if inputs is None:
            return None
        if num_pairs < _FEWEST:
            return default_tuning(self._model.device.type, self._fixed)
        some = pairs[:_TRIAL_PAIRS]
        tokens = inputs.pairs(some.queries, some.passages)
        return tune(self._model, inputs, tokens, self._fixed)[0]

    def _by_predict(self, pairs: PairTexts) -> NDArray[np.float32]:
        if self.config.precision != "float32":
            raise ConfigError(
                f"--precision {self.config.precision} is for models that take token ids, "
                f"{self.config.cross_encoder} makes its own inputs of pairs; leave it out"
            )
        found = self._model.predict(
            text_pairs(pairs.queries, pairs.passages),
            batch_size=_PREDICT_BATCH,
            show_progress_bar=False,
            activation_fn=torch.nn.Identity(),
        )
        return np.asarray(found, np.float32).reshape(len(pairs))
