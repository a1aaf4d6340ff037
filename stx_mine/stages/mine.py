"""Mine: search deeply into `hits/`, then select negatives as a cheap view into `negatives/`."""

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stx_mine.artifacts.artifact import MANIFEST, Artifact, Manifest, require
from stx_mine.artifacts.files import write_table
from stx_mine.artifacts.hits import HitBlock, block_names
from stx_mine.artifacts.run_dir import RunDir
from stx_mine.artifacts.texts import TextStore
from stx_mine.artifacts.vectors import Vectors
from stx_mine.config import MineConfig, key_fields
from stx_mine.core.forbidden import forbidden_groups
from stx_mine.core.select import Rules, select_negatives
from stx_mine.engine.local import run_tasks
from stx_mine.errors import ConfigError, InputError
from stx_mine.ragged import Ragged
from stx_mine.search.exact import ExactSearcher, Searcher
from stx_mine.search.faiss_index import FaissSearcher
from stx_mine.stages.index import INDEX
from stx_mine.stages.report import StageReport, make_report, share
from stx_mine.stages.selection import Tally, negatives_table, units_of

# The fields that a person loosens where a rule takes everything.
_FIELDS_OF: dict[str, tuple[str, ...]] = {
    "own_text": (),
    "known_positive": (),
    "duplicate_group": (),
    "rank_window": ("range_min", "range_max"),
    "score_window": ("min_score", "max_score"),
    "absolute_margin": ("absolute_margin",),
    "relative_margin": ("relative_margin",),
    "beyond_pool": ("pool",),
}
# Queries of one block are searched together while their depths differ by less than this factor.
_DEPTH_STEP = 1.5


def run_mine(config: MineConfig) -> StageReport:
    """Search where needed, then select.

    Raises:
        ConfigError: k does not fit the corpus, or no index is there to search.
        InputError: No candidate is left for any query.
        ArtifactError: Embeddings are missing, or other hits are in the way.
    """
    run = RunDir(config.run_dir)
    with run.lock():
        texts = require(run, "texts")
        store = TextStore.open(texts)
        if config.k >= store.num_passages:
            raise ConfigError(
                f"--k {config.k} needs more than {config.k} passages, the corpus has "
                f"{store.num_passages}; give a smaller k or a larger --corpus"
            )
        embeddings = require(run, "embeddings")
        forbidden = forbidden_groups(
            store.pair_query_ids, store.pair_passage_ids, store.query_groups, store.passage_groups
        )
        hits, searched = _search(config, run, texts, embeddings, forbidden)
        return _select(config, run, store, embeddings, hits, forbidden, searched)


def _search(
    config: MineConfig, run: RunDir, texts: Manifest, embeddings: Manifest, forbidden: Ragged
) -> tuple[Manifest, str]:
    inputs = {"texts": texts.digest, "embeddings": embeddings.digest}
    index = _index(config, run)
    if index:
        inputs["index"] = index.digest
    fields = {**key_fields(config, "hits"), "search": "faiss" if index else "exact"}
    artifact = Artifact(run, "hits", fields=fields, inputs=inputs, overwrite=config.overwrite)
    how = f"FAISS, recall {index.counts['recall']:.3f}" if index else "exact search"
    if artifact.manifest:
        return artifact.manifest, f"{how}, hits reused"
    queries = Vectors.open(embeddings, "queries")
    passages = Vectors.open(embeddings, "passages")
    names = block_names("hits", -(-len(queries) // config.query_block))
    artifact.begin(names)
    searcher: Searcher = ExactSearcher(passages, config.passage_block, config.device)
    if index:
        searcher = FaissSearcher.open(index.folder / INDEX, passages, index.extra["nprobe"])
    wanted = np.minimum(config.depth + forbidden.lengths(), len(passages))

    def search(name: str) -> None:
        first = names.index(name) * config.query_block
        block = queries.rows(first, min(first + config.query_block, len(queries)))
        found = _search_block(searcher, block, wanted[first : first + len(block)], first)
        write_table(artifact.folder / name, found.table())

    run_tasks(artifact.pending(names), search, "search")
    counts = {"queries": len(queries), "blocks": len(names)}
    return artifact.finish(names, config=asdict(config), counts=counts), how


def _index(config: MineConfig, run: RunDir) -> Manifest | None:
    """The index to search, if any."""
    if config.search == "exact":
        return None
    if config.search == "auto" and not (run.folder("index") / MANIFEST).exists():
        return None
    return require(run, "index")


def _search_block(
    searcher: Searcher, queries_QD: NDArray[np.float32], wanted_Q: NDArray[np.int64], first: int
) -> HitBlock:
    """Search each query of a block to its own depth; deep ones do not deepen the others."""
    ids: list[NDArray[Any]] = [np.empty(0)] * len(queries_QD)
    scores: list[NDArray[Any]] = [np.empty(0)] * len(queries_QD)
    left = np.argsort(wanted_Q, kind="stable")
    while len(left):
        limit = int(wanted_Q[left[0]] * _DEPTH_STEP)
        now, left = left[wanted_Q[left] <= limit], left[wanted_Q[left] > limit]
        found = searcher.search(queries_QD[now], int(wanted_Q[now].max()))
        for row, query in enumerate(now):
            kept = found.ids_QK[row, : wanted_Q[query]]
            real = kept >= 0
            ids[query] = kept[real]
            scores[query] = found.scores_QK[row, : wanted_Q[query]][real]
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in ids])]).astype(np.int64)
    return HitBlock(first, Ragged(offsets, np.concatenate(ids)), np.concatenate(scores))


