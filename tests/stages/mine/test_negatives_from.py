"""Which passages may be negatives: those that are a positive of some row, or all."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stx_mine.core.verdicts import Verdict
from stx_mine.errors import InputError
from stx_mine.stages.audit.audited_run import AuditedRun
from stx_mine.stages.audit.hidden import HiddenPositives
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.store.artifact import require
from stx_mine.store.files import read_json
from stx_mine.store.negatives import pool_files, read_verdicts
from stx_mine.store.pools import Pools
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore


def mine(run, **fields):
    fields = {"relative_margin": None, **fields}
    return run_mine(MineConfig(run_dir=str(run), device="cpu", **fields))


def embedded(small_input, folder, num_others):
    """The small pairs, with so many passages of no pair beside those that they have."""
    passages = pq.read_table(small_input / "pairs.parquet")["passage"].unique()
    others = pq.read_table(small_input / "corpus.parquet")["passage"].to_pylist()
    others = [one for one in others if one not in set(passages.to_pylist())][:num_others]
    assert len(others) == num_others
    corpus = folder / "corpus.parquet"
    pq.write_table(pa.table({"passage": others}), corpus)
    run = folder / "run"
    run_embed(
        EmbedConfig(
            pairs=str(small_input / "pairs.parquet"),
            corpus=str(corpus),
            device="cpu",
            run_dir=str(run),
        )
    )
    return run


@pytest.fixture(scope="module")
def mostly_labelled(small_input, tmp_path_factory):
    return embedded(small_input, tmp_path_factory.mktemp("mostly"), 100)


def pools_and_labels(run):
    store = TextStore.open(require(RunDir(run), "texts"))
    negatives = require(RunDir(run), "negatives")
    ids_NS = Pools.open(negatives, store.pair_query_ids, False, store.num_passages).ids_NS
    return ids_NS[ids_NS >= 0], np.unique(store.pair_passage_ids), negatives


def test_where_most_passages_are_positives_others_are_no_negatives(mostly_labelled):
    report = mine(mostly_labelled)
    mined, labelled, negatives = pools_and_labels(mostly_labelled)
    assert np.isin(mined, labelled).all()
    assert negatives.fields["negatives_from"] == "positives"
    # Every hit that is a positive of no row has that verdict, and no other hit.
    store = TextStore.open(require(RunDir(mostly_labelled), "texts"))
    unlabelled = ~np.isin(np.arange(store.num_passages), labelled)
    for name in pool_files(negatives):
        table = read_verdicts(negatives, name)
        hits = table["hit_ids"].combine_chunks().flatten().to_numpy()
        verdicts = table["verdicts"].combine_chunks().flatten().to_numpy()
        np.testing.assert_array_equal(verdicts == Verdict.UNLABELLED, unlabelled[hits])
    assert report.counts["dropped"]["unlabelled"] > 0
    line = next(one for one in report.lines if "a positive of some row" in one)
    assert "others would only ever be pushed away; --negatives-from corpus takes all" in line


def test_the_whole_corpus_is_taken_where_that_is_asked_and_back(mostly_labelled):
    """The hits are the same: nothing is searched again."""
    whole = mine(mostly_labelled, negatives_from="corpus")
    mined, labelled, _ = pools_and_labels(mostly_labelled)
    assert not np.isin(mined, labelled).all()
    assert "unlabelled" not in {name for name, number in whole.counts["dropped"].items() if number}
    assert any("hits reused" in line for line in whole.lines)
    back = mine(mostly_labelled)
    assert not back.skipped
    assert np.isin(pools_and_labels(mostly_labelled)[0], labelled).all()
    # What auto decided and what a person asks for by name is the same.
    assert mine(mostly_labelled, negatives_from="positives").skipped


def test_where_few_passages_are_positives_all_are_taken(small_run, tmp_path):
    negatives = require(RunDir(small_run), "negatives")
    assert negatives.fields["negatives_from"] == "corpus"
    mined, labelled, _ = pools_and_labels(small_run)
    assert not np.isin(mined, labelled).all()


def test_ranks_count_among_what_may_be_a_negative(mostly_labelled):
    """A window of ranks is one of candidates, and a passage that can be none is no candidate."""
    mine(mostly_labelled, range_min=2)
    _, labelled, negatives = pools_and_labels(mostly_labelled)
    for name in pool_files(negatives):
        table = read_verdicts(negatives, name)
        for verdicts, hits in zip(
            table["verdicts"].to_pylist(), table["hit_ids"].to_pylist(), strict=True
        ):
            windowed = [h for v, h in zip(verdicts, hits, strict=True) if v == Verdict.RANK_WINDOW]
            assert len(windowed) == 2
            assert np.isin(windowed, labelled).all()


def test_a_plan_from_before_the_choice_does_not_stand_for_it(mostly_labelled):
    """Negatives of the whole corpus, of a version that knew no other, are selected anew."""
    mine(mostly_labelled)
    plan = RunDir(mostly_labelled).folder("negatives") / "manifest.json"
    content = read_json(plan)
    del content["fields"]["negatives_from"]
    plan.write_text(json.dumps(content))
    assert not mine(mostly_labelled).skipped


def test_positives_that_an_audit_hides_may_still_be_mined(several_run, tmp_path):
    """What is hidden is a positive of the run: else no hidden one would ever be found false."""
    run = tmp_path / "run"
    shutil.copytree(several_run, run)
    mine(run)
    audited = AuditedRun.open(RunDir(run), "cpu")
    hidden = HiddenPositives.draw(audited.store, audited.groups, 1.0, 0, 1_000)
    assert len(hidden.keys)
    groups = audited.groups.passages
    is_hidden = np.isin(groups, hidden.keys % audited.groups.num_groups)
    without = np.unique(groups[hidden.store.pair_passage_ids])
    assert not np.isin(groups[is_hidden], without).all()
    assert audited.selector(hidden).is_labelled[is_hidden].all()


def test_nothing_left_says_what_to_loosen(tmp_path):
    """Two queries of one passage have no other positive to be told from."""
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("query,passage\nred fruit,apple\nround fruit,apple\n")
    corpus = tmp_path / "corpus.csv"
    corpus.write_text("passage\npear\n")
    run = tmp_path / "run"
    run_embed(EmbedConfig(pairs=str(pairs), corpus=str(corpus), device="cpu", run_dir=str(run)))
    with pytest.raises(InputError, match=r"loosen --negatives-from .*: without it 2 would be left"):
        mine(run, k=1)
    assert mine(run, k=1, negatives_from="corpus").counts["pooled"] == 2
