"""The set that mining is measured on: the documented shape members of botocore's services.

    python -m benchmarks.members      # build it and print its counts

A query is the names of service, shape and member, split into words; its passage is the member's
documentation without HTML. The newest model of each of 439 services is read: 239,798 members, of
which 10,369 have no documentation, 636 have one without text, and 1 repeats a pair. What is left
are 228,792 pairs, one a query, over 157,168 distinct passages: 31% of the pairs share their
passage with an earlier one.
"""

import json
from dataclasses import dataclass
from functools import cache

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.datasets import canonical_pairs, read_pairs
from benchmarks.wheels import (
    BOTOCORE_VERSION,
    CACHE,
    Pair,
    download_wheel,
    plain_text,
    service_models,
    split_words,
)

PATH = CACHE / f"botocore-{BOTOCORE_VERSION}-members.parquet"
_COUNTS = b"counts"


@dataclass(frozen=True)
class Members:
    """Pairs, and how many members became one.

    Attributes:
        pairs: Distinct (query, passage), in the order of services, shapes and members.
        counts: `members` = `undocumented` + `without_text` + `repeated` + `pairs`, where
            `repeated` also counts a passage that is its own query.
    """

    pairs: list[Pair]
    counts: dict[str, int]


def load() -> Members:
    """Read the set from the cache, or on first use build it from the wheel."""
    if not PATH.is_file():
        members = build()
        queries, passages = zip(*members.pairs, strict=True)
        table = pa.table({"query": list(queries), "passage": list(passages)})
        partial = PATH.with_suffix(".tmp")
        pq.write_table(
            table.replace_schema_metadata({_COUNTS: json.dumps(members.counts)}), partial
        )
        partial.replace(PATH)
    return Members(read_pairs(PATH), json.loads(pq.read_schema(PATH).metadata[_COUNTS]))


def build() -> Members:
    """Read every member of every service's newest model in the wheel."""
    text_of = cache(plain_text)
    counts = dict.fromkeys(("members", "undocumented", "without_text", "repeated", "pairs"), 0)
    found: list[Pair] = []
    for service, model in service_models(download_wheel("botocore", BOTOCORE_VERSION)):
        for shape, definition in model["shapes"].items():
            for member, entry in definition.get("members", {}).items():
                counts["members"] += 1
                documentation = entry.get("documentation", "")
                passage = text_of(documentation)
                if passage:
                    found.append((f"{service} {split_words(shape)} {split_words(member)}", passage))
                else:
                    counts["without_text" if documentation else "undocumented"] += 1
    pairs = canonical_pairs(found)
    counts.update(repeated=len(found) - len(pairs), pairs=len(pairs))
    return Members(pairs, counts)


def main() -> None:
    """Print the counts."""
    members = load()
    for name, count in members.counts.items():
        print(f"{name:<13}{count:>9,}")
    queries, passages = (len(set(texts)) for texts in zip(*members.pairs, strict=True))
    print(f"over {queries:,} queries and {passages:,} passages")


if __name__ == "__main__":
    main()
