"""The schedule of training: rates over the steps, probing, early stopping, the best kept."""

import json
import math
import shutil
from itertools import count
from pathlib import Path
from shutil import rmtree

import numpy as np
import pytest
import torch
from transformers import get_scheduler

from stx_mine.errors import ConfigError, InputError
from stx_mine.models.load import load_model
from stx_mine.models.tokenise import Tokeniser
from stx_mine.pipeline import load_pipeline, pipeline_steps
from stx_mine.stages.evaluate.config import EvaluateConfig
from stx_mine.stages.evaluate.results import read_results
from stx_mine.stages.evaluate.stage import run_evaluate
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train.checkpoints import remove_incomplete
from stx_mine.stages.train.collator import PackedCollator
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.core.learning_rate import default_learning_rate
from stx_mine.stages.train.diagnose import diagnose_run
from stx_mine.stages.train.evaluation_sets import read_evaluation_sets
from stx_mine.stages.train.evaluations import EvaluationPlan
from stx_mine.stages.train.losses.mnr import PackedMNRLoss
from stx_mine.stages.train.probe import Probe, plan_probe, probe
from stx_mine.stages.train.schedule import Schedule, count_steps, steps_between_lines
from stx_mine.stages.train.stage import run_train
from stx_mine.stages.train.trainer import train
from stx_mine.store.artifact import read_manifest
from stx_mine.store.batches import list_packings
from stx_mine.store.run_dir import RunDir
from stx_mine.store.training_log import TRAINING_LOG, read_log

B = 64


@pytest.fixture
def packed_run(run_copy):
    run_pack(PackConfig(run_dir=str(run_copy), batch_size=B))
    return run_copy


def make_schedule(**changes):
    values = {"num_passes": 2, "learning_rate": 0.1, "warmup": 0.1, "seed": 3}
    return Schedule(**{**values, "checkpoint_steps": 100, **changes})


def fixed_weights(model):
    return {name: one.detach().clone() for name, one in model.state_dict().items()}


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


# --- rates ---


@pytest.mark.parametrize("shape", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("floor", [0.0, 0.2])
def test_rates_warm_up_and_fall_to_the_floor(shape, floor):
    peak, warmup, steps = 0.3, 5, 50
    if shape == "constant":
        floor = 0.0
    schedule = make_schedule(learning_rate=peak, shape=shape, floor=floor)
    name, details = schedule.scheduler()
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    scheduler = get_scheduler(name, optimizer, warmup, steps, details)
    for step in range(steps + 1):
        fallen = max(0, step - warmup) / (steps - warmup)
        left = {
            "linear": 1 - fallen,
            "cosine": (1 + math.cos(math.pi * fallen)) / 2,
            "constant": 1.0,
        }[shape]
        expected = peak * step / warmup if step < warmup else peak * (floor + (1 - floor) * left)
        assert scheduler.get_last_lr()[0] == pytest.approx(expected, abs=1e-12), step
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("steps", [1, 2, 19, 20, 21, 44, 399, 10_000])
def test_a_run_has_up_to_20_evaluations_and_checkpoints_follow_them(steps):
    schedule = make_schedule()
    each = schedule.steps_between_evaluations(steps)
    assert 1 <= each
    assert math.ceil(steps / each) <= 20
    assert steps / each > 10 or steps < 20
    assert schedule.saves(steps, keeps_best=False) == 100
    assert schedule.saves(steps, keeps_best=True) % each == 0
    assert 100 <= schedule.saves(steps, keeps_best=True) < 100 + each
    assert math.ceil(steps / steps_between_lines(steps)) <= 100
    assert make_schedule(evaluation_steps=7).steps_between_evaluations(steps) == 7


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"learning_rate": "fast"}, "must be auto, probe or a number, found 'fast'"),
        ({"learning_rate": -0.1}, "--learning-rate must be above 0"),
        ({"schedule": "constant", "floor": 0.1}, "--floor 0.1 does not fit --schedule constant"),
        ({"floor": 1.5}, "--floor must be at most 1, found 1.5"),
        ({"validation_share": 0.6}, "--validation-share must be at most 0.5"),
        ({"patience": 3}, "--patience 3 needs --evaluation"),
        ({"evaluation_split": "dev"}, "--evaluation-split dev needs --evaluation"),
        ({"report_to": ("mlflow",)}, "must be tensorboard or wandb, found 'mlflow'"),
    ],
)
def test_a_schedule_that_does_not_fit_is_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        TrainConfig(**options)


