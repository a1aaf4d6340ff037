"""Pack: bind negatives and write batches of exactly B rows into Parquet shards."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.forbidden import positive_groups
from stx_mine.core.groups import Groups
from stx_mine.engine.run import make_files
from stx_mine.engine.task_shards import task_shard_of
from stx_mine.errors import ConfigError
from stx_mine.settings import key_fields
from stx_mine.stages.pack.builder import Packer
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.core.assign import Assignment
from stx_mine.stages.pack.dry_run import advise
from stx_mine.stages.pack.labels.stage import pack_labels
from stx_mine.stages.pack.packings import MIN_EPOCH_STEPS, assign_packings, batches_of_shards
from stx_mine.stages.pack.shards import (
    ShardWriter,
    hash_seed,
    read_assignments,
    remove_assignments,
    write_assignments,
)
from stx_mine.store.artifact import Artifact, Manifest, require
from stx_mine.store.batches import (
    CARD,
    GROUPS,
    POSITIVES,
    SCORES,
    TEXTS,
    dataset_card,
    text_columns,
    write_all_texts,
    write_groups,
    write_positives,
)
from stx_mine.store.files import atomic
from stx_mine.store.groups import TextGroups
from stx_mine.store.lock import TaskShard
from stx_mine.store.negatives import negatives_a_row
from stx_mine.store.report import StageReport, make_report, percent
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

# Known positives to ignore in a batch: 8 bytes each, and a shard holds 65,536 rows of batches.
MAX_MASKS = 1 << 25


def run_pack(config: PackConfig) -> StageReport:
    """Write `batches/`, or on a dry run only say what it would hold.

    Raises:
        ConfigError: The batch is larger than the rows or than the clean texts there are.
        ArtifactError: Negatives are missing, or other batches are in the way.
        SharesLeftError: This call did its share, and others are at it.
    """
    run = RunDir(config.run_dir)
    if config.layout == "labels":
        return pack_labels(config, run)
    task_shard = task_shard_of(config)
    with run.lock(task_shard):
        texts, negatives = require(run, "texts"), require(run, "negatives")
        embeddings = require(run, "embeddings")
        k = negatives_a_row(negatives, config.k)
        store, grouping = TextStore.open(texts), require(run, "groups")
        groups = TextGroups.open(grouping)
        if config.dry_run:
            packer = Packer.open(config, k, store, groups, negatives, embeddings)
            return advise(packer, run.folder("batches"), MIN_EPOCH_STEPS)
        fields = {**key_fields(config, "batches"), "k": k}
        if store.sources is not None:
            fields["weights"] = texts.extra["weights"]
        artifact = Artifact(
            run,
            "batches",
            config,
            fields=fields,
            inputs={
                "texts": texts.digest,
                "groups": grouping.digest,
                "negatives": negatives.digest,
                **({"embeddings": embeddings.digest} if config.scores else {}),
            },
            overwrite=config.overwrite,
        )
        if artifact.done:
            return _report(artifact, config, skipped=True)
        packer = Packer.open(config, k, store, groups, negatives, embeddings)
        _refuse_sizes(packer)
        _write(artifact, packer, embeddings, task_shard)
        return _report(artifact, config)


def _refuse_sizes(packer: Packer) -> None:
    config, k, store = packer.config, packer.k, packer.store
    size, rows = config.batch_size, len(packer.pools.rows)
    if size > rows:
        raise ConfigError(
            f"--batch-size {size:,} is larger than the {rows:,} rows there are; add pairs, or give "
            f"--batch-size {max(2, rows // MIN_EPOCH_STEPS):,} for {MIN_EPOCH_STEPS} steps an epoch"
        )
    if packer.composition.num_batches(packer.pools.rows) == 0:
        taken = dict(zip(*_rows_taken(packer), strict=True))
        most = max(taken.values()) if packer.composition.one_source else sum(taken.values())
        named = ", ".join(f"{name} {number:,}" for name, number in taken.items())
        raise ConfigError(
            f"no batch of {size:,} rows can be filled: a packing takes {named} rows of the sources"
            f"{' and a batch has one source' if packer.composition.one_source else ''}; give "
            f"--batch-size {max(2, most):,} or less, other weights, or a higher "
            "--source-temperature"
        )
    if config.policy == "strict" and size * (1 + k) > store.num_passages:
        fits = max(2, store.num_passages // (1 + k))
        raise ConfigError(
            f"a strict batch of {size:,} rows with {k} negatives needs {size * (1 + k):,} distinct "
            f"passages, there are {store.num_passages:,}; give --batch-size {fits:,} or less, a "
            "smaller --k, or --policy merge"
        )
    if config.policy == "strict":
        _refuse_no_batch(packer)
    else:
        _refuse_masks(packer)


def _refuse_no_batch(packer: Packer) -> None:
    """Say that there is no strict batch before one is looked for."""
    bound = packer.bound()
    if bound.batches:
        return
    rows, cause = packer.pools.rows, bound.cause
    if len(bound.bottlenecks):
        texts = packer.anchor_groups[rows], packer.positive_groups[rows]
        most = max(int((groups == bound.bottlenecks[0]).sum()) for groups in texts)
        cause += f" (one text stands in {most:,} of {len(rows):,} rows)"
    raise ConfigError(
        f"no strict batch of {packer.config.batch_size:,} rows can be filled, because of {cause}; "
        "give a smaller --batch-size or --policy merge"
    )


def _refuse_masks(packer: Packer) -> None:
    """Refuse batches in which the rows of one query would mask each other's positives by far.

    Of the m rows of a query m B / N meet, and each ignores the positives of the others.
    """
    rows, size = packer.pools.rows, packer.config.batch_size
    rows_of = np.bincount(packer.store.pair_query_ids[rows])
    masks = int(((rows_of * (size / len(rows))) ** 2).sum())
    if masks > MAX_MASKS:
        fits = max(2, int(size * (MAX_MASKS / masks) ** 0.5))
        raise ConfigError(
            f"one query stands in {rows_of.max():,} of {len(rows):,} rows: a batch of {size:,} "
            f"would list {masks:,} known positives to ignore, at most {MAX_MASKS:,} are written; "
            f"give --batch-size {fits:,} or less, or fewer pairs of that query"
        )


def _rows_taken(packer: Packer) -> tuple[list[str], list[int]]:
    """Names of the sources, and how many rows of each a packing takes."""
    sources = packer.store.sources
    assert sources is not None, "one source without a name is taken whole"
    return sources.names, packer.composition.rows_taken(packer.pools.rows).tolist()


def _assign_packings(packer: Packer) -> list[Assignment]:
    """Assign every packing; all get the same number of batches.

    Raises:
        ConfigError: Not one strict batch can be filled.
    """
    packings = assign_packings(packer.assign, packer.config.packings)
    if not len(packings[0].rows_PB):
        raise ConfigError(
            f"no strict batch of {packer.config.batch_size:,} rows can be filled: too many rows "
            "share texts or positives; give a smaller --batch-size or --policy merge"
        )
    return packings


def _begin(artifact: Artifact, packer: Packer) -> list[Assignment]:
    """Assign every packing, unless another share or a killed call did."""
    begun = artifact.choices or {"packings": 0}
    packings = read_assignments(artifact.folder, begun["packings"])
    if not packings:
        packings = _assign_packings(packer)
    choices = {"packings": len(packings), "batches": len(packings[0].rows_PB)}
    artifact.begin(_files(packer.config, packings), choices)
    write_assignments(artifact.folder, packings)
    return packings


def _files(config: PackConfig, packings: list[Assignment]) -> list[str]:
    shards = batches_of_shards(config, packings)
    return [*shards, POSITIVES, GROUPS, CARD, *([TEXTS] if config.layout == "ids" else [])]


def _write(
    artifact: Artifact, packer: Packer, embeddings: Manifest, task_shard: TaskShard | None
) -> None:
    with artifact.run.exclusive():
        if artifact.reload():
            return
        packings = _begin(artifact, packer)
    config, run = packer.config, artifact.run.path.absolute()
    worker = ShardWriter(config, packer.k, run, artifact.folder.absolute(), artifact.key)
    shards = list(batches_of_shards(config, packings))
    make_files(artifact, shards, worker.using(packer), config, "pack", task_shard)
    with artifact.run.exclusive():
        if not artifact.reload():
            _publish(artifact, packer, packings, embeddings)
            remove_assignments(artifact.folder)


def _publish(
    artifact: Artifact, packer: Packer, packings: list[Assignment], embeddings: Manifest
) -> None:
    config, store = packer.config, packer.store
    positives = positive_groups(*store.known_positives, packer.groups.passages, store.num_queries)
    write_positives(artifact.folder / POSITIVES, store.query_texts, positives, packer.near)
    groups = Groups.of_all(packer.groups.of_text_ids(store))
    write_groups(artifact.folder / GROUPS, groups.texts, groups.groups)
    counts = _counts(packer, packings)
    columns = text_columns(counts["k_of_every_row"])
    if config.scores and counts["k_of_every_row"] == packer.k:
        columns.append(SCORES)
    if config.layout == "ids":
        write_all_texts(artifact.folder / TEXTS, [store.passages, store.queries])
        columns = ["anchor_id", "positive_id", "negative_ids"]
    card = dataset_card(
        {
            "batch_size": config.batch_size,
            "policy": config.policy,
            "layout": config.layout,
            "k": packer.k,
            "seed": config.seed,
            "packings": len(packings),
            "batches": counts["batches"],
            "rows": len(packer.pools.rows),
            "model": embeddings.extra["miner"],
            "columns": columns,
            "sources": counts["sources"],
            "scores": config.scores,
            "languages": store.languages is not None,
        }
    )
    with atomic(artifact.folder / CARD) as path:
        path.write_text(card, "utf-8")
    files = _files(config, packings)
    artifact.finish(files, counts=counts, extra={"k": packer.k})


def _counts(packer: Packer, packings: list[Assignment]) -> dict[str, Any]:
    size, num_batches = packer.config.batch_size, len(packings[0].rows_PB)
    rows = len(packer.pools.rows)
    filled = (packer.pools.ids_NS[:, : packer.k] >= 0).sum(1)
    strict = packer.config.policy == "strict"
    first = packings[0].rows_PB.ravel()
    bound = packer.bound()
    return {
        "rows_in": rows,
        "rows_packed": num_batches * size,
        "rows_left_out": rows - num_batches * size,
        "batches": num_batches,
        "batches_composed": packer.composition.num_batches(packer.pools.rows),
        "batches_bound": bound.batches,
        "batches_bound_cause": bound.cause,
        "packings": len(packings),
        "steps": num_batches * len(packings),
        "rows_ragged": 0 if strict else int((filled[packer.pools.rows] < packer.k).sum()),
        "k_of_every_row": packer.k if strict else int(filled[first].min(initial=packer.k)),
        "distinct_passages_of_first_batch": _num_distinct(packer, packings[0].rows_PB[0]),
        "composition": packer.composition.words,
        "sources": _source_counts(packer, packings[0].rows_PB),
    }


def _source_counts(packer: Packer, rows_PB: NDArray[np.int64]) -> dict[str, dict[str, Any]]:
    """Of each source: its rows, those in a packing, why others are not, and its batches."""
    sources = packer.store.sources
    if sources is None:
        return {}
    numbers, found = sources.numbers["pair"], {}
    sizes = np.bincount(numbers[packer.pools.rows], minlength=len(sources.names))
    for source, (name, taken) in enumerate(zip(*_rows_taken(packer), strict=True)):
        in_batch_P = (numbers[rows_PB] == source).sum(1)
        packed = int(in_batch_P.sum())
        found[name] = {
            "rows_in": int(sizes[source]),
            "rows_packed": packed,
            "rows_left_out": {
                "down_weighted": int(sizes[source]) - taken,
                "no_full_batch": taken - packed,
            },
            "batches": int((in_batch_P > 0).sum()),
            "rows_a_batch": [
                int(in_batch_P[in_batch_P > 0].min(initial=rows_PB.shape[1])),
                int(in_batch_P.max()),
            ]
            if packed
            else [0, 0],
        }
    return found


def _num_distinct(packer: Packer, rows_B: NDArray[np.int64]) -> int:
    negatives, _ = packer.bind(rows_B, hash_seed(packer.config.seed, 0, 0), 0)
    positives = packer.store.pair_passage_ids[rows_B]
    return len(np.union1d(negatives[negatives >= 0], positives))


def _report(artifact: Artifact, config: PackConfig, skipped: bool = False) -> StageReport:
    counts = artifact.result.counts
    size, batches, rows = config.batch_size, counts["batches"], counts["rows_in"]
    lines = [
        f"{batches:,} batches of {size:,} rows in each of {counts['packings']} packings, policy "
        f"{config.policy}: {counts['steps']:,} optimizer steps in all",
        f"{percent(counts['rows_packed'], rows)} of {rows:,} rows are in each packing, "
        f"{counts['rows_left_out']:,} left out of one come first in the next",
        f"the first batch holds {counts['distinct_passages_of_first_batch']:,} distinct passages",
        *([counts["composition"]] if counts["sources"] else []),
        *(_source_line(name, one) for name, one in counts["sources"].items()),
    ]
    warnings = [
        f"no row of source {name} is in a batch: its {one['rows_in']:,} rows fill none of "
        f"{size:,}; give a smaller --batch-size or more pairs"
        for name, one in counts["sources"].items()
        if not one["rows_packed"]
    ]
    composed = counts["batches_composed"]
    if batches < composed:
        warnings.append(
            f"{composed - batches:,} of {composed:,} batches could not be filled without "
            f"repeats; at most {counts['batches_bound']:,} can, bounded by "
            f"{counts['batches_bound_cause']}; --policy merge fills them all"
        )
    if batches < MIN_EPOCH_STEPS:
        steps = "1 optimizer step" if batches == 1 else f"{batches} optimizer steps"
        warnings.append(
            f"an epoch has only {steps}; --batch-size {max(2, rows // MIN_EPOCH_STEPS):,} would "
            f"have {MIN_EPOCH_STEPS}"
        )
    return make_report(artifact, lines, warnings, skipped=skipped)


def _source_line(name: str, counts: dict[str, Any]) -> str:
    least, most = counts["rows_a_batch"]
    left = ", ".join(f"{why} {n:,}" for why, n in counts["rows_left_out"].items() if n)
    return (
        f"source {name}: {percent(counts['rows_packed'], counts['rows_in'])} of "
        f"{counts['rows_in']:,} rows in {counts['batches']:,} batches, "
        f"{least:,}{f' to {most:,}' if most > least else ''} rows each; left out: {left or 'none'}"
    )
