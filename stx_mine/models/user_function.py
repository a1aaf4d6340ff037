"""Functions that a person wrote and names by `package.module:function`."""

import importlib
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from stx_mine.errors import ModelError, one_line
from stx_mine.interrupts import is_signal
from stx_mine.models.memory import is_no_memory


@dataclass(frozen=True)
class UserFunction:
    """A function from a list to an array.

    Attributes:
        option: The option that names it.
        name: `package.module:function`.
        module: Where it is defined.
        function: It.
    """

    option: str
    name: str
    module: ModuleType
    function: Callable[[list[Any]], Any]

    @classmethod
    def find(cls, option: str, name: str, place: Path) -> "UserFunction":
        """Import a function.

        Args:
            option: The option that names it.
            name: `package.module:function`.
            place: A folder to look in, beside where Python looks.

        Raises:
            ModelError: There is none of this name.
        """
        module_name, _, function_name = name.partition(":")
        # Scripts of a person lie where they work, not among installed packages.
        if str(place) not in sys.path:
            sys.path.append(str(place))
        way_out = f"give package.module:function, importable from {place}"
        with _CodeOfOthers(f"cannot import {module_name!r} of {option} {name!r}", way_out):
            module = importlib.import_module(module_name)
        function = getattr(module, function_name or "", None)
        if not callable(function):
            raise ModelError(
                f"expected a function {function_name!r} in {module_name}, found "
                f"{type(function).__name__}; give {option} package.module:function"
            )
        return cls(option, name, module, function)

    def __call__(self, items: list[Any]) -> NDArray[Any]:
        """What it makes of a list.

        Raises:
            ModelError: It failed.
            RuntimeError: Memory of a device ran out.
            MemoryError: Memory ran out.
        """
        with _CodeOfOthers(f"{self.option} {self.name} failed", "fix the function"):
            return np.asarray(self.function(items))

    def source_digest(self) -> str:
        """The xxh3-128 digest of the source of its module, in hex; empty where there is none."""
        source = getattr(self.module, "__file__", None)
        return xxhash.xxh3_128_hexdigest(Path(source).read_bytes()) if source else ""


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
