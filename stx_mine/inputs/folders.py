"""The tables of a folder: BEIR's, a dataset's with or without a card, a saved dataset; of the hub.

A folder holds configurations (`default`, or `corpus`, `queries` and judgements), each of splits,
each of files.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path
from typing import Any

import yaml

from stx_mine.errors import InputError
from stx_mine.inputs.column_file import FORMATS, ColumnFile, is_column_file
from stx_mine.inputs.config import SourceFields
from stx_mine.inputs.delimited import DelimitedForm
from stx_mine.inputs.files import InputFile, is_visible, suffix_of

# Splits of one meaning, as file names and configurations have them.
_SPLITS = {
    "train": ("train", "training"),
    "dev": ("dev", "validation", "valid", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_QUERIES, _CORPUS = ("queries", "query"), ("corpus", "documents", "collection", "passages")
_JUDGEMENTS = ("qrels", "default", "train", "scores", "data", "pairs")
_HUB = re.compile(r"(?:hf://datasets/)?([\w.-]+/[\w.-]+?)(?:@([\w./-]+?))?(?:/(.+))?")

Splits = Mapping[str, list[Path]]


@dataclass(frozen=True)
class Tables:
    """The tables of an input.

    Attributes:
        pairs: Pairs, of texts or of ids; or qrels.
        queries: The queries that its ids name; None for none.
        corpus: The passages; None for none.
        split: The split of the pairs; empty where the input has none.
        is_folder: Whether queries and corpus came with the pairs.
    """

    pairs: ColumnFile
    queries: ColumnFile | None = None
    corpus: ColumnFile | None = None
    split: str = ""
    is_folder: bool = False


def find_tables(path: str, fields: SourceFields, prefer: str) -> Tables:
    """The tables that a path, a pattern or a name on the hub stands for.

    Args:
        path: A file, a folder, a pattern of files, `ORG/NAME` or `hf://datasets/ORG/NAME`.
        fields: The split, the configuration, and how text files are to be read.
        prefer: The split to take where none is named.

    Raises:
        InputError: There is nothing, or it cannot be told which split or configuration is meant.
    """
    form, encoding = form_of(fields), fields.encoding
    target = local_copy(path, fields.subset)
    if target.is_dir():
        return _of_folder(target, fields, prefer)
    if has_magic(path) and not target.exists():
        return Tables(_table(path, _matching(path), form, encoding))
    return Tables(ColumnFile.open(target, form, encoding))


def open_corpus(path: str, fields: SourceFields) -> ColumnFile:
    """The passages that a path stands for: a table, or the corpus of a folder.

    Raises:
        InputError: There is nothing, or it cannot be told which split or configuration is meant.
    """
    return _open_texts(path, fields, _CORPUS)


def open_queries(path: str, fields: SourceFields) -> ColumnFile:
    """The queries that a path stands for: a table, or those of a folder.

    Raises:
        InputError: There is nothing, or it cannot be told which split or configuration is meant.
    """
    return _open_texts(path, fields, _QUERIES)


def brings_corpus(folder: Path) -> bool:
    """Whether this is a folder with a corpus beside its pairs, as a BEIR folder is."""
    return folder.is_dir() and any(name in configurations(folder) for name in _CORPUS)


def _open_texts(path: str, fields: SourceFields, names: tuple[str, ...]) -> ColumnFile:
    target = local_copy(path, None)
    form = DelimitedForm(quoting=fields.quoting, delimiter=fields.delimiter)
    if target.is_dir():
        configs = configurations(target)
        chosen = next((name for name in names if name in configs), None)
        splits = configs[chosen] if chosen else _only(configs, target, None)
        return _table(path, _role_files(splits, names, target), form, fields.encoding)
    if has_magic(path) and not target.exists():
        return _table(path, _matching(path), form, fields.encoding)
    return ColumnFile.open(target, form, fields.encoding)


def _matching(pattern: str) -> list[Path]:
    """The files of a pattern, sorted.

    Raises:
        InputError: There is none.
    """
    parts = Path(pattern).expanduser().parts
    plain = next(place for place, part in enumerate(parts) if has_magic(part))
    files = sorted(Path(*parts[:plain]).glob(str(Path(*parts[plain:]))))
    files = [file for file in files if file.is_file()]
    if not files:
        raise InputError(f"no file is named like {pattern}; check the pattern")
    return files


def form_of(fields: SourceFields) -> DelimitedForm:
    """How CSV and TSV of pairs are to be read."""
    asked = (fields.query_column, fields.passage_column, fields.label_column)
    return DelimitedForm(
        delimiter=fields.delimiter,
        quoting=fields.quoting,
        header=False if fields.no_header or fields.columns else None,
        names=fields.columns,
        expected=tuple(name for name in (*asked, *fields.negative_column) if name),
    )


def _of_folder(folder: Path, fields: SourceFields, prefer: str) -> Tables:
    form, encoding = form_of(fields), fields.encoding
    configs = configurations(folder)
    corpus = next((name for name in _CORPUS if name in configs), None)
    queries = next((name for name in _QUERIES if name in configs), None)
    if corpus is None or queries is None or fields.subset is not None:
        splits = _only(configs, folder, fields.subset)
        split = _split(splits, fields.split, prefer, folder)
        return Tables(_table(str(folder), splits[split], form, encoding), split=split)
    rest = {name: splits for name, splits in configs.items() if name not in (corpus, queries)}
    judged = next((name for name in _JUDGEMENTS if name in rest), None) or next(iter(rest), None)
    if judged is None:
        raise InputError(
            f"expected pairs or qrels beside {corpus} and {queries} in {folder}, found none; give "
            "a file of pairs, or the folder with qrels/"
        )
    split = _split(rest[judged], fields.split, prefer, folder / judged)
    asked, passages = (
        _table(
            str(folder / name),
            _role_files(configs[name], (name, split), folder / name),
            DelimitedForm(),
            encoding,
        )
        for name in (queries, corpus)
    )
    pairs = _table(str(folder / judged), rest[judged][split], form, encoding)
    return Tables(pairs, asked, passages, split, True)


def configurations(folder: Path) -> dict[str, Splits]:
    """Name -> split -> files, sorted.

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


