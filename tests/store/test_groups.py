"""`groups/`: what ingest makes, and that regrouping makes neither embeddings nor hits stale."""

import numpy as np
import pytest

from stx_mine.errors import ArtifactError
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.store.artifact import Artifact, require
from stx_mine.store.files import write_array
from stx_mine.store.groups import PASSAGE_GROUPS, QUERY_GROUPS, TextGroups, make_groups
from stx_mine.store.negatives import pool_files
from stx_mine.store.pools import PoolBlock
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore


def regroup(run, passages, queries):
    """Replace `groups/` as a stage that joins more texts does."""
    texts = require(run, "texts")
    made = Artifact(run, "groups", fields={"threshold": 0.9}, inputs={"texts": texts.digest})
    made.begin([QUERY_GROUPS, PASSAGE_GROUPS])
    write_array(made.folder / QUERY_GROUPS, queries)
    write_array(made.folder / PASSAGE_GROUPS, passages)
    return made.finish([QUERY_GROUPS, PASSAGE_GROUPS], counts={})


def test_ingest_makes_the_groups_that_follow_from_the_texts(small_run):
    run = RunDir(small_run)
    texts, groups = require(run, "texts"), TextGroups.open(require(run, "groups"))
    expected = TextGroups.of_texts(TextStore.open(texts))
    np.testing.assert_array_equal(groups.queries, expected.queries)
    np.testing.assert_array_equal(groups.passages, np.arange(len(groups.passages)))
    assert require(run, "groups").counts["texts"] == len(groups.queries) + len(groups.passages)


def test_regrouping_renews_negatives_alone_and_searches_no_more_than_it_must(run_copy):
    run = RunDir(run_copy)
    store, before = TextStore.open(require(run, "texts")), TextGroups.open(require(run, "groups"))
    embeddings, hits = require(run, "embeddings"), require(run, "hits", "dense")
    negatives = require(run, "negatives")
    block = PoolBlock.read(negatives, pool_files(negatives)[0])
    full = int(np.flatnonzero(block.pools.lengths() >= 4)[0])
    query, joined = int(block.query_ids[full]), int(block.pools.row(full)[0])
    positive = int(store.pair_passage_ids[store.pair_query_ids == query][0])
    passages = np.array(before.passages)
    passages[[joined, positive]] = min(joined, positive)
    regroup(run, passages, np.array(before.queries))

    with pytest.raises(ArtifactError, match="negatives/ is stale: groups/ has changed"):
        require(run, "negatives")
    assert require(run, "embeddings").digest == embeddings.digest
    assert require(run, "hits", "dense").digest == hits.digest
    run_mine(MineConfig(run_dir=str(run_copy), k=4, device="cpu"))
    after = require(run, "negatives")
    block = PoolBlock.read(after, pool_files(after)[0])
    assert joined not in block.pools.row(int(np.searchsorted(block.unit_ids, query)))
    layers = require(run, "hits", "dense").extra["layers"]
    # Queries to which more is forbidden now are searched again, at the same depth.
    assert [layer["depth"] for layer in layers] == [100, 100]
    assert require(run, "hits", "dense").digest == hits.digest


def test_another_grouping_of_the_same_texts_is_left_alone(run_copy):
    run = RunDir(run_copy)
    groups = TextGroups.open(require(run, "groups"))
    made = regroup(run, np.array(groups.passages), np.array(groups.queries))
    assert make_groups(run, require(run, "texts")).digest == made.digest
    assert require(run, "groups").fields == {"threshold": 0.9}
