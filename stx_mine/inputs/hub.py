"""Datasets of the hub: their files are downloaded once, and no code of theirs is run."""

import re
from pathlib import Path
from typing import Any

from stx_mine.errors import InputError, one_line
from stx_mine.inputs.column_file import FORMATS
from stx_mine.inputs.files import at_home, suffix_of
from stx_mine.inputs.hub_access import reach_hub
from stx_mine.inputs.hub_card import read_hub_card

_HUB = re.compile(r"(?:hf://datasets/)?([\w.-]+/[\w.-]+?)(?:@([\w./-]+?))?(?:/(.+))?")


def local_copy(path: str, subset: str | None) -> Path:
    """The path itself; or a folder or file of the hub, downloaded, where nothing lies there.

    Raises:
        InputError: The hub cannot be reached, or has no such dataset.
    """
    target = at_home(path)
    found = _HUB.fullmatch(path)
    is_named = path.startswith("hf://")
    if found is None or (not is_named and (target.exists() or not _is_hub_name(path))):
        return target
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HFValidationError

    reach_hub()
    repo, revision, inside = found.groups()
    where: dict[str, Any] = {"repo_type": "dataset", "revision": revision}
    try:
        if inside and suffix_of(Path(inside)) in FORMATS:
            return Path(hf_hub_download(repo, inside, **where))
        folder = Path(snapshot_download(repo, allow_patterns=["README.md"], **where))
        configs = read_hub_card(folder).files
        listed = configs.get(subset or "default") or {}
        wanted = [one for patterns in listed.values() for one in patterns]
        patterns = wanted or [f"*{suffix}*" for suffix in FORMATS]
        folder = Path(snapshot_download(repo, allow_patterns=["README.md", *patterns], **where))
        return folder / inside if inside else folder
    except (OSError, HFValidationError) as error:
        line = one_line(error).split(". ")[0]
        raise InputError(
            f"nothing lies at {path}, and the dataset {repo} could not be fetched from the hub "
            f"({line[:160]}); check the path, or download it and give its folder"
        ) from error


def _is_hub_name(path: str) -> bool:
    """Whether a path has the form ORG/NAME of the hub, and no suffix of a file."""
    is_name = re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", path) is not None
    return is_name and not path.startswith(".") and suffix_of(Path(path)) not in (*FORMATS, ".zip")
