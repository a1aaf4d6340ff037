"""What packing would give under each policy, said before anything is written."""

from dataclasses import replace
from math import exp, lgamma
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stx_mine.stages.pack.builder import Packer
from stx_mine.store.report import StageReport, percent

Policy = Literal["merge", "strict"]
_POLICIES: tuple[Policy, ...] = ("merge", "strict")
_SHOWN_TEXTS, _SHOWN_LETTERS = 3, 60
# Strict is as good as merge from this share of its batches on; rarer repeats need no policy.
_NEARLY_ALL, _RARE = 0.99, 0.01
_BYTES = 4


def advise(packer: Packer, folder: Path, min_steps: int) -> StageReport:
    """Assign one packing by each policy, and compare.

    Args:
        packer: What the rows are packed with.
        folder: Where the batches would lie.
        min_steps: Optimizer steps that an epoch should have.

    Returns:
        Counts by policy, and sentences that end with one recommendation.
    """
    size, rows = packer.config.batch_size, packer.pools.rows
    anchors, positives = packer.anchor_groups[rows], packer.positive_groups[rows]
    repeated = {
        role: _share_that_meets(groups, size)
        for role, groups in (("anchor", anchors), ("positive", positives))
    }
    batches = {policy: _num_batches(packer, policy) for policy in _POLICIES}
    bound = _under(packer, "strict").bound()
    passages = min(size * (1 + packer.k), packer.store.num_passages)
    counts: dict[str, Any] = {
        "rows": len(rows),
        "distinct_anchors": len(np.unique(anchors)),
        "distinct_positives": len(np.unique(positives)),
        "batches": batches,
        "strict_bound": bound.batches,
        "rows_that_meet_their_text": repeated,
        "logit_bytes": size * passages * _BYTES,
    }
    lines = [
        f"{len(rows):,} rows of {counts['distinct_anchors']:,} distinct anchors and "
        f"{counts['distinct_positives']:,} distinct positives; in a random batch of {size:,}, "
        f"{repeated['positive']:.1%} of the rows would share their positive with another row, "
        f"{repeated['anchor']:.1%} their anchor",
        *_sources(packer),
        *(
            f"{policy}: {number:,} batches, as many optimizer steps an epoch, "
            f"{percent(len(rows) - number * size, len(rows))} rows left out of each"
            for policy, number in batches.items()
        ),
        f"strict can have at most {bound.batches:,} batches, bounded by {bound.cause}",
        f"logits of a step: {size:,} x up to {passages:,} passages, "
        f"{counts['logit_bytes'] / 2**30:.2f} GiB whole; `train` makes them --chunk-rows at a time",
        *_most_repeated(packer, positives),
        _recommendation(packer, batches, max(repeated.values()), min_steps),
    ]
    return StageReport("pack --dry-run, nothing written", counts, tuple(lines), folder=str(folder))


def _num_batches(packer: Packer, policy: Policy) -> int:
    """Batches of one packing; 0 where none can be filled."""
    size = packer.config.batch_size
    too_large = policy == "strict" and size * (1 + packer.k) > packer.store.num_passages
    if too_large or size > len(packer.pools.rows):
        return 0
    return len(_under(packer, policy).assign().rows_PB)


def _sources(packer: Packer) -> list[str]:
    if packer.store.sources is None:
        return []
    taken = packer.composition.rows_taken(packer.pools.rows).tolist()
    named = ", ".join(
        f"{number:,} rows of {name}"
        for name, number in zip(packer.store.sources.names, taken, strict=True)
    )
    return [f"a packing takes {named}; {packer.composition.words}"]


def _under(packer: Packer, policy: Policy) -> Packer:
    return replace(packer, config=replace(packer.config, policy=policy))


def _share_that_meets(groups: NDArray[np.int64], batch_size: int) -> float:
    """Expected share of rows with another row of their group in a random batch.

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


def _most_repeated(packer: Packer, positives: NDArray[np.int64]) -> list[str]:
    groups, counts = np.unique(positives, return_counts=True)
    lines = []
    for place in np.argsort(-counts, kind="stable")[:_SHOWN_TEXTS]:
        if counts[place] > 1:
            text = packer.passage_texts[int(groups[place])].as_py()
            lines.append(f"positive of {counts[place]:,} rows: {text[:_SHOWN_LETTERS]!r}")
    return lines


def _recommendation(
    packer: Packer, batches: dict[Policy, int], repeated: float, min_steps: int
) -> str:
    size, rows = packer.config.batch_size, len(packer.pools.rows)
    merge, strict = batches["merge"], batches["strict"]
    if merge < min_steps:
        smaller = max(2, rows // min_steps)
        return (
            f"advice: --batch-size {smaller:,}, for {min_steps} steps an epoch instead of {merge}"
        )
    if strict >= _NEARLY_ALL * merge:
        if repeated < _RARE:
            return (
                f"advice: either policy; repeats are rare here ({repeated:.2%} of the rows of a "
                "random batch), strict also fits plain trainers"
            )
        return (
            f"advice: --policy strict for a plain trainer ({strict:,} of {merge:,} batches), merge "
            "for `stx-mine train`"
        )
    return (
        f"advice: --policy merge; strict would lose {merge - strict:,} of {merge:,} batches of "
        f"{size:,}, a plain trainer needs a smaller --batch-size or --k"
    )
