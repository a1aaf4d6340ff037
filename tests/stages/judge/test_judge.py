"""`judge`: which pairs are judged, by what scores, and what is known of them afterwards."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import Cli
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import CrossEncoder

from stx_mine.core.verdicts import NO_CANDIDATES
from stx_mine.errors import ArtifactError, ConfigError, InputError, ModelError
from stx_mine.stages.judge.asked import ASKED, KNOWN
from stx_mine.stages.judge.config import JudgeConfig
from stx_mine.stages.judge.core.budget import affordable
from stx_mine.stages.judge.doubt import Budget, DoubtfulPairs, doubtful_pairs
from stx_mine.stages.judge.stage import run_judge
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.selector import Selector
from stx_mine.stages.mine.stage import run_mine
from stx_mine.store.artifact import MANIFEST, Manifest, require
from stx_mine.store.files import read_table, write_array
from stx_mine.store.judgements import JUDGEMENTS, StoredJudgements
from stx_mine.store.negatives import pool_files, read_verdicts
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

FUNCTION = """
import numpy as np
calls = []
def judge(pairs):
    calls.append(len(pairs))
    return np.array([len(set(q) & set(p)) / (1 + len(set(q) | set(p))) for q, p in pairs])
def wide(pairs):
    return np.zeros((len(pairs), 2))
def short(pairs):
    return np.zeros(1)
def logits(pairs):
    return np.full(len(pairs), 7.0)
def nothing(pairs):
    return np.full(len(pairs), np.nan)
def some(pairs):
    found = judge(pairs)
    found[[len(q) % 3 == 0 for q, _ in pairs]] = np.nan
    return found
def alike(pairs):
    return np.full(len(pairs), 0.5)
def fails(pairs):
    raise KeyError("no such key")
