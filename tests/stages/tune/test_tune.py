"""`tune` on a small real run: what it writes, continues, refuses, and what its figures are of."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from stx_mine.commands import stage_of
from stx_mine.errors import ArtifactError, ConfigError, StxMineError
from stx_mine.pipeline import load_pipeline, pipeline_steps, run_pipeline
from stx_mine.stages.evaluate.config import EvaluateConfig
from stx_mine.stages.evaluate.results import read_results
from stx_mine.stages.evaluate.stage import run_evaluate
from stx_mine.stages.judge.stage import run_judge
from stx_mine.stages.tune import bench, preparation
from stx_mine.stages.tune.config import TuneConfig
from stx_mine.stages.tune.stage import run_tune
from stx_mine.store.artifact import read_manifest
from stx_mine.store.run_dir import RunDir


@pytest.fixture(scope="module")
def pipeline(small_input, tmp_path_factory):
    """A pipeline file of pairs and a corpus, with stages that tuning leaves alone."""
    folder = tmp_path_factory.mktemp("pipeline")
    content = {
        "run_dir": str(folder / "run"),
        "embed": {
            "pairs": str(small_input / "pairs.parquet"),
            "corpus": str(small_input / "corpus.parquet"),
            "device": "cpu",
        },
        "mine": {"k": 4},
        "pack": {"batch_size": 32},
        "show": {"random": 1},
        "train": {"device": "cpu", "epochs": 1},
    }
    path = folder / "pipeline.yaml"
    path.write_text("# mine\n" + yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def tuned(pipeline):
    """A finished tuning of k, and its report."""
    config = TuneConfig(pipeline=str(pipeline), budget="1h", seeds=2, vary=("mine.k=0,2",))
    return config, run_tune(config), pipeline.parent / "run" / "tuning"


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


def test_every_policy_is_tried_and_the_finalists_have_all_seeds(tuned):
    _, report, folder = tuned
    results = results_of(folder)
    tried = {(json.dumps(one["changes"]), one["seed"]) for one in results["trials"]}
    changes = ["{}", '{"mine": {"k": 0}}', '{"mine": {"k": 2}}']
    assert {(one, 42) for one in changes} <= tried
    assert all(len(one["by_seed"]) == 2 for one in results["finalists"])
    # The pipeline as it is, and one without negatives, are always among them.
    assert {one["k"] for one in results["finalists"]} >= {0, 4}
    assert results["taken"] in {one["name"] for one in results["finalists"]}
    means = [one["mean"] for one in results["finalists"]]
    assert means == sorted(means, reverse=True)
    assert report.counts["failed"] == report.counts["skipped"] == 0
    assert report.counts["trials"] == len(results["trials"]) == len(tried)
    assert any("held out to choose by, no text shared" in line for line in report.lines)
    assert any("not tuned: the stages show" in line for line in report.lines)


def test_the_pipeline_of_the_winner_is_that_of_the_file_with_its_changes(tuned, pipeline):
    _, _, folder = tuned
    results, written = results_of(folder), folder / "tuned.yaml"
    winner = next(one for one in results["finalists"] if one["name"] == results["taken"])
    content, own = (yaml.safe_load(one.read_text()) for one in (written, pipeline))
    for stage, fields in winner["changes"].items():
        own[stage] = {**own[stage], **fields}
    assert content == own
    assert list(content) == list(own)
    assert [name for _, name, _ in pipeline_steps(load_pipeline(str(written), []))] == [
        "embed",
        "mine",
        "pack",
        "show",
        "train",
    ]
    assert str(results["queries"]) in written.read_text().splitlines()[1]


def test_figures_are_those_of_a_run_by_hand(tuned, small_input, tmp_path):
    """A policy run as stages, on the same split, has the same mean."""
    _, _, folder = tuned
    trial = next(one for one in results_of(folder)["trials"] if one["k"] == 0)
    run = tmp_path / "run"
    by_hand = {
        "run_dir": str(run),
        "split": {
            "pairs": str(small_input / "pairs.parquet"),
            "corpus": str(small_input / "corpus.parquet"),
            "test": 0,
            "dev": 0.1,
        },
        "embed": {"pairs": str(run / "split"), "device": "cpu"},
        "mine": {"k": 0},
        "pack": {"batch_size": 32, "seed": trial["seed"]},
        "train": {"device": "cpu", "epochs": 1, "seed": trial["seed"]},
    }
    path = tmp_path / "by-hand.yaml"
    path.write_text(yaml.safe_dump(by_hand))
    list(run_pipeline(load_pipeline(str(path), []), lambda name, one: stage_of(name)(one)))
    run_evaluate(EvaluateConfig(run_dir=str(run), data=(str(run / "split"),), split="dev"))
    found = read_results(RunDir(run), "split")[str(run / "model")]["ndcg@10"]
    assert found == pytest.approx(trial["mean"], abs=1e-4)
    assert read_manifest(run / "model").counts["steps"] == trial["whole_steps"]


def test_a_finished_tuning_is_not_run_again(tuned, monkeypatch):
    config, report, _ = tuned
    monkeypatch.setattr(bench, "run_train", None)
    again = run_tune(config)
    assert again.skipped
    assert again.lines == report.lines
    with pytest.raises(ArtifactError, match=r"budget was '1h' and is '2h' now; give --overwrite"):
        run_tune(replace(config, budget="2h"))


def test_a_killed_tuning_continues_with_the_next_trial(tuned, pipeline, tmp_path, monkeypatch):
    config, _, folder = tuned
    content = yaml.safe_load(pipeline.read_text())
    content["run_dir"] = str(tmp_path / "run")
    path = tmp_path / "pipeline.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    config = replace(config, pipeline=str(path))
    train, calls = bench.run_train, []

    def dies_later(asked):
        calls.append(asked)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train(asked)

    monkeypatch.setattr(bench, "run_train", dies_later)
    with pytest.raises(KeyboardInterrupt):
        run_tune(config)
    run_tune(config)
    whole, broken = results_of(folder), results_of(tmp_path / "run" / "tuning")
    # The one that was cut off, and no other, was trained twice.
    assert len(calls) == len(broken["trials"]) + 1
    assert [one["changes"] for one in broken["trials"]] == [o["changes"] for o in whole["trials"]]
    same = [[one["mean"] for one in some["trials"]] for some in (whole, broken)]
    np.testing.assert_allclose(*same, atol=1e-6)
    # What trials needed is gone.
    left = {one.name for one in (tmp_path / "run" / "tuning").iterdir()}
    assert left == {"plan.json", "manifest.json", "results.json", "tuned.yaml"}


def test_a_policy_that_cannot_be_run_is_named_and_the_others_count(pipeline, tmp_path):
    vary = ("pack.batch_size=100000,16",)
    run = tmp_path / "run"
    config = TuneConfig(pipeline=str(pipeline), run_dir=str(run), budget="1h", seeds=1, vary=vary)
    report = run_tune(config)
    assert report.counts["failed"] == 1
    assert any("batch size 100000 could not be run: --batch-size" in one for one in report.warnings)
    names = [one["name"] for one in results_of(run / "tuning")["finalists"]]
    assert "batch size 100000" not in names
    assert "batch size 16" in names


def test_a_budget_without_room_says_what_was_left(pipeline, tmp_path):
    config = TuneConfig(pipeline=str(pipeline), run_dir=str(tmp_path / "run"), budget="1s")
    report = run_tune(config)
    assert report.counts["trials"] == 1
    assert any("the budget had no room for" in one for one in report.warnings)
    assert any("taken: as in the file" in line for line in report.lines)


def test_named_data_are_what_policies_are_chosen_by(pipeline, small_input, tmp_path):
    """Pairs that training holds are named as such: nothing is divided."""
    held_out = tmp_path / "held.parquet"
    pq.write_table(pq.read_table(small_input / "pairs.parquet").slice(0, 50), held_out)
    config = TuneConfig(
        pipeline=str(pipeline),
        run_dir=str(tmp_path / "run"),
        data=(str(held_out),),
        budget="1h",
        seeds=1,
        vary=("train.temperature=0.1",),
    )
    report = run_tune(config)
    assert results_of(tmp_path / "run" / "tuning")["sets"] == ["held"]
    corpus = small_input / "corpus.parquet"
    # Among the passages of 50 pairs alone everything is found.
    assert f"the passages of {corpus} are searched beside those of the held-out pairs" in " ".join(
        report.lines
    )
    assert any("held" in one and "training" in one for one in report.warnings)
    assert any("50 queries tell little apart" in one for one in report.warnings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": None}, "expected the stage train in .* found embed, mine, pack"),
        ({"embed": {"sources": [{"name": "a", "path": None}]}}, "expected embed.pairs in the file"),
        ({"mine": {"k": 0, "deph": 3}}, r"mine.deph is no field of mine \(did you mean depth"),
        ({"pack": {"batch_size": 100_000}}, "--batch-size"),
    ],
)
def test_a_file_that_cannot_be_tuned_is_refused(pipeline, tmp_path, changes, message):
    own = yaml.safe_load(pipeline.read_text())
    content = own | changes
    for one in (content["embed"] or {}).get("sources", ()):
        one["path"] = own["embed"]["pairs"]
    content = {name: one for name, one in content.items() if one is not None}
    content["run_dir"] = str(tmp_path / "run")
    path = tmp_path / "pipeline.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(StxMineError, match=message):
        run_tune(TuneConfig(pipeline=str(path)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": "15"}, "--budget must be a time such as 90s, 15m or 2h, found '15'"),
        ({"vary": ("k=1",)}, "--vary must be STAGE.FIELD=VALUE,VALUE, found 'k=1'"),
        ({"vary": ("embed.model=x",)}, "names no stage that is tuned; there are mine, pack, train"),
        ({"vary": ("mine.k=many",)}, "mine.k must be"),
        ({"pipeline": None}, "expected PIPELINE, found none"),
        ({"pipeline": "none.yaml"}, "expected a pipeline file at none.yaml"),
    ],
)
def test_options_that_say_nothing_are_refused(pipeline, options, message):
    with pytest.raises(ConfigError, match=message):
        run_tune(TuneConfig(**{"pipeline": str(pipeline), **options}))


def test_what_a_judge_said_is_taken_over_and_the_rest_is_asked(
    pipeline, tiny_cross_encoder, tmp_path, monkeypatch
):
    """Judgements hold for texts: those of the run count where it is tuned."""
    content = yaml.safe_load(pipeline.read_text())
    run = tmp_path / "run"
    judge = {"cross_encoder": str(tiny_cross_encoder), "name": "j", "device": "cpu"}
    content |= {"run_dir": str(run), "judge": {**judge, "max_pairs": 500}}
    content["mine"] = {"k": 4, "relative_margin": None, "judged": "mask"}
    path = tmp_path / "pipeline.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    steps = run_pipeline(load_pipeline(str(path), []), lambda name, one: stage_of(name)(one))
    for _, report, _ in steps:
        if report.stage == "judgements":
            break
    judged = []

    def judges(config):
        found = run_judge(config)
        judged.append(found.counts)
        return found

    monkeypatch.setattr(preparation, "run_judge", judges)
    vary = ("mine.k=0", "mine.judged=drop")
    report = run_tune(TuneConfig(pipeline=str(path), budget="1h", seeds=1, vary=vary))
    assert judged[0]["known"] > 0
    assert report.counts["failed"] == 0
    written = yaml.safe_load((run / "tuning" / "tuned.yaml").read_text())
    assert ("judge" in written) == bool(written["mine"].get("judges", ["j"]))


def test_how_a_plain_model_is_read_is_no_option_of_what_was_trained(
    pipeline, tiny_transformer, small_input, tmp_path
):
    """The trained model says itself how it pools; the one of the file is told."""
    content = yaml.safe_load(pipeline.read_text())
    content["embed"] |= {"model": str(tiny_transformer.parent / "bert"), "pooling": "cls"}
    # Random weights find everything alike.
    content["mine"]["relative_margin"] = None
    content["train"]["steps"] = 1
    del content["train"]["epochs"]
    path = tmp_path / "pipeline.yaml"
    path.write_text(yaml.safe_dump(content))
    held_out = tmp_path / "held.parquet"
    pq.write_table(pq.read_table(small_input / "pairs.parquet").slice(0, 50), held_out)
    config = TuneConfig(
        pipeline=str(path),
        run_dir=str(tmp_path / "run"),
        data=(str(held_out),),
        budget="1s",
        seeds=1,
    )
    assert run_tune(config).counts["trials"] == 1
