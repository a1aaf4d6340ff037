"""What runs the network of a transformer: torch, or an exported network."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download

from stx_mine.errors import ModelError

# What runs the networks that are not torch's.
_OPTIMUM = {"openvino": "optimum.intel", "onnx": "optimum.onnxruntime"}


@dataclass(frozen=True)
class Runtime:
    """What runs the network of a transformer.

    Attributes:
        backend: torch, openvino or onnx.
        file: Of the other two: the exported network, in the model's folder or the one in it that
            is named by the backend; None for the one that is there, or else an export on loading.
        attention: How transformers computes attention, as in sdpa; None for its own choice.
    """

    backend: str = "torch"
    file: str | None = None
    attention: str | None = None

    @property
    def label(self) -> str | None:
        """What it is, for people; None for what everybody has."""
        if self.attention is not None:
            return f"{self.attention} attention"
        if self.backend == "torch":
            return None
        return self.backend if self.file is None else f"{self.backend} ({self.file})"

    def arguments(self) -> dict[str, Any]:
        """What SentenceTransformer takes."""
        asked = {"file_name": self.file, "attn_implementation": self.attention}
        given = {name: value for name, value in asked.items() if value is not None}
        return {"backend": self.backend, "model_kwargs": given}

    def check(self, name: str, revision: str | None) -> None:
        """See that what it needs is there: without its file the library would make another one.

        Args:
            name: A folder, or a hub id.
            revision: Of the hub.

        Raises:
            ModelError: It is not.
        """
        if self.backend in _OPTIMUM and not is_installed(_OPTIMUM[self.backend]):
            raise ModelError(
                f"--backend {self.backend} needs {_OPTIMUM[self.backend]}, which is not installed; "
                "see `embed` in the README, or leave it out"
            )
        if self.file is None:
            return
        if not any(
            _has_file(name, one, revision) for one in (self.file, f"{self.backend}/{self.file}")
        ):
            raise ModelError(
                f"no file {self.file} in {name}, nor in its folder {self.backend}; export one, "
                "or leave out --model-file"
            )


PLAIN = Runtime()


def is_installed(module: str) -> bool:
    """Whether a module can be imported, also one inside a package that may be missing."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _has_file(model: str, file: str, revision: str | None) -> bool:
    if Path(model).is_dir():
        return (Path(model) / file).exists()
    try:
        hf_hub_download(model, file, revision=revision)
    except (OSError, ValueError):
        return False
    return True
