"""The shards of a run's texts, and what happened to the texts of each."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from stx_mine.store.files import read_json
from stx_mine.store.texts import TextStore
from stx_mine.store.vectors import shard_names


@dataclass(frozen=True)
class ShardCounts:
    """What happened to the texts of a shard; stands beside it until the manifest is written.

    Attributes:
        texts: Texts of the shard.
        cached: Texts whose vector came from the cache.
        uncounted: Texts whose tokens nobody counted, those from the cache too.
        tokens: Tokens that were embedded.
        tokens_lost: Tokens beyond the limit.
        truncated: Texts that lost some.
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


def shards_of(store: TextStore, size: int) -> dict[str, tuple[str, int]]:
    """Role (queries or passages) and first id of each shard, by its name."""
    numbers = {"queries": store.num_queries, "passages": store.num_passages}
    return {
        name: (role, number * size)
        for role, texts in numbers.items()
        for number, name in enumerate(shard_names(role, texts, size))
    }