def test_a_learning_rate_is_a_word_or_a_number_wherever_it_stands(tmp_path, cli_here):
    for value, expected in (("probe", "probe"), ("auto", "auto"), ("2e-5", 2e-5), ("1", 1.0)):
        path = tmp_path / "pipeline.yaml"
        path.write_text(f"run_dir: {tmp_path}\ntrain:\n  learning_rate: {value}\n")
        pipeline = load_pipeline(str(path), [])
        (config,) = [config for _, _, config in pipeline_steps(pipeline)]
        assert config.learning_rate == expected
        # The command line reads it before it looks for batches.
        done = cli_here("train", "--learning-rate", value, run_dir=tmp_path)
        assert "batches/ is missing" in done.error
    done = cli_here("train", "--learning-rate", "fast", run_dir=tmp_path)
    assert "expected auto, probe or a number, found 'fast'" in done.error
    path.write_text(f"run_dir: {tmp_path}\ntrain:\n  learning_rate: fast\n")
    with pytest.raises(ConfigError, match=r"train.learning_rate must be"):
        load_pipeline(str(path), [])


# --- probing ---


def test_the_lowest_loss_wins_and_what_diverged_does_not():
    losses = {0.1: 2.0, 0.3: 1.5, 0.9: 1.7}
    rate, words = Probe(8, 2.5, losses).choose()
    assert rate == 0.3
    assert "8 steps" in words
    assert all(one in words for one in ("0.1: 2.0000", "0.3: 1.5000", "0.9: 1.7000"))
    for worse in (math.nan, math.inf, 2.6):
        rate, words = Probe(8, 2.5, {**losses, 0.3: worse}).choose()
        assert rate == 0.9
        assert words.count("(diverged)") == 1
    assert Probe(8, 2.5, {0.1: 1.0, 0.3: 1.0}).choose()[0] == 0.1
    with pytest.raises(ConfigError, match=r"no rate that lowers the loss.*below 0.1, or auto"):
        Probe(8, 2.5, dict.fromkeys(losses, math.nan)).choose()


def probe_parts(run, **changes):
    packings = list_packings(run / "batches")
    model = load_model("package:wordllama", device="cpu")
    collator = PackedCollator([one for some in packings for one in some], Tokeniser(model))
    loss = PackedMNRLoss(model, 0.05, 256, 2_048)
    return model, loss, packings, collator, make_schedule(**changes)


def test_what_judges_a_probe_is_never_trained_on(packed_run):
    packings = list_packings(packed_run / "batches")
    num_batches = sum(shard.num_batches for shard in packings[0])
    plan = plan_probe(packings, 1_000)
    assert plan.num_steps + len(plan.held_back) <= num_batches
    held = [number for _, number in plan.held_back]
    assert held == list(range(num_batches))[-len(held) :]
    with pytest.raises(ConfigError, match="at least 2 batches in a packing, found 1"):
        run_pack(PackConfig(run_dir=str(packed_run), batch_size=400, overwrite=True))
        plan_probe(list_packings(packed_run / "batches"), 12)


@pytest.mark.parametrize(("scale", "expected"), [(1e-4, 3.0), (1e4, 1 / 3)])
def test_a_rate_that_is_far_off_is_moved_towards_a_sane_one(packed_run, scale, expected):
    model, *parts, schedule = probe_parts(packed_run, learning_rate=0.02 * scale)
    before = fixed_weights(model)
    found = probe(model, *parts, schedule)
    assert same(before, fixed_weights(model))
    assert len(found.losses) == 3
    if scale > 1:
        # Three rates that are all too high: the lowest does the least harm.
        assert min(found.losses, key=lambda rate: found.losses[rate]) == min(found.losses)
    else:
        assert found.choose()[0] == pytest.approx(expected * 0.02 * scale)
        assert all(loss < found.before for loss in found.losses.values())


