"""Options of `transfer`."""

from dataclasses import dataclass

from stx_mine.settings import StageConfig, option


@dataclass(frozen=True, kw_only=True)
class StorageConfig(StageConfig):
    """Which artifacts move between the run directory and a URL."""

    url: str | None = option(
        None,
        "Where published artifacts lie: s3://, gs://, file:// ... (fsspec), or hf:// for the hub.",
        argument=True,
        group="What and where",
    )
    artifact: tuple[str, ...] = option(
        (),
        "An artifact, as hits/dense; repeatable (default: all; on the hub batches or model).",
        group="What and where",
    )


@dataclass(frozen=True, kw_only=True)
class PublishConfig(StorageConfig):
    """Send finished artifacts to a URL (resumable, the manifest of each last), or share on a hub.

    `hf://datasets/me/x` takes `batches/`, and `hf://me/model` takes `model/`.
    """

    license: str | None = option(
        None,
        "On the hub: the license in the card, by its identifier there, as mit or cc-by-4.0.",
        group="On the hub",
    )
    public: bool = option(
        False,
        "On the hub: for everybody (default: private).",
        group="On the hub",
        conflicts="to",
        because="which sends nothing",
    )
    to: str | None = option(
        None,
        "Write what would lie on the hub into this folder, and send nothing.",
        group="On the hub",
    )


@dataclass(frozen=True, kw_only=True)
class FetchConfig(StorageConfig):
    """Fetch published artifacts from a URL into the run directory; checksums are checked."""
