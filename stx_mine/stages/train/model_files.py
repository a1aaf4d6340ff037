"""The files of the trained model, and the prompts that it has in them."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer

from stx_mine.store.files import written_by_library
from stx_mine.store.sources import SourceInfo, prompts_differ

CHECKPOINTS, _SAVING = "checkpoints", "saving"


def _name_prompts(model: SentenceTransformer, sources: Sequence[SourceInfo]) -> None:
    """Leave the prompts of the sources in the model: its own where they agree, else by name."""
    agree = not prompts_differ(sources)
    for source in sources:
        for role, name in (("query", "query"), ("passage", "document")):
            prompt = source.prompts[role]
            if prompt is not None:
                model.prompts[name if agree else f"{source.name}-{name}"] = prompt


def publish_model(
    model: SentenceTransformer, folder: Path, sources: Sequence[SourceInfo]
) -> list[str]:
    """Save a model beside, with the prompts of its sources, then move every file into its place.

    Returns:
        Paths below the folder, sorted.
    """
    _name_prompts(model, sources)
    saving = folder / _SAVING
    shutil.rmtree(saving, ignore_errors=True)
    # The library's card would describe numbers of rows.
    with written_by_library(saving, SafetensorError):
        model.save_pretrained(str(saving), create_model_card=False)
    for code in sorted(saving.glob("*/*.py")):
        # The library saves code of a module beside the module, and looks for it at the top.
        if not (saving / code.name).exists():
            shutil.copy(code, saving / code.name)
    files = sorted(
        path.relative_to(saving).as_posix() for path in saving.rglob("*") if path.is_file()
    )
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (saving / name).replace(folder / name)
    shutil.rmtree(saving)
    return files


def remove_checkpoints(folder: Path) -> None:
    """Remove what training continues from; a finished model needs it no more."""
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
