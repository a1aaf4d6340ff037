"""Names that become paths: of artifacts, of their files, of folders that a user names.

What comes from an option, a file or a URL is checked here before a path is built of it.
"""

import re

from stx_mine.masking import has_controls
from stx_mine.store.kinds import KINDS

# What the store itself adds to a name: an artifact on its way in, one on its way out, half a file.
NEW, OLD, PARTIAL = ".new", ".old", ".tmp"
# What a command leaves in a run directory itself until it ends begins with this.
SCRATCH = ".scratch-stx-mine-"
_MOST_BYTES, _MOST_LEVELS = 200, 16
_DRIVE = re.compile("[A-Za-z]:")


def name_problem(name: object) -> str:
    """What keeps something from being the name of one file or folder; empty where nothing does."""
    if not isinstance(name, str):
        return f"it is {type(name).__name__}, not text"
    if not name.strip():
        return "it is empty"
    if has_controls(name):
        return "it has control characters"
    if "/" in name or "\\" in name:
        return "it has a slash"
    if name.startswith("."):
        return "it begins with a dot"
    if _DRIVE.match(name):
        return "it begins with a drive"
    if name != name.strip():
        return "it begins or ends with a space"
    if len(name.encode()) > _MOST_BYTES:
        return f"it is longer than {_MOST_BYTES} bytes"
    if name.endswith((NEW, OLD, PARTIAL)):
        return f"{NEW}, {OLD} and {PARTIAL} are endings of what is unfinished"
    return ""


def path_problem(path: object) -> str:
    """What keeps something from being the path of a file inside a folder; empty where nothing does.

    A path is of one spelling: names between single slashes.
    """
    if not isinstance(path, str):
        return name_problem(path)
    parts = path.split("/")
    if len(parts) > _MOST_LEVELS:
        return f"it has more than {_MOST_LEVELS} levels"
    if path.startswith("/"):
        return "it is absolute"
    if ".." in parts:
        return "it leaves the folder"
    return next(filter(None, map(name_problem, parts)), "")


def artifact_problem(name: str) -> str:
    """What keeps a text from naming an artifact such as `hits/dense`; empty where nothing does."""
    kind, slash, subfolder = name.partition("/")
    if kind not in KINDS:
        return f"there are {', '.join(KINDS)}"
    if slash and not KINDS[kind].several:
        return f"a run holds one {kind}/ only"
    return name_problem(subfolder) if slash else ""
