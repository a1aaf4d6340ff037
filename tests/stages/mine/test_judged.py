"""`mine --judges`: what judges decide, what becomes of it, and who hears of it."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Cli
from hypothesis import given, settings
from hypothesis import strategies as st

from stx_mine.core.verdicts import Verdict
from stx_mine.errors import ConfigError
from stx_mine.stages.export.config import ExportConfig
from stx_mine.stages.export.stage import run_export
from stx_mine.stages.judge.config import JudgeConfig
from stx_mine.stages.judge.stage import run_judge
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.core.opinions import Opinion, agreed, opinions_of
from stx_mine.stages.mine.judges import JudgeControl
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.verify.config import VerifyConfig
from stx_mine.stages.verify.stage import run_verify
from stx_mine.store.artifact import require
from stx_mine.store.judgements import StoredJudgements
from stx_mine.store.negatives import (
    MADE_PAIRS,
    MASKED_PAIRS,
    pool_files,
    read_verdicts,
    rows_of,
    with_judged,
)
from stx_mine.store.pools import Pools
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

JUDGE = """
import numpy as np, zlib
def judge(pairs):
    return np.array([zlib.crc32((q + '|' + p).encode()) % 1000 / 1000 for q, p in pairs])
def another(pairs):
    return np.array([zlib.crc32((p + '|' + q).encode()) % 1000 / 1000 for q, p in pairs])
"""


@pytest.fixture
def judged_run(run_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose candidates in doubt were scored by two judges that know nothing."""
    (tmp_path / "judging_hashes.py").write_text(JUDGE)
    monkeypatch.chdir(tmp_path)
    for name in ("judge", "another"):
        judge = f"judging_hashes:{name}"
        run_judge(JudgeConfig(run_dir=str(run_copy), cross_encoder=judge, name=name))
    return run_copy


def mined(run: Path, **fields):
    """Mine by the word of judges that by default would not be believed."""
    config = {"k": 4, "judges": ("judge",), "relative_margin": None, "device": "cpu"}
    config = {**config, "judged": "relabel", **fields}
    return run_mine(MineConfig(run_dir=str(run), **config))


def opened(run: Path):
    """The negatives, the texts, and the texts with what judges made of their pairs."""
    negatives = require(RunDir(run), "negatives")
    store = TextStore.open(require(RunDir(run), "texts"))
    return negatives, store, with_judged(store, negatives)


def expected_opinions(run: Path, margin: float = 0.1) -> dict[tuple[int, int], Opinion]:
    """Opinion of the judge about each hit that it judged, pair by pair."""
    negatives, store, _ = opened(run)
    judged = StoredJudgements.open(require(RunDir(run), "judgements", "judge"), store)
    scores = dict(zip(judged.keys.tolist(), judged.scores, strict=True))
    below = np.median(judged.random_scores)
    lowest: dict[int, np.float32] = {}
    for query, passage in zip(store.pair_query_ids, store.pair_passage_ids, strict=True):
        score = scores.get(int(query * store.num_passages + passage))
        if score is not None and score >= below:
            lowest[int(query)] = min(score, lowest.get(int(query), np.float32(2)))
    found = {}
    for name in pool_files(negatives):
        for row in read_verdicts(negatives, name).to_pylist():
            query = row["query_id"]
            for passage in row["hit_ids"]:
                score = scores.get(query * store.num_passages + passage)
                if score is None or query not in lowest:
                    continue
                limit = lowest[query] * np.float32(1 - margin)
                opinion = Opinion.CLOSE if score >= limit else Opinion.WORSE
                opinion = Opinion.BETTER if score >= lowest[query] else opinion
                # No better than half of the random passages is no positive.
                found[query, passage] = opinion if score > below else Opinion.WORSE
    return found


def verdicts_of(run: Path) -> dict[tuple[int, int], Verdict]:
    negatives, _, _ = opened(run)
    return {
        (row["query_id"], passage): Verdict(verdict)
        for name in pool_files(negatives)
        for row in read_verdicts(negatives, name).to_pylist()
        for passage, verdict in zip(row["hit_ids"], row["verdicts"], strict=True)
    }


