"""Dedup: find texts that count as one text, and remake `groups/` of them."""

from stx_mine.engine.task_shards import task_shard_of
from stx_mine.errors import ConfigError
from stx_mine.models.devices import refuse_device
from stx_mine.settings import key_fields
from stx_mine.stages.dedup.config import DedupConfig
from stx_mine.stages.dedup.evaluation_texts import opened_sets
from stx_mine.stages.dedup.forms import FORMS
from stx_mine.stages.dedup.near_texts import refuse_without_rensa
from stx_mine.stages.dedup.regroup import regroup
from stx_mine.stages.dedup.report import dedup_report
from stx_mine.stages.dedup.searches import DuplicateSearch
from stx_mine.store.artifact import Artifact, require
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import StageReport
from stx_mine.store.texts import TextStore


def run_dedup(config: DedupConfig) -> StageReport:
    """Find duplicates where needed, then remake `groups/`.

    Raises:
        ConfigError: A package or a device is missing, or more would be joined than is allowed.
        InputError: An evaluation set is missing or malformed.
        ArtifactError: There are no texts or embeddings, or other duplicates are in the way.
        TaskShardsLeftError: This call did its part of a search, and others are at work.
    """
    run, task_shard = RunDir(config.run_dir, config.check), task_shard_of(config)
    if config.jaccard:
        refuse_without_rensa("give --cosine")
    if config.engine != "ray":
        refuse_device(config.device)
    if run.is_round:
        raise ConfigError(
            f"expected the run that all rounds share, found the round {run.path}; its texts and "
            f"groups are those of {run.first_round.path}: give that as --run-dir"
        )
    with run.lock(task_shard):
        texts = require(run, "texts")
        store = TextStore.open(texts)
        if store.documents is not None:
            raise ConfigError(
                "expected whole texts, found documents that were cut with --chunk: to join two "
                "chunks would join all other chunks of their documents; leave similar documents "
                "out before they are cut"
            )
        sources = opened_sets(config, texts)
        search = DuplicateSearch(config, run, texts, store, task_shard)
        # First, as a set may be malformed, or the model gone.
        leaks = search.leaks(sources) if sources else None
        forms = search.forms()
        firsts = forms.array(FORMS)
        found = {}
        if config.jaccard is not None:
            found["jaccard"] = search.near(forms, firsts)
        if config.cosine is not None:
            found["cosine"] = search.close()
        with run.exclusive():
            made = {"exact": forms, **found}
            dropped_for = leaks if config.drop_leaks else None
            artifact = Artifact(
                run,
                "groups",
                config,
                inputs={
                    "texts": texts.digest,
                    **{f"duplicates/{kind}": one.digest for kind, one in made.items()},
                    **({"duplicates/leaks": dropped_for.digest} if dropped_for else {}),
                },
                fields={**key_fields(config, "groups"), "numbers": "numbers" in config.ignored},
                command="dedup",
            )
            skipped = artifact.done
            if not skipped:
                regroup(artifact, config, store, made, dropped_for)
        return dedup_report(artifact, config, store, leaks, skipped)
