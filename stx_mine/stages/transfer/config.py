"""Options of `transfer`."""

from dataclasses import dataclass

from stx_mine.settings import StageConfig, option


@dataclass(frozen=True, kw_only=True)
class StorageConfig(StageConfig):
    """Which artifacts move between the run directory and a URL."""

    url: str | None = option(
        None,
        "Where published artifacts lie: s3://, gs://, file:// ... (fsspec).",
        argument=True,
        group="What and where",
    )
    artifact: tuple[str, ...] = option(
        (),
        "An artifact, as texts or hits/dense; repeatable (default: all that are finished).",
        group="What and where",
    )


@dataclass(frozen=True, kw_only=True)
class PublishConfig(StorageConfig):
    """Send finished artifacts to a URL; resumable, the manifest of each last."""


@dataclass(frozen=True, kw_only=True)
class FetchConfig(StorageConfig):
    """Fetch published artifacts from a URL into the run directory; checksums are checked."""
