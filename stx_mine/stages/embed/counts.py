"""Counts of `embed`: what happened to the texts of a shard, and of all of them."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from stx_mine.store.counts import Counts
from stx_mine.store.files import read_json


@dataclass(frozen=True)
class ShardCounts:
    """Counts of the texts of a shard; a file beside it until the manifest is written.

    Attributes:
        texts: Texts of the shard.
        cached: Texts whose vector came from the cache.
        uncounted: Texts whose tokens were not counted, including those from the cache.
        tokens: Tokens that were embedded.
        tokens_lost: Tokens beyond the limit of the model, not embedded.
        truncated: Texts that lost tokens.
        halvings: How often memory ran out and the budget of tokens was halved.
        zero_vectors: Ids of the texts whose vector is zero: they score 0 with everything.
    """

    texts: int = 0
    cached: int = 0
    uncounted: int = 0
    tokens: int = 0
    tokens_lost: int = 0
    truncated: int = 0
    halvings: int = 0
    zero_vectors: list[int] = field(default_factory=list)

    def __add__(self, other: "ShardCounts") -> "ShardCounts":
        mine, theirs = asdict(self), asdict(other)
        return ShardCounts(**{name: mine[name] + theirs[name] for name in mine})

    @staticmethod
    def path(folder: Path, shard: str) -> Path:
        """Where the counts of a shard stand."""
        return folder / f"{shard}.counts.json"

    @classmethod
    def read(cls, folder: Path, shard: str) -> "ShardCounts":
        """The counts of a finished shard."""
        return cls(**read_json(cls.path(folder, shard)))


@dataclass(frozen=True)
class EmbedCounts(Counts):
    """Counts of `embeddings/`.

    Attributes:
        queries: Distinct queries, each with a vector.
        passages: Distinct passages, each with a vector.
        cached: Texts whose vector came from the cache.
        uncounted: Texts whose tokens were not counted, including those from the cache.
        tokens: Tokens that were embedded.
        tokens_lost: Tokens beyond the limit of the model, not embedded.
        truncated: Texts that lost tokens.
        halvings: How often memory ran out and the budget of tokens was halved.
        zero_vectors: `queries`, `passages` -> ids of the texts whose vector is zero.
        segments_damaged: Segments of the cache that were damaged, and removed.
    """

    queries: int
    passages: int
    cached: int
    uncounted: int
    tokens: int
    tokens_lost: int
    truncated: int
    halvings: int
    zero_vectors: dict[str, list[int]]
    segments_damaged: int = 0

    @classmethod
    def of(cls, by_role: dict[str, ShardCounts], segments_damaged: int) -> "EmbedCounts":
        """The counts of a run.

        Args:
            by_role: `queries`, `passages` -> the sum over their shards.
            segments_damaged: Segments of the cache that were damaged.
        """
        total = sum(by_role.values(), ShardCounts())
        return cls(
            queries=by_role["queries"].texts,
            passages=by_role["passages"].texts,
            cached=total.cached,
            uncounted=total.uncounted,
            tokens=total.tokens,
            tokens_lost=total.tokens_lost,
            truncated=total.truncated,
            halvings=total.halvings,
            zero_vectors={role: counts.zero_vectors for role, counts in by_role.items()},
            segments_damaged=segments_damaged,
        )
