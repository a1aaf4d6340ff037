"""Options of every stage that loads an embedding model, and what they say together."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from stx_mine.errors import ConfigError
from stx_mine.settings import FILES, WHERE, StageConfig, option

PoolingMode = Literal["mean", "cls", "lasttoken"]


@dataclass(frozen=True)
class Reading:
    """How the files of a model are read.

    Attributes:
        trust_remote_code: Whether code in the files may run; only ever the word of the user.
        revision: Branch, tag or commit of a hub repository; None for its main branch.
        pooling: How token vectors become one, for a folder that does not say so itself.
    """

    trust_remote_code: bool = False
    revision: str | None = None
    pooling: PoolingMode | None = None

    def to_json(self) -> dict[str, Any]:
        """As manifests hold it."""
        return asdict(self)

    def of_another(self) -> "Reading":
        """The same for another model, of which only the trust is known."""
        return Reading(self.trust_remote_code)

    def as_recorded(self, recorded: dict[str, Any]) -> "Reading":
        """The same, with what was not said here as an earlier stage had it.

        Trust is not taken over: a run directory may come from elsewhere.
        """
        return replace(
            self,
            revision=self.revision or recorded["commit"] or recorded["revision"],
            pooling=self.pooling or recorded["pooling"],
        )


AS_IT_IS = Reading()
# The environment variable with the key that servers get.
API_KEY = "STX_API_KEY"


@dataclass(frozen=True, kw_only=True)
class CheckpointFields(StageConfig):
    """How the files of a model are read, whatever kind of model it is."""

    trust_remote_code: bool = option(
        False,
        "Run the code that a model brings in its files. Read it first.",
        "estimates",
        group=FILES,
    )
    revision: str | None = option(
        None,
        "Branch, tag or commit of a model on the hub (default: main).",
        "estimates",
        group=FILES,
    )


@dataclass(frozen=True, kw_only=True)
class ModelFields(CheckpointFields):
    """How an embedding model is read."""

    pooling: Literal["mean", "cls", "lasttoken"] | None = option(
        None,
        "How a plain transformers folder, which names no pooling, makes one vector of its tokens.",
        "estimates",
        group=FILES,
    )

    @property
    def reading(self) -> Reading:
        """The three as one value."""
        return Reading(self.trust_remote_code, self.revision, self.pooling)


@dataclass(frozen=True, kw_only=True)
class RequestFields(StageConfig):
    """How servers are asked."""

    requests: int = option(
        8, "Requests to a server at a time.", minimum=1, maximum=256, group=WHERE
    )
    requests_per_minute: float | None = option(
        None,
        "Requests a minute to a server, at most, from each process.",
        above=0,
        group=WHERE,
    )

    def check_server(self, option_name: str, url: str) -> None:
        """Check the address of a server.

        Raises:
            ConfigError: It holds a password, or no host.
        """
        host = url.partition("://")[2].partition("/")[0]
        if not is_server(url) or not host or "@" in host or "?" in url:
            raise ConfigError(
                f"{option_name} must be the base address of a server, such as "
                f"http://localhost:8000/v1, found {url}; a key goes into the environment variable "
                f"{API_KEY}"
            )


@dataclass(frozen=True, kw_only=True)
class ServerFields(RequestFields):
    """How a server is asked that has the model."""

    server_model: str | None = option(
        None,
        "Name of the model at a server (default: the only one that it has).",
        "estimates",
        group=FILES,
    )


def is_server(name: str | None) -> bool:
    """Whether a model is named by the address of a server."""
    return name is not None and name.startswith(("http://", "https://"))
