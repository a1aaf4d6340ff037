"""What a checkpoint is, by its small files: read before any weight is loaded or any code could run.

What is no embedding model of one vector a text is refused here, with the way out.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError, safe_open
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import load_file_path

from stx_mine.errors import ConfigError, ModelError, one_line, shortened
from stx_mine.inputs.hub_access import reach_hub
from stx_mine.models.config import Reading
from stx_mine.store.manifest import refuse_damaged
from stx_mine.store.small_files import found_at, read_small

_MODULES, _SETTINGS = "modules.json", "config_sentence_transformers.json"
_NETWORK, _TOKENIZER, ADAPTER = "config.json", "tokenizer_config.json", "adapter_config.json"
# Tokenizers list their added words in a small file.
_MOST_BYTES = 1 << 26
_LIBRARY = "sentence_transformers."
_CROSS, _SPARSE, _MANY = "CrossEncoder", "SparseEncoder", "MultiVectorEncoder"
# Kind -> what it is, and why it cannot embed here.
_KINDS = {
    _CROSS: "a cross-encoder (reranker): it scores a query and a passage together, and has no "
    "vector of one text",
    _SPARSE: "a sparse encoder (SPLADE): its vectors have a dimension a word of the vocabulary",
    _MANY: "a multi-vector model (ColBERT): it has a vector a token, none of the whole text",
}
_GIVE = "give a hub id, a folder that SentenceTransformer can load, or package:wordllama"


@dataclass(frozen=True)
class Checkpoint:
    """The small files of a checkpoint.

    Attributes:
        name: A folder, or a hub id with its organisation.
        modules: Entries of modules.json; None where there is none, as in transformers' folders.
        settings: Of sentence-transformers.
        network: The config of the network.
        tokenizer: The config of the tokenizer.
        adapter: The config of a PEFT adapter; None where the weights are whole.
        commit: Of a hub repository.
    """

    name: str
    modules: list[dict[str, Any]] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    tokenizer: dict[str, Any] = field(default_factory=dict)
    adapter: dict[str, Any] | None = None
    commit: str | None = None

    @classmethod
    def find(cls, name: str, revision: str | None) -> "Checkpoint":
        """Read the small files of a folder or a hub repository.

        Raises:
            ModelError: There is no such model, or a file is no JSON.
            ConfigError: A revision of a folder.
        """
        if Path(name).is_dir():
            if revision is not None:
                raise ConfigError(
                    f"--revision {revision} is a version of a model on the hub, found the folder "
                    f"{name}, which has none; leave it out"
                )
            return cls._of_folder(name)
        return cls._of_hub(name, revision)

    @classmethod
    def _of_folder(cls, name: str) -> "Checkpoint":
        for path in _files_of(Path(name)):
            if (what := found_at(path)) not in ("a file", "a folder"):
                raise ModelError(
                    f"expected the files of a model in {name}, found {what} at {path}; give a "
                    "folder of plain files"
                )
        refuse_damaged(name)
        found = cls._read(name, None)
        if found is None:
            held = sorted(path.name for path in Path(name).iterdir())
            raise ModelError(
                f"expected a model in {name}, found neither {_MODULES} nor {_NETWORK} nor "
                f"{ADAPTER} ({', '.join(held[:5]) or 'it is empty'}); {_GIVE}"
            )
        return found

    @classmethod
    def _of_hub(cls, name: str, revision: str | None) -> "Checkpoint":
        tried = [name]
        if "/" not in name:
            tried.insert(0, f"{SentenceTransformer.default_huggingface_organization}/{name}")
        unknown = reason = "no such folder, and no such model on the hub"
        if not reach_hub():
            reason = "no such folder, and none in the hub's cache here (HF_HUB_OFFLINE is set)"
        for one in tried:
            try:
                found = cls._read(one, revision)
            except RevisionNotFoundError as error:
                raise ModelError(
                    f"the model {one!r} has no --revision {revision}; give a branch, a tag or a "
                    "commit of it"
                ) from error
            except GatedRepoError:
                reason = "its owner asks who you are: accept the terms on its page, and log in"
            except RepositoryNotFoundError:
                reason = unknown
            except (HfHubHTTPError, OSError) as error:
                reason = f"the hub does not answer ({type(error).__name__})"
            else:
                if found is not None:
                    return found
        raise ModelError(f"cannot find the model {name!r}: {reason}; {_GIVE}")

    @classmethod
    def _read(cls, name: str, revision: str | None) -> "Checkpoint | None":
        """The small files; None where there are none of them."""
        paths: dict[str, Path] = {}

        def read(file: str, subfolder: str = "") -> Any:
            found = load_file_path(name, file, subfolder=subfolder, revision=revision)
            if found is None:
                return None
            paths[file] = Path(found)
            return _parsed(Path(found), list if file == _MODULES else dict)

        modules = read(_MODULES)
        inside = _first_path(name, modules)
        network = read(_NETWORK, inside)
        settings, adapter = read(_SETTINGS), read(ADAPTER, inside)
        if modules is None and network is None and adapter is None:
            return None
        return cls(
            name,
            modules,
            settings or {},
            network or {},
            read(_TOKENIZER, inside) or {},
            adapter,
            _commit(next(iter(paths.values()))),
        )

    @property
    def is_plain(self) -> bool:
        """Whether it is of transformers alone, so that nothing in it says how to pool."""
        return self.modules is None

    @property
    def base(self) -> str | None:
        """Of an adapter, what it was trained on."""
        found = None if self.adapter is None else self.adapter.get("base_model_name_or_path")
        return None if found is None else str(found)

    @property
    def architecture(self) -> str:
        """Name of the network's class."""
        return next(iter(self._heads), "an unnamed network")

    @property
    def _heads(self) -> list[str]:
        """Names of the network's classes."""
        found = self.network.get("architectures")
        return [str(one) for one in found] if isinstance(found, list) else []

    def refuse(self, reading: Reading) -> None:
        """Refuse what is no embedding model, what has code that may not run, options without use.

        Raises:
            ModelError: One of the first two.
            ConfigError: A pooling where the files name one.
        """
        self._refuse_no_base()
        kind = self._kind()
        by_head = kind == _CROSS and self.is_plain and self.settings.get("model_type") is None
        if kind is not None and not (by_head and reading.pooling):
            last = " (or give --pooling, to embed with its network all the same)" if by_head else ""
            raise ModelError(
                f"{self.name} is {_KINDS.get(kind, f'a {kind}')}; name an embedding model{last}"
            )
        if reading.pooling is not None and not self.is_plain:
            raise ConfigError(
                f"--pooling {reading.pooling} is for plain transformers folders, found {_MODULES} "
                f"in {self.name}, which says how it pools; leave it out"
            )
        self._refuse_code(reading)

    def refuse_unlike_cross_encoder(self, reading: Reading) -> None:
        """Refuse what scores no pairs, and what has code that may not run.

        Raises:
            ModelError: It is one of them.
        """
        self._refuse_no_base()
        generates = any(one.endswith("ForCausalLM") for one in self._heads)
        if self._kind() != _CROSS and not (self.is_plain and generates):
            what = _KINDS.get(self._kind() or "", "an embedding model, with no score of a pair")
            raise ModelError(
                f"expected a cross-encoder (reranker), found {self.name}, which is {what}; name "
                "a model that CrossEncoder can load"
            )
        self._refuse_code(reading)

    def _refuse_no_base(self) -> None:
        if self.adapter is not None and self.base is None:
            raise ModelError(
                f"expected base_model_name_or_path in {ADAPTER} of {self.name}, found none; name "
                "the base of the adapter there"
            )

    def _refuse_code(self, reading: Reading) -> None:
        code = list(self._code())
        if code and not reading.trust_remote_code:
            known = self._native()
            raise ModelError(
                f"{self.name} brings code of its own ({', '.join(code[:3])}), which was not run; "
                "read it, then give --trust-remote-code" + (f", or {known}" if known else "")
            )

    def damaged_file(self) -> str:
        """The first file of a folder that is not what it is called, in words; empty for none."""
        for path in _files_of(Path(self.name)) if Path(self.name).is_dir() else ():
            try:
                if path.suffix == ".safetensors":
                    with safe_open(path, "numpy"):
                        continue
                # All of transformers and sentence-transformers are objects, but for one.
                if path.suffix == ".json" and path.name != _MODULES:
                    found = _parsed(path, dict)
                    if path.name == "tokenizer.json" and "model" not in found:
                        return f"{path} is no tokenizer: it has no part `model`"
            except (SafetensorError, OSError, ModelError) as error:
                return f"{path} is damaged ({one_line(error)})"
        return ""

    def _kind(self) -> str | None:
        """Which other kind of model it is; None for an embedding model."""
        types = [str(one.get("type")) for one in self.modules or []]
        settings = self.settings.get("model_type") or "SentenceTransformer"
        heads = self._heads
        if (
            settings in (_MANY, "ColBERT")
            or any(one.startswith("pylate.") or ".multi_vector_encoder." in one for one in types)
            or "query_prefix" in self.settings
            or any("colbert" in one.lower() for one in heads)
        ):
            return _MANY
        if settings == _SPARSE or any(".sparse_encoder." in one for one in types):
            return _SPARSE
        if settings == _CROSS or any(".cross_encoder." in one for one in types):
            return _CROSS
        if self.is_plain and any(one.endswith("ForSequenceClassification") for one in heads):
            return _CROSS
        return None if settings == "SentenceTransformer" else str(settings)

    def _code(self) -> Iterator[str]:
        """Names of the classes that its files bring."""
        yield from (
            str(one["type"])
            for one in self.modules or []
            if not str(one.get("type")).startswith(_LIBRARY)
        )
        for config in (self.network, self.tokenizer):
            named = config.get("auto_map") or {}
            for value in named.values() if isinstance(named, dict) else [named]:
                names = value if isinstance(value, list) else [value]
                yield from (str(one) for one in names if one is not None)

    def _native(self) -> str:
        """The way out where transformers has a class for the network itself."""
        from transformers import CONFIG_MAPPING

        kind = self.network.get("model_type")
        if "auto_map" not in self.network or kind not in CONFIG_MAPPING:
            return ""
        return (
            f"take auto_map out of the {_NETWORK} of a copy, if the class that transformers has "
            f"for {kind} is the same network"
        )


