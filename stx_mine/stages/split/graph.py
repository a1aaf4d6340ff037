"""The graph of what was read, and the part of every pair."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.errors import InputError
from stx_mine.stages.ingest.named_documents import NamedDocuments
from stx_mine.stages.ingest.pairs import Ingested
from stx_mine.stages.split.config import SplitConfig
from stx_mine.stages.split.core.parts import PARTS, Leaks, parts_of_pairs, target_size
from stx_mine.stages.split.core.units import PairGraph, PairUnits, connected
from stx_mine.store.stage_report import percent

# How far the size of a part may be from what was asked for, as a factor.
_MOST_OFF = 2.0


def pair_graph(
    found: Ingested,
    counts_as: NDArray[np.int64] | None,
    named: NamedDocuments | None = None,
) -> PairGraph:
    """The kept pairs as edges between texts; equal texts are one node in both roles.

    So are the chunks of one document: queries of one share what they are about.

    Args:
        found: What was read.
        counts_as: int64 (num texts,) the text that each text counts as; None for itself.
        named: The documents of which passages are chunks; None where none are named.
    """
    if named is not None:
        num_texts = len(found.passages.digests) + len(found.queries.digests)
        texts, firsts = np.arange(num_texts), named.firsts
        left = np.append(texts if counts_as is None else counts_as, firsts)
        counts_as = connected(left, np.append(texts, np.arange(len(firsts))), num_texts)
    digests = np.concatenate([_halves(found.passages.digests), _halves(found.queries.digests)])
    return PairGraph(found.query_texts[found.pairs[:, 0]], found.pairs[:, 1], digests, counts_as)


def _halves(digests: pa.Array) -> NDArray[np.uint64]:
    """The first 64 bits of each digest."""
    halves = np.frombuffer(digests.buffers()[1], ">u8", 2 * len(digests), digests.offset * 16)
    return halves[::2].astype(np.uint64)


@dataclass(frozen=True)
class Division:
    """Pairs divided into parts.

    Attributes:
        parts: int8 (N,) the place in `PARTS` of each pair.
        targets: `train`, `dev`, `test` -> pairs that it should have.
        components: What texts tie together.
        leaks: Unit -> what leaks where pairs are divided by it; of those that can make such parts.
    """

    parts: NDArray[np.int8]
    targets: dict[str, int]
    components: PairUnits
    leaks: dict[str, Leaks]

    @classmethod
    def of(cls, graph: PairGraph, config: SplitConfig) -> "Division":
        """Divide pairs by the unit that was asked for, and count what leaks by each.

        Raises:
            InputError: Whole units cannot make parts of about these sizes.
        """
        targets = _targets(config, len(graph))
        units = {
            "component": graph.components(),
            "query": graph.by_query(),
            "pair": graph.by_pair(),
        }
        parts = {name: parts_of_pairs(one, targets, config.seed) for name, one in units.items()}
        leaks = {
            name: Leaks.of(graph, of_pairs)
            for name, of_pairs in parts.items()
            if _misfit(of_pairs, targets) is None
        }
        misfit = _misfit(parts[config.unit], targets)
        if misfit is not None:
            raise InputError(_misfit_words(*misfit, targets, units[config.unit], config, leaks))
        return cls(parts[config.unit], targets, units["component"], leaks)


def _targets(config: SplitConfig, num_pairs: int) -> dict[str, int]:
    held_out = {
        name: target_size(size, num_pairs)
        for name, size in (("dev", config.dev), ("test", config.test))
    }
    for name, size in (("dev", config.dev), ("test", config.test)):
        if size and not held_out[name]:
            raise InputError(
                f"--{name} {size:g} of {num_pairs:,} pairs is less than one pair; give a number of "
                f"pairs, as --{name} 1, or --{name} 0 for none"
            )
    rest = num_pairs - sum(held_out.values())
    if rest < 1:
        raise InputError(
            f"--test {config.test:g} and --dev {config.dev:g} are {sum(held_out.values()):,} "
            f"pairs, {num_pairs:,} were read, which leaves nothing to train on; give smaller ones"
        )
    return {"train": rest, **held_out}


def _misfit(parts_N: NDArray[np.int8], targets: dict[str, int]) -> tuple[str, int] | None:
    """The first part of a very different size than was asked for, and its size."""
    sizes = np.bincount(parts_N, minlength=len(PARTS)).tolist()
    for name, size in zip(PARTS, sizes, strict=True):
        if not targets[name] / _MOST_OFF <= size <= targets[name] * _MOST_OFF:
            return name, size
    return None


def _misfit_words(
    name: str,
    size: int,
    targets: dict[str, int],
    units: PairUnits,
    config: SplitConfig,
    leaks: dict[str, Leaks],
) -> str:
    """Why a part cannot have its size, and the ways out."""
    num_pairs = len(units.of_pair_N)
    smallest, largest = int(units.sizes_U.min()), int(units.sizes_U.max())
    outside = num_pairs - largest
    noun = {"component": "components", "query": "queries", "pair": "pairs"}[config.unit]
    ways = []
    if outside >= num_pairs - targets["train"]:
        ways.append(f"give parts of at least {smallest:,} pairs")
    elif outside:
        ways.append(f"give --test and --dev of together at most {outside:,} pairs")
    if config.jaccard is not None:
        ways.append(f"a --jaccard above {config.jaccard:g}, which ties fewer texts together")
    leaking = {
        unit: f"{leaks[unit].texts / leaks[unit].held_out:.1%}"
        for unit in ("query", "pair")
        if config.unit == "component" and unit in leaks
    }
    if leaking:
        others = " or ".join(f"--unit {unit} ({share})" for unit, share in leaking.items())
        ways.append(f"{others} if that share of the held-out pairs may share a text with training")
    way = ", or ".join(ways) or "bring pairs that fewer texts tie together"
    way = way if way.startswith(("give", "bring")) else f"give {way}"
    return (
        f"{name} should have {targets[name]:,} of {num_pairs:,} pairs, whole {noun} give it "
        f"{size:,}: of {len(units):,} {noun} the smallest has {smallest:,} pairs, the largest "
        f"{percent(largest, num_pairs)}; {way}"
    )