def test_what_is_no_worse_becomes_a_positive_and_what_is_close_is_masked(judged_run: Path) -> None:
    report = mined(judged_run)
    opinions, verdicts = expected_opinions(judged_run), verdicts_of(judged_run)
    of_opinion = {Opinion.BETTER: Verdict.JUDGED_POSITIVE, Opinion.CLOSE: Verdict.JUDGED_CLOSE}
    excluded = (Verdict.OWN_TEXT, Verdict.KNOWN_POSITIVE, Verdict.DUPLICATE_GROUP)
    made, masked = set(), set()
    for pair, opinion in opinions.items():
        if verdicts[pair] in excluded:
            continue
        assert verdicts[pair] == of_opinion.get(opinion, verdicts[pair])
        if opinion == Opinion.WORSE:
            assert verdicts[pair] in (Verdict.POOLED, Verdict.BEYOND_POOL)
        (made if opinion == Opinion.BETTER else masked if opinion == Opinion.CLOSE else set()).add(
            pair
        )
    negatives, store, whole = opened(judged_run)
    assert len(made) > 50
    assert len(masked) > 5
    assert set(zip(*table_of(negatives, MADE_PAIRS), strict=True)) == made
    assert set(zip(*table_of(negatives, MASKED_PAIRS), strict=True)) == masked
    assert report.counts["pairs_made"] == len(made)
    many = len(made) > 0.5 * report.counts["pairs_in"]
    assert any("is the judge a good one?" in line for line in report.warnings) == many
    assert whole.num_pairs == store.num_pairs + len(made)
    pools = Pools.open(negatives, whole.pair_query_ids, num_passages=whole.num_passages)
    for pair, ids in zip(whole.pair_query_ids.tolist(), pools.ids_NS.tolist(), strict=True):
        assert not {(pair, passage) for passage in ids} & (made | masked)


def table_of(negatives, name: str) -> list[list[int]]:
    return [column.to_pylist() for column in negatives.table(name).columns]


def test_pairs_whose_positive_is_judged_below_random_passages_are_dropped(judged_run: Path) -> None:
    report = mined(judged_run)
    negatives, store, whole = opened(judged_run)
    judged = StoredJudgements.open(require(RunDir(judged_run), "judgements", "judge"), store)
    scores = judged.find(store.pair_query_ids, store.pair_passage_ids)
    wrong = np.flatnonzero(scores < np.median(judged.random_scores))
    assert report.counts["pairs_dropped"]["judged_wrong"] == len(wrong) > 20
    rows = rows_of(negatives, whole.num_pairs)
    assert set(wrong) & set(rows) == set()
    assert set(range(whole.num_pairs)) - set(wrong) == set(rows.tolist())


@pytest.mark.parametrize("judged", ["mask", "drop"])
def test_what_is_judged_may_be_masked_or_no_negative_only(judged_run: Path, judged: str) -> None:
    mined(judged_run)
    relabelled = verdicts_of(judged_run)
    report = mined(judged_run, judged=judged)
    assert verdicts_of(judged_run) == relabelled
    assert report.counts["pairs_made"] == 0
    negatives, store, whole = opened(judged_run)
    assert whole.num_pairs == store.num_pairs
    no_negatives = {
        pair
        for pair, verdict in relabelled.items()
        if verdict in (Verdict.JUDGED_POSITIVE, Verdict.JUDGED_CLOSE)
    }
    masked = set(zip(*(one.tolist() for one in whole.other_positives), strict=True))
    assert masked == (no_negatives if judged == "mask" else set())
    assert negatives.has(MASKED_PAIRS) == (judged == "mask")


@pytest.mark.parametrize("layout", ["inline", "ids"])
def test_batches_have_the_pairs_that_judges_made(judged_run: Path, layout: str) -> None:
    mined(judged_run, short_rows="drop")
    negatives, store, whole = opened(judged_run)
    rows = rows_of(negatives, whole.num_pairs)
    assert (rows >= store.num_pairs).sum() > 30
    run_pack(PackConfig(run_dir=str(judged_run), batch_size=32, k=4, packings=1, layout=layout))
    shards = sorted((judged_run / "batches/epoch-000").glob("train-*.parquet"))
    num_made = int((rows >= store.num_pairs).sum())
    card = (judged_run / "batches/README.md").read_text()
    assert f"{len(rows):,} pairs, {num_made:,} of which\nare the word of judges (`judge`)" in card
    assert run_verify(VerifyConfig(run_dir=str(judged_run))).counts["batches"] > 10
    if layout == "inline":
        texts = store.queries["text"].to_pylist(), store.passages["text"].to_pylist()
        made = [
            (texts[0][query], texts[1][passage])
            for query, passage in zip(*table_of(negatives, MADE_PAIRS), strict=True)
        ]
        tables = [pq.read_table(path, columns=["anchor", "positive"]) for path in shards]
        packed = {tuple(row.values()) for table in tables for row in table.to_pylist()}
        assert len(packed & set(made)) > 30