def _parsed(path: Path, kind: type) -> Any:
    """The object or list of a small file.

    Raises:
        ModelError: It holds something else, or cannot be read.
    """
    try:
        found = json.loads(read_small(path, _MOST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"expected JSON in {path}, found none ({one_line(error)}); fix the file"
        ) from error
    if not isinstance(found, kind):
        wanted = "a list" if kind is list else "an object"
        raise ModelError(
            f"expected {wanted} in {path}, found {shortened(found)}; fix the file, or fetch it "
            "again"
        )
    return found


def _first_path(name: str, modules: Any) -> str:
    """Where the files of the first module lie, below those of the model.

    Raises:
        ModelError: The modules are no such list, or lead out of the model.
    """
    for one in modules or ():
        path = one.get("path") if isinstance(one, dict) else None
        outside = isinstance(path, str) and (Path(path).is_absolute() or ".." in path.split("/"))
        if not isinstance(path, str) or outside or not isinstance(one.get("type"), str):
            raise ModelError(
                f"expected modules with a type, and a path within the model, in {_MODULES} of "
                f"{name}, found {shortened(one)}; fix the file, or fetch it again"
            )
    if modules == []:
        raise ModelError(f"expected modules in {_MODULES} of {name}, found none; fetch it again")
    return str(modules[0]["path"]) if modules else ""


def _files_of(folder: Path) -> Iterator[Path]:
    """What lies in a folder and in those within it, where modules have their files."""
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir():
            yield from sorted(path.iterdir())


def _commit(path: Path) -> str | None:
    """The commit of a file in the hub's cache: the name of its snapshot."""
    parts = path.parts
    if "snapshots" not in parts[:-1]:
        return None
    return parts[parts.index("snapshots") + 1]
