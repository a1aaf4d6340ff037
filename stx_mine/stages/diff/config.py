"""Options of `diff`."""

from dataclasses import dataclass

from stx_mine.errors import ConfigError
from stx_mine.settings import ReadingConfig, StageConfig, option


@dataclass(frozen=True, kw_only=True)
class DiffConfig(ReadingConfig):
    """Say which negatives differ between two runs, and why; texts are matched by content."""

    run_a: str | None = option(None, "A run directory, mined.", argument=True, group="Runs")
    run_b: str | None = option(
        None, "Another one (default: --run-dir).", argument=True, group="Runs"
    )
    k: int | None = option(
        None,
        "Negatives at the front of the pools whose overlap is measured (default: the smaller k).",
        minimum=1,
        group="Output",
    )
    query: str | None = option(
        None, "Compare one query only: its text, or its original id.", group="Output"
    )
    limit: int = option(
        10, "Changes to show as examples, of every reason in turn.", minimum=0, group="Output"
    )
    json: str | None = option(
        None,
        "Write all of it as JSON to this file; -: print it instead of the table.",
        group="Output",
    )

    def __post_init__(self) -> None:
        """Check that two runs are named.

        Raises:
            ConfigError: One is missing, or there are three.
        """
        super().__post_init__()
        if self.run_a is None:
            raise ConfigError(
                "expected two run directories, found none; name them, as in "
                "`stx-mine diff RUN_A RUN_B`"
            )
        if self.run_b is not None and self.run_dir != StageConfig.run_dir:
            raise ConfigError(
                f"expected two run directories, found {self.run_a}, {self.run_b} and --run-dir "
                f"{self.run_dir}; leave one of them out"
            )
