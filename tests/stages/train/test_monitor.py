"""What is measured while a model trains, what is held back, and what is written of it."""

import json
import math
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from stx_mine.errors import ConfigError
from stx_mine.models.load import load_model
from stx_mine.models.tokenise import Tokeniser
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train.collator import PackedCollator
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.cosines import (
    PASSAGE_KINDS,
    RowSample,
    measure_cosines,
    rows_to_sample,
    sample_rows,
    summary,
)
from stx_mine.stages.train.held_back import ReducedShard, hold_back, some_rows
from stx_mine.stages.train.losses.embedding import MiniBatches
from stx_mine.stages.train.monitor import step_facts
from stx_mine.stages.train.packed_sampler import PackedBatchSampler
from stx_mine.stages.train.schedule import Schedule
from stx_mine.stages.train.stage import make_collator, make_loss, run_train
from stx_mine.stages.train.trainer import train
from stx_mine.store.batches import BatchShard, list_packings, slot_text_ids
from stx_mine.store.training_log import TRAINING_LOG, TrainingLog, read_log

B = 64


@pytest.fixture
def packed_run(run_copy):
    run_pack(PackConfig(run_dir=str(run_copy), batch_size=B))
    return run_copy


@pytest.fixture
def packings(packed_run):
    return list_packings(packed_run / "batches")


@pytest.fixture
def model():
    return load_model("package:wordllama", device="cpu")


def batches_of(packing):
    return [shard.batch(number) for shard in packing for number in range(shard.num_batches)]


# --- cosines ---


def slow_cosines(table, model, rows):
    """Cosines of some rows of a batch, by loops over their texts."""
    chosen = [table.slice(int(row), 1).to_pylist()[0] for row in rows]

    def unit(text, role):
        encode = model.encode_query if role == "query" else model.encode_document
        vector = encode(text).astype(np.float64)
        return vector / np.linalg.norm(vector)

    texts = {}
    for row in chosen:
        texts[row["positive_id"]] = row["positive"]
        for place, group in enumerate(row["negative_ids"]):
            texts[group] = row[f"negative_{place + 1}"]
    passages = {group: unit(text, "passage") for group, text in texts.items()}
    found = {kind: [] for kind in PASSAGE_KINDS}
    for row in chosen:
        anchor = unit(row["anchor"], "query")
        found["positive"].append(anchor @ passages[row["positive_id"]])
        found["hard"] += [anchor @ passages[group] for group in row["negative_ids"]]
        own = {row["positive_id"], *row["negative_ids"], *row["ignore_ids"]}
        found["random"] += [anchor @ one for group, one in passages.items() if group not in own]
    return found


def test_cosines_are_those_of_loops_over_the_rows(packings, model):
    shard = packings[0][0]
    rows = np.array([0, 3, 17, 40, 63])
    sample = RowSample.of(shard, 1, rows, Tokeniser(model))
    found = measure_cosines(model, [sample], MiniBatches(2_048))
    expected = slow_cosines(shard.batch(1), model, rows)
    assert set(found) == set(PASSAGE_KINDS)
    for kind, values in expected.items():
        deciles = [np.percentile(values, 10 * one) for one in range(1, 10)]
        assert found[kind]["mean"] == pytest.approx(np.mean(values), abs=1e-6)
        assert found[kind]["deciles"] == pytest.approx(deciles, abs=1e-6)
    # A batch whose rows repeat texts: what is known to be right is no random negative.
    means = [found[kind]["mean"] for kind in ("positive", "hard", "random")]
    assert means == sorted(means, reverse=True)


def test_deciles_are_interpolated_between_values():
    values = np.arange(11, dtype=np.float32)
    assert summary(values) == {"mean": 5.0, "deciles": [float(one) for one in range(1, 10)]}


def test_rows_without_negatives_have_no_hard_cosines(run_copy, model):
    run_pack(PackConfig(run_dir=str(run_copy), batch_size=B, k=0))
    shard = list_packings(run_copy / "batches")[0][0]
    sample = RowSample.of(shard, 0, np.arange(8), Tokeniser(model))
    assert set(measure_cosines(model, [sample], MiniBatches(2_048))) == {"positive", "random"}


def test_the_sample_is_spread_and_no_larger_than_asked(packings, model):
    numbered = [(one, number) for one in packings[0] for number in range(one.num_batches)]
    sample = sample_rows(numbered, 30, Tokeniser(model))
    assert [len(one.anchors_R) for one in sample] == [8] * 4
    sample = sample_rows(numbered[:1], 1_000, Tokeniser(model))
    assert [len(one.anchors_R) for one in sample] == [B]
    assert rows_to_sample(10_000, 2_048, 21) == 256
    assert rows_to_sample(10, 8, 11) == 16
    assert 21 * rows_to_sample(100, 64, 21) <= 0.06 * 100 * 64


# --- held back ---


