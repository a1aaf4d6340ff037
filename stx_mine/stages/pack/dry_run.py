"""What packing would give under each policy, before anything is written."""

from dataclasses import dataclass, replace
from math import exp, lgamma
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stx_mine.stages.pack.builder import Packer
from stx_mine.stages.pack.core.bounds import StrictBound
from stx_mine.stages.pack.hardness import BatchHardness, batch_hardness
from stx_mine.store.artifact import Manifest
from stx_mine.store.texts import take_texts

Policy = Literal["merge", "strict"]
POLICIES: tuple[Policy, ...] = ("merge", "strict")
_NUM_TEXTS = 3
_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What one packing would be under each policy.

    Attributes:
        batch_size: Rows of a batch.
        rows: Rows there are.
        distinct_anchors: Groups of their anchors.
        distinct_positives: Groups of their positives.
        batches: Policy -> batches of a packing.
        bound: Batches that strict can have at most, and why.
        repeated: Role -> expected fraction of the rows of a random batch that meet their text.
        passages: Passages that a batch has at most.
        sources: What a packing takes of each source, in words; empty where there is one.
        most_repeated: Rows and text of the most repeated positives.
        hardness: Of a random batch; None where it would hold one positive only.
    """

    batch_size: int
    rows: int
    distinct_anchors: int
    distinct_positives: int
    batches: dict[Policy, int]
    bound: StrictBound
    repeated: dict[str, float]
    passages: int
    sources: str
    most_repeated: list[tuple[int, str]]
    hardness: BatchHardness | None

    @property
    def logit_bytes(self) -> int:
        """Bytes of the logits of a step, if all existed at one time."""
        return self.batch_size * self.passages * _BYTES


def dry_run(packer: Packer, embeddings: Manifest) -> DryRun:
    """Assign one packing by each policy.

    Args:
        packer: What packs.
        embeddings: Of the finished `embeddings/`.
    """
    size, rows = packer.config.batch_size, packer.pools.rows
    anchors, positives = packer.anchor_groups[rows], packer.positive_groups[rows]
    return DryRun(
        batch_size=size,
        rows=len(rows),
        distinct_anchors=len(np.unique(anchors)),
        distinct_positives=len(np.unique(positives)),
        batches={policy: _num_batches(packer, policy) for policy in POLICIES},
        bound=_under(packer, "strict").bound(),
        repeated={
            "anchor": _fraction_that_meets(anchors, size),
            "positive": _fraction_that_meets(positives, size),
        },
        passages=min(size * (1 + packer.k), packer.store.num_passages),
        sources=_sources(packer),
        most_repeated=_most_repeated(packer, positives),
        hardness=batch_hardness(packer, embeddings),
    )


def _num_batches(packer: Packer, policy: Policy) -> int:
    """Batches of one packing; 0 where none can be filled."""
    size = packer.config.batch_size
    too_large = policy == "strict" and size * (1 + packer.k) > packer.store.num_passages
    if too_large or size > len(packer.pools.rows):
        return 0
    return len(_under(packer, policy).assign().rows_PB)


def _sources(packer: Packer) -> str:
    if packer.store.sources is None:
        return ""
    named = ", ".join(
        f"{number:,} rows of {name}" for name, number in zip(*packer.rows_taken(), strict=True)
    )
    return f"a packing takes {named}; {packer.composition.words}"


def _under(packer: Packer, policy: Policy) -> Packer:
    return replace(packer, config=replace(packer.config, policy=policy))


def _fraction_that_meets(groups: NDArray[np.int64], batch_size: int) -> float:
    """Expected fraction of rows with another row of their group in a random batch.

    A row with m - 1 others of its group among N - 1 rows meets none of them with probability
    C(N - m, B - 1) / C(N - 1, B - 1).
    """
    num_rows, others = len(groups), min(batch_size, len(groups)) - 1
    sizes, how_many = np.unique(np.unique(groups, return_counts=True)[1], return_counts=True)
    alone = 0.0
    for size, count in zip(sizes.tolist(), how_many.tolist(), strict=True):
        if num_rows - size >= others:
            log = _log_choose(num_rows - size, others) - _log_choose(num_rows - 1, others)
            alone += size * count * exp(log)
    return 1 - alone / num_rows


def _log_choose(things: int, chosen: int) -> float:
    return lgamma(things + 1) - lgamma(chosen + 1) - lgamma(things - chosen + 1)


def _most_repeated(packer: Packer, positives: NDArray[np.int64]) -> list[tuple[int, str]]:
    groups, counts = np.unique(positives, return_counts=True)
    places = np.argsort(-counts, kind="stable")[:_NUM_TEXTS]
    texts = take_texts(packer.store.passages.column("text"), groups[places]).to_pylist()
    return [
        (int(counts[place]), text)
        for place, text in zip(places, texts, strict=True)
        if counts[place] > 1
    ]