def _saved(folder: Path) -> Splits | None:
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


def _of_card(folder: Path) -> dict[str, Splits]:
    """The configurations that a dataset card lists; none where it lists none."""
    found = dict[str, Splits]()
    for name, listed in card_files(folder).items():
        splits = dict[str, list[Path]]()
        for split, patterns in listed.items():
            files = [file for pattern in patterns for file in _inside(folder, pattern)]
            if files:
                splits.setdefault(split, []).extend(files)
        if splits:
            found[name] = splits
    return found


def card_files(folder: Path) -> dict[str, dict[str, list[str]]]:
    """Configuration -> split -> patterns of files, as the YAML of a dataset card lists them."""
    card = folder / "README.md"
    if not card.is_file():
        return {}
    parts = card.read_text("utf-8", errors="replace").split("---", 2)
    if len(parts) < 3 or parts[0].strip():
        return {}
    try:
        header = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return {}
    configs = header.get("configs") if isinstance(header, dict) else None
    found = dict[str, dict[str, list[str]]]()
    for config in configs if isinstance(configs, list) else []:
        if not isinstance(config, dict) or "data_files" not in config:
            continue
        base = str(config.get("data_dir") or "").strip("/")
        splits: dict[str, list[str]] = found.setdefault(str(config.get("config_name")), {})
        for split, pattern in _listed_files(config["data_files"]):
            splits.setdefault(split, []).append(f"{base}/{pattern}" if base else pattern)
    return found


def _listed_files(listed: Any) -> list[tuple[str, str]]:
    """(split, pattern) of the `data_files` of a card."""
    if isinstance(listed, str):
        return [("train", listed)]
    if isinstance(listed, list):
        return [pair for one in listed for pair in _listed_files(one)]
    if isinstance(listed, dict) and "path" in listed:
        paths = listed["path"] if isinstance(listed["path"], list) else [listed["path"]]
        return [(str(listed.get("split", "train")), str(path)) for path in paths]
    return []


def _inside(folder: Path, pattern: str) -> list[Path]:
    """The files of a pattern, none of which may lie outside of the folder."""
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise InputError(
            f"the card of {folder} names files outside of it ({pattern}); correct its data_files"
        )
    return sorted(file for file in folder.glob(pattern) if is_column_file(file))


def _of_names(folder: Path) -> dict[str, Splits]:
    """The configurations of a folder without a card, by the names of its files and folders."""
    files = [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and is_visible(file.relative_to(folder)) and suffix_of(file) in FORMATS
    ]
    tops = dict[str, list[Path]]()
    for file in files:
        inside = file.relative_to(folder)
        stem = inside.parts[0] if len(inside.parts) > 1 else re.split(r"[.\-]", inside.name)[0]
        tops.setdefault(stem.lower(), []).append(file)
    is_split_up = any(one in tops for one in _CORPUS) and any(one in tops for one in _QUERIES)
    if not is_split_up:
        data = [file for file in files if file.suffix.lower() not in (".json", ".txt")] or files
        return {"default": _by_split(folder, data)} if data else {}
    found = dict[str, Splits]()
    for name, own in tops.items():
        found[name] = _by_split(folder / name if (folder / name).is_dir() else folder, own)
    return found