def test_a_probed_run_is_the_run_with_the_rate_that_won(packed_run, tmp_path, monkeypatch):
    other = tmp_path / "other"
    shutil.copytree(packed_run, other)
    options = {"device": "cpu", "epochs": 1}
    report = run_train(TrainConfig(run_dir=str(packed_run), learning_rate="probe", **options))
    rate = report.counts["learning_rate"]
    steps = report.counts["steps"]
    auto, _ = default_learning_rate(B, steps, 8_192_000, static=True)
    assert rate in [pytest.approx(factor * auto) for factor in (1 / 3, 1, 3)]
    line = next(one for one in report.lines if one.startswith("learning rate"))
    assert line.count(": ") == 3
    plan = json.loads((packed_run / "model/plan.json").read_text())
    assert plan["choices"]["learning_rate"] == rate
    run_train(TrainConfig(run_dir=str(other), learning_rate=rate, **options))
    weights = [fixed_weights(load_model(str(one / "model"), "cpu")) for one in (packed_run, other)]
    assert same(*weights)
    # A run that died has its decision in the plan, and does not probe again.
    (packed_run / "model/manifest.json").unlink()
    monkeypatch.setitem(run_train.__globals__, "choose_for_run", None)
    again = run_train(TrainConfig(run_dir=str(packed_run), learning_rate="probe", **options))
    assert again.counts["learning_rate"] == rate
    assert same(weights[0], fixed_weights(load_model(str(packed_run / "model"), "cpu")))


# --- the best is kept, and patience ends ---


def train_with(run, folder, values, **changes):
    """Train with evaluations that find given values; what the model was at each of them."""
    model, loss, packings, collator, schedule = probe_parts(run, evaluation_steps=2, **changes)
    seen, calls = [], count()

    def evaluate():
        seen.append(fixed_weights(model))
        return {"dev": {"ndcg@10": values[next(calls)]}}

    plan = EvaluationPlan(evaluates=True, path=folder / TRAINING_LOG, evaluate=evaluate)
    trained = train(model, loss, packings, collator, schedule, folder / "checkpoints", 1, plan)
    return trained, seen, fixed_weights(model), read_log(folder / TRAINING_LOG)


def test_patience_ends_training_and_the_best_weights_are_those_of_the_model(packed_run, tmp_path):
    values = [0.1, 0.2, 0.5, 0.4, 0.5, 0.3, 0.9, 0.9, 0.9, 0.9, 0.9]
    trained, seen, weights, log = train_with(packed_run, tmp_path, values, patience=3)
    # Evaluations after 0, 2, 4 ... steps: the third after the best, an equal one included, stops.
    assert (trained.steps, trained.best_step) == (10, 4)
    assert same(weights, seen[2])
    assert not same(weights, seen[-1])
    evaluated = [one for one in log if "evaluations" in one]
    assert [one["step"] for one in evaluated] == [0, 2, 4, 6, 8, 10]
    assert [one["evaluations"]["dev"]["ndcg@10"] for one in evaluated] == values[:6]


def test_without_patience_a_run_goes_to_its_end_and_still_keeps_the_best(packed_run, tmp_path):
    packings = list_packings(packed_run / "batches")
    steps = count_steps(packings, 2)
    values = [0.9, 0.1, 0.6, *[0.2] * steps]
    # The checkpoint after every evaluation takes the place of the one before, but not of the best.
    trained, seen, weights, log = train_with(packed_run, tmp_path, values, checkpoint_steps=1)
    assert (trained.steps, trained.best_step) == (steps, 4)
    assert same(weights, seen[2])
    assert log[-1]["step"] == steps
    # What the untrained model had is no checkpoint, and no best.
    assert log[0]["evaluations"]["dev"]["ndcg@10"] == 0.9


