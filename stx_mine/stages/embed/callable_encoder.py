"""An encoder that is any Python function: list of texts in, array of floats out."""

import importlib
import sys
import traceback
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from stx_mine.core.role import Role
from stx_mine.errors import ModelError, one_line
from stx_mine.interrupts import is_signal
from stx_mine.stages.embed.fast_encoder import Embedded
from stx_mine.stages.embed.token_encoder import is_no_memory

# Texts of a call, to begin with.
_CALL_TEXTS = 1_024
_PROBE = "how many dimensions?"


class CallableEncoder:
    """A function that embeds.

    Attributes:
        name: `package.module:function`.
    """

    def __init__(self, name: str, place: Path) -> None:
        """Find the function.

        Args:
            name: `package.module:function`.
            place: A folder to look in, beside where Python looks.

        Raises:
            ModelError: There is none of this name.
        """
        self.name, self._call_texts = name, _CALL_TEXTS
        module_name, _, function_name = name.partition(":")
        # Scripts of a person lie where they work, not among installed packages.
        if str(place) not in sys.path:
            sys.path.append(str(place))
        way_out = f"give package.module:function, importable from {place}"
        with _CodeOfOthers(f"cannot import {module_name!r} of --encoder {name!r}", way_out):
            self._module = importlib.import_module(module_name)
        function = getattr(self._module, function_name or "", None)
        if not callable(function):
            raise ModelError(
                f"expected a function {function_name!r} in {module_name}, found "
                f"{type(function).__name__}; give --encoder package.module:function"
            )
        self._function: Callable[[list[str]], Any] = function

    @cached_property
    def dim(self) -> int:
        """Dimensions of its vectors.

        Raises:
            ModelError: It gives no vectors, or runs out of memory.
        """
        found = int(self._tried([_PROBE])[0].shape[1])
        if not found:
            raise ModelError(
                f"expected vectors with dimensions from --encoder {self.name}, found none; fix "
                "the function"
            )
        return found

    def contract(self, similarity: str) -> dict[str, Any]:
        """What decides the vectors, as far as it can be seen: the source of the function's module.

        What it loads cannot: with other weights under the same code, say --overwrite, and name
        another --embedding-cache.
        """
        source = getattr(self._module, "__file__", None)
        digest = xxhash.xxh3_128_hexdigest(Path(source).read_bytes()) if source else ""
        return {
            "encoder": self.name,
            "source": digest,
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
                    f"expected {self.dim} dimensions from --encoder {self.name}, as for the first "
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
        with _CodeOfOthers(f"--encoder {self.name} failed", "fix the function"):
            found = np.asarray(self._function(texts))
        if found.ndim != 2 or len(found) != len(texts) or found.dtype.kind != "f":
            raise ModelError(
                f"expected floats of shape ({len(texts)}, dimensions) from --encoder {self.name}, "
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
                f"--encoder {self.name} runs out of memory with one text ({error}); fix it"
            ) from error
        self._call_texts = num_texts // 2


class _CodeOfOthers:
    """Runs what a person wrote: whatever it raises is an error of theirs, and ends nothing."""

    def __init__(self, what: str, way_out: str) -> None:
        self._what, self._way_out = what, way_out

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or is_signal(error):
            return
        if isinstance(error, (RuntimeError, MemoryError)) and is_no_memory(error):
            return
        # The last line of theirs that ran.
        last = traceback.extract_tb(trace)[-1]
        raise ModelError(
            f"{self._what} ({type(error).__name__}: {one_line(error)[:200]}, in "
            f"{Path(last.filename).name} line {last.lineno}); {self._way_out}"
        ) from error