def test_exports_have_them_too(judged_run: Path) -> None:
    mined(judged_run)
    negatives, store, _ = opened(judged_run)
    run_export(ExportConfig(run_dir=str(judged_run), to="triplet", k=1))
    files = (judged_run / "exports/triplet/data").iterdir()
    lines = [row for path in files for row in pq.read_table(path).to_pylist()]
    pairs = {(one["anchor"], one["positive"]) for one in lines}
    made = [
        (store.queries["text"][query].as_py(), store.passages["text"][passage].as_py())
        for query, passage in zip(*table_of(negatives, MADE_PAIRS), strict=True)
    ]
    assert len(pairs & set(made)) > 30


def test_two_judges_have_to_agree(judged_run: Path) -> None:
    both = ("judge", "another")
    mined(judged_run, judges=both)
    agree = verdicts_of(judged_run)
    mined(judged_run, judges=both, votes=1)
    either = verdicts_of(judged_run)

    def positives(found):
        return {pair for pair, verdict in found.items() if verdict == Verdict.JUDGED_POSITIVE}

    assert 0 < len(positives(agree)) < len(positives(either))


def test_more_judgements_make_negatives_stale(judged_run: Path) -> None:
    mined(judged_run)
    assert mined(judged_run).skipped
    judge = "judging_hashes:judge"
    report = run_judge(
        JudgeConfig(run_dir=str(judged_run), cross_encoder=judge, name="judge", band=0.2)
    )
    assert any("stale now" in line and "negatives" in line for line in report.lines)
    assert not mined(judged_run).skipped


def test_what_cannot_be_asked_of_judges_is_refused(judged_run: Path, cli_here: Cli) -> None:
    with pytest.raises(ConfigError, match="--votes must be at most the 1 judges, found 2"):
        MineConfig(judges=("a",), votes=2)
    with pytest.raises(ConfigError, match="--judges must differ"):
        MineConfig(judges=("a", "a"))
    with pytest.raises(ConfigError, match="give --judged mask"):
        MineConfig(judges=("a",), positive_score="pair", judged="relabel")
    MineConfig(judges=("a",), positive_score="pair", judged="mask")
    error = cli_here("mine", "--judges", "nobody", run_dir=judged_run).error
    assert "judgements/nobody" in error
    assert "stx-mine judge" in error


def lines_of(report) -> str:
    return "\n".join(report.lines)


def test_judges_that_know_nothing_are_refused_or_not_believed(judged_run: Path) -> None:
    with pytest.raises(ConfigError, match="random passages at least as high as the positive"):
        mined(judged_run, judged="auto", judges=("judge", "another"), votes=1)
    report = mined(judged_run, judged="auto")
    negatives, store, whole = opened(judged_run)
    assert whole.num_pairs == store.num_pairs
    assert whole.other_positives.shape[1] > 50
    assert report.counts["pairs_dropped"]["judged_wrong"] == 0
    assert negatives.extra["judged"] == "mask"
    random, above = random_judged(judged_run)
    assert (report.counts["random_judged"], report.counts["random_judged_positive"]) == (
        *(len(random), int(above.sum())),
    )
    assert len(random) > 100
    assert 0.3 < above.mean() < 0.5
    assert f"of {len(random):,} random passages, which answer nothing" in lines_of(report)
    assert "no pair is made or dropped by their word (--judged relabel would)" in lines_of(report)


def random_judged(run: Path):
    """Random passages beside a judged positive, and whether they score as high."""
    _, store, _ = opened(run)
    judged = StoredJudgements.open(require(RunDir(run), "judgements", "judge"), store)
    scores = dict(zip(judged.keys.tolist(), judged.scores, strict=True))
    found = []
    for key, score in zip(judged.random_keys.tolist(), judged.random_scores, strict=True):
        query = key // store.num_passages
        positives = store.pair_passage_ids[store.pair_query_ids == query]
        known = [scores.get(query * store.num_passages + int(one)) for one in positives]
        known = [one for one in known if one is not None]
        if known:
            found.append((key, score >= min(known)))
    keys, above = zip(*found, strict=True)
    return keys, np.array(above)


