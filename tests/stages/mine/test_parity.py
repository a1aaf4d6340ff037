"""Row by row what sentence-transformers mines, where it means the same."""

import pytest
from datasets import Dataset
from sentence_transformers.util import mine_hard_negatives

from stx_mine.models.load import load_model
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.store.artifact import require
from stx_mine.store.pools import Pools
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

K, RANGE_MAX = 4, 60


@pytest.fixture(scope="module")
def store_and_run(small_input, tmp_path_factory):
    run = tmp_path_factory.mktemp("parity") / "run"
    pairs, corpus = (str(small_input / f"{name}.parquet") for name in ("pairs", "corpus"))
    run_embed(EmbedConfig(run_dir=str(run), pairs=pairs, corpus=corpus, device="cpu"))
    return TextStore.open(require(RunDir(run), "texts")), run


@pytest.mark.parametrize(
    "margins",
    [
        {},
        {"relative_margin": 0.05},
        {"absolute_margin": 0.1},
        {"max_score": 0.5},
        {"relative_margin": 0.05, "absolute_margin": 0.02, "min_score": 0.1},
    ],
)
def test_pools_begin_with_what_the_library_mines(store_and_run, margins):
    store, run = store_and_run
    queries = store.queries.column("text").to_pylist()
    passages = store.passages.column("text").to_pylist()
    pairs = {
        "query": [queries[one] for one in store.pair_query_ids],
        "passage": [passages[one] for one in store.pair_passage_ids],
    }
    # A query with two positives means something else there.
    assert len(set(pairs["query"])) == len(pairs["query"])
    theirs = mine_hard_negatives(
        Dataset.from_dict(pairs),
        load_model("package:wordllama", device="cpu"),
        corpus=passages,
        range_min=0,
        range_max=RANGE_MAX,
        num_negatives=K,
        sampling_strategy="top",
        output_format="n-tuple",
        verbose=False,
        **margins,
    )
    chosen = {"relative_margin": None, **margins}
    run_mine(MineConfig(run_dir=str(run), k=K, range_max=RANGE_MAX, device="cpu", **chosen))
    pools = Pools.open(require(RunDir(run), "negatives"), store.pair_query_ids).ids_NS
    ours = {
        query: [passages[one] for one in pool[:K]]
        for query, pool in zip(pairs["query"], pools, strict=True)
        if (pool[:K] >= 0).all()
    }
    names = [f"negative_{slot + 1}" for slot in range(K)]
    found = {row["query"]: [row[name] for name in names] for row in theirs}
    assert len(found) > 100
    assert found == ours