def test_rows_that_are_held_back_stand_in_no_batch(packings):
    kept = hold_back(packings, 0.25)
    before = batches_of(packings[0])
    held = [shard.batch(number) for shard, number in kept.batches]
    assert len(held) == math.ceil(0.25 * len(before))
    assert all(one.equals(other) for one, other in zip(held, before[-len(held) :], strict=True))
    held_ids = {row for one in held for row in one.column("row_id").to_pylist()}
    assert len(held_ids) == kept.num_rows == len(held) * B
    assert len(kept.packings) > 1
    dropped = 0
    for packing, whole in zip(kept.packings, packings, strict=True):
        left = batches_of(packing)
        assert len(left) == len(before) - len(held)
        for one, full in zip(left, batches_of(whole), strict=False):
            ids = one.column("row_id").to_pylist()
            assert ids == [row for row in full.column("row_id").to_pylist() if row not in held_ids]
            dropped += B - len(ids)
    assert dropped > 0


def test_rows_left_are_whole_shares_and_are_counted(packings):
    kept = hold_back(packings, 0.25, num_ranks=4)
    sizes = [one.num_rows for packing in kept.packings for one in batches_of(packing)]
    assert all(size % 4 == 0 for size in sizes)
    assert min(sizes) < B
    steps, passes = 2 * len(sizes) - 3, 2 * len(kept.packings)
    sampler = PackedBatchSampler(
        range(B * len(sizes)), B, num_packings=len(kept.packings), num_passes=passes, seed=5
    )
    seen = [sizes[batch[0] // B] for batch in sampler][:steps]
    assert kept.rows_of_steps(steps, passes, 5) == sum(seen)


def test_some_rows_of_a_batch_ignore_only_what_is_among_them(packings):
    for table in batches_of(packings[0])[:3]:
        rows = np.arange(0, B, 3)
        part = some_rows(table, rows, 4)
        there = set(slot_text_ids(part, 4).flatten().tolist())
        for one, row in zip(part.to_pylist(), rows.tolist(), strict=True):
            whole = table.slice(row, 1).to_pylist()[0]
            assert one["row_id"] == whole["row_id"]
            assert one["ignore_ids"] == [g for g in whole["ignore_ids"] if g in there]


def test_holding_back_everything_is_refused(packed_run, packings):
    with pytest.raises(ConfigError, match=r"would hold back all 1 batches"):
        shard = packings[0][0]
        hold_back([[BatchShard(shard.path, B, 1, 4, "merge")]] * 2, 0.1)
    config = TrainConfig(run_dir=str(packed_run), device="cpu", validation_share=0.0)
    assert hold_back(packings, config.validation_share).packings is packings


def test_the_loss_on_what_is_held_back_is_that_of_its_batches(packed_run, packings, model):
    config = TrainConfig(run_dir=str(packed_run), device="cpu", validation_share=0.2, epochs=3)
    report = run_train(config)
    log = read_log(packed_run / "model" / TRAINING_LOG)
    kept = hold_back(packings, 0.2)
    assert report.counts["rows_held_back"] == kept.num_rows
    assert report.counts["rows_seen"] < report.counts["steps"] * B
    trained = load_model(str(packed_run / "model"), device="cpu")
    for line, weights in ((log[0], model), (log[-1], trained)):
        loss, collator = make_loss(config, weights), make_collator(config, weights, packings)
        losses = []
        for shard, number in kept.batches:
            batch = collator.collate(shard.batch(number))
            features = [
                {key.removeprefix(part): one for key, one in batch.items() if key.startswith(part)}
                for part in ("anchor_", "passage_")
            ]
            losses.append(loss(features, batch["label"]).item())
        assert line["validation_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert log[-1]["validation_loss"] < log[0]["validation_loss"]


def test_a_reduced_shard_is_a_shard_with_fewer_rows(packings):
    shard = packings[0][0]
    ids = shard.ids().column("row_id").to_numpy()
    reduced = ReducedShard.of(shard, np.sort(ids[::5]), 1)
    assert reduced.rows_of_batches().sum() == sum(one.num_rows for one in batches_of([reduced]))
    collator = PackedCollator([reduced], lambda texts, role, prompt: {"texts": texts})
    label = collator([{"row": row} for row in range(B)])["label"]
    assert label["num_rows"] == reduced.rows_of_batches()[0] < B


# --- the log ---

KEYS = {
    "step", "seconds", "learning_rate", "loss", "validation_loss", "grad_norm",
    "samples_per_second", "eta_seconds", "slots", "distinct", "tokens", "peak_rss_bytes",
    "peak_device_bytes", "cosine", "evaluations",
}  # fmt: skip


def test_the_log_has_a_line_a_step_with_what_is_documented(packed_run, packings, model):
    config = TrainConfig(run_dir=str(packed_run), device="cpu", evaluation_steps=4)
    report = run_train(config)
    log = read_log(packed_run / "model" / TRAINING_LOG)
    steps = report.counts["steps"]
    assert [one["step"] for one in log] == list(range(steps + 1))
    assert set().union(*log) <= KEYS
    assert set(log[0]) == {"step", "seconds", "cosine"}
    assert [one["step"] for one in log if "cosine" in one] == [*range(0, steps, 4), steps]
    collator = make_collator(config, model, packings)
    for number, line in enumerate(log[1:]):
        assert {"loss", "grad_norm", "learning_rate", "eta_seconds", "peak_rss_bytes"} <= set(line)
        batch = collator([{"row": row} for row in range(number * B, (number + 1) * B)])
        table = collator.read(number)
        filled = int((slot_text_ids(table, 4) >= 0).sum())
        assert line["slots"] == B + filled
        anchors = len(set(table.column("anchor_id").to_pylist()))
        passages = len(set(slot_text_ids(table, 4).flatten().tolist()) - {-1})
        assert line["distinct"] == anchors + passages
        assert line["tokens"] == len(batch["anchor_input_ids"]) + len(batch["passage_input_ids"])
    seconds = [one["seconds"] for one in log]
    assert seconds == sorted(seconds)
    assert log[-1]["eta_seconds"] == 0
    assert report.counts["first_loss"] == log[1]["loss"]
    manifest = json.loads((packed_run / "model/manifest.json").read_text())
    assert TRAINING_LOG in [one["file"] for one in manifest["files"]]


def test_tokens_of_padded_texts_are_those_that_the_mask_shows():
    label = {"num_rows": 3, "num_negatives": 4, "num_anchors": 2, "num_passages": 5}
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    inputs = {
        "anchor_input_ids": torch.zeros(2, 3),
        "anchor_attention_mask": mask,
        "passage_input_ids": torch.zeros(7),
        "passage_offsets": torch.zeros(3),
        "guide_passage_input_ids": torch.zeros(50),
        "label": label,
    }
    assert step_facts(inputs) == {"tokens": 10, "slots": 10, "distinct": 7}


def test_a_log_goes_on_from_a_checkpoint_without_gaps_or_repeats(tmp_path):
    path = tmp_path / TRAINING_LOG
    log = TrainingLog(path, 0)
    for step in range(6):
        log.append({"step": step, "seconds": float(step), "loss": math.nan})
    with path.open("a") as handle:
        handle.write('{"step": 6, "los')
    assert [one["step"] for one in read_log(path)] == [0, 1, 2, 3, 4, 5]
    assert read_log(path)[3]["loss"] is None
    assert [one["step"] for one in TrainingLog(path, 4).kept] == [0, 1, 2, 3, 4]
    TrainingLog(path, 4).append({"step": 5})
    assert [one["step"] for one in read_log(path)] == [0, 1, 2, 3, 4, 5]
    assert TrainingLog(path, 0).kept == []
    assert path.read_text() == ""


def test_watching_changes_nothing_in_what_is_trained(packed_run, tiny_transformer, tmp_path):
    """With dropout, so that a random number drawn while looking would be seen."""
    config = TrainConfig(
        run_dir=str(packed_run),
        model=str(tiny_transformer),
        device="cpu",
        max_length=24,
        batch_tokens=1_024,
        learning_rate=5e-3,
        epochs=1,
        evaluation_steps=1,
        checkpoint_steps=10_000,
    )
    run_train(config)
    watched = load_model(str(packed_run / "model"), device="cpu").state_dict()
    model = load_model(str(tiny_transformer), device="cpu", max_length=24)
    packings = list_packings(packed_run / "batches")
    schedule = Schedule(
        num_passes=1,
        learning_rate=5e-3,
        warmup=0.1,
        seed=42,
        checkpoint_steps=10_000,
        evaluation_steps=10_000,
    )
    collator, loss = make_collator(config, model, packings), make_loss(config, model)
    train(model, loss, packings, collator, schedule, tmp_path / "checkpoints")
    for name, one in model.state_dict().items():
        assert torch.equal(one, watched[name]), name


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_tracker_that_is_not_installed_is_named_with_its_command(packed_run, name):
    if find_spec(name) is not None:
        pytest.skip(f"{name} is installed")
    config = TrainConfig(run_dir=str(packed_run), device="cpu", report_to=(name,))
    with pytest.raises(ConfigError, match=f"run `pip install {name}`"):
        run_train(config)
    assert not (packed_run / "model").exists()


def test_tensorboard_gets_what_the_log_has(packed_run):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_train(TrainConfig(run_dir=str(packed_run), device="cpu", report_to=("tensorboard",)))
    events = EventAccumulator(str(packed_run / "model/tensorboard"))
    events.Reload()
    log = read_log(packed_run / "model" / TRAINING_LOG)
    shown = {one.step: one.value for one in events.Scalars("train/loss")}
    expected = {one["step"]: one["loss"] for one in log if "loss" in one}
    assert shown == pytest.approx(expected)
    assert events.Scalars("eval/cosine_positive")[0].step == 0