GOOD_JUDGE = """
import json, numpy as np, zlib
KNOWN = {tuple(one) for one in json.load(open("pairs.json"))}
def one(q, p):
    # A hundredth of the others are as good as the pairs of the input.
    found = zlib.crc32((p + '|' + q).encode()) % 100 < 1
    return 0.9 if (q, p) in KNOWN else 0.95 if found else 0.2
def judge(pairs):
    return np.array([one(*pair) for pair in pairs])
"""


def test_judges_that_tell_positives_from_random_passages_are_believed(
    run_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = TextStore.open(require(RunDir(run_copy), "texts"))
    texts = [
        table["text"].take(pa.array(ids)).to_pylist()
        for table, ids in (
            (store.queries, store.pair_query_ids),
            (store.passages, store.pair_passage_ids),
        )
    ]
    (tmp_path / "pairs.json").write_text(json.dumps(list(zip(*texts, strict=True))))
    (tmp_path / "judging_well.py").write_text(GOOD_JUDGE)
    monkeypatch.chdir(tmp_path)
    judge = "judging_well:judge"
    run_judge(JudgeConfig(run_dir=str(run_copy), cross_encoder=judge, name="judge"))
    report = mined(run_copy, judged="auto")
    negatives, _, whole = opened(run_copy)
    random, above = random_judged(run_copy)
    assert JudgeControl(len(random), int(above.sum())).is_trusted
    assert negatives.extra["judged"] == "relabel"
    assert report.counts["pairs_made"] == whole.num_pairs - store.num_pairs > 5
    assert "few enough to train on what they take for positives" in lines_of(report)
    own = mined(run_copy, judged="auto", positive_score="pair")
    assert own.counts["pairs_made"] == 0
    assert "--positive-score pair makes no pairs (--judged mask)" in lines_of(own)


@pytest.mark.parametrize(
    ("random", "above", "is_trusted"),
    [
        *((0, 0, False), (50, 0, False), (73, 0, True), (72, 0, False)),
        *((256, 5, True), (256, 6, False), (256, 26, False), (10_000, 400, True)),
    ],
)
def test_few_random_passages_prove_little(random: int, above: int, is_trusted: bool) -> None:
    """Trusted where 5% lies above Wilson's interval of 95%."""
    control = JudgeControl(random, above)
    assert control.is_trusted == is_trusted
    assert (control.most <= 0.05) == is_trusted


def test_equal_grades_at_the_bottom_make_no_positive() -> None:
    """A positive that is graded as irrelevant is no better than what is irrelevant."""
    scores, positives = np.float32([0, 0.5, 0, 1]), np.float32([0, 0, 0.5, 0.5])
    found = opinions_of(scores, positives, 0.1, floor=0.0)
    assert found.tolist() == [Opinion.WORSE, Opinion.BETTER, Opinion.WORSE, Opinion.BETTER]


def test_pairs_with_pools_of_their_own_can_be_masked(judged_run: Path) -> None:
    mined(judged_run, positive_score="pair", judged="mask")
    _, store, whole = opened(judged_run)
    assert whole.num_pairs == store.num_pairs
    assert whole.other_positives.shape[1] > 50


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(*[st.one_of(st.just(float("nan")), st.floats(0, 1, width=32))] * 2),
        max_size=20,
    ),
    st.sampled_from([0.0, 0.1, 1.0]),
)
def test_an_opinion_is_how_a_score_compares(scores: list[tuple[float, float]], margin: float):
    hits, positives = np.array(scores, np.float32).reshape(-1, 2).T
    for one, hit, positive in zip(
        opinions_of(hits, positives, margin), hits, positives, strict=True
    ):
        if np.isnan(hit) or np.isnan(positive):
            assert one == Opinion.NONE
        elif hit >= positive:
            assert one == Opinion.BETTER
        else:
            is_close = hit >= positive * np.float32(1 - margin)
            assert one == (Opinion.CLOSE if is_close else Opinion.WORSE)


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), max_size=20), st.integers(1, 3)
)
def test_votes_are_counted(opinions: list[tuple[int, int, int]], votes: int) -> None:
    found = agreed(np.array(opinions, np.uint8).reshape(-1, 3).T, votes)
    for one, given_ in zip(found, opinions, strict=True):
        if given_.count(Opinion.BETTER) >= votes:
            assert one == Opinion.BETTER
        elif given_.count(Opinion.BETTER) + given_.count(Opinion.CLOSE) >= votes:
            assert one == Opinion.CLOSE
        else:
            assert one == (Opinion.WORSE if given_.count(Opinion.WORSE) >= votes else Opinion.NONE)
