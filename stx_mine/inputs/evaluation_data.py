"""How the data of an evaluation is read: as asked for, else as the run reads its own pairs."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from stx_mine.errors import InputError
from stx_mine.inputs.column_file import ColumnFile
from stx_mine.inputs.config import SourceFields
from stx_mine.inputs.pairs import PairSource
from stx_mine.settings import names_of
from stx_mine.store.artifact import Manifest
from stx_mine.store.manifest import refuse_damaged

_Fields = TypeVar("_Fields", bound=SourceFields)
_COLUMN = "_column"


@dataclass(frozen=True)
class OpenedData:
    """Data that is open.

    Attributes:
        source: The data.
        fields: How it is read, in full.
        of_run: Option -> value of those that the run says.
    """

    source: PairSource
    fields: SourceFields
    of_run: dict[str, Any]


def open_data(
    path: str, fields: SourceFields, prefer_split: str, recorded: dict[str, Any]
) -> OpenedData:
    """Open the data of an evaluation.

    Columns that the run named for its own pairs are those of the data where it has them and no
    others are asked for; titles that the run leaves out are left out.

    Args:
        path: The data.
        fields: What is asked for.
        prefer_split: The split of a folder to take where none is named.
        recorded: What `recorded_options` says.

    Raises:
        InputError: A file or column is missing.
        ConfigError: An option does not fit the kind of input.
    """
    refuse_damaged(path, fields.corpus, fields.queries)
    of_run = _columns_of_run(path, fields, recorded)
    fields = _with(fields, of_run)
    source = PairSource.open(path, fields, prefer_split)
    if Path(path).is_dir() and recorded.get("title") == "none":
        source, of_run["title"] = replace(source, titles=False), "none"
    return OpenedData(source, fields, of_run)


def recorded_options(texts: Manifest | None, source: str | None = None) -> dict[str, Any]:
    """The options that the pairs of a run were read with; of several sources those they share.

    Args:
        texts: The `texts/` of the run; None where it has none.
        source: The source that is named, whose options alone count.
    """
    if texts is None:
        return {}
    config = texts.content["config"]
    several = config.get("sources")
    if not several:
        return dict(config)
    chosen = [one for one in several if source in (None, one["name"])]
    if not chosen:
        # A source that is unknown is refused where its prompts are looked for.
        return {}
    shared = {
        name: value
        for name, value in chosen[0].items()
        if all(one.get(name) == value for one in chosen)
    }
    return {**shared, "title": config.get("title")}


def _columns_of_run(path: str, fields: SourceFields, recorded: dict[str, Any]) -> dict[str, Any]:
    """Option -> columns of the run that a file of pairs has, and that are not asked for."""
    if not Path(path).is_file():
        return {}
    files = {"corpus": fields.corpus and Path(fields.corpus), "pairs": Path(path)}
    columns = {role: _columns(one) for role, one in files.items() if one}
    found: dict[str, Any] = {}
    for name in names_of(SourceFields):
        value = recorded.get(name)
        if not name.endswith(_COLUMN) or getattr(fields, name) or not value:
            continue
        there = columns.get("corpus" if name.startswith("corpus") else "pairs", set())
        if there.issuperset([value] if isinstance(value, str) else value):
            found[name] = value if isinstance(value, str) else tuple(value)
    return found


def _columns(path: Path) -> set[str]:
    try:
        return set(ColumnFile.open(path).columns)
    except InputError:
        # It is opened again, where the error has its place.
        return set()


def _with(fields: _Fields, changes: dict[str, Any]) -> _Fields:
    return replace(fields, **changes) if changes else fields
