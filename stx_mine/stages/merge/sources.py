"""The models to merge: their files as they lie, or as the library saves them again."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError

from stx_mine import progress
from stx_mine.errors import ModelError
from stx_mine.models.adapter import has_adapter
from stx_mine.models.checkpoint import Checkpoint
from stx_mine.models.config import Reading
from stx_mine.models.load import PREFIX, open_model, stored_folder
from stx_mine.stages.merge.agreement import disagreement
from stx_mine.stages.merge.model_folder import ModelFolder
from stx_mine.store.files import written_by_library


def open_sources(
    readings: Mapping[str, Reading], scratch: Path
) -> tuple[list[ModelFolder], list[str]]:
    """Open models that fit each other.

    Files are used as they lie. Where they are in another form, or were saved by other versions so
    that names differ, the library reads a model and saves it again: one whole model at a time is in
    memory then.

    Args:
        readings: Name -> how its files are read, in order.
        scratch: A folder for what is saved again; whoever calls removes it.

    Returns:
        The models, and sentences about what was saved again.

    Raises:
        ModelError: One is missing, damaged or an adapter, or they do not fit.
        ConfigError: An option does not fit one of them.
    """
    models = [_as_it_lies(name, reading) for name, reading in readings.items()]
    found = [
        one or _saved_again(name, reading, scratch, number)
        for number, (one, (name, reading)) in enumerate(zip(models, readings.items(), strict=True))
    ]
    again = [name for name, one in zip(readings, models, strict=True) if one is None]
    if disagreement(found) and len(again) < len(found):
        # Other versions give tensors and settings other names.
        found = [
            _saved_again(name, reading, scratch, number) if models[number] else found[number]
            for number, (name, reading) in enumerate(readings.items())
        ]
        again = list(readings)
    if problem := disagreement(found):
        raise ModelError(problem)
    return found, _notes(again)


def _as_it_lies(name: str, reading: Reading) -> ModelFolder | None:
    """The files of a model as they are; None where the library has to read them.

    Raises:
        ModelError: There is no such model, or it is an adapter.
    """
    if not name.startswith(PREFIX):
        _refuse_adapter(name, Checkpoint.find(name, reading.revision).adapter is not None)
    folder = stored_folder(name, reading)
    if folder is None:
        return None
    found = ModelFolder(name, folder)
    return found if found.is_whole else None


def _saved_again(name: str, reading: Reading, scratch: Path, number: int) -> ModelFolder:
    """What the library makes of a model."""
    model = open_model(name, "cpu", reading=reading, as_stored=True).model
    _refuse_adapter(name, has_adapter(model))
    folder = scratch / str(number)
    with progress.step(f"saving {name}"), written_by_library(folder, SafetensorError):
        model.save_pretrained(str(folder), create_model_card=False)
    return ModelFolder(name, folder)


def _refuse_adapter(name: str, is_adapter: bool) -> None:
    if is_adapter:
        raise ModelError(
            f"expected a model that is whole, found the adapter {name}; merge it into its base "
            "with peft (merge_and_unload) and give what that saves"
        )


def _notes(again: Sequence[str]) -> list[str]:
    if not again:
        return []
    return [
        f"the files of {', '.join(again)} were read and saved again by the library, since they are "
        "in other forms or of other versions; so much memory was needed as one whole model takes"
    ]
