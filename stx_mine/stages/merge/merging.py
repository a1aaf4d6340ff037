"""Write the merged weights: file by file as the first model has them, tensor by tensor."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stx_mine import progress
from stx_mine.errors import ModelError
from stx_mine.stages.merge.agreement import is_float
from stx_mine.stages.merge.core.weights import Distance, linear, slerp, task
from stx_mine.stages.merge.model_folder import ModelFolder, TensorKey, header_of
from stx_mine.store.files import atomic


@dataclass
class Merging:
    """How models are merged, and what is known of them once they are.

    Attributes:
        models: The models; files and number formats are those of the first.
        method: linear, slerp or task.
        weights: One a model; of linear and slerp they sum to 1.
        base: Of task, what differences are taken to.
        distances: How far each model is from the first, and then the base; filled by `write`.
        num_parameters: Numbers that were merged; filled by `write`.
    """

    models: Sequence[ModelFolder]
    method: str
    weights: Sequence[float]
    base: ModelFolder | None = None
    distances: list[Distance] = field(default_factory=list)
    num_parameters: int = 0

    @property
    def all_models(self) -> list[ModelFolder]:
        """The models, and the base behind them."""
        return [*self.models, *([self.base] if self.base else [])]

    def write(self, folder: Path) -> list[str]:
        """Write all files of weights; those of one tensor a model are in memory at a time.

        Args:
            folder: Where to.

        Returns:
            Their paths below it.

        Raises:
            ModelError: A weight is not finite, in a model or merged, or a file is damaged.
        """
        first = self.models[0]
        self.distances = [Distance() for _ in self.all_models]
        self.num_parameters = 0
        written = []
        with progress.step("merging", len(first.tensors), "tensors") as counted:
            for file in first.weight_files:
                name = file.relative_to(first.folder).as_posix()
                module = name.rpartition("/")[0]
                header, slots = header_of(file)
                with atomic(folder / name) as path, path.open("wb") as handle:
                    handle.write(header)
                    for slot in slots:
                        merged = self._merged(TensorKey(module, slot.name))
                        handle.write(_bytes_of(merged, slot.bytes, file))
                        counted.advance()
                written.append(name)
        return written

    def _merged(self, key: TensorKey) -> torch.Tensor:
        """One tensor of the merged model, in the format of the first."""
        stored = [model.tensor(key) for model in self.all_models]
        if not is_float(self.models[0].tensors[key].dtype):
            self._refuse_unequal(key, stored)
            return stored[0]
        arrays = []
        for model, tensor in zip(self.all_models, stored, strict=True):
            if not bool(tensor.isfinite().all()):
                raise ModelError(
                    f"expected finite weights, found others in {key} of {model.name}; give a model "
                    "that training did not harm"
                )
            arrays.append(_numbers(tensor))
        self.num_parameters += arrays[0].size
        for distance, array in zip(self.distances, arrays, strict=True):
            distance.add(array, arrays[0])
        merged = torch.from_numpy(self._combined(arrays)).to(stored[0].dtype)
        if not bool(merged.isfinite().all()):
            raise ModelError(
                f"the merged weights of {key} are too large for "
                f"{self.models[0].tensors[key].dtype}; give smaller --weights, or "
                "name a model in a wider format first"
            )
        return merged

    def _combined(self, arrays: Sequence[NDArray[np.floating]]) -> NDArray[np.floating]:
        if self.method == "slerp":
            return slerp(arrays[0], arrays[1], self.weights[1])
        if self.method == "task":
            return task(arrays[-1], arrays[:-1], self.weights)
        return linear(arrays, self.weights)

    def _refuse_unequal(self, key: TensorKey, stored: Sequence[torch.Tensor]) -> None:
        """Numbers that are no weights, as positions, have no mean."""
        for model, tensor in zip(self.all_models[1:], stored[1:], strict=True):
            if not torch.equal(tensor.to(stored[0].dtype), stored[0]):
                raise ModelError(
                    f"expected the same whole numbers in {key}, found others in {model.name} than "
                    f"in {self.models[0].name}; name models that were tuned from one"
                )

    def figures(self) -> Iterator[tuple[ModelFolder, float, float, float]]:
        """Of each model: its weight, and its cosine and relative distance to the first."""
        weights = [*self.weights, *([1 - math.fsum(self.weights)] if self.base else [])]
        for one, weight, distance in zip(self.all_models, weights, self.distances, strict=True):
            yield one, weight, distance.cosine, distance.relative


def _numbers(tensor: torch.Tensor) -> NDArray[np.floating]:
    """float32, or float64 where the file has that."""
    wide = tensor if tensor.dtype == torch.float64 else tensor.float()
    numbers: NDArray[np.floating] = wide.contiguous().numpy()
    return numbers


def _bytes_of(tensor: torch.Tensor, expected: int, file: Path) -> bytes:
    """The bytes of a tensor as its slot holds them (little-endian)."""
    found: bytes = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    if len(found) != expected:
        raise ModelError(f"{file} is damaged (a tensor of other size); fetch that file again")
    return found
