"""Pack: bind negatives and write batches of exactly B rows into Parquet shards."""

from dataclasses import asdict, replace

from stx_mine import progress
from stx_mine.core.forbidden import positive_groups
from stx_mine.core.groups import Groups
from stx_mine.engine.run import make_files
from stx_mine.engine.task_shards import task_shard_of
from stx_mine.errors import ConfigError
from stx_mine.settings import key_fields
from stx_mine.stages.pack.builder import Packer
from stx_mine.stages.pack.card import BatchFacts, batches_card
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.core.assign import Assignment
from stx_mine.stages.pack.dry_run import dry_run
from stx_mine.stages.pack.feasibility import refuse_sizes, refuse_unscored
from stx_mine.stages.pack.hardness import HARDNESS, batch_hardness
from stx_mine.stages.pack.labels.stage import pack_labels
from stx_mine.stages.pack.packings import assign_packings, batches_of_shards
from stx_mine.stages.pack.report import dry_run_report, pack_report
from stx_mine.stages.pack.shard_files import write_all_texts, write_groups, write_positives
from stx_mine.stages.pack.shards import (
    ShardWriter,
    read_assignments,
    scores_of_judge,
    write_assignments,
)
from stx_mine.stages.pack.tally import count_packings, count_scored
from stx_mine.store.artifact import Artifact, Manifest, require
from stx_mine.store.audits import read_audits
from stx_mine.store.batches import GROUPS, POSITIVES, SCORES, TEXTS, text_columns
from stx_mine.store.dataset_card import DATASET_CARD
from stx_mine.store.groups import TextGroups
from stx_mine.store.lock import TaskShard
from stx_mine.store.negatives import negatives_per_row, with_judged
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import StageReport
from stx_mine.store.texts import TextStore


def run_pack(config: PackConfig) -> StageReport:
    """Write `batches/`, or on a dry run only say what it would hold.

    Raises:
        ConfigError: The batch is larger than the rows or than the clean texts there are, or the
            judge whose scores are wanted has none of the rows.
        ArtifactError: Negatives are missing, or other batches are in the way.
        TaskShardsLeftError: This call did its part, and others are at work.
    """
    run = RunDir(config.run_dir, config.check)
    if config.layout == "labels":
        return pack_labels(config, run)
    task_shard = task_shard_of(config)
    with run.lock(task_shard):
        texts, negatives = require(run, "texts"), require(run, "negatives")
        embeddings = require(run, "embeddings")
        k = negatives_per_row(negatives, config.k)
        store = with_judged(TextStore.open(texts), negatives)
        grouping = require(run, "groups")
        groups = TextGroups.open(grouping)
        judgements = scores_of_judge(config, run)
        opened = (config, k, store, groups, negatives, embeddings, judgements)
        if config.dry_run:
            packer = Packer.open(*opened)
            return dry_run_report(dry_run(packer, embeddings), str(run.folder("batches")))
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
                **({"embeddings": embeddings.digest} if config.scores is True else {}),
                **({f"judgements/{config.judge}": judgements.digest} if judgements else {}),
            },
            overwrite=config.overwrite,
        )
        if artifact.done:
            return pack_report(artifact, config, skipped=True)
        packer = Packer.open(*opened)
        refuse_sizes(packer)
        refuse_unscored(packer, negatives)
        _write(artifact, packer, embeddings, task_shard)
        return pack_report(artifact, config)


def _assign_packings(packer: Packer) -> list[Assignment]:
    """Assign every packing; all get the same number of batches.

    Raises:
        ConfigError: Not one strict batch can be filled.
    """
    with progress.step("assigning rows to batches"):
        packings = assign_packings(packer.assign, packer.config.packings)
    if not len(packings[0].rows_PB):
        raise ConfigError(
            f"no strict batch of {packer.config.batch_size:,} rows can be filled: too many rows "
            "share texts or positives; give a smaller --batch-size or --policy merge"
        )
    return packings


def _begin(artifact: Artifact, packer: Packer) -> list[Assignment]:
    """Assign every packing, unless another call or a killed one did."""
    begun = artifact.choices or {"packings": 0}
    packings = read_assignments(artifact.folder, begun["packings"])
    if not packings:
        packings = _assign_packings(packer)
    # An audit that comes later must not change what is made anew.
    audits = begun.get("audits", [one.sentence for one in read_audits(artifact.run)[0]])
    choices = {
        "packings": len(packings),
        "batches": len(packings[0].rows_PB),
        "audits": audits,
    }
    artifact.begin([*_files(packer.config, packings), DATASET_CARD], choices)
    write_assignments(artifact.folder, packings)
    return packings


def _files(config: PackConfig, packings: list[Assignment]) -> list[str]:
    shards = batches_of_shards(config, packings)
    return [*shards, POSITIVES, GROUPS, *([TEXTS] if config.layout == "ids" else [])]


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
    make_files(artifact, shards, worker.using(packer), config, "writing shards", task_shard)
    with artifact.run.exclusive():
        if not artifact.reload():
            _publish(artifact, packer, packings, embeddings)


def _publish(
    artifact: Artifact, packer: Packer, packings: list[Assignment], embeddings: Manifest
) -> None:
    config, store = packer.config, packer.store
    negatives = require(artifact.run, "negatives")
    made = negatives.counts.get("pairs_made", 0)
    positives = positive_groups(*store.known_positives, packer.groups.passages, store.num_queries)
    write_positives(artifact.folder / POSITIVES, store.query_texts, positives, packer.near)
    groups = Groups.of_all(packer.groups.of_text_ids(store))
    write_groups(artifact.folder / GROUPS, groups.texts, groups.groups)
    with progress.step("counting"):
        counts = count_packings(packer, packings)
        hardness = batch_hardness(packer, embeddings)
    if config.judge is not None:
        counts = replace(counts, scored=count_scored(artifact.folder, packer, negatives))
    columns = text_columns(counts.k_of_every_row)
    if config.scores is True and counts.k_of_every_row == packer.k:
        columns.append(SCORES)
    if config.layout == "ids":
        write_all_texts(artifact.folder / TEXTS, [store.passages, store.queries])
        columns = ["anchor_id", "positive_id", "negative_ids"]
    card = batches_card(
        BatchFacts(
            config=config,
            k=packer.k,
            packings=len(packings),
            batches=counts.batches,
            rows=len(packer.pools.rows),
            rows_made=int((packer.pools.rows >= store.num_pairs - made).sum()),
            judges=negatives.fields.get("judges", []),
            audits=(artifact.choices or {}).get("audits", []),
            model=embeddings.extra["miner"],
            columns=columns,
            sources=counts.by_source,
            languages=store.languages is not None,
        )
    )
    extra = {"k": packer.k, HARDNESS: None if hardness is None else asdict(hardness)}
    artifact.finish(_files(config, packings), counts=counts, extra=extra, card=card)
