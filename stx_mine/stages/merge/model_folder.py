"""The files of a model: weights that are read tensor by tensor, and small files.

Weights are safetensors, one file a module or several with an index; nothing else is read.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from stx_mine import progress
from stx_mine.errors import ModelError, one_line, shortened
from stx_mine.store.artifact import digest_of
from stx_mine.store.files import checksum
from stx_mine.store.names import name_problem, path_problem
from stx_mine.store.small_files import read_small

MODULES, SETTINGS = "modules.json", "config_sentence_transformers.json"
TOKENIZER = "tokenizer.json"
# How each module, and the network in one, is set.
_ROUTER = "router_config.json"
CONFIGS = ("config.json", "sentence_bert_config.json", _ROUTER)
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
# Weights in forms that are no safetensors.
_OTHER_WEIGHTS = ("*.bin", "*.pt", "*.h5", "*.msgpack", "*.onnx", "*.ckpt")
_SMALL = (".json", ".txt", ".model", ".jinja", ".py", ".spm", ".tiktoken", ".vocab")
# Of a run or a repository, not of a model.
_NOT_OF_IT = ("plan.json", "manifest.json", "adapter_config.json")
_MOST_BYTES, _MOST_HEADER = 1 << 28, 100_000_000


class TensorKey(NamedTuple):
    """Which tensor: the folder of its module below that of the model, and its name there."""

    module: str
    name: str

    def __str__(self) -> str:
        """As a path."""
        return f"{self.module}/{self.name}" if self.module else self.name


class StoredTensor(NamedTuple):
    """Where a tensor lies, its shape, and its format as safetensors call it (F32)."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class ModelFolder:
    """A model whose weights are merged.

    Attributes:
        name: How the user named it.
        folder: Where its files lie.
    """

    name: str
    folder: Path

    @property
    def is_whole(self) -> bool:
        """Whether all is here: safetensors and no weights in other forms, and a tokenizer.json."""
        pickled = any(
            next(place.glob(form), None) is not None
            for place in self._places
            if not self._weights_in(place)
            for form in _OTHER_WEIGHTS
        )
        tokenizers = any((place / TOKENIZER).is_file() for place in self._places)
        return tokenizers and not pickled and bool(self.weight_files)

    @cached_property
    def modules(self) -> list[dict[str, Any]]:
        """The entries of modules.json."""
        found: list[dict[str, Any]] = self.json(MODULES)
        return found

    @cached_property
    def _places(self) -> list[Path]:
        """The folders that files of the model lie in."""
        found = [self.folder]
        for path in [*(str(one["path"]) for one in self.modules), *self._routed]:
            if path and (self.folder / path).is_dir():
                inside = sorted((self.folder / path).rglob("*"))
                found += [self.folder / path, *(one for one in inside if one.is_dir())]
        return list(dict.fromkeys(found))

    @property
    def _routed(self) -> list[str]:
        """The folders of modules behind a router at the top."""
        if not (self.folder / _ROUTER).is_file():
            return []
        types = self._object(_ROUTER).get("types")
        return [one for one in types or () if not name_problem(one)]

    def _weights_in(self, place: Path) -> list[Path]:
        """The safetensors of one folder, as the library would read them."""
        if (place / _WEIGHTS).exists():
            return [place / _WEIGHTS]
        if not (place / _INDEX).exists():
            return []
        named = self._object(self._path(place / _INDEX)).get("weight_map")
        shards: list[Any] = list(named.values()) if isinstance(named, dict) else [named]
        if wrong := [one for one in shards if path_problem(one) or not (place / one).is_file()]:
            raise ModelError(
                f"expected the files that {place / _INDEX} names, found none at {wrong[0]!r}; "
                "fetch the model again"
            )
        return [place / one for one in sorted(set(shards))]

    @cached_property
    def weight_files(self) -> list[Path]:
        """All safetensors of the model."""
        return [file for place in self._places for file in self._weights_in(place)]

    @cached_property
    def small_files(self) -> list[str]:
        """Paths of the other files that are the model, below its folder."""
        return [
            self._path(path)
            for place in self._places
            for path in sorted(place.iterdir())
            if path.is_file() and path.suffix in _SMALL and path.name not in _NOT_OF_IT
        ]

    @cached_property
    def tensors(self) -> dict[TensorKey, StoredTensor]:
        """All tensors, in the order of their names.

        Raises:
            ModelError: A file of them is damaged.
        """
        found = {
            TensorKey(self._module(file), name): StoredTensor(file, shape, dtype)
            for file in self.weight_files
            for name, shape, dtype in _listed(file)
        }
        return dict(sorted(found.items()))

    def tensor(self, key: TensorKey) -> torch.Tensor:
        """One tensor, in the format of its file.

        Raises:
            ModelError: The file is damaged.
        """
        try:
            with safe_open(self.tensors[key].file, "pt") as handle:
                read: torch.Tensor = handle.get_tensor(key.name)
                return read
        except SafetensorError as error:
            raise _damaged(self.tensors[key].file, error) from error

    @cached_property
    def digest(self) -> str:
        """The xxh3-128 digest of the weights, in hex: of one file its checksum."""
        with progress.step(f"reading {self.name}"):
            return self._digest([self._path(file) for file in self.weight_files])

    @cached_property
    def small_digest(self) -> str:
        """The digest of the small files."""
        return self._digest(self.small_files)

    def _digest(self, files: list[str]) -> str:
        found = {file: checksum(self.folder / file) for file in files}
        return next(iter(found.values())) if len(found) == 1 else digest_of(found)

    def json(self, file: str) -> Any:
        """What a small file holds.

        Raises:
            ModelError: It is no JSON.
        """
        try:
            return json.loads(read_small(self.folder / file, _MOST_BYTES))
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(
                f"expected JSON in {self.folder / file}, found none ({one_line(error)}); fetch the "
                "model again"
            ) from error

    def files_named(self, *names: str) -> dict[str, Any]:
        """Path -> content of the JSON files of these names, wherever in the model."""
        found = [one for one in self.small_files if Path(one).name in names]
        return {one: self.json(one) for one in found}

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Prompts and similarity; empty where no file says any.

        Raises:
            ModelError: They are none.
        """
        found = self._object(SETTINGS) if (self.folder / SETTINGS).is_file() else {}
        prompts = found.get("prompts") or {}
        if not isinstance(prompts, dict) or not all(
            isinstance(text, str | None) for text in prompts.values()
        ):
            raise ModelError(
                f"expected prompts by name in {self.folder / SETTINGS}, found "
                f"{shortened(prompts)}; fix the file"
            )
        return found

    def _object(self, file: str) -> dict[str, Any]:
        """What a small file holds, which is an object."""
        found = self.json(file)
        if not isinstance(found, dict):
            raise ModelError(
                f"expected an object in {self.folder / file}, found {shortened(found)}; fetch the "
                "model again"
            )
        return found

    def _path(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _module(self, file: Path) -> str:
        found = self._path(file.parent)
        return "" if found == "." else found


class WeightSlot(NamedTuple):
    """A place in a file of weights: which tensor, and how many bytes."""

    name: str
    bytes: int


def header_of(file: Path) -> tuple[bytes, list[WeightSlot]]:
    """How a safetensors file begins, and its tensors in the order of their bytes.

    Returns:
        All bytes before the first tensor, and the slots, one behind another without a gap.

    Raises:
        ModelError: It is no such file.
    """
    try:
        with file.open("rb") as handle:
            begins = handle.read(8)
            (length,) = struct.unpack("<Q", begins)
            if length > _MOST_HEADER:
                raise ValueError(f"a header of {length:,} bytes")
            header = handle.read(length)
        entries = json.loads(header)
        found = sorted(
            (*one["data_offsets"], name) for name, one in entries.items() if name != "__metadata__"
        )
    except (OSError, ValueError, struct.error, LookupError, TypeError) as error:
        raise _damaged(file, error) from error
    return begins + header, [WeightSlot(name, end - start) for start, end, name in found]


def _listed(file: Path) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Name, shape and format of each tensor of a file."""
    try:
        with safe_open(file, "pt") as handle:
            for name in handle.keys():
                part = handle.get_slice(name)
                yield name, tuple(part.get_shape()), str(part.get_dtype())
    except (SafetensorError, OSError) as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> ModelError:
    return ModelError(f"{file} is damaged ({one_line(error)}); fetch that file again")
