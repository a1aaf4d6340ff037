"""The configurations of a folder, each of splits, each of files: by card, by names, or saved."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from stx_mine.errors import InputError
from stx_mine.inputs.column_file import FORMATS, is_column_file
from stx_mine.inputs.documents import DOCUMENTS_END_IN
from stx_mine.inputs.files import is_visible, suffix_of, zip_members
from stx_mine.inputs.hub_card import read_hub_card
from stx_mine.store.artifact import MANIFEST, PLAN

# Splits of one meaning, as file names and configurations have them.
SPLITS = {
    "train": ("train", "training"),
    "dev": ("dev", "validation", "valid", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
QUERY_TABLES = ("queries", "query")
CORPUS_TABLES = ("corpus", "documents", "collection", "passages")

# Documents that describe a folder and hold no rows.
_NO_ROWS = frozenset({PLAN, MANIFEST, "merlin_metadata.json", "dataset_infos.json"})

SplitFiles = Mapping[str, list[Path]]


def configurations(folder: Path) -> dict[str, SplitFiles]:
    """Name -> split -> files, sorted; a file inside a zip has a path below that of the zip.

    Raises:
        InputError: The folder holds no file that is read, or a part of a saved dataset is missing.
    """
    saved = _saved(folder)
    if saved is not None:
        return {"default": saved}
    found = _of_card(folder) or _of_names(folder)
    if not found:
        raise InputError(
            f"expected {', '.join(FORMATS)}, a BEIR folder (corpus.jsonl, queries.jsonl, "
            f"qrels/*.tsv) or a saved dataset in {folder}, found none; give a file of pairs or the "
            "right folder"
        )
    return found


def _saved(folder: Path) -> SplitFiles | None:
    """The splits of what `datasets` saved; None for another folder."""
    if (folder / "dataset_dict.json").is_file():
        names = json.loads((folder / "dataset_dict.json").read_text("utf-8"))["splits"]
        parts = {name: _saved(folder / Path(name).name) for name in names}
        missing = [name for name, part in parts.items() if part is None]
        if missing:
            raise InputError(
                f"expected the split {missing[0]!r} in {folder}, found none; save the dataset again"
            )
        return {name: next(iter(part.values())) for name, part in parts.items() if part}
    if not (folder / "state.json").is_file() or not (folder / "dataset_info.json").is_file():
        return None
    state = json.loads((folder / "state.json").read_text("utf-8"))
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise InputError(
            f"{folder} was saved with a selection of its rows; call flatten_indices() and save it "
            "again"
        )
    files = [folder / Path(one["filename"]).name for one in state["_data_files"]]
    for file in files:
        if not file.is_file():
            raise InputError(f"expected {file.name} in {folder}, found none; save it again")
    return {state.get("_split") or "train": files}


def _of_card(folder: Path) -> dict[str, SplitFiles]:
    """The configurations that a dataset card lists; none where it lists none."""
    found = dict[str, SplitFiles]()
    for name, listed in read_hub_card(folder).files.items():
        splits = dict[str, list[Path]]()
        for split, patterns in listed.items():
            files = [file for pattern in patterns for file in _inside(folder, pattern)]
            if files:
                splits.setdefault(split, []).extend(files)
        if splits:
            found[name] = splits
    return found


def _inside(folder: Path, pattern: str) -> list[Path]:
    """The files of a pattern, none of which may lie outside of the folder."""
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise InputError(
            f"the card of {folder} names files outside of it ({pattern}); correct its data_files"
        )
    return sorted(file for file in folder.glob(pattern) if is_column_file(file))


def holds_tables(path: Path) -> bool:
    """Whether a path is a folder, or a zip of one with a corpus in it."""
    if path.is_dir():
        return True
    is_zip = path.suffix.lower() == ".zip" and path.is_file()
    return is_zip and not _named_files(*_root_and_files(path)).keys().isdisjoint(CORPUS_TABLES)


def documents_in(folder: Path) -> list[Path]:
    """The text and Markdown files of a folder, sorted; none where it holds a table, too.

    One such file alone describes a folder rather than being what it holds.
    """
    if not folder.is_dir() or _root_and_files(folder)[1]:
        return []
    found = [
        file
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in DOCUMENTS_END_IN
        and is_visible(file.relative_to(folder))
        and file.is_file()
    ]
    return found if len(found) > 1 else []


def _root_and_files(folder: Path) -> tuple[Path, list[Path]]:
    """A folder and the files in it that may hold rows; of a zip the folder that is all of it."""
    root = folder
    if folder.is_dir():
        files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    else:
        files = [folder / member for member in zip_members(folder)]
        tops = {file.relative_to(folder).parts[0] for file in files}
        if len(tops) == 1 and all(len(file.relative_to(folder).parts) > 1 for file in files):
            root = folder / tops.pop()
    return root, [
        file
        for file in files
        if is_visible(file.relative_to(folder)) and suffix_of(file) in FORMATS
        if file.name not in _NO_ROWS
    ]


def _named_files(root: Path, files: list[Path]) -> dict[str, list[Path]]:
    """Files by the folder in which they lie or, of those in none, by the stem of their names."""
    found = dict[str, list[Path]]()
    for file in files:
        inside = file.relative_to(root)
        stem = inside.parts[0] if len(inside.parts) > 1 else _stem(inside)
        found.setdefault(stem.lower(), []).append(file)
    return found


def _of_names(folder: Path) -> dict[str, SplitFiles]:
    """The configurations of a folder without a card, by the names of its files and folders."""
    root, files = _root_and_files(folder)
    tops = _named_files(root, files)
    missing = [
        names[0] for names in (CORPUS_TABLES, QUERY_TABLES) if not any(one in tops for one in names)
    ]
    if "qrels" in tops and missing:
        raise InputError(
            f"expected corpus.jsonl and queries.jsonl beside {root}/qrels, found no "
            f"{missing[0]}.jsonl; check the path"
        )
    if missing and len(tops) == 1 and next(iter(tops)) in CORPUS_TABLES:
        return {next(iter(tops)): _by_split(root, files)}
    if missing:
        corpus = next((name for name in CORPUS_TABLES if name in tops), None)
        texts = tops.pop(corpus, []) if corpus else []
        pairs = [file for own in tops.values() for file in own]
        data = [file for file in pairs if file.suffix.lower() not in (".json", ".txt")] or pairs
        found = {"default": _by_split(root, sorted(data))} if data else {}
        return found | ({corpus: _by_split(root, texts)} if corpus else {})
    return {name: _by_split(_common_folder(root, own), own) for name, own in tops.items()}


def _common_folder(root: Path, files: list[Path]) -> Path:
    """The folder right below the root in which all files lie; the root where there is none."""
    tops = {file.relative_to(root).parts[0] for file in files}
    top = root / next(iter(tops))
    return top if len(tops) == 1 and top not in files else root


def texts_beside(file: Path, names: tuple[str, ...]) -> SplitFiles:
    """The files of texts that lie beside a file of ids, or beside its folder; none where none do.

    Args:
        file: The file of ids; of qrels/train.tsv the folder of qrels/ is looked at too.
        names: What a table of such texts is called: `QUERY_TABLES` or `CORPUS_TABLES`.
    """
    for folder in filter(_is_readable, (file.parent, file.parent.parent)):
        found = [one for one in sorted(folder.iterdir()) if _stem(one).lower() in names]
        tables = [
            one
            for path in found
            for one in (sorted(path.iterdir()) if path.is_dir() else [path])
            if is_column_file(one) and one.name not in _NO_ROWS and one != file
        ]
        if tables:
            return _by_split(folder, tables)
    return {}


def _is_readable(folder: Path) -> bool:
    return os.access(folder, os.R_OK | os.X_OK)


def _stem(path: Path) -> str:
    """The name of a file up to its first dot or hyphen."""
    return re.split(r"[.\-]", path.name)[0]


def _by_split(folder: Path, files: list[Path]) -> SplitFiles:
    """Files by the split that their names tell; by their own name where they tell none."""
    is_qrels = folder.name.lower() == "qrels"
    found = dict[str, list[Path]]()
    for file in files:
        inside = file.relative_to(folder).as_posix().lower()
        words = re.split(r"[^a-z]+", inside)
        named = [split for split, names in SPLITS.items() if any(n in words for n in names)]
        split = next((word for word in words if named and word in SPLITS[named[0]]), "")
        if is_qrels:
            split = file.name.split(".")[0]
        found.setdefault(split, []).append(file)
    if list(found) == [""]:
        return {"train": found[""]}
    # What tells no split beside files that do is something else: notes, a list of labels.
    return {split: own for split, own in found.items() if split}
