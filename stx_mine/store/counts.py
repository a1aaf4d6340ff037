"""Counts of a stage: what came in, was kept and was dropped, as its manifest holds them."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from stx_mine.errors import ArtifactError
from stx_mine.store.artifact import Manifest


@dataclass(frozen=True)
class Counts:
    """The base of the counts of every stage; a subclass lists them, a field each."""

    def to_json(self) -> dict[str, Any]:
        """As a manifest holds them, in the order of the fields."""
        return asdict(self)

    @classmethod
    def read(cls, manifest: Manifest) -> Self:
        """The counts of a finished artifact; those that it lacks are at their defaults.

        Raises:
            ArtifactError: The manifest lacks a count that has no default.
        """
        counts = manifest.counts
        found = {field.name: counts[field.name] for field in fields(cls) if field.name in counts}
        try:
            return cls(**found)
        except TypeError as error:
            missing = ", ".join(one.name for one in fields(cls) if one.name not in counts)
            raise ArtifactError(
                f"expected {missing} among the counts of {manifest.folder}/, found none; run its "
                "command again with --overwrite"
            ) from error
