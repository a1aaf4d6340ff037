"""Mine: search deeply into `hits/`, then select negatives as a cheap view into `negatives/`."""

from dataclasses import replace

import numpy as np

from stx_mine.core.verdicts import Verdict
from stx_mine.engine.local import run_tasks
from stx_mine.engine.task_shards import task_shard_of
from stx_mine.models.devices import refuse_device
from stx_mine.search.threads import own_threads
from stx_mine.settings import key_fields
from stx_mine.stages.mine.checks import refuse_empty, refuse_misfit
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.dense import DenseHits
from stx_mine.stages.mine.depths import AllHits, search_depths, would_gain
from stx_mine.stages.mine.judges import JudgeControl
from stx_mine.stages.mine.report import mine_report
from stx_mine.stages.mine.selector import Selector, negatives_table
from stx_mine.stages.mine.sources import other_hits
from stx_mine.stages.mine.tally import Tally
from stx_mine.stages.mine.use_limits import use_limits
from stx_mine.store.artifact import Artifact, Manifest, require
from stx_mine.store.files import write_array, write_table
from stx_mine.store.groups import TextGroups
from stx_mine.store.hits import HitSource, block_names
from stx_mine.store.judgements import StoredJudgements
from stx_mine.store.lock import TaskShard
from stx_mine.store.manifest import refuse_damaged
from stx_mine.store.negatives import DROPPED_PAIRS, MADE_PAIRS, MASKED_PAIRS
from stx_mine.store.places import refuse_taken
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import StageReport
from stx_mine.store.texts import NEGATIVES, TextStore, write_pairs
from stx_mine.store.vectors import Vectors


def run_mine(config: MineConfig) -> StageReport:
    """Search where needed, then select.

    Raises:
        ConfigError: k does not fit the corpus, no index is there to search, or the options ask for
            known negatives that the run does not have.
        InputError: No candidate is left for any query, or --candidates cannot be read.
        ArtifactError: Embeddings are missing, or other hits are in the way.
        TaskShardsLeftError: This call did its part of a search, and others are at work.
    """
    refuse_damaged(config.candidates)
    run, task_shard = RunDir(config.run_dir, config.check), task_shard_of(config)
    if config.engine != "ray":
        refuse_device(config.device)
    with run.lock(task_shard):
        # Before the search, which may take hours.
        refuse_taken(run.folder("negatives"))
        texts = require(run, "texts")
        store = TextStore.open(texts)
        refuse_misfit(config, store, texts)
        embeddings = require(run, "embeddings")
        grouping = require(run, "groups")
        groups = TextGroups.open(grouping)
        forbidden = groups.forbidden(store)
        wasted = groups.num_forbidden_passages(forbidden)
        hits = AllHits(
            DenseHits(config, run, embeddings, wasted, task_shard) if config.searches else None,
            _other_hits(config, run, texts, embeddings, task_shard),
            np.full(store.num_queries, config.depth if config.searches else 0, np.int64),
            config.query_block,
        )
        judgements = {name: require(run, "judgements", name) for name in config.judges}
        queries, passages = (Vectors.open(embeddings, role) for role in ("queries", "passages"))
        selector = Selector(config, store, groups, queries, passages, forbidden)
        artifact = Artifact(
            run,
            "negatives",
            config,
            fields={**key_fields(config, "negatives"), "negatives_from": selector.negatives_from},
            inputs={
                "texts": texts.digest,
                "groups": grouping.digest,
                "embeddings": embeddings.digest,
                **hits.digests,
                **{f"judgements/{name}": one.digest for name, one in judgements.items()},
            },
            # They hold what is read of the hits; a digest of hits does not say that these are gone.
            overwrite=hits.dense is not None and hits.dense.is_empty,
        )
        if artifact.done:
            return mine_report(artifact, config, hits, skipped=True)
        selector = _asking(selector, judgements)
        hits = search_depths(selector, hits)
        with run.exclusive():
            if task_shard is not None:
                artifact.reload()
            # Selecting is quick: the call that ends last does all of it.
            if not artifact.done:
                _select(artifact, selector, hits)
        return mine_report(artifact, config, hits)


