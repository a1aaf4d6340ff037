"""Write `groups/`: texts of equal form, and pairs above the thresholds, joined into groups."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stx_mine.errors import ConfigError
from stx_mine.stages.dedup.config import DedupConfig
from stx_mine.stages.dedup.counts import DedupCounts
from stx_mine.stages.dedup.forms import FORMS, NUMBERS, FormCounts
from stx_mine.stages.dedup.joins import EXACT, Joins, ScoredPairs, refuse_many
from stx_mine.stages.dedup.leaks import LEAKS, leaking_pairs
from stx_mine.stages.dedup.near import SearchCounts
from stx_mine.store.artifact import Artifact, Manifest
from stx_mine.store.files import write_table
from stx_mine.store.groups import TextGroups, write_grouping
from stx_mine.store.texts import TextStore

JOINED = "joined.arrow"
# Steps from the threshold at which the curve counts what would be joined.
_STEP = {"jaccard": 0.05, "cosine": 0.02}
_STEPS = range(-2, 4)
# Groups of so many texts are counted by the number of their texts, larger ones together.
_SIZES = ((2, 2), (3, 3), (4, 7), (8, 15))


def regroup(
    artifact: Artifact,
    config: DedupConfig,
    store: TextStore,
    made: dict[str, Manifest],
    leaks: Manifest | None,
) -> Manifest:
    """Join texts and write the groups.

    Args:
        artifact: The groups.
        config: The thresholds.
        store: The texts.
        made: Equal forms, and pairs, by kind.
        leaks: What is in evaluation sets; None where nothing is dropped for that.

    Raises:
        ConfigError: Every pair would be dropped, or more texts are joined than is allowed.
        ArtifactError: A file of pairs is damaged.
    """
    firsts = numbers_of_texts(made[EXACT], FORMS, store)
    numbers = numbers_of_texts(made[EXACT], NUMBERS, store)
    kept, apart, curves = pairs_above(config, store, made, firsts, numbers)
    joins = Joins.make(firsts, kept)
    num_texts = FormCounts.read(made[EXACT]).texts
    at = "; ".join(
        f"--{kind} {threshold}: {count:,}"
        for kind, curve in curves.items()
        for threshold, count in curve.items()
    )
    refuse_many(joins.num_joined, num_texts, config.max_joined, "groups/ is as it was", at)
    table = joins.table()
    kinds = table["kind"].to_pylist()
    groups = TextGroups.by_text_id(store, joins.groups)
    dropped = _dropped_pairs(config, groups, store, leaks)
    groups = replace(groups, dropped_pairs=np.flatnonzero(np.any([*dropped.values()], axis=0)))
    if config.drop:
        groups = replace(groups, dropped_passages=_repeated_passages(joins, store))
    counts = DedupCounts(
        texts=num_texts,
        groups=num_texts - joins.num_joined,
        joined={kind: kinds.count(kind) for kind in made},
        sizes=_sizes(joins.groups),
        other_numbers=apart,
        cut=joins.num_cut,
        crowded={
            kind: SearchCounts.read(one).crowded for kind, one in made.items() if kind != EXACT
        },
        curves=curves,
        dropped_passages=len(groups.dropped_passages),
        dropped_pairs=len(groups.dropped_pairs),
        pairs_dropped={reason: int(pairs.sum()) for reason, pairs in dropped.items()},
    )
    names = write_grouping(artifact, groups, [JOINED])
    write_table(artifact.folder / JOINED, table)
    return artifact.finish(names, counts=counts)


def pairs_above(
    config: DedupConfig,
    store: TextStore,
    made: dict[str, Manifest],
    firsts: NDArray[np.int64],
    numbers: NDArray[np.uint64],
) -> tuple[list[ScoredPairs], int, dict[str, dict[str, int]]]:
    """Pairs of texts of different form above the thresholds.

    Args:
        config: The thresholds.
        store: The texts.
        made: Equal forms, and pairs, by kind.
        firsts: int64 (T,) the first text of the form of each text.
        numbers: uint64 (T,) the numbers of each text, hashed.

    Returns:
        The pairs of each kind, how many are apart since their numbers differ, and how many texts
        other thresholds would join.

    Raises:
        ArtifactError: A file of pairs is damaged.
    """
    apart, kept, curves = 0, list[ScoredPairs](), dict[str, dict[str, int]]()
    for kind, manifest in made.items():
        if kind == EXACT:
            continue
        threshold = getattr(config, kind)
        pairs = _pairs(kind, manifest, store, firsts)
        same = numbers[pairs.left] == numbers[pairs.right]
        if "numbers" not in config.ignored:
            apart += int((~same & (pairs.scores >= np.float32(threshold))).sum())
            pairs = pairs.where(same)
        curves[kind] = _curve(pairs, firsts, threshold, manifest.fields["floor"])
        kept.append(pairs.above(threshold))
    return kept, apart, curves


def numbers_of_texts(manifest: Manifest, name: str, store: TextStore) -> NDArray[Any]:
    """(num texts,) a number of each text, from a file of equal forms.

    Raises:
        ArtifactError: It is damaged.
    """
    found = manifest.array(name)
    manifest.refuse_length(name, len(found), store.num_texts)
    if name == FORMS:
        manifest.refuse_beyond(name, found, store.num_texts)
    return found


def _pairs(
    kind: str, manifest: Manifest, store: TextStore, firsts: NDArray[np.int64]
) -> ScoredPairs:
    """The pairs of one kind, of texts of different form."""
    ends, scores = [np.empty((2, 0), np.int64)], [np.empty(0, np.float32)]
    for name in manifest.names():
        table = manifest.table(name)
        found = np.stack([table[side].to_numpy() for side in ("left", "right")])
        of_queries = name.startswith("queries-")
        limit = store.num_queries if of_queries else store.num_texts
        manifest.refuse_beyond(name, found, limit)
        ends.append(np.asarray(store.query_texts)[found] if of_queries else found)
        scores.append(table["score"].to_numpy())
    return ScoredPairs.of(kind, np.concatenate(ends, axis=1), np.concatenate(scores), firsts)


def _curve(
    pairs: ScoredPairs, firsts: NDArray[np.int64], threshold: float, floor: float
) -> dict[str, int]:
    """Texts that would be joined at thresholds around that which was asked for."""
    step = _STEP[pairs.kind]
    thresholds = [round(threshold + step * number, 6) for number in _STEPS]
    return {
        f"{one:g}": Joins.make(firsts, [pairs.above(one)]).num_joined
        for one in thresholds
        if floor <= one <= 1
    }


def _repeated_passages(joins: Joins, store: TextStore) -> NDArray[np.int64]:
    """Passages of whose group another one stays: the representative, if that is a passage."""
    num_passages = store.num_passages
    passages = np.arange(num_passages)
    smallest = joins.groups[:num_passages]
    centres = joins.centres[:num_passages]
    # A group that a query represents keeps its smallest member.
    stays = np.where(centres < num_passages, centres, smallest)
    return np.flatnonzero(stays != passages)


def _dropped_pairs(
    config: DedupConfig, groups: TextGroups, store: TextStore, leaks: Manifest | None
) -> dict[str, NDArray[np.bool_]]:
    """Reason -> bool (pairs,) which are dropped for it; each for the first reason.

    Raises:
        ConfigError: No pair would be left.
    """
    none = np.zeros(store.num_pairs, bool)
    dropped = {"leaked_query": none, "leaked_positive": none, "repeated": none}
    if leaks is not None:
        texts = leaks.table(LEAKS)["text_id"].to_numpy()
        leaks.refuse_beyond(LEAKS, texts, store.num_texts)
        by_query, by_positive = leaking_pairs(texts, store)
        dropped["leaked_query"] = by_query
        if config.drop_leaks == "texts":
            dropped["leaked_positive"] = by_positive & ~by_query
    leaking = dropped["leaked_query"] | dropped["leaked_positive"]
    if leaking.all():
        raise ConfigError(
            f"--drop-leaks {config.drop_leaks} leaves none of the {store.num_pairs:,} pairs to "
            "train on: all of them are in the evaluation sets; give another --against, or divide "
            "the pairs with `stx-mine split`"
        )
    if config.drop:
        dropped["repeated"] = _repeated_pairs(groups, store) & ~leaking
    return dropped


def _repeated_pairs(groups: TextGroups, store: TextStore) -> NDArray[np.bool_]:
    """Bool (pairs,): whose query and positive count as those of an earlier pair."""
    both = np.stack([groups.queries[store.pair_query_ids], groups.passages[store.pair_passage_ids]])
    _, firsts = np.unique(both, axis=1, return_index=True)
    repeated = np.ones(store.num_pairs, bool)
    repeated[firsts] = False
    return repeated


def _sizes(groups: NDArray[np.int64]) -> dict[str, int]:
    """Groups of several texts, by their number of texts; the largest by itself."""
    sizes = np.bincount(groups)
    found = {
        f"{low}" if low == high else f"{low}-{high}": int(((sizes >= low) & (sizes <= high)).sum())
        for low, high in _SIZES
    }
    found[f"{_SIZES[-1][1] + 1} and more"] = int((sizes > _SIZES[-1][1]).sum())
    return {**{name: count for name, count in found.items() if count}, "largest": int(sizes.max())}
