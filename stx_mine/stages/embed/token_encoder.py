"""Runs the tokens of a whole shard through a SentenceTransformer, or a CrossEncoder.

The modules are the model's own, so whatever follows the first one (pooling, dense layers,
normalisation) is used as it is. Only the batches are made here: texts are sorted by their true
length over the shard, padded only among texts of similar length, and cut into batches by tokens;
several batches go through the model at once on a CPU, and a GPU gets the next batch while it works.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder, SentenceTransformer
from torch import Tensor, nn

from stx_mine import progress
from stx_mine.core.ahead import ahead
from stx_mine.errors import ModelError, one_line
from stx_mine.models.limits import embedding_dim
from stx_mine.models.memory import is_no_memory
from stx_mine.models.text_tokens import TextTokens
from stx_mine.models.token_batches import token_batches
from stx_mine.models.token_inputs import Features, TokenInputs

Precision = Literal["float32", "bfloat16", "float16"]
# Batches that are made ready while a GPU works.
_AHEAD = 3


@dataclass(frozen=True)
class Tuning:
    """How texts go through a model; none of it changes more than the last bits of a vector.

    Attributes:
        precision: Number format of the network; pooling and what follows are float32.
        batch_tokens: Tokens of a batch, padding included, at most.
        batches_at_once: Batches that a CPU works on at once, each with as many of the cores.
    """

    precision: Precision
    batch_tokens: int
    batches_at_once: int


class TokenEncoder:
    """Runs the tokens of many texts through a model.

    Attributes:
        tuning: How; `batch_tokens` is halved where memory runs out.
        num_halvings: How often it was.
        device: Where the model is.
        dim: Dimensions of a vector; of a CrossEncoder how many scores a pair has.
    """

    def __init__(self, model: SentenceTransformer | CrossEncoder, tuning: Tuning) -> None:
        self.tuning, self.num_halvings = tuning, 0
        if isinstance(model, CrossEncoder):
            self._output, self.dim = "scores", model.num_labels
        else:
            self._output, self.dim = "sentence_embedding", embedding_dim(model)
        self.device = torch.device(model.device)
        first, *rest = list(model)
        self._first = _in_format(first, getattr(torch, tuning.precision))
        self._rest = [_in_format(module, torch.float32) for module in rest]

    def encode(self, inputs: TokenInputs, tokens: TextTokens) -> NDArray[np.float32]:
        """Vectors of texts, or scores of pairs before any activation, in their order.

        Returns:
            float32 (texts, dim).

        Raises:
            ModelError: Memory does not suffice for a single text.
        """
        vectors = np.empty((len(tokens), self.dim), np.float32)
        left = np.arange(len(tokens))
        while len(left):
            done = np.zeros(len(tokens), bool)
            batches = [
                left[batch]
                for batch in token_batches(tokens.lengths[left], self.tuning.batch_tokens)
            ]
            try:
                with progress.step("encoding", len(left), "texts") as counted:
                    for rows, found in self._run(inputs, tokens, batches):
                        vectors[rows], done[rows] = found, True
                        counted.advance(len(rows))
            except (RuntimeError, MemoryError) as error:
                self._halve(error, batches)
            left = left[~done[left]]
        return vectors

    def _run(
        self, inputs: TokenInputs, tokens: TextTokens, batches: Sequence[NDArray[np.int64]]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Vectors of each batch, with the numbers of its texts."""
        if self.device.type == "cuda":
            found: Iterator[NDArray[np.float32]] = self._on_gpu(inputs, tokens, batches)
        else:
            found = self._on_cpu(inputs, tokens, batches)
        yield from zip(batches, found, strict=True)

    def _on_cpu(
        self, inputs: TokenInputs, tokens: TextTokens, batches: Sequence[NDArray[np.int64]]
    ) -> Iterator[NDArray[np.float32]]:
        def work(rows: NDArray[np.int64]) -> NDArray[np.float32]:
            found: NDArray[np.float32] = self._forward(inputs.batch(tokens, rows)).cpu().numpy()
            return found

        workers = min(self.tuning.batches_at_once, torch.get_num_threads())
        if workers == 1:
            yield from map(work, batches)
            return
        num_threads = max(1, torch.get_num_threads() // workers)
        with torch_threads(num_threads), ThreadPoolExecutor(workers) as threads:
            yield from ahead(work, batches, threads, 2 * workers)

    def _on_gpu(
        self, inputs: TokenInputs, tokens: TextTokens, batches: Sequence[NDArray[np.int64]]
    ) -> Iterator[NDArray[np.float32]]:
        def ready(rows: NDArray[np.int64]) -> Features:
            made = inputs.batch(tokens, rows)
            return {k: v.pin_memory() if isinstance(v, Tensor) else v for k, v in made.items()}

        before: Tensor | None = None
        with ThreadPoolExecutor(1) as threads:
            for features in ahead(ready, batches, threads, _AHEAD):
                found = self._forward(features)
                # Waits for the batch before only, so that the GPU has the next one already.
                if before is not None:
                    yield before.cpu().numpy()
                before = found
        if before is not None:
            yield before.cpu().numpy()

    def _forward(self, features: Features) -> Tensor:
        """Embeddings of a batch, float32, on the device."""
        with torch.inference_mode():
            return self._through(features)

    def _through(self, features: Features) -> Tensor:
        features = {
            name: value.to(self.device, non_blocking=True) if isinstance(value, Tensor) else value
            for name, value in features.items()
        }
        features = self._first(features)
        for name, value in features.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                features[name] = value.float()
        for module in self._rest:
            features = module(features)
        found: Tensor = features[self._output][:, : self.dim].float()
        return found

    def _halve(
        self, error: RuntimeError | MemoryError, batches: Sequence[NDArray[np.int64]]
    ) -> None:
        """Halve the budget, if memory ran out and a batch had more than one text.

        Raises:
            ModelError: Memory does not suffice for a single text.
            RuntimeError: The error was another one.
        """
        if not is_no_memory(error):
            raise error
        if max(map(len, batches)) == 1:
            reason = one_line(error)
            raise ModelError(
                f"memory does not suffice for one text at a time ({reason}); give a "
                "smaller --max-length, a smaller model, or another --device"
            ) from error
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.num_halvings += 1
        self.tuning = replace(self.tuning, batch_tokens=max(1, self.tuning.batch_tokens // 2))


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Let every operation take `number` threads, in this thread and in those that begin now."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _in_format(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The module with numbers of this format; a copy, if it has others."""
    if all(parameter.dtype == dtype for parameter in module.parameters()):
        return module
    return deepcopy(module).to(dtype)
