"""The task of --query-vectors: the vectors of a shard of texts from rows of NumPy files."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stx_mine.errors import InputError, one_line
from stx_mine.stages.embed.counts import ShardCounts
from stx_mine.stages.embed.shards import VectorWriter
from stx_mine.stages.ingest.numbering import Distinct
from stx_mine.stages.ingest.pairs import Ingested, read_sources
from stx_mine.stages.ingest.stage import open_input
from stx_mine.store.artifact import read_manifest
from stx_mine.store.documents import DOCUMENTS
from stx_mine.store.files import StoredArray, checksum, read_array, write_array
from stx_mine.store.small_files import found_at

_ROLES = ("queries", "passages")
_ROWS = "rows-{}.npy"
_MAGIC = b"\x93NUMPY"


@dataclass(frozen=True)
class GivenVectors(VectorWriter):
    """Copies the vectors of a shard of texts from files.

    The folder of the shards holds the rows of the texts too, while they are written.
    """

    @cached_property
    def files(self) -> dict[str, StoredArray]:
        """The vectors of each role.

        Raises:
            InputError: A file holds something else than rows of floats, or they do not fit.
        """
        config = self.config
        assert config.query_vectors is not None
        assert config.passage_vectors is not None
        found = {"queries": _open(config.query_vectors), "passages": _open(config.passage_vectors)}
        dims = {role: one.shape[1] for role, one in found.items()}
        if dims["queries"] != dims["passages"]:
            raise InputError(
                f"expected as many dimensions in {config.query_vectors} as in "
                f"{config.passage_vectors}, found {dims['queries']} and {dims['passages']}; give "
                "vectors of one model"
            )
        self.check_dimensions(dims["queries"], "the vectors")
        return found

    @cached_property
    def _cut(self) -> bool:
        """Whether passages were cut into chunks, which no row of the input is."""
        return read_manifest(self.texts).has(DOCUMENTS)

    def match(self) -> dict[str, NDArray[np.int64]]:
        """Role -> int64 (texts,): the row of its file that each text takes.

        Raises:
            InputError: A file has another number of rows than the input.
        """
        ingested = self._ingested()
        return {role: self._rows(role, ingested) for role in _ROLES}

    def write_rows(self, rows: dict[str, NDArray[np.int64]]) -> None:
        """Write the rows that `match` returned, for the tasks."""
        for role, found in rows.items():
            write_array(self.folder / _ROWS.format(role), found)

    def contract(self) -> dict[str, Any]:
        """What decides the vectors: the files."""
        config = self.config
        return {
            "vectors": [checksum(one.path) for one in self.files.values()],
            "prompts": {},
            "max_length": None,
            "similarity": config.similarity or "cosine",
            "dim": config.truncate_dim or int(self.files["queries"].shape[1]),
        }

    def __call__(self, name: str) -> None:
        """Write one shard.

        Raises:
            InputError: A vector is not finite.
        """
        role, start = self.shards[name]
        rows_of_role = read_array(self.folder / _ROWS.format(role))
        rows = np.array(rows_of_role[start : start + self.config.shard_size])
        file, cut = self.files[role], slice(self.config.truncate_dim)
        # What is too large for float32 becomes infinite, and is refused.
        with np.errstate(over="ignore"):
            found = np.asarray(file[rows], np.float32)[:, cut]
        vectors = self.stored(
            found,
            lambda row: f"row {rows[row]} of {file.path}",
            "remove these texts, or fix the file",
        )
        self.write(name, vectors, ShardCounts(texts=len(rows), uncounted=len(rows)))

    def _ingested(self) -> Ingested | None:
        """The input, read again for the id of each row; None where it is not named, or was cut."""
        opened = [] if self._cut else open_input(self.config)
        return read_sources(opened) if opened else None

    def _rows(self, role: str, ingested: Ingested | None) -> NDArray[np.int64]:
        """Which row each text takes; of equal texts the first.

        Raises:
            InputError: The file has another number of rows than the input.
        """
        num_rows, file = len(self.files[role]), self.files[role].path
        num_texts = self.store.num_queries if role == "queries" else self.store.num_passages
        if num_rows == num_texts:
            return np.arange(num_texts)
        counts = [f"{num_texts:,} (distinct {role}, in the order of texts/)"]
        if ingested is not None:
            distinct: Distinct = getattr(ingested, role)
            if num_rows == len(distinct.ids):
                return _first_of(distinct.ids, num_texts)
            counts.append(f"{len(distinct.ids):,} (rows of the input that hold {role})")
            corpus = ingested.counts.corpus_rows if role == "passages" else 0
            if 0 < corpus < len(distinct.ids):
                first = _first_of(distinct.ids[:corpus], num_texts)
                if num_rows == corpus and (first >= 0).all():
                    return first
                missing = int((first < 0).sum())
                also = f", which lacks {missing:,} passages of the pairs" if missing else ""
                counts.append(f"{corpus:,} (rows of the corpus{also})")
        elif self._cut:
            counts.append("which are chunks, so that rows of the input say nothing")
        else:
            counts.append("or name PAIRS too, for vectors in the order of its rows")
        raise InputError(
            f"expected vectors for all {role} in {file}: {'; '.join(counts)}; found "
            f"{num_rows:,} rows; embed again in one of these orders"
        )


def _first_of(ids: NDArray[np.int64], num_texts: int) -> NDArray[np.int64]:
    """int64 (num_texts,): the first row of each id; -1 where it has none."""
    first = np.full(num_texts, -1, np.int64)
    rows = np.flatnonzero(ids >= 0)[::-1]
    first[ids[rows]] = rows
    return first


def _open(path: str) -> StoredArray:
    """A file of vectors.

    Raises:
        InputError: It is missing, or holds something else.
    """
    if (what := found_at(Path(path))) != "a file":
        raise InputError(f"expected vectors in {path}, found {what}; give a NumPy file (.npy)")
    try:
        with Path(path).open("rb") as handle:
            start = handle.read(len(_MAGIC))
        if start != _MAGIC:
            what = "an archive (.npz)" if start.startswith(b"PK") else "something else"
            raise InputError(
                f"expected one NumPy array in {path}, found {what}; write it with numpy.save"
            )
        found = StoredArray.open(Path(path))
        dtype = read_array(Path(path)).dtype
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"cannot read {path} ({one_line(error)[:200]}); give a NumPy file (.npy)"
        ) from error
    if len(found.shape) != 2 or dtype.kind != "f":
        raise InputError(
            f"expected floats of shape (rows, dimensions) in {path}, found {dtype} of shape "
            f"{found.shape}; save the vectors as one float array"
        )
    return found