"""


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "judging_letters.py").write_text(FUNCTION)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "judging_letters", raising=False)


def config_of(run: Path, **fields) -> JudgeConfig:
    own = {"cross_encoder": "judging_letters:judge", "name": "letters", **fields}
    return JudgeConfig(run_dir=str(run), **own)


def judgements(run: Path, name: str = "letters") -> Manifest:
    return require(RunDir(run), "judgements", name)


def texts_of(run: Path) -> TextStore:
    return TextStore.open(require(RunDir(run), "texts"))


def by_texts(run: Path, name: str = "letters") -> dict[tuple[str, str], float]:
    """What is judged of the texts of a run, by its texts."""
    store = texts_of(run)
    found = StoredJudgements.open(judgements(run, name), store)
    queries, passages = (
        table.column("text").to_pylist() for table in (store.queries, store.passages)
    )
    pairs = (divmod(int(key), store.num_passages) for key in found.keys)
    scores = found.scores.tolist()
    return {(queries[q], passages[p]): s for (q, p), s in zip(pairs, scores, strict=True)}


def doubtful(run: Path, band: float) -> set[tuple[int, int]]:
    """Candidates within the band of their positive, hit by hit."""
    negatives = require(RunDir(run), "negatives")
    return {
        (row["query_id"], passage)
        for name in pool_files(negatives)
        for row in read_verdicts(negatives, name).to_pylist()
        for passage, score, verdict in zip(
            row["hit_ids"], row["hit_scores"], row["verdicts"], strict=True
        )
        if verdict not in NO_CANDIDATES
        and abs(np.float32(score) - np.float32(row["positive_score"]))
        <= np.float32(band) * np.float32(abs(row["positive_score"]))
    }


@pytest.mark.parametrize("positive_score", ["lowest", "pair"])
def test_candidates_in_the_band_are_judged_beside_their_positives(
    run_copy: Path, positive_score: str
) -> None:
    run_mine(MineConfig(run_dir=str(run_copy), positive_score=positive_score, device="cpu"))
    store = texts_of(run_copy)
    expected = doubtful(run_copy, 0.1)
    found = asked_of(run_copy, 0.1)
    pairs = set(zip(found.query_ids.tolist(), found.passage_ids.tolist(), strict=True))
    asked = {query for query, _ in expected}
    known = set(zip(store.pair_query_ids.tolist(), store.pair_passage_ids.tolist(), strict=True))
    random = {pair for pair, drawn in zip(pairs_of(found), found.is_random, strict=True) if drawn}
    assert len(expected) == found.num_candidates > 100
    assert pairs - random == expected | {pair for pair in known if pair[0] in asked}
    assert 0 < len(random) <= 256
    assert found.num_queries == len(asked)


def asked_of(run: Path, band: float, max_pairs: int | None = None) -> DoubtfulPairs:
    negatives = require(RunDir(run), "negatives")
    selector = Selector.of_negatives(RunDir(run), negatives, texts_of(run))
    return doubtful_pairs(negatives, selector, band, Budget(max_pairs), 42)


def pairs_of(found) -> list[tuple[int, int]]:
    return list(zip(found.query_ids.tolist(), found.passage_ids.tolist(), strict=True))


def test_a_budget_takes_the_best_candidates_of_every_query_first(small_run: Path) -> None:
    negatives = require(RunDir(small_run), "negatives")
    whole = asked_of(small_run, 0.2)
    for budget in (0.3, 0.6):
        most = int(budget * len(whole.query_ids))
        some = asked_of(small_run, 0.2, most)
        assert 0.9 * most <= len(some.query_ids) <= most
        assert some.num_candidates + some.num_beyond == whole.num_candidates
        drawn = {
            pair for pair, random in zip(pairs_of(some), some.is_random, strict=True) if random
        }
        kept = set(pairs_of(some)) - drawn
        lost = set(pairs_of(whole)) - kept - drawn
        places: dict[int, int] = {}
        of_kept, of_lost = [], []
        for query, passage in ordered_candidates(negatives, 0.2):
            place = places[query] = places.get(query, -1) + 1
            if (query, passage) in kept:
                of_kept.append(place)
            elif (query, passage) in lost:
                of_lost.append(place)
        assert max(of_kept) <= min(of_lost) + 1


def ordered_candidates(negatives: Manifest, band: float) -> list[tuple[int, int]]:
    allowed = doubtful(negatives.folder.parent, band)
    return [
        (row["query_id"], passage)
        for name in pool_files(negatives)
        for row in read_verdicts(negatives, name).to_pylist()
        for passage in row["hit_ids"]
        if (row["query_id"], passage) in allowed
    ]


@given(
    st.lists(st.integers(0, 5), max_size=30),
    st.lists(st.integers(0, 4), min_size=6, max_size=6),
    st.integers(0, 40),
)
def test_as_many_as_a_budget_pays_for(
    queries: list[int], num_positives: list[int], budget: int
) -> None:
    found = affordable(np.array(queries, np.int64), np.array(num_positives), budget)
    costs = [
        number + sum(num_positives[query] for query in set(queries[:number]))
        for number in range(len(queries) + 1)
    ]
    assert costs[found] <= budget
    assert found == len(queries) or costs[found + 1] > budget


def test_scores_are_those_of_the_model(run_copy: Path, tiny_cross_encoder: Path) -> None:
    run_judge(config_of(run_copy, cross_encoder=str(tiny_cross_encoder), device="cpu", band=0.05))
    found = by_texts(run_copy)
    assert len(found) > 100
    model = CrossEncoder(str(tiny_cross_encoder), device="cpu")
    expected = model.predict([list(pair) for pair in found], show_progress_bar=False)
    np.testing.assert_allclose(list(found.values()), expected, atol=1e-5)
    assert np.std(expected) > 0.01


def test_pairs_that_only_the_model_knows_to_read_score_alike(
    run_copy: Path, tiny_cross_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"cross_encoder": str(tiny_cross_encoder), "device": "cpu", "band": 0.05}
    run_judge(config_of(run_copy, **options))
    monkeypatch.setattr("stx_mine.models.token_inputs._same", lambda *_: False)
    run_judge(config_of(run_copy, **{**options, "name": "by-predict"}))
    one, two = by_texts(run_copy), by_texts(run_copy, "by-predict")
    assert list(one) == list(two)
    np.testing.assert_allclose(list(one.values()), list(two.values()), atol=1e-5)


def test_half_precision_is_another_judge_of_nearly_the_same_scores(
    run_copy: Path, tiny_cross_encoder: Path
) -> None:
    options = {"cross_encoder": str(tiny_cross_encoder), "device": "cpu", "band": 0.02}
    run_judge(config_of(run_copy, **options))
    with pytest.raises(ArtifactError, match="precision was 'float32' and is 'bfloat16' now"):
        run_judge(config_of(run_copy, precision="bfloat16", **options))
    run_judge(config_of(run_copy, precision="bfloat16", **{**options, "name": "half"}))
    one, two = by_texts(run_copy), by_texts(run_copy, "half")
    assert one != two
    np.testing.assert_allclose(list(one.values()), list(two.values()), atol=0.1)


@pytest.mark.usefixtures("functions")
def test_nothing_in_doubt_is_said(run_copy: Path) -> None:
    with pytest.raises(ConfigError, match="--band 1e-09 of their positive, found none"):
        run_judge(config_of(run_copy, band=1e-9))


def test_a_longer_limit_is_another_judge(run_copy: Path, tiny_cross_encoder: Path) -> None:
    options = {"cross_encoder": str(tiny_cross_encoder), "device": "cpu", "band": 0.02}
    run_judge(config_of(run_copy, max_length=24, **options))
    with pytest.raises(ArtifactError, match="max_length was 24 and is 128 now"):
        run_judge(config_of(run_copy, **options))
    short = by_texts(run_copy)
    run_judge(config_of(run_copy, overwrite=True, **options))
    assert by_texts(run_copy).keys() == short.keys()
    assert by_texts(run_copy) != short
    with pytest.raises(ConfigError, match="positions"):
        run_judge(config_of(run_copy, max_length=512, **{**options, "name": "long"}))


@pytest.mark.usefixtures("functions")
def test_what_was_judged_once_is_known(run_copy: Path) -> None:
    import judging_letters

    run_judge(config_of(run_copy, band=0.05))
    narrow, num_narrow = by_texts(run_copy), sum(judging_letters.calls)
    judging_letters.calls.clear()
    assert run_judge(config_of(run_copy, band=0.05)).skipped
    assert judging_letters.calls == []
    report = run_judge(config_of(run_copy, band=0.1))
    assert report.counts["known"] == num_narrow
    assert report.counts["judged"] == sum(judging_letters.calls) > 0
    wide = by_texts(run_copy)
    assert narrow.items() < wide.items()
    # A narrower band asks for nothing that is not known.
    judging_letters.calls.clear()
    assert run_judge(config_of(run_copy, band=0.05)).skipped
    assert by_texts(run_copy) == wide


@pytest.mark.usefixtures("functions")
def test_judgements_hold_for_the_texts_of_any_run(run_copy: Path, small_run: Path) -> None:
    """Ids are others where a run has more texts; digests are the same."""
    run_judge(config_of(run_copy))
    store, first = texts_of(run_copy), by_texts(run_copy)
    found = StoredJudgements.open(judgements(run_copy), store)
    order = np.random.default_rng(0).permutation(store.num_passages)
    moved = replace(store, passages=store.passages.take(pa.array(order)))
    again = StoredJudgements.open(judgements(run_copy), moved)
    assert len(again.keys) == len(first)
    queries, passages = np.divmod(found.keys, store.num_passages)
    places = np.argsort(order)[passages]
    assert (again.find(queries, places) == found.scores).all()
    assert np.isnan(again.find(queries[:1], (places[:1] + 1) % store.num_passages)).all()


@pytest.mark.usefixtures("functions")
def test_a_killed_command_goes_on(run_copy: Path, tmp_path: Path) -> None:
    import judging_letters

    small = {"task_pairs": 64}
    run_judge(config_of(run_copy, **small))
    folder = run_copy / "judgements/letters"
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(whole) == {"plan.json", MANIFEST, JUDGEMENTS}
    begun = unfinished(run_copy, damaged=True, **small)
    judging_letters.calls.clear()
    run_judge(config_of(begun, **small))
    done = begun / "judgements/letters"
    assert (done / JUDGEMENTS).read_bytes() == whole[JUDGEMENTS]
    assert {path.name for path in done.iterdir()} == set(whole)
    left = len(judging_letters.calls)
    shutil.rmtree(done)
    begun = unfinished(run_copy, damaged=True, **small)
    judging_letters.calls.clear()
    # Another command of the same judge takes over what is there.
    run_judge(config_of(begun, band=0.12, **small))
    assert by_texts(begun).items() > by_texts(run_copy).items()
    assert len(judging_letters.calls) > left


def unfinished(run: Path, damaged: bool = False, **options) -> Path:
    """A copy of a run whose judgements were killed with half of the tasks done."""
    copy = run.parent / "begun"
    shutil.copytree(run, copy, dirs_exist_ok=True)
    folder = copy / "judgements/letters"
    for path in folder.iterdir():
        path.unlink()

    def stop(*_args, **_named):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stx_mine.stages.judge.stage._finish", stop)
        with pytest.raises(KeyboardInterrupt):
            run_judge(config_of(copy, **options))
    assert not (folder / MANIFEST).exists()
    assert {ASKED, KNOWN} < {path.name for path in folder.iterdir()}
    scores = sorted(folder.glob("scores-*"))
    assert len(scores) > 3
    for path in scores[::2]:
        path.unlink()
    # What is no file of scores of its task is judged anew.
    write_array(scores[1], np.zeros(3, np.float32)) if damaged else None
    return copy


@pytest.mark.slow
def test_two_processes_judge_as_one_does(run_copy: Path, tiny_cross_encoder: Path) -> None:
    options = {"cross_encoder": str(tiny_cross_encoder), "band": 0.05, "task_pairs": 128}
    run_judge(config_of(run_copy, device="cpu", **options))
    run_judge(config_of(run_copy, device="cpu,cpu", **{**options, "name": "two"}))
    one, two = (judgements(run_copy, name).digest for name in ("letters", "two"))
    assert one == two


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize(
    ("judge", "error", "words"),
    [
        ("judging_letters:wide", ModelError, r"expected \d+ numbers .* of shape \(\d+, 2\)"),
        ("judging_letters:short", ModelError, r"expected \d+ numbers .* of shape \(1,\)"),
        ("judging_letters:logits", ModelError, "expected scores from 0 to 1 .* found 7"),
        ("judging_letters:fails", ModelError, "KeyError: 'no such key'"),
        ("judging_letters:none", ModelError, "expected a function 'none'"),
        ("no_module:at_all", ModelError, "cannot import 'no_module' of --cross-encoder"),
        ("judging_letters:nothing", InputError, "expected scores from letters, found none"),
    ],
)
def test_a_judge_that_gives_no_scores_is_refused(
    run_copy: Path, judge: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        run_judge(config_of(run_copy, cross_encoder=judge))
    assert not (run_copy / "judgements/letters" / MANIFEST).exists()


@pytest.mark.usefixtures("functions")
def test_pairs_without_a_score_are_counted_and_not_known(run_copy: Path) -> None:
    report = run_judge(config_of(run_copy, cross_encoder="judging_letters:some"))
    assert report.counts["failed"] > 0
    assert any("got no score" in line for line in report.warnings)
    assert all(len(query) % 3 for query, _ in by_texts(run_copy))
    assert len(judgements(run_copy).table(JUDGEMENTS)) == report.counts["judged"]


@pytest.mark.usefixtures("functions")
def test_one_score_for_all_is_said(run_copy: Path) -> None:
    report = run_judge(config_of(run_copy, cross_encoder="judging_letters:alike"))
    assert any("all scores are 0.5" in line for line in report.warnings)


def test_what_is_no_reranker_is_refused(
    run_copy: Path, tiny_transformer: Path, tiny_cross_encoder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="expected a judge, found none"):
        run_judge(JudgeConfig(run_dir=str(run_copy)))
    with pytest.raises(ModelError, match=r"expected a cross-encoder.*an embedding model"):
        run_judge(config_of(run_copy, cross_encoder=str(tiny_transformer)))
    with pytest.raises(ConfigError, match="--max-length is for models"):
        config_of(run_copy, max_length=3)
    classes = tmp_path / "classes"
    shutil.copytree(tiny_cross_encoder, classes)
    settings = json.loads((classes / "config.json").read_text())
    settings |= {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}
    (classes / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=r"weights of .*classes"):
        run_judge(config_of(run_copy, cross_encoder=str(classes)))
    headless = tmp_path / "headless"
    shutil.copytree(tiny_cross_encoder, headless)
    from safetensors.torch import load_file, save_file

    weights = load_file(headless / "model.safetensors")
    kept = {name: one for name, one in weights.items() if not name.startswith("classifier")}
    save_file(kept, headless / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="would be random"):
        run_judge(config_of(run_copy, cross_encoder=str(headless)))


def test_a_dry_run_says_what_it_would_cost(
    run_copy: Path, tiny_cross_encoder: Path, cli_here: Cli
) -> None:
    args = ("judge", "--cross-encoder", tiny_cross_encoder, "--device", "cpu", "--name", "tiny")
    done = cli_here(*args, "--dry-run", run_dir=run_copy)
    assert done.code == 0, done.stderr
    assert "tokens take about" in done.stdout + done.stderr
    assert not (run_copy / "judgements").exists()
    done = cli_here(*args, run_dir=run_copy)
    assert done.code == 0, done.stderr
    assert read_table(run_copy / "judgements/tiny" / JUDGEMENTS).num_rows > 100


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize("positive_score", ["lowest", "pair"])
def test_what_judges_decided_changes_nothing_of_what_is_asked(
    run_copy: Path, positive_score: str
) -> None:
    options = {"run_dir": str(run_copy), "positive_score": positive_score, "device": "cpu"}
    run_mine(MineConfig(**options))
    before = asked_of(run_copy, 0.1)
    run_judge(config_of(run_copy))
    report = run_mine(MineConfig(judges=("letters",), judged="mask", **options))
    assert report.counts["pairs_dropped"]["judged_wrong"] > 0
    after = asked_of(run_copy, 0.1)
    assert pairs_of(after) == pairs_of(before)
    assert (after.is_random == before.is_random).all()


@pytest.mark.usefixtures("functions")
def test_a_judge_that_was_heard_is_asked_nothing_twice(run_copy: Path) -> None:
    run_judge(config_of(run_copy))
    run_mine(MineConfig(run_dir=str(run_copy), judges=("letters",), device="cpu"))
    assert run_judge(config_of(run_copy)).skipped


@pytest.mark.usefixtures("functions")
def test_later_rounds_take_over_what_earlier_ones_asked(run_copy: Path) -> None:
    import judging_letters

    run_judge(config_of(run_copy))
    first, own = judgements(run_copy).digest, by_texts(run_copy)
    later = run_copy / "rounds/2"
    for name in ("embeddings", "hits", "negatives"):
        shutil.copytree(run_copy / name, later / name)
    judging_letters.calls.clear()
    report = run_judge(config_of(later, band=0.05))
    assert judging_letters.calls == []
    assert 0 < report.counts["known"] < len(own) + 256
    assert judgements(later).digest != first
    run_judge(config_of(later, band=0.2))
    # What the later round asks for makes nothing of the first one stale.
    assert run_judge(config_of(run_copy)).skipped
    assert judgements(run_copy).digest == first
