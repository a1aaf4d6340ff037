"""An encoder that is a function: list of texts in, array of floats out."""

from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.core.role import Role
from stx_mine.errors import ModelError
from stx_mine.models.memory import is_no_memory
from stx_mine.stages.embed.fast_encoder import Embedded
from stx_mine.stages.embed.text_function import TextFunction

_PROBE = "how many dimensions?"


class FunctionEncoder:
    """Embeds with a function; it checks what that returns, and halves calls where memory runs out.

    Attributes:
        name: The option that names the function, with its value.
    """

    def __init__(self, function: TextFunction) -> None:
        """Take a function.

        Args:
            function: Makes vectors of texts.
        """
        self.name, self._call_texts = function.name, function.call_texts
        self._function = function

    @cached_property
    def dim(self) -> int:
        """Dimensions of its vectors.

        Raises:
            ModelError: It gives no vectors, or runs out of memory.
        """
        found = int(self._tried([_PROBE])[0].shape[1])
        if not found:
            raise ModelError(
                f"expected vectors with dimensions from {self.name}, found none; fix the function"
            )
        return found

    def contract(self, similarity: str) -> dict[str, Any]:
        """What decides the vectors, as far as it can be seen."""
        return {
            **self._function.contract(),
            "prompts": {},
            "max_length": None,
            "similarity": similarity,
            "dim": self.dim,
        }

    def embed(self, texts: pa.ChunkedArray, role: Role, prompt: str | None = None) -> Embedded:
        """Embed texts, each with the prompt before it.

        Raises:
            ModelError: The function returns something other than one row of floats per text, or
                runs out of memory with a single text.
        """
        vectors = np.empty((len(texts), self.dim), np.float32)
        start = num_halvings = 0
        while start < len(texts):
            some = [
                (prompt or "") + text for text in texts.slice(start, self._call_texts).to_pylist()
            ]
            found, halvings = self._tried(some)
            num_halvings += halvings
            if found.shape[1] != self.dim:
                raise ModelError(
                    f"expected {self.dim} dimensions from {self.name}, as for the first "
                    f"text, found {found.shape[1]}; fix the function"
                )
            vectors[start : start + len(found)] = found
            start += len(found)
        return Embedded(vectors, num_halvings=num_halvings)

    def _tried(self, texts: list[str]) -> tuple[NDArray[np.float32], int]:
        """Vectors of the first texts, as many as memory allows, and how often they were halved."""
        num_halvings = 0
        while True:
            try:
                return self._call(texts), num_halvings
            except (RuntimeError, MemoryError) as error:
                self._halve(error, len(texts))
                num_halvings += 1
                texts = texts[: self._call_texts]

    def _call(self, texts: list[str]) -> NDArray[np.float32]:
        found = self._function(texts)
        if found.ndim != 2 or len(found) != len(texts) or found.dtype.kind != "f":
            raise ModelError(
                f"expected floats of shape ({len(texts)}, dimensions) from {self.name}, "
                f"found {found.dtype} of shape {found.shape}; fix the function"
            )
        # What is too large for float32 becomes infinite, and is refused.
        with np.errstate(over="ignore"):
            return found.astype(np.float32)

    def _halve(self, error: RuntimeError | MemoryError, num_texts: int) -> None:
        """Halve the texts of a call, if memory ran out with more than one.

        Raises:
            ModelError: Memory does not suffice for a single text.
            RuntimeError: The error was another one.
        """
        if not is_no_memory(error):
            raise error
        if num_texts == 1:
            raise ModelError(
                f"{self.name} runs out of memory with one text ({error}); fix it"
            ) from error
        self._call_texts = num_texts // 2
