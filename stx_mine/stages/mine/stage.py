"""Mine: search deeply into `hits/`, then select negatives as a cheap view into `negatives/`."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.verdicts import Verdict
from stx_mine.engine.local import run_tasks
from stx_mine.engine.task_shards import task_shard_of
from stx_mine.errors import ConfigError, InputError
from stx_mine.search.product import own_threads
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.core.select import UseLimits
from stx_mine.stages.mine.core.uses import UseCounter
from stx_mine.stages.mine.dense import DenseHits
from stx_mine.stages.mine.hits import HitBlock, HitSource, block_names, concatenate, merge_sources
from stx_mine.stages.mine.judge import SUSPECT_PERCENTILE, Judge, Tally, negatives_table
from stx_mine.stages.mine.sources import bm25_hits, candidate_hits, known_hits, read_hits
from stx_mine.store.artifact import Artifact, Manifest, require
from stx_mine.store.files import write_array, write_table
from stx_mine.store.groups import TextGroups
from stx_mine.store.negatives import DROPPED_PAIRS
from stx_mine.store.report import StageReport, make_report, percent
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import NEGATIVES, TextStore

# The fields that a person loosens where a rule takes everything.
_FIELDS_OF: dict[str, tuple[str, ...]] = {
    "own_text": (),
    "known_positive": (),
    "duplicate_group": (),
    "language": ("negative_language",),
    "rank_window": ("range_min", "range_max"),
    "score_window": ("min_score", "max_score"),
    "absolute_margin": ("absolute_margin",),
    "relative_margin": ("relative_margin",),
    "upper_margin": ("upper_margin",),
    "close_to_positive": ("closeness",),
}
# What turns a rule off, where it is not None.
_OFF: dict[str, Any] = {"range_min": 0, "negative_language": "any"}
# How much deeper a query is searched where it lacks negatives.
_DEEPER = 4


def run_mine(config: MineConfig) -> StageReport:
    """Search where needed, then select.

    Raises:
        ConfigError: k does not fit the corpus, or no index is there to search.
        InputError: No candidate is left for any query, or --candidates cannot be read.
        ArtifactError: Embeddings are missing, or other hits are in the way.
        SharesLeftError: This call did its share of a search, and others are at it.
    """
    run, task_shard = RunDir(config.run_dir), task_shard_of(config)
    with run.lock(task_shard):
        texts = require(run, "texts")
        store = TextStore.open(texts)
        if config.k >= store.num_passages:
            raise ConfigError(
                f"--k {config.k} needs more than {config.k} passages, the corpus has "
                f"{store.num_passages}; give a smaller k or a larger --corpus"
            )
        if config.negative_language != "any" and store.languages is None:
            raise ConfigError(
                f"--negative-language {config.negative_language} needs the languages of the texts, "
                "the input of this run names none; give it a column `language`, or ingest with "
                "--language-column or --language, or leave the option out"
            )
        embeddings = require(run, "embeddings")
        grouping = require(run, "groups")
        groups = TextGroups.open(grouping)
        forbidden = groups.forbidden(store)
        wasted = groups.num_forbidden_passages(forbidden)
        dense = DenseHits(config, run, embeddings, wasted, task_shard)
        others: dict[HitSource, Manifest] = {}
        if "bm25" in config.source_names:
            others[HitSource.BM25] = bm25_hits(config, run, texts, embeddings, task_shard)
        if (texts.folder / NEGATIVES).exists():
            others[HitSource.KNOWN] = known_hits(config, run, texts, embeddings, task_shard)
        if config.candidates is not None:
            others[HitSource.CANDIDATES] = candidate_hits(
                config, run, texts, embeddings, task_shard
            )
        artifact = Artifact(
            run,
            "negatives",
            config,
            inputs={
                "texts": texts.digest,
                "groups": grouping.digest,
                "embeddings": embeddings.digest,
                "hits/dense": dense.artifact.result.digest,
                **{f"hits/{one.folder.name}": one.digest for one in others.values()},
            },
            view=True,
        )
        if artifact.done:
            return _report(artifact, config, dense.how, skipped=True)
        judge = Judge(config, store, groups, dense.queries, dense.passages, forbidden)
        depths = _search(judge, dense)
        with run.exclusive():
            if task_shard is not None:
                artifact.reload()
            # Selecting is quick: the share that ends last does all of it.
            if not artifact.done:
                _select(artifact, judge, AllHits(dense, others, depths))
        return _report(artifact, config, dense.how)


def _search(judge: Judge, dense: DenseHits) -> NDArray[np.int64]:
    """Search every query, and those that lack negatives deeper and deeper.

    Returns:
        int64 (num queries,): the depth that each query is read at.
    """
    config = judge.config
    depth, queries = config.depth, np.arange(len(dense.queries))
    depths = np.full(len(queries), depth, np.int64)
    # Candidates beyond the window would be dropped anyway.
    deepest = min(config.max_depth or depth, config.range_max or len(dense.passages))
    dense.ensure(queries, depth)
    while depth < deepest:
        queries = _lacking(judge, dense, queries, depth)
        if not len(queries):
            break
        depth = min(depth * _DEEPER, deepest)
        depths[queries] = depth
        dense.ensure(queries, depth)
    return depths


def _lacking(
    judge: Judge, dense: DenseHits, query_ids: NDArray[np.int64], depth: int
) -> NDArray[np.int64]:
    """The queries with fewer than k negatives at a depth, of those that can go deeper."""

    def lacking(block: int) -> NDArray[np.int64]:
        own = np.intersect1d(dense.block_queries(block), query_ids, assume_unique=True)
        hits = dense.read(block, own, depth)
        units = judge.units(hits)
        short = units.query_ids[judge.select(units).sizes() < judge.config.k]
        whole = own[hits.hits.lengths() >= dense.wanted(own, depth)]
        deeper = own[dense.wanted(own, depth) < len(dense.passages)]
        return np.intersect1d(short, np.intersect1d(whole, deeper))

    with own_threads() as threads:
        return np.concatenate(run_tasks(range(dense.num_blocks), lacking, "judge", threads))


@dataclass(frozen=True)
class AllHits:
    """The hits of every source, block by block.

    Attributes:
        dense: The dense ones.
        others: Manifests of the others.
        depths: int64 (num queries,): the depth at which each query is read.
    """

    dense: DenseHits
    others: dict[HitSource, Manifest]
    depths: NDArray[np.int64]

    def block(self, number: int) -> HitBlock:
        """All hits of the queries of one block."""
        query_ids = self.dense.block_queries(number)
        depths = self.depths[query_ids]
        dense = concatenate(
            [
                self.dense.read(number, query_ids[depths == depth], int(depth))
                for depth in np.unique(depths)
            ]
        )
        others = [read_hits(one, number, source) for source, one in self.others.items()]
        return merge_sources([dense, *others])


def _select(artifact: Artifact, judge: Judge, hits: AllHits) -> None:
    """Write the pools and the verdict of every hit.

    Raises:
        InputError: No candidate is left for any query.
    """
    config = judge.config
    names = block_names("negatives", hits.dense.num_blocks)
    artifact.begin(names)
    uses = _use_limits(judge, hits) if config.max_uses else None

    def select(block: int) -> Tally:
        units = judge.units(hits.block(block))
        chosen = judge.select(units, uses)
        write_table(artifact.folder / names[block], negatives_table(units, chosen))
        one = judge.tally()
        one.add(units, chosen)
        return one

    tally = judge.tally()
    with own_threads() as threads:
        for one in run_tasks(range(len(names)), select, "select", threads):
            tally.merge(one)
    write_array(artifact.folder / DROPPED_PAIRS, tally.dropped_pairs())
    languages = judge.store.languages
    counts = {
        **tally.counts(),
        "queries_deepened": int((hits.depths > config.depth).sum()),
        "unknown_languages": {
            role: of_role["unknown"] for role, of_role in languages.counts().items()
        }
        if languages
        else {},
    }
    _refuse_empty(counts, judge, hits)
    extra = {"slots": judge.slots, "k": config.k, "per_pair": config.positive_score == "pair"}
    artifact.finish([*names, DROPPED_PAIRS], counts=counts, extra=extra)


def _use_limits(judge: Judge, hits: AllHits) -> UseLimits:
    """One pass over all hits: which uses each passage keeps."""
    assert judge.config.max_uses is not None
    counter = UseCounter(len(judge.passages), judge.config.max_uses)
    for block in range(hits.dense.num_blocks):
        units = judge.units(hits.block(block))
        verdicts = judge.select(units).verdicts_H
        eligible = (verdicts == Verdict.POOLED) | (verdicts == Verdict.BEYOND_POOL)
        unit_ids = np.repeat(units.ids, units.hits.hits.lengths())
        counter.add(
            units.hits.hits.values[eligible], units.hits.scores[eligible], unit_ids[eligible]
        )
    return counter.limits()


def _refuse_empty(counts: dict[str, Any], judge: Judge, hits: AllHits) -> None:
    config = judge.config
    if counts["rows"] == 0:
        raise InputError(
            f"every one of the {counts['pairs_in']:,} pairs is dropped "
            f"({counts['pairs_dropped']}); give --short-rows keep, or a smaller --k or "
            "--min-positive-percentile"
        )
    if counts["pooled"] == 0:
        most = max(counts["dropped"], key=lambda name: counts["dropped"][name])
        settings = ", ".join(
            f"--{name.replace('_', '-')} {getattr(config, name)}" for name in _FIELDS_OF[most]
        )
        raise InputError(
            f"no candidate is left for any query: {counts['hits_in']:,} hits, most dropped by "
            f"{most} ({counts['dropped'][most]:,}); "
            + (
                f"loosen {settings}: without it {_left_without(most, judge, hits):,} would be left"
                if settings
                else "give a larger --corpus or --depth"
            )
        )


def _left_without(rule: str, judge: Judge, hits: AllHits) -> int:
    """Hits that no other rule drops."""
    off: dict[str, Any] = {name: _OFF.get(name) for name in _FIELDS_OF[rule]}
    freer = replace(judge, config=replace(judge.config, **off))

    def left(block: int) -> int:
        verdicts = freer.select(freer.units(hits.block(block))).verdicts_H
        return int(np.isin(verdicts, (Verdict.POOLED, Verdict.BEYOND_POOL)).sum())

    with own_threads() as threads:
        return sum(run_tasks(range(hits.dense.num_blocks), left, "judge", threads))


def _report(
    artifact: Artifact, config: MineConfig, searched: str, skipped: bool = False
) -> StageReport:
    counts = artifact.result.counts
    width = len(f"{counts['hits_in']:,}")
    lines = [f"{searched}; {counts['hits_in']:,} hits in, by the first rule that dropped them:"]
    for reason, number in counts["dropped"].items():
        if number:
            lines.append(f"  {number:>{width},}  {reason}")
    lines.append(f"  {counts['pooled']:>{width},}  pooled")
    total, dropped = counts["rows"], sum(counts["pairs_dropped"].values())
    lines.append(
        f"rows with k={config.k} negatives: {percent(counts['rows_full'], total)} full, "
        f"{percent(counts['rows_ragged'], total)} ragged, {percent(counts['rows_empty'], total)} "
        f"without any; {'all are kept' if not dropped else f'{dropped:,} pairs are dropped'}"
    )
    if config.max_depth is None and counts["rows_full"] < total:
        lines.append(
            f"--max-depth {_DEEPER * config.depth} would search deeper for those that lack "
            "negatives"
        )
    if counts["queries_deepened"]:
        lines.append(
            f"{counts['queries_deepened']:,} queries with fewer than {config.k} negatives were "
            f"searched deeper, up to {config.max_depth}"
        )
    if counts["unknown_languages"] and config.negative_language != "any":
        unknown = counts["unknown_languages"]
        lines.append(
            f"the language of {unknown['queries']:,} queries and {unknown['passages']:,} passages "
            "is unknown: no hit with one of them is dropped because of it"
        )
    if counts["pairs_suspect"]:
        lines.append(
            f"the positive of {percent(counts['pairs_suspect'], counts['pairs_in'])} pairs scores "
            "below most random passages: mislabelled, or foreign to the model; --min-positive-"
            f"percentile {SUSPECT_PERCENTILE:g} drops them"
        )
    warnings = [
        f"{percent(number, counts['pairs_in'])} pairs dropped: {reason}"
        for reason, number in counts["pairs_dropped"].items()
        if number
    ]
    return make_report(artifact, lines, warnings, skipped=skipped)
