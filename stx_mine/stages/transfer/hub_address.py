"""Addresses of the hub: `hf://datasets/me/x` is a data set there, `hf://me/model` a model."""

import re
from dataclasses import dataclass
from typing import Self

from stx_mine.errors import ConfigError

_SCHEME = "hf://"
_FORM = re.compile(
    r"hf://(?:(datasets|models|spaces|buckets|kernels)/)?([\w.-]+/[\w.-]+)(?:@([\w./-]+))?/*",
    re.ASCII,
)
_NAME = re.compile(r"(?!.*(?:--|\.\.))\w(?:[\w.-]{0,94}\w)?", re.ASCII)


@dataclass(frozen=True)
class HubAddress:
    """A repository of the hub.

    Attributes:
        is_dataset: Whether it is one of data; else it is one of a model.
        repo: Its owner and name, between them a slash.
        revision: A branch, tag or commit; None for the newest.
    """

    is_dataset: bool
    repo: str
    revision: str | None = None

    @classmethod
    def of(cls, url: str) -> Self | None:
        """The repository of a URL; None where it is no URL of the hub.

        Raises:
            ConfigError: It is one, and names no repository of data or of a model.
        """
        if not url.startswith(_SCHEME):
            return None
        found = _FORM.fullmatch(url)
        kind, repo, revision = found.groups() if found else (None, "", None)
        names = repo.split("/")
        if kind not in (None, "datasets", "models") or not all(map(_NAME.fullmatch, names)):
            raise ConfigError(
                f"expected hf://datasets/OWNER/NAME or hf://OWNER/NAME, found {url!r}; give one of "
                "these: letters, digits, single - and ., and _ in each name"
            )
        return cls(kind == "datasets", repo, revision)

    @property
    def repo_type(self) -> str:
        """What the hub calls it."""
        return "dataset" if self.is_dataset else "model"

    @property
    def url(self) -> str:
        """It, without a revision."""
        return f"{_SCHEME}{'datasets/' if self.is_dataset else ''}{self.repo}"

    def at(self, commit: str) -> str:
        """The URL of one commit."""
        return f"{self.url}@{commit}"
