"""How hard a random batch is: by a loop over its rows."""

import math
import re

import numpy as np
import pytest

from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.hardness import BatchHardness
from stx_mine.stages.pack.stage import run_pack
from stx_mine.store.artifact import require
from stx_mine.store.groups import TextGroups
from stx_mine.store.pools import Pools
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore
from stx_mine.store.vectors import Vectors

SIZE, K, SEED = 48, 3, 42


def expected(run):
    """(positives, texts, own positive, other positive, own negative, harder), row by row."""
    run = RunDir(run)
    store = TextStore.open(require(run, "texts"))
    groups = TextGroups.open(require(run, "groups"))
    pools = Pools.open(require(run, "negatives"), store.pair_query_ids, False, store.num_passages)
    queries, passages = (
        Vectors.open(require(run, "embeddings"), r) for r in ("queries", "passages")
    )
    rows = np.random.default_rng(SEED).choice(pools.rows, SIZE, replace=False)
    positives = [int(store.pair_passage_ids[row]) for row in rows]
    negatives = [[int(one) for one in pools.ids_NS[row, :K] if one >= 0] for row in rows]
    forbidden = groups.forbidden(store)

    def score(query: int, passage: int) -> float:
        a, b = queries.take(np.array([query]))[0], passages.take(np.array([passage]))[0]
        return float(a @ b)

    own, other, mined, harder = [], [], [], 0
    for row, positive, some in zip(rows, positives, negatives, strict=True):
        query = int(store.pair_query_ids[row])
        avoided = set(forbidden.row(query).tolist())
        others = [one for one in positives if int(groups.passages[one]) not in avoided]
        own.append(score(query, positive))
        other.append(max(score(query, one) for one in others))
        best = max((score(query, one) for one in some), default=-math.inf)
        mined += [best] if some else []
        harder += best > other[-1]
    texts = {*positives, *(one for some in negatives for one in some)}
    means = [np.mean(own), np.mean(other), np.mean(mined), harder / SIZE]
    return len(set(positives)), len(texts), means


def test_a_dry_run_tells_how_hard_a_batch_is(run_copy):
    report = run_pack(
        PackConfig(run_dir=str(run_copy), batch_size=SIZE, k=K, seed=SEED, dry_run=True)
    )
    held, scores = (
        line for line in report.lines if "random batch holds" in line or "there a" in line
    )
    positives, texts, means = expected(run_copy)
    assert held.startswith(f"a random batch holds {positives:,} (")
    assert f" {texts:,} (" in held
    found = [float(one) for one in re.findall(r"\d\.\d{3}", scores)]
    assert found == pytest.approx(means[:3], abs=6e-4)
    assert f"(harder in {means[3]:.0%} of the rows)" in scores


@pytest.mark.parametrize("negatives_from", ["positives", "corpus"])
def test_it_knows_whether_negatives_are_positives_of_some_row(run_copy, negatives_from):
    fields = {"k": K, "relative_margin": None, "negatives_from": negatives_from, "device": "cpu"}
    run_mine(MineConfig(run_dir=str(run_copy), **fields))
    run_pack(PackConfig(run_dir=str(run_copy), batch_size=SIZE, seed=SEED))
    run = RunDir(run_copy)
    found = BatchHardness.read(require(run, "batches"))
    store = TextStore.open(require(run, "texts"))
    pools = Pools.open(require(run, "negatives"), store.pair_query_ids, False, store.num_passages)
    rows = np.random.default_rng(SEED).choice(pools.rows, SIZE, replace=False)
    mined = [one for row in rows for one in pools.ids_NS[row, :K].tolist() if one >= 0]
    strange = [one for one in mined if one not in set(store.pair_passage_ids.tolist())]
    assert found is not None
    assert found.unlabelled == pytest.approx(len(strange) / len(mined))
    assert bool(strange) == (negatives_from == "corpus")


def test_a_batch_without_negatives_has_no_hardness_of_them(run_copy):
    report = run_pack(PackConfig(run_dir=str(run_copy), batch_size=SIZE, k=0, dry_run=True))
    line = next(line for line in report.lines if line.startswith("there a row's positive"))
    assert "own negatives" not in line
    assert "nan" not in line


@pytest.mark.parametrize(
    ("harder", "own", "unlabelled", "words"),
    [
        (0.62, 0.5, 0.1, "pay here, by what was measured"),
        (0.45, 0.5, 0.1, "is open: `stx-mine tune` tells"),
        (0.3, 0.5, 0.1, "may cost more than they give here"),
        (0.4, 0.5, 0.0, "pay here, by what was measured"),
        (0.3, 0.5, 0.0, "is open: `stx-mine tune` tells"),
        (0.0, None, 0.0, ""),
    ],
)
def test_what_was_measured_says_whether_mining_pays(harder, own, unlabelled, words):
    found = BatchHardness(10, 30, 100, 0.6, 0.4, own, harder, unlabelled)
    assert words in found.advice
    assert (found.advice in found.sentences) == bool(words)
    text = " ".join(found.sentences)
    assert "10 (10.0%) of 100 passages" in text
    assert ("its own negatives" in text) == (own is not None)
