"""What judges: pairs of a query and a passage in, a score of each out."""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.stages.embed.token_encoder import Tuning
from stx_mine.store.files import read_table, write_table
from stx_mine.store.texts import TextStore, take_texts

_SCORES, _USAGE = pa.schema([("score", pa.float32())]), b"usage"


@dataclass(frozen=True)
class PairTexts:
    """Pairs to judge, those of a query in a row.

    Attributes:
        store: Texts of the run.
        query_ids: int64 (N,).
        passage_ids: int64 (N,).
    """

    store: TextStore
    query_ids: NDArray[np.int64]
    passage_ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.query_ids)

    def __getitem__(self, rows: slice) -> "PairTexts":
        return PairTexts(self.store, self.query_ids[rows], self.passage_ids[rows])

    @cached_property
    def queries(self) -> pa.Array:
        """(N,) large strings."""
        return take_texts(self.store.queries.column("text"), self.query_ids).dictionary_decode()

    @cached_property
    def passages(self) -> pa.Array:
        """(N,) large strings."""
        return take_texts(self.store.passages.column("text"), self.passage_ids).dictionary_decode()

    @cached_property
    def are_positive(self) -> NDArray[np.bool_]:
        """Bool (N,): which are pairs of the input."""
        store, queries = self.store, np.unique(self.query_ids)
        pairs, _ = store.pairs_of_query.take(queries)
        known = store.pair_query_ids[pairs.values] * store.num_passages
        known += store.pair_passage_ids[pairs.values]
        return np.isin(self.query_ids * store.num_passages + self.passage_ids, known)

    def positives_of(self, query_id: int, most: int) -> list[str]:
        """Texts of the positives of a query, the first ones."""
        pairs, _ = self.store.pairs_of_query.take(np.array([query_id]), most)
        ids = self.store.pair_passage_ids[pairs.values]
        return take_texts(self.store.passages.column("text"), ids).to_pylist()  # type: ignore[no-any-return]


def starts_of_queries(query_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64: where each query begins among rows that stand together by query, and their end."""
    return np.flatnonzero(np.diff(query_ids, prepend=-1, append=-1))


def rows_of_queries(query_ids: NDArray[np.int64], most: int) -> list[slice]:
    """Parts of rows that are of one query each.

    Args:
        query_ids: int64 (N,) those that are equal in a row.
        most: Rows of a part, at most.
    """
    return [
        slice(at, min(at + most, last))
        for first, last in pairwise(starts_of_queries(query_ids).tolist())
        for at in range(first, last, most)
    ]


@dataclass(frozen=True)
class PassageList:
    """What a judge lists in one call.

    Attributes:
        most: Passages of one query, at most.
        with_positives: Whether positives are among them.
    """

    most: int
    with_positives: bool


@dataclass(frozen=True)
class Usage:
    """What judging took.

    Attributes:
        calls: Requests that a server answered.
        tokens_read: Tokens of them, as the server counts.
        tokens_written: Tokens of its answers.
        failures: Pairs that got no score, by reason.
        cut: Texts that were cut for a prompt.
    """

    calls: int = 0
    tokens_read: int = 0
    tokens_written: int = 0
    cut: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: "Usage") -> "Usage":
        both = Counter(self.failures) + Counter(other.failures)
        return Usage(
            self.calls + other.calls,
            self.tokens_read + other.tokens_read,
            self.tokens_written + other.tokens_written,
            self.cut + other.cut,
            dict(sorted(both.items())),
        )


@dataclass(frozen=True)
class PairScores:
    """The scores of some pairs.

    Attributes:
        scores: float32 (N,) from 0 to 1; NaN where there is none.
        usage: What they took.
    """

    scores: NDArray[np.float32]
    usage: Usage = Usage()

    @classmethod
    def of_numbers(cls, scores: NDArray[np.float32]) -> Self:
        """Scores of a judge that says nothing but numbers."""
        failed = int((~np.isfinite(scores)).sum())
        return cls(scores, Usage(failures={"NaN": failed} if failed else {}))

    def write(self, path: Path) -> None:
        """Write them whole."""
        metadata = {_USAGE: json.dumps(asdict(self.usage))}
        write_table(path, pa.table([self.scores], schema=_SCORES.with_metadata(metadata)))

    @classmethod
    def read(cls, path: Path) -> Self:
        """What `write` left.

        Raises:
            ValueError: It is something else.
        """
        table = read_table(path)
        metadata = table.schema.metadata or {}
        if not table.schema.equals(_SCORES) or _USAGE not in metadata:
            raise ValueError(f"expected scores in {path.name}, found {table.schema.names}")
        return cls(table["score"].to_numpy(), Usage(**json.loads(metadata[_USAGE])))


class Judge(ABC):
    """Says how relevant passages are; more is more relevant.

    Attributes:
        sample: Pairs that say what others cost.
        warm_up: Pairs that are judged before, since something is made at the first call.
    """

    sample: ClassVar[int] = 256
    warm_up: ClassVar[int] = 8

    @property
    def notes(self) -> tuple[str, ...]:
        """What was guessed or put right when it was opened, as sentences."""
        return ()

    @property
    def listing(self) -> PassageList | None:
        """What it lists in one call; None where each pair goes by itself."""
        return None

    @abstractmethod
    def contract(self) -> dict[str, Any]:
        """What decides scores, JSON-ready; the name is not part of it."""

    @abstractmethod
    def score(self, pairs: PairTexts, tuning: Tuning | None = None) -> PairScores:
        """The scores of pairs.

        Args:
            pairs: The pairs.
            tuning: How they go through the network of the judge; None for the default.

        Raises:
            ModelError: It failed, or gives something else than a score a pair.
        """

    def num_tokens(self, pairs: PairTexts) -> int:
        """Tokens of pairs; 0 where the judge does not tell."""
        return 0

    def num_calls(self, pairs: PairTexts) -> int:
        """Calls for these pairs; 0 where each goes by itself."""
        listing = self.listing
        if listing is None:
            return 0
        listed = pairs.query_ids if listing.with_positives else pairs.query_ids[~pairs.are_positive]
        return len(rows_of_queries(listed, listing.most))

    def num_characters(self, pairs: PairTexts) -> int:
        """Characters that a server reads for these pairs."""
        return 0

    def tune(self, pairs: PairTexts, num_pairs: int) -> Tuning | None:
        """How pairs go through the network; None where the judge decides that itself.

        Args:
            pairs: Some of the pairs to judge.
            num_pairs: Pairs to judge.
        """
        return None