def _select(
    config: MineConfig,
    run: RunDir,
    store: TextStore,
    embeddings: Manifest,
    hits: Manifest,
    forbidden: Ragged,
    searched: str,
) -> StageReport:
    inputs = {
        "texts": hits.content["inputs"]["texts"],
        "embeddings": embeddings.digest,
        "hits": hits.digest,
    }
    artifact = Artifact(
        run, "negatives", fields=key_fields(config, "negatives"), inputs=inputs, view=True
    )
    if artifact.done:
        return _report(artifact, config, searched, skipped=True)
    slots = max(config.pool, config.k)
    rules = Rules(
        pool=slots,
        range_min=config.range_min,
        range_max=config.range_max,
        min_score=config.min_score,
        max_score=config.max_score,
        absolute_margin=config.absolute_margin,
        relative_margin=config.relative_margin,
        random=config.sampling == "random",
        seed=config.seed,
    )
    hit_files = [one["file"] for one in hits.content["files"]]
    names = block_names("negatives", len(hit_files))
    artifact.begin(names)
    per_pair = config.positive_score == "pair"
    queries, passages = Vectors.open(embeddings, "queries"), Vectors.open(embeddings, "passages")
    by_query = np.argsort(store.pair_query_ids, kind="stable")
    sorted_queries = store.pair_query_ids[by_query]
    tally = Tally(slots)
    for hit_file, name in zip(hit_files, names, strict=True):
        block = HitBlock.read(hits, hit_file)
        last_query = block.first_query + len(block.hits)
        first, last = np.searchsorted(sorted_queries, [block.first_query, last_query])
        units = units_of(block, by_query[first:last], store, queries, passages, per_pair)
        chosen = select_negatives(
            units.query_ids,
            units.ids,
            units.positive_scores,
            units.hits,
            units.hit_scores,
            query_groups=store.query_groups,
            passage_groups=store.passage_groups,
            forbidden=forbidden,
            rules=rules,
        )
        write_table(artifact.folder / name, negatives_table(units, chosen))
        tally.add(units, chosen)
    counts = tally.counts(config.k)
    _refuse_empty(counts, config)
    extra = {"slots": slots, "k": config.k, "per_pair": per_pair}
    artifact.finish(names, config=asdict(config), counts=counts, extra=extra)
    return _report(artifact, config, searched)


def _refuse_empty(counts: dict[str, Any], config: MineConfig) -> None:
    if counts["pooled"] == 0:
        most = max(counts["dropped"], key=lambda name: counts["dropped"][name])
        settings = ", ".join(
            f"--{name.replace('_', '-')} {getattr(config, name)}" for name in _FIELDS_OF[most]
        )
        raise InputError(
            f"no candidate is left for any query: {counts['hits_in']:,} hits, most dropped by "
            f"{most} ({counts['dropped'][most]:,}); "
            + (f"loosen {settings}" if settings else "give a larger --corpus or --depth")
        )


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
    total = counts["rows"]
    lines.append(
        f"rows with k={config.k} negatives: {share(counts['rows_full'], total)} full, "
        f"{share(counts['rows_ragged'], total)} ragged, {share(counts['rows_empty'], total)} "
        "without any; all are kept"
    )
    return make_report(artifact, lines, skipped=skipped)
