"""The commands as methods of a run, for Python and notebooks; tables in memory are input too."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import Field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from stx_mine.commands import COMMANDS, stage_of
from stx_mine.errors import ConfigError, shortened
from stx_mine.progress import display
from stx_mine.settings import StageConfig

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

    from stx_mine.stages.report.pictures import Picture
    from stx_mine.stages.show.mined_views import MinedViews
    from stx_mine.stages.show.views import PassageView, QueryView
    from stx_mine.store.stage_report import StageReport

# Where tables of Python lie in a run, as files that stages read.
_INPUTS = "inputs"


class Run:
    """A run directory; each command is a method with the options of the command line.

    A method returns a `StageReport`; a mistake raises a subclass of `StxMineError`. Where an
    option takes a file of rows, a table is taken too: of Arrow, pandas or polars, a
    `datasets.Dataset`, or a list of dicts or of (query, passage).

    Attributes:
        path: The run directory.
        progress: Whether stderr says what a method is at, as that of a command does.
    """

    def __init__(self, path: str | Path = "stx-run", progress: bool = True) -> None:
        """Name the directory; nothing is read or written yet.

        Args:
            path: The run directory.
            progress: Whether stderr says what a method is at.
        """
        self.path, self.progress = Path(path), progress

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def negatives(self) -> "Negatives":
        """What was mined."""
        return Negatives(self.path)

    @property
    def batches(self) -> "Batches":
        """What was packed."""
        return Batches(self.path)

    @property
    def plots(self) -> "list[Picture]":
        """The plots of the report (scores, ranks, margins, training); notebooks show them."""
        from stx_mine.stages.report.pictures import pictures_of

        return pictures_of(str(self.path))

    def _config(self, name: str, values: dict[str, Any]) -> StageConfig:
        kind: Any = COMMANDS[name].config
        hints = get_type_hints(kind)
        taken = {
            key: self._as_file(key, value) if _is_table(value, hints[key]) else value
            for key, value in values.items()
        }
        config: StageConfig = kind(run_dir=str(self.path), **taken)
        return config

    def _as_file(self, name: str, table: Any) -> str:
        """The path of a table, written into the run under the digest of its content."""
        import pyarrow.parquet as pq

        from stx_mine.store.files import atomic, checksum

        folder = self.path / _INPUTS
        folder.mkdir(parents=True, exist_ok=True)
        written = folder / f"{name}.parquet"
        with atomic(written) as temporary:
            if hasattr(table, "to_parquet") and hasattr(table, "features"):
                # Names of labels are in the features of a dataset.
                table.to_parquet(str(temporary))
            else:
                pq.write_table(_arrow_of(name, table), temporary)
        final = folder / f"{name}-{checksum(written)}.parquet"
        written.replace(final)
        return str(final)


class Negatives:
    """The negatives of a run, as a person or a program looks at them."""

    def __init__(self, path: Path) -> None:
        """Open what `mine` made.

        Args:
            path: The run directory.

        Raises:
            ArtifactError: It was not mined.
        """
        from stx_mine.store.mined_run import MinedRun

        self._path, self._mined = path, MinedRun.open(str(path), "once")

    @cached_property
    def _views(self) -> "MinedViews":
        from stx_mine.stages.show.mined_views import MinedViews
        from stx_mine.store.run_dir import RunDir

        return MinedViews(RunDir(self._path), self._mined)

    def query(self, text: str, limit: int = 20) -> "QueryView":
        """A query with its positives and candidates.

        Args:
            text: Its text or original id; else the one most alike by its words.
            limit: Candidates, at most, beside the first of the pool.

        Raises:
            InputError: None has any of the words.
        """
        from stx_mine.stages.show.finding import find_text

        number, _ = find_text(self._mined.store.queries, text, "query")
        return self._views.queries([number], limit)[0]

    def passage(self, text: str, limit: int = 20) -> "PassageView":
        """A passage with the queries that it is a positive or a negative of.

        Args:
            text: Its text or original id; else the one most alike by its words.
            limit: Queries of each kind, at most.

        Raises:
            InputError: None has any of the words.
        """
        from stx_mine.stages.show.finding import find_text

        number, _ = find_text(self._mined.store.passages, text, "passage")
        return self._views.passages([number], limit)[0]

    def to_arrow(self, k: int | None = None) -> "pa.Table":
        """A row for each pair to train on: `query`, `positive`, `negatives`, `negative_scores`.

        Args:
            k: Negatives of a row, at most (default: the k of mine); fewer where the pool has fewer.
        """
        import numpy as np
        import pyarrow as pa

        from stx_mine.core.ragged import offsets_of
        from stx_mine.store.negatives import negatives_per_row
        from stx_mine.store.pools import Pools
        from stx_mine.store.texts import take_texts

        mined, store = self._mined, self._mined.store
        number = negatives_per_row(mined.negatives, k)
        pools = Pools.open(mined.negatives, store.pair_query_ids, True, store.num_passages)
        assert pools.scores is not None
        ids = pools.ids_NS[pools.rows, :number].astype(np.int64)
        scores = pools.scores[1][pools.rows, :number]
        filled = ids >= 0
        offsets = pa.array(offsets_of(filled.sum(1)), pa.int64())
        queries, passages = (one.column("text") for one in (store.queries, store.passages))

        def texts(column: Any, wanted: Any) -> Any:
            return take_texts(column, wanted).dictionary_decode()

        return pa.table(
            {
                "query": texts(queries, store.pair_query_ids[pools.rows]),
                "positive": texts(passages, store.pair_passage_ids[pools.rows]),
                "negatives": pa.LargeListArray.from_arrays(offsets, texts(passages, ids[filled])),
                "negative_scores": pa.LargeListArray.from_arrays(offsets, scores[filled]),
            }
        )

    def to_pandas(self, k: int | None = None) -> Any:
        """What `to_arrow` gives, as a DataFrame."""
        return self.to_arrow(k).to_pandas()

    def to_dataset(self, k: int | None = None) -> "datasets.Dataset":
        """What `to_arrow` gives, as a `datasets.Dataset`."""
        import datasets

        return datasets.Dataset(self.to_arrow(k))


class Batches:
    """The packed batches of a run."""

    def __init__(self, path: Path) -> None:
        """Open what `pack` made.

        Args:
            path: The run directory.

        Raises:
            ArtifactError: It was not packed.
        """
        from stx_mine.store.artifact import require
        from stx_mine.store.batches import list_packings
        from stx_mine.store.run_dir import RunDir

        self._packings = list_packings(require(RunDir(path), "batches").folder)

    def __len__(self) -> int:
        """How many packings there are; training takes one an epoch."""
        return len(self._packings)

    @property
    def batch_size(self) -> int:
        """Rows of a batch."""
        return self._packings[0][0].batch_size

    def to_arrow(self, packing: int = 0) -> "pa.Table":
        """The rows of a packing with their texts: [i * B, (i + 1) * B) are batch i.

        Args:
            packing: Its number, from 0.

        Raises:
            ConfigError: There is no such packing.
        """
        import pyarrow as pa

        if not 0 <= packing < len(self):
            raise ConfigError(
                f"expected a packing from 0 to {len(self) - 1}, found {packing}; pack more with "
                "--packings"
            )
        shards = self._packings[packing]
        return pa.concat_tables(
            shard.batch(number) for shard in shards for number in range(shard.num_batches)
        )

    def to_dataset(self, packing: int = 0) -> "datasets.Dataset":
        """What `to_arrow` gives, as a `datasets.Dataset`."""
        import datasets

        return datasets.Dataset(self.to_arrow(packing))


def _is_table(value: Any, hint: Any) -> bool:
    """Whether rows stand where an option takes the name of a file."""
    is_path = isinstance(value, str | Path)
    return hint == (str | None) and value is not None and not is_path


def _arrow_of(name: str, rows: Any) -> "pa.Table":
    """Rows as an Arrow table.

    Raises:
        ConfigError: They are no table.
    """
    import pyarrow as pa

    if isinstance(rows, list) and rows and isinstance(rows[0], tuple | list):
        rows = [{"query": row[0], "passage": row[1]} for row in rows if len(row) == 2] or rows
    try:
        return pa.Table.from_pylist(rows) if isinstance(rows, list) else pa.table(rows)
    except (TypeError, ValueError, AttributeError, pa.ArrowException) as error:
        raise ConfigError(
            f"expected a path or a table as {name}, found {shortened(rows)}; give a table of "
            "Arrow, pandas or polars, a datasets.Dataset, or a list of dicts"
        ) from error


def _options(kind: type[StageConfig]) -> Iterator["Field[Any]"]:
    """The options of a command, what stands by position first."""
    own = [one for one in fields(kind) if one.name != "run_dir"]
    yield from sorted(own, key=lambda one: not one.metadata["argument"])


def _method(name: str, kind: type[StageConfig]) -> Callable[..., "StageReport"]:
    """The method of a command."""
    by_position, by_name = (
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    )
    hints, options = get_type_hints(kind), list(_options(kind))
    signature = inspect.Signature(
        [
            inspect.Parameter("self", by_position),
            *(
                inspect.Parameter(
                    one.name,
                    by_position if one.metadata["argument"] else by_name,
                    default=one.default,
                    annotation=hints[one.name],
                )
                for one in options
            ),
        ]
    )

    def method(self: Run, *args: Any, **given: Any) -> "StageReport":
        values = dict(signature.bind(self, *args, **given).arguments)
        values.pop("self")
        config = self._config(name, values)
        with display(name) if self.progress else nullcontext():
            return stage_of(name)(config)

    told = "\n".join(f"    {one.name}: {one.metadata['help']}" for one in options)
    method.__name__, method.__qualname__ = name, f"Run.{name}"
    method.__doc__ = f"{kind.__doc__}\n\nArgs:\n{told}\n"
    method.__signature__ = signature  # type: ignore[attr-defined]
    return method


for _name, _one in COMMANDS.items():
    setattr(Run, _name, _method(_name, _one.config))