def _by_split(folder: Path, files: list[Path]) -> Splits:
    """Files by the split that their names tell; by their own name where they tell none."""
    is_qrels = folder.name.lower() == "qrels"
    found = dict[str, list[Path]]()
    for file in files:
        inside = file.relative_to(folder).as_posix().lower()
        words = re.split(r"[^a-z]+", inside)
        named = [split for split, names in _SPLITS.items() if any(n in words for n in names)]
        split = next((word for word in words if named and word in _SPLITS[named[0]]), "")
        if is_qrels:
            split = file.name.split(".")[0]
        found.setdefault(split, []).append(file)
    if list(found) == [""]:
        return {"train": found[""]}
    # What tells no split beside files that do is something else: notes, a list of labels.
    return {split: own for split, own in found.items() if split}


def _only(configs: Mapping[str, Splits], folder: Path, subset: str | None) -> Splits:
    names = list(configs)
    if subset is not None and subset not in configs:
        raise InputError(f"no subset {subset!r} in {folder}, which has {', '.join(names)}")
    if subset is None and len(names) > 1 and "default" not in configs:
        raise InputError(
            f"expected one table in {folder}, found {', '.join(names)}; give one with --subset"
        )
    chosen = subset or (names[0] if len(names) == 1 else "default")
    return configs[chosen]


def _split(splits: Splits, asked: str | None, prefer: str, folder: Path) -> str:
    """The split that is meant.

    Raises:
        InputError: It is not there, or cannot be told.
    """
    wanted = asked or prefer
    same = next((names for names in _SPLITS.values() if wanted in names), (wanted,))
    chosen = next((name for name in (wanted, *same) if name in splits), None)
    if chosen is None and asked is None and len(splits) == 1:
        chosen = next(iter(splits))
    if chosen is None:
        raise InputError(
            f"no split {wanted!r} in {folder}; give --split with one of: "
            f"{', '.join(sorted(splits))}"
        )
    return chosen


def _role_files(splits: Splits, names: tuple[str, ...], folder: Path) -> list[Path]:
    if len(splits) == 1:
        return next(iter(splits.values()))
    for name in names:
        if name in splits:
            return splits[name]
    raise InputError(
        f"expected one split of texts in {folder}, found {', '.join(splits)}; give the files"
    )


def _table(name: str, files: list[Path], form: DelimitedForm, encoding: str | None) -> ColumnFile:
    opened = [one for file in files for one in InputFile.open(file, encoding)]
    name = str(files[0]) if len(files) == 1 else name
    return ColumnFile.of_files(name, opened, form)


def local_copy(path: str, subset: str | None) -> Path:
    """The path itself; or a folder or file of the hub, downloaded, where nothing lies there.

    Raises:
        InputError: The hub cannot be reached, or has no such dataset.
    """
    target = Path(path).expanduser()
    found = _HUB.fullmatch(path)
    is_named = path.startswith("hf://")
    if found is None or (not is_named and (target.exists() or not _is_hub_name(path))):
        return target
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    repo, revision, inside = found.groups()
    where: dict[str, Any] = {"repo_type": "dataset", "revision": revision}
    try:
        if inside and suffix_of(Path(inside)) in FORMATS:
            return Path(hf_hub_download(repo, inside, **where))
        folder = Path(snapshot_download(repo, allow_patterns=["README.md"], **where))
        configs = card_files(folder)
        listed = configs.get(subset or "default") or {}
        wanted = [one for patterns in listed.values() for one in patterns]
        patterns = wanted or [f"*{suffix}*" for suffix in FORMATS]
        folder = Path(snapshot_download(repo, allow_patterns=["README.md", *patterns], **where))
        return folder / inside if inside else folder
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        line = " ".join(str(error).split()).split(". ")[0]
        raise InputError(
            f"nothing lies at {path}, and the dataset {repo} could not be fetched from the hub "
            f"({line[:160]}); check the path, or download it and give its folder"
        ) from error


def _is_hub_name(path: str) -> bool:
    """Whether a path has the form ORG/NAME of the hub, and no suffix of a file."""
    is_name = re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", path) is not None
    return is_name and not path.startswith(".") and suffix_of(Path(path)) not in (*FORMATS, ".zip")