@pytest.mark.parametrize(("steps", "passes"), [(3, 1), (9, 1), (10, 2), (20, 3)])
def test_steps_end_a_run_within_a_pass_or_cycle_the_packings(packed_run, steps, passes):
    packings = list_packings(packed_run / "batches")
    assert count_steps(packings, 1) == 9
    config = {"run_dir": str(packed_run), "learning_rate": 0.05, "overwrite": True}
    report = run_train(TrainConfig(**config, steps=steps))
    assert (report.counts["steps"], report.counts["steps_planned"]) == (steps, steps)
    assert report.counts["passes"] == passes
    rates = [one["learning_rate"] for one in read_log(packed_run / "model" / TRAINING_LOG)[1:]]
    # It has fallen to nothing after the last of them.
    assert rates[-1] == pytest.approx(0.05 / (steps - round(0.1 * steps)))
    weights = fixed_weights(load_model(str(packed_run / "model"), "cpu"))
    if steps % 9 == 0:
        run_train(TrainConfig(**config, epochs=steps // 9))
        assert same(weights, fixed_weights(load_model(str(packed_run / "model"), "cpu")))


def test_steps_and_epochs_say_the_same():
    with pytest.raises(ConfigError, match=r"--steps 5 .*--epochs 2"):
        TrainConfig(steps=5, epochs=2)


@pytest.mark.parametrize("die_at", [3, 6, 9])
def test_a_run_that_died_stops_at_the_same_step_with_the_same_best(packed_run, tmp_path, die_at):
    values = dict(zip(range(0, 40, 2), [0.1, 0.2, 0.5, 0.4, 0.5, 0.3, *[0.9] * 14], strict=True))
    results = {}
    for name, dies in (("whole", False), ("broken", True)):
        folder = tmp_path / name
        for attempt in range(1 + dies):
            model, loss, packings, collator, schedule = probe_parts(
                packed_run, evaluation_steps=2, patience=3, checkpoint_steps=4
            )
            inner, steps = loss.score, count(1)

            def score(*args, dies=dies and attempt == 0, steps=steps, inner=inner):
                if next(steps) > die_at and dies:
                    raise InterruptedError
                return inner(*args)

            loss.score = score
            folder.mkdir(exist_ok=True)
            path = folder / TRAINING_LOG

            def evaluate(path=path):
                # The step that is evaluated follows the last one in the file.
                done = [one["step"] for one in read_log(path)]
                return {"dev": {"ndcg@10": values[min(set(values) - set(done))]}}

            plan = EvaluationPlan(evaluates=True, path=path, evaluate=evaluate)
            try:
                results[name] = (
                    train(
                        model, loss, packings, collator, schedule, folder / "checkpoints", 1, plan
                    ),
                    fixed_weights(model),
                    [without_time(one) for one in read_log(path)],
                )
            except InterruptedError:
                assert attempt == 0
                # As if the process was killed while it wrote.
                with path.open("a") as handle:
                    handle.write('{"step": 7, "sec')
    whole, broken = results["whole"], results["broken"]
    assert whole[0] == broken[0]
    assert (whole[0].steps, whole[0].best_step) == (10, 4)
    assert same(whole[1], broken[1])
    assert whole[2] == broken[2]
    steps = [one["step"] for one in whole[2]]
    assert steps == sorted(set(steps)) == list(range(11))


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def train_on(packed_run, folder):
    """Train, best at step 4, in a folder that may hold checkpoints."""
    model, loss, packings, collator, schedule = probe_parts(
        packed_run, evaluation_steps=2, patience=3, checkpoint_steps=2
    )
    values = dict(zip(range(0, 40, 2), [0.1, 0.2, 0.5, *[0.4] * 17], strict=True))
    path = folder / TRAINING_LOG

    def evaluate():
        done = [one["step"] for one in read_log(path)]
        return {"dev": {"ndcg@10": values[min(set(values) - set(done))]}}

    plan = EvaluationPlan(evaluates=True, path=path, evaluate=evaluate)
    folder.mkdir(exist_ok=True)
    remove_incomplete(folder / "checkpoints")
    trained = train(model, loss, packings, collator, schedule, folder / "checkpoints", 1, plan)
    return trained, fixed_weights(model)


def test_a_kill_while_a_checkpoint_is_removed_is_no_end(packed_run, tmp_path, monkeypatch):
    """The Trainer removes old ones file by file; its state may go last, and its weights first."""
    removed, kill_at = [], [None]

    def dies(path, **options):
        if Path(path).name.startswith("checkpoint-"):
            removed.append(Path(path).name)
            if len(removed) == kill_at[0]:
                (Path(path) / "model.safetensors").unlink(missing_ok=True)
                (Path(path) / "optimizer.pt").unlink()
                raise Killed
        return rmtree(path, **options)

    monkeypatch.setattr(shutil, "rmtree", dies)
    expected, weights = train_on(packed_run, tmp_path / "whole")
    assert (expected.steps, expected.best_step) == (10, 4)
    assert len(removed) > 1
    for number in (1, len(removed)):
        removed.clear()
        kill_at[0] = number
        with pytest.raises(Killed):
            train_on(packed_run, tmp_path / str(number))
        kill_at[0] = None
        found, again = train_on(packed_run, tmp_path / str(number))
        assert found == expected
        assert same(again, weights)


def without_time(line):
    timed = ("seconds", "samples_per_second", "eta_seconds", "peak_rss_bytes", "peak_device_bytes")
    return {key: value for key, value in line.items() if key not in timed}


def test_evaluation_while_training_is_that_of_the_evaluate_command(packed_run, small_input):
    pairs, corpus = str(small_input / "pairs.parquet"), str(small_input / "corpus.parquet")
    config = TrainConfig(
        run_dir=str(packed_run),
        device="cpu",
        evaluation=(pairs,),
        evaluation_corpus=corpus,
        evaluation_steps=5,
    )
    report = run_train(config)
    run_evaluate(EvaluateConfig(run_dir=str(packed_run), data=pairs, corpus=corpus, device="cpu"))
    base, trained = read_results(RunDir(packed_run), "pairs").values()
    log = read_log(packed_run / "model" / TRAINING_LOG)
    best = max((one for one in log[1:] if "evaluations" in one), key=ndcg)
    assert log[0]["evaluations"]["pairs"] == pytest.approx(base)
    assert best["evaluations"]["pairs"] == pytest.approx(trained)
    assert any(f"at step {best['step']} (the best, which is kept)" in one for one in report.lines)
    assert not (packed_run / "model/checkpoints").exists()
    again = run_train(config)
    assert again.skipped
    assert again.lines == report.lines


def ndcg(line):
    return line["evaluations"]["pairs"]["ndcg@10"]


def test_evaluation_sets_that_do_not_fit_are_refused_before_training(
    packed_run, small_input, tmp_path
):
    pairs = str(small_input / "pairs.parquet")
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    for split in ("test", "train"):
        (folder / f"qrels/{split}.tsv").write_text("query-id\tcorpus-id\tscore\nq\tp\t1\n")
    for name, one in (("corpus", "p"), ("queries", "q")):
        (folder / f"{name}.jsonl").write_text(json.dumps({"_id": one, "text": one}) + "\n")
    run = {"run_dir": str(packed_run), "device": "cpu"}
    cases = [
        ({"evaluation": (pairs, pairs)}, ConfigError, "found 'pairs' twice"),
        ({"evaluation": (str(tmp_path / "no.parquet"),)}, InputError, "no.parquet"),
        ({"evaluation": (pairs,), "evaluation_split": "dev"}, ConfigError, "BEIR folders only"),
        (
            {"evaluation": (str(folder),), "evaluation_corpus": pairs, "evaluation_split": "test"},
            ConfigError,
            "pairs only",
        ),
        ({"evaluation": (str(folder),)}, InputError, "--evaluation-split with one of: test, train"),
    ]
    for options, error, words in cases:
        with pytest.raises(error, match=words):
            run_train(TrainConfig(**run, **options))
        assert not (packed_run / "model").exists()


def test_training_that_makes_nothing_better_is_said(packed_run, small_input):
    report = run_train(
        TrainConfig(
            run_dir=str(packed_run),
            device="cpu",
            evaluation=(str(small_input / "pairs.parquet"),),
            learning_rate=30.0,
            patience=2,
        )
    )
    assert any("training never made ndcg@10 better" in one for one in report.warnings)
    assert any("stopped before step" in one for one in report.lines)
    assert report.counts["steps"] < report.counts["steps_planned"]
    assert report.counts["rows_seen"] == report.counts["steps"] * B
    assert np.isfinite(report.counts["last_loss"])


def test_the_log_and_the_texts_of_a_run_are_diagnosed(packed_run, small_input):
    rates, scores = (0.0, 0.3, 0.2, 0.1, 0.0), (0.5, 0.6, 0.5, 0.4, 0.3)
    log = [
        {"step": step, "learning_rate": rate, "evaluations": {"pairs": {"ndcg@10": score}}}
        for step, (rate, score) in enumerate(zip(rates, scores, strict=True))
    ]
    config = TrainConfig(evaluation=(str(small_input / "pairs.parquet"),))
    run = RunDir(packed_run)
    found = diagnose_run(run, log, False, read_evaluation_sets(config, run))
    assert [one for one in found if "probably too high: ndcg@10 of pairs" in one]
    report = run_train(TrainConfig(run_dir=str(packed_run), device="cpu"))
    assert set(read_manifest(packed_run / "model").extra["diagnoses"]) <= set(report.warnings)


@pytest.mark.parametrize(
    ("packings", "passes", "words"),
    [
        (1, 2, "2 passes see each batch 2 times; `pack --packings 2` makes others"),
        (2, 5, "5 passes see each batch 2.5 times; `pack --packings 5` makes others"),
        (1, 30, "30 passes see each batch 30 times; `pack --packings 10` makes others"),
        (2, 3, None),
        (2, 2, None),
        (10, 40, None),
    ],
)
def test_batches_that_repeat_could_be_made_anew(packed_run, packings, passes, words):
    run_pack(PackConfig(run_dir=str(packed_run), batch_size=256, packings=packings, overwrite=True))
    report = run_train(TrainConfig(run_dir=str(packed_run), device="cpu", epochs=passes))
    found = [one for one in report.warnings if "see each batch" in one]
    assert len(found) == (words is not None)
    assert words is None or found[0].startswith(words)
