"""Dataset cards: the README.md by which `datasets.load_dataset` finds the files of an artifact.

`datasets` keeps what it has read under the last name of the folder, the configuration and a hash of
the card's `configs` (its `DatasetBuilder._relative_data_dir` and `LocalDatasetModuleFactory`): not
under the path, and not under the content of the files. Two folders of one name and equal `configs`
would share a cache, and the second would be answered with the rows of the first. So each
configuration describes itself by a digest of the content, and every card is written here.
"""

from dataclasses import dataclass
from pathlib import Path

from stx_mine.store.files import atomic
from stx_mine.store.markdown import yaml_text

DATASET_CARD = "README.md"
DEFAULT = "default"


@dataclass(frozen=True)
class CardConfig:
    """A configuration: what `load_dataset(DIR, NAME)` reads.

    Attributes:
        name: Its name; the one named default needs no name.
        path: The files, as a pattern below the folder.
        columns: The columns to read; empty for all.
    """

    name: str
    path: str
    columns: tuple[str, ...] = ()

    def lines(self, description: str) -> list[str]:
        """Its entry in `configs`, in YAML."""
        return [
            f"- config_name: {yaml_text(self.name)}",
            f"  description: {yaml_text(description)}",
            "  data_files:",
            "  - split: train",
            f"    path: {yaml_text(self.path)}",
            *(["  columns:"] if self.columns else []),
            *(f"  - {yaml_text(name)}" for name in self.columns),
            *(["  default: true"] if self.name == DEFAULT else []),
        ]


@dataclass(frozen=True)
class DatasetCard:
    """A dataset card.

    Attributes:
        configs: What can be loaded; empty where `datasets` reads none of it.
        tags: For those who search a hub.
        text: What stands below the head, in Markdown.
        about: What `Dataset.info.description` says of whatever is loaded; empty for nothing.
    """

    configs: tuple[CardConfig, ...]
    tags: tuple[str, ...]
    text: str
    about: str = ""

    def write(self, folder: Path, content: str) -> None:
        """Write it, once the files that it describes are there.

        Args:
            folder: Their folder.
            content: Digest of them all, in hex.
        """
        # A word before it: YAML takes some digests for numbers.
        description = f"content {content}"
        head = ["---", *(["configs:"] if self.configs else [])]
        head += [line for one in self.configs for line in one.lines(description)]
        if self.about:
            head.append("dataset_info:")
            for one in self.configs:
                head += [f"- config_name: {yaml_text(one.name)}"]
                head += [f"  description: {yaml_text(self.about)}"]
        head += ["tags:", *(f"- {yaml_text(tag)}" for tag in self.tags), "---", ""]
        with atomic(folder / DATASET_CARD) as path:
            path.write_text("\n".join(head) + self.text, "utf-8")
