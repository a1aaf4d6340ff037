"""The YAML head of a dataset card: which files are which table, what the numbers of labels mean."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stx_mine.errors import one_line
from stx_mine.store.safe_yaml import parse_yaml

_CARD = "README.md"


@dataclass(frozen=True)
class HubCard:
    """What a dataset card says of the files beside it.

    Attributes:
        files: Configuration -> split -> patterns of files.
        labels: Configuration -> column -> the names of its labels, by their number.
        note: Why it says nothing, where it was meant to; else empty.
    """

    files: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    labels: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    note: str = ""

    def labels_of(self, config: str) -> dict[str, list[str]]:
        """Column -> the names of its labels, in one configuration."""
        only = next(iter(self.labels.values())) if len(self.labels) == 1 else {}
        return self.labels.get(config, only)


def read_hub_card(folder: Path) -> HubCard:
    """Read the card of a folder; one that is not there, or has no head, says nothing."""
    card = folder / _CARD
    if not card.is_file():
        return HubCard()
    parts = card.read_text("utf-8", errors="replace").split("---", 2)
    if len(parts) < 3 or parts[0].strip():
        return HubCard()
    try:
        header = parse_yaml(parts[1])
    except ValueError as error:
        said = f"the head of its {_CARD} is no YAML and was not read ({one_line(error)})"
        return HubCard(note=said)
    if not isinstance(header, dict):
        return HubCard()
    return HubCard(_files(header.get("configs")), _labels(header.get("dataset_info")))


def _files(configs: Any) -> dict[str, dict[str, list[str]]]:
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


def _labels(infos: Any) -> dict[str, dict[str, list[str]]]:
    found = dict[str, dict[str, list[str]]]()
    for info in infos if isinstance(infos, list) else [infos]:
        features = info.get("features") if isinstance(info, dict) else None
        named = {
            str(feature.get("name")): names
            for feature in (features if isinstance(features, list) else [])
            if isinstance(feature, dict) and (names := _label_names(feature.get("dtype")))
        }
        if named:
            found[str(info.get("config_name", "default"))] = named
    return found


def _label_names(kind: Any) -> list[str]:
    """The names of a `class_label`, by their number; none for another type."""
    label = kind.get("class_label") if isinstance(kind, dict) else None
    names = label.get("names") if isinstance(label, dict) else None
    if names is not None and not isinstance(names, list | dict):
        return []
    if isinstance(names, list):
        return [str(name) for name in names]
    if not isinstance(names, dict) or {str(key) for key in names} != set(
        map(str, range(len(names)))
    ):
        return []
    return [str(name) for _, name in sorted(names.items(), key=lambda one: int(one[0]))]
