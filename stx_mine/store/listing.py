"""What a manifest may say of its files: it may come from elsewhere, and its names become paths."""

import re
from typing import Any

from stx_mine.errors import ArtifactError, shortened
from stx_mine.store.names import path_problem

# The store's own files, which no manifest lists.
PLAN, MANIFEST = "plan.json", "manifest.json"
_MOST_FILES, _MOST_BYTES = 1_000_000, 1 << 50
_CHECKSUM = re.compile("[0-9a-f]{32}")
_PARTS: dict[str, type] = {"key": str, "inputs": dict, "digest": str, "counts": dict, "files": list}


def refuse_listing(content: dict[str, Any], where: str, cure: str) -> None:
    """Refuse a manifest that lacks what every one has, or lists what is no file of its folder.

    Args:
        content: The manifest.
        where: What the error calls it.
        cure: What the error tells to do.

    Raises:
        ArtifactError: It does.
    """
    for name, kind in _PARTS.items():
        if not isinstance(content.get(name), kind) or content[name] == "":
            found = repr(content[name])[:60] if name in content else "none"
            raise ArtifactError(f"expected {name!r} in {where}, found {found}; {cure}")
    if len(content["files"]) > _MOST_FILES:
        raise ArtifactError(
            f"expected at most {_MOST_FILES:,} files in {where}, found "
            f"{len(content['files']):,}; {cure}"
        )
    taken: set[str] = set()
    for entry in content["files"]:
        problem = _entry_problem(entry) or _place_problem(entry["file"], taken)
        if problem:
            raise ArtifactError(
                f"expected files of the artifact in {where}, found {repr(entry)[:200]}: {problem}; "
                f"{cure}"
            )
        taken.add(entry["file"])


def refuse_plan(content: dict[str, Any], where: str, cure: str) -> None:
    """Refuse a plan whose settings and inputs are none.

    Args:
        content: The plan.
        where: What the error calls it.
        cure: What the error tells to do.

    Raises:
        ArtifactError: They are not.
    """
    for name in ("fields", "inputs"):
        if not isinstance(content.get(name, {}), dict):
            raise ArtifactError(
                f"expected {name!r} in {where}, found {shortened(content[name])}; {cure}"
            )


def _entry_problem(entry: Any) -> str:
    if not isinstance(entry, dict):
        return "it is no entry"
    if problem := path_problem(entry.get("file")):
        return problem
    size, digest = entry.get("bytes"), entry.get("xxh3_128")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MOST_BYTES:
        return f"its bytes are no number from 0 to {_MOST_BYTES:,}"
    return "" if isinstance(digest, str) and _CHECKSUM.fullmatch(digest) else "it has no checksum"


def _place_problem(file: str, taken: set[str]) -> str:
    if file in (PLAN, MANIFEST):
        return "that name is taken"
    return "it is listed twice" if file in taken else ""