def _asking(selector: Selector, judgements: dict[str, Manifest]) -> Selector:
    """The same, but some judges decide, too."""
    found = [StoredJudgements.open(one, selector.store) for one in judgements.values()]
    return replace(selector, judgements=found, labelled=selector.is_labelled)


def _other_hits(
    config: MineConfig,
    run: RunDir,
    texts: Manifest,
    embeddings: Manifest,
    task_shard: TaskShard | None,
) -> dict[HitSource, Manifest]:
    """The hits of every source but the dense search, made where they are missing."""
    asked = {
        HitSource.BM25: "bm25" in config.source_names,
        HitSource.KNOWN: texts.has(NEGATIVES),
        HitSource.CANDIDATES: config.candidates is not None,
    }
    return {
        source: other_hits(source, config, run, texts, embeddings, task_shard)
        for source, wanted in asked.items()
        if wanted and config.mines
    }


def _select(artifact: Artifact, selector: Selector, hits: AllHits) -> None:
    """Write the pools and the verdict of every hit.

    Raises:
        InputError: No candidate is left for any query.
    """
    config = selector.config
    names = block_names("negatives", hits.num_blocks)
    artifact.begin(names)
    uses = use_limits(selector, hits)

    def select(block: int) -> Tally:
        found = hits.block(block)
        units = selector.units(found)
        chosen = selector.select(units, uses)
        depths, wanted = hits.depths[units.query_ids], hits.wanted(units.query_ids)
        table = negatives_table(units, chosen, depths, wanted)
        write_table(artifact.folder / names[block], table)
        part = Tally.begin(selector)
        gains = would_gain(selector, units, chosen, wanted)
        can_deepen = hits.dense is not None
        gains &= can_deepen & (depths < (config.range_max or len(selector.passages)))
        part.add(units, chosen, found, gains)
        return part

    tally = Tally.begin(selector)
    with own_threads() as threads:
        for part in run_tasks(range(len(names)), select, "selecting", threads):
            tally.merge(part)
    names += _write_judged(artifact, selector, tally)
    dropped = tally.dropped_pairs(selector.store.num_pairs)
    write_array(artifact.folder / DROPPED_PAIRS, dropped)
    languages = selector.store.languages
    unknown = languages.counts() if languages else {}
    control = selector.judges.control if selector.judges else JudgeControl(0, 0)
    counts = tally.counts(
        control,
        queries_deepened=int((hits.depths > config.depth).sum()),
        unknown_languages={role: of_role["unknown"] for role, of_role in unknown.items()},
    )
    refuse_empty(counts, selector, hits)
    extra = {
        "judged": selector.judges.judged if selector.judges else None,
        "slots": selector.slots,
        "k": config.k,
        "per_pair": config.positive_score == "pair",
        "known_first": config.known_negatives == "keep",
        "labelled": {
            "passages": int(selector.is_labelled.sum()),
            "of": len(selector.is_labelled),
            "alone": selector.takes_labelled,
        },
    }
    artifact.finish([*names, DROPPED_PAIRS], counts=counts, extra=extra)


def _write_judged(artifact: Artifact, selector: Selector, tally: Tally) -> list[str]:
    """Write the pairs that judges made, and those that are to be left out of losses.

    Returns:
        Names of the files; none where judges are not asked, or only say what is no negative.
    """
    judges = selector.judges
    if judges is None or judges.judged == "drop":
        return []
    made, close = (tally.judged(one) for one in (Verdict.JUDGED_POSITIVE, Verdict.JUDGED_CLOSE))
    if judges.judged == "mask":
        made, close = made[:, :0], np.unique(np.concatenate([made, close], axis=1), axis=1)
    write_pairs(artifact.folder / MADE_PAIRS, *made)
    write_pairs(artifact.folder / MASKED_PAIRS, *close)
    return [MADE_PAIRS, MASKED_PAIRS]
