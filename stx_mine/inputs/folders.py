"""The tables that a path stands for: of a file, a pattern, a folder, a dataset of the hub."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from glob import has_magic
from pathlib import Path

from stx_mine.errors import InputError
from stx_mine.inputs.column_file import ColumnFile
from stx_mine.inputs.config import SourceFields
from stx_mine.inputs.configurations import (
    CORPUS_TABLES,
    QUERY_TABLES,
    SPLITS,
    SplitFiles,
    configurations,
    documents_in,
    holds_tables,
    texts_beside,
)
from stx_mine.inputs.delimited import DelimitedForm
from stx_mine.inputs.documents import DOCUMENT_SCHEMA, DocumentFile, has_front_matter
from stx_mine.inputs.files import InputFile, at_home, is_visible
from stx_mine.inputs.hub import local_copy
from stx_mine.inputs.hub_card import read_hub_card
from stx_mine.inputs.json_document import corpus_names
from stx_mine.inputs.spaced import SPACED

_PART = re.compile(r"(.*-)(\d{5})-of-(\d{5})(.*)")
_JUDGEMENTS = ("qrels", "default", "train", "scores", "data", "pairs")


@dataclass(frozen=True)
class Tables:
    """The tables of an input.

    Attributes:
        pairs: Pairs, of texts or of ids; or qrels.
        queries: The queries that its ids name; None for none.
        corpus: The passages; None for none.
        split: The split of the pairs; empty where the input has none.
        other_splits: Those that were not asked for.
        is_folder: Whether queries and corpus came with the pairs.
        are_ids: Whether a table without names holds ids, as those of such a folder do.
        are_qrels: Whether the pairs are qrels, by where they lie or what their file is called.
    """

    pairs: ColumnFile
    queries: ColumnFile | None = None
    corpus: ColumnFile | None = None
    split: str = ""
    other_splits: tuple[str, ...] = ()
    is_folder: bool = False
    are_ids: bool = False
    are_qrels: bool = False


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
    if holds_tables(target):
        return _of_folder(target, fields, prefer)
    if has_magic(path) and not target.exists():
        return Tables(_table(path, _matching(path), form, encoding))
    file = ColumnFile.open(target, form, encoding)
    return Tables(file, are_qrels=file.files[0].suffix in SPACED)


def open_corpus(path: str, fields: SourceFields) -> ColumnFile:
    """The passages that a path stands for: a table, or the corpus of a folder.

    Raises:
        InputError: There is nothing, or it cannot be told which split or configuration is meant.
    """
    return _open_texts(path, fields, CORPUS_TABLES)


def open_queries(path: str, fields: SourceFields) -> ColumnFile:
    """The queries that a path stands for: a table, or those of a folder.

    Raises:
        InputError: There is nothing, or it cannot be told which split or configuration is meant.
    """
    return _open_texts(path, fields, QUERY_TABLES)


def find_queries(pairs: ColumnFile, split: str) -> ColumnFile | None:
    """The table of queries that lies beside a table of ids; None where there is none.

    Raises:
        InputError: There are several, and it cannot be told which one is meant.
    """
    return _beside(pairs, QUERY_TABLES, split)


def find_corpus(pairs: ColumnFile, split: str) -> ColumnFile | None:
    """The corpus that lies beside a table of ids, or that it names; None where there is none.

    Raises:
        InputError: There are several, and it cannot be told which one is meant.
    """
    named = corpus_names(pairs.files[0]) if pairs.files[0].suffix == ".json" else []
    if not named:
        return _beside(pairs, CORPUS_TABLES, split)
    if len(named) > 1:
        raise InputError(
            f"expected one corpus in {pairs.name}, found {len(named)}; give --corpus FILE"
        )
    folder = pairs.path.parent / named[0]
    if Path(named[0]).is_absolute() or ".." in Path(named[0]).parts:
        raise InputError(
            f"{pairs.name} names a corpus outside of its folder ({named[0]}); give it with --corpus"
        )
    return _open_table(folder, CORPUS_TABLES, DelimitedForm(), None) if folder.exists() else None


def _beside(pairs: ColumnFile, names: tuple[str, ...], split: str) -> ColumnFile | None:
    splits = texts_beside(pairs.path, names)
    if not splits:
        return None
    files = _role_files(splits, (*names, split), pairs.path.parent)
    return _table(str(files[0].parent), files, DelimitedForm(), None)


def brings_corpus(folder: Path) -> bool:
    """Whether this is a folder with a corpus beside its pairs, as a BEIR folder is."""
    is_folder = holds_tables(folder)
    return is_folder and not configurations(folder).keys().isdisjoint(CORPUS_TABLES)


def _open_texts(path: str, fields: SourceFields, names: tuple[str, ...]) -> ColumnFile:
    target = local_copy(path, None)
    form = DelimitedForm(quoting=fields.quoting, delimiter=fields.delimiter)
    if has_magic(path) and not target.exists():
        return _table(path, _matching(path), form, fields.encoding)
    return _open_table(target, names, form, fields.encoding)


def _open_table(
    target: Path, names: tuple[str, ...], form: DelimitedForm, encoding: str | None
) -> ColumnFile:
    """A file, or the table of a folder that one of these names means."""
    if not holds_tables(target):
        return ColumnFile.open(target, form, encoding)
    if documents := documents_in(target):
        return _documents(target, documents, encoding)
    configs = configurations(target)
    chosen = next((name for name in names if name in configs), None)
    splits = configs[chosen or _only(configs, target, None)]
    return _table(str(target), _role_files(splits, names, target), form, encoding)


def _matching(pattern: str) -> list[Path]:
    """The files of a pattern, sorted.

    Raises:
        InputError: There is none.
    """
    parts = at_home(pattern).parts
    plain = next(place for place, part in enumerate(parts) if has_magic(part))
    files = sorted(Path(*parts[:plain]).glob(str(Path(*parts[plain:]))))
    files = [file for file in files if file.is_file()]
    if not any(part.startswith((".", "_")) for part in parts[plain:]):
        files = [file for file in files if is_visible(file.relative_to(Path(*parts[:plain])))]
    if not files:
        raise InputError(f"no file is named like {pattern}; check the pattern")
    return files


def form_of(fields: SourceFields) -> DelimitedForm:
    """How CSV and TSV of pairs are to be read."""
    asked = (fields.query_column, fields.passage_column, fields.label_column)
    names = tuple(name.strip() for listed in fields.columns for name in listed.split(","))
    return DelimitedForm(
        delimiter=fields.delimiter,
        quoting=fields.quoting,
        header=False if fields.no_header else None,
        names=names,
        expected=tuple(name for name in (*asked, *fields.negative_column) if name),
    )


def _of_folder(folder: Path, fields: SourceFields, prefer: str) -> Tables:
    form, encoding = form_of(fields), fields.encoding
    configs = configurations(folder)
    corpus = next((name for name in CORPUS_TABLES if name in configs), None)
    queries = next((name for name in QUERY_TABLES if name in configs), None)
    rest = {name: splits for name, splits in configs.items() if name not in (corpus, queries)}
    has_both = corpus is not None and queries is not None
    if corpus is None or fields.subset is not None or not (has_both or rest):
        name = _only(configs, folder, fields.subset)
        splits = configs[name]
        split = _split(splits, fields.split, prefer, folder)
        pairs = _labeled(folder, name, _table(str(folder), splits[split], form, encoding))
        return Tables(pairs, split=split, other_splits=_others(splits, split))
    if not rest:
        raise InputError(
            f"expected pairs or qrels beside {corpus} and {queries} in {folder}, found none; give "
            "a file of pairs, or the folder with qrels/"
        )
    named = next((name for name in _JUDGEMENTS if name in rest), None)
    chosen = named or next(iter(rest)) if has_both else _only(rest, folder, None)
    splits = rest[chosen]
    split = _split(splits, fields.split, prefer, folder / named if has_both and named else folder)
    pairs = _table(str(folder / (named or "")), splits[split], form, encoding)
    pairs = _labeled(folder, chosen, pairs)

    def texts(name: str | None) -> ColumnFile | None:
        if name is None:
            return None
        files = _role_files(configs[name], (name, split), folder / name)
        return _table(str(folder / name), files, DelimitedForm(), encoding)

    return Tables(
        pairs,
        texts(queries),
        texts(corpus),
        split,
        _others(splits, split),
        is_folder=has_both,
        are_ids=has_both,
        are_qrels=has_both and named is not None and pairs.files[0].suffix in (".tsv", *SPACED),
    )


def _labeled(folder: Path, config: str, pairs: ColumnFile) -> ColumnFile:
    """The pairs with what the card of their folder says of them."""
    card = read_hub_card(folder)
    labeled = pairs.with_labels(card.labels_of(config))
    return replace(labeled, remarks=(*labeled.remarks, card.note)) if card.note else labeled


def _only(configs: Mapping[str, SplitFiles], folder: Path, subset: str | None) -> str:
    """The configuration that is meant.

    Raises:
        InputError: It is not there, or cannot be told.
    """
    names = list(configs)
    if subset is not None and subset not in configs:
        raise InputError(f"no subset {subset!r} in {folder}, which has {', '.join(names)}")
    if subset is None and len(names) > 1 and "default" not in configs:
        raise InputError(
            f"expected one table in {folder}, found {', '.join(names)}; give one with --subset"
        )
    return subset or (names[0] if len(names) == 1 else "default")


def _split(splits: SplitFiles, asked: str | None, prefer: str, folder: Path) -> str:
    """The split that is meant.

    Raises:
        InputError: It is not there, or cannot be told.
    """
    wanted = asked or prefer
    same = next((names for names in SPLITS.values() if wanted in names), (wanted,))
    chosen = next((name for name in (wanted, *same) if name in splits), None)
    if chosen is None and asked is None and len(splits) == 1:
        chosen = next(iter(splits))
    if chosen is None:
        raise InputError(
            f"no split {wanted!r} in {folder}; give --split with one of: "
            f"{', '.join(sorted(splits))}"
        )
    return chosen


def _others(splits: SplitFiles, split: str) -> tuple[str, ...]:
    return tuple(name for name in splits if name != split)


def _role_files(splits: SplitFiles, names: tuple[str, ...], folder: Path) -> list[Path]:
    if len(splits) == 1:
        return next(iter(splits.values()))
    for name in names:
        if name in splits:
            return splits[name]
    raise InputError(
        f"expected one split of texts in {folder}, found {', '.join(splits)}; give the files"
    )


def _table(name: str, files: list[Path], form: DelimitedForm, encoding: str | None) -> ColumnFile:
    # Other tools write parts without a row as files without a byte.
    # A member of a zip is no file of the file system; empty ones are not listed.
    filled = [file for file in files if not file.is_file() or file.stat().st_size] or files[:1]
    opened = [one for file in filled for one in InputFile.open(file, encoding)]
    notes = list[str]()
    if left_out := len(files) - len(filled):
        notes.append(f"{left_out} of its {len(files)} files without a byte: not read")
    if missing := _missing_part(files):
        if not has_magic(name):
            raise InputError(
                f"expected the part {missing} in {name}, found none; fetch it, or give the parts "
                "that are to be read as a pattern, as in 'folder/train-*'"
            )
        notes.append(f"the part {missing} is not among its files")
    name = str(filled[0]) if len(filled) == 1 else name
    return ColumnFile.of_files(name, opened, form, tuple(notes))


def _documents(folder: Path, documents: list[Path], encoding: str | None) -> ColumnFile:
    """Documents as one table, a row each."""
    filled = [file for file in documents if file.stat().st_size] or documents[:1]
    files = [one for file in filled for one in InputFile.open(file, encoding)]
    note = f"each of its {len(documents):,} text and Markdown files is one passage"
    if left_out := len(documents) - len(filled):
        note += f", {left_out:,} without a byte are not read"
    if fronted := sum(map(has_front_matter, filled)):
        note += f", the front matter of {fronted:,} is left out"
    formats = tuple(DocumentFile(file, folder) for file in files)
    return ColumnFile(str(folder), tuple(files), DOCUMENT_SCHEMA, formats, (note,))


def _missing_part(files: list[Path]) -> str:
    """The first of the numbered parts `NAME-00000-of-00003` that is not there; empty for none."""
    found = dict[tuple[str, str, str], set[int]]()
    for file in files:
        if part := _PART.fullmatch(file.name):
            before, number, total, after = part.groups()
            found.setdefault((before, total, after), set()).add(int(number))
    for (before, total, after), numbers in found.items():
        for number in range(int(total)):
            if number not in numbers:
                return f"{before}{number:0{len(total)}}-of-{total}{after}"
    return ""
