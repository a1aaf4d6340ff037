"""The path from shards to the trainer: sampler, collator, resume, plain sentence-transformers."""

import shutil

import numpy as np
import pytest
import torch
from datasets import Dataset, arrow_dataset, load_dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from stx_mine.errors import ConfigError
from stx_mine.models.load import load_model
from stx_mine.models.tokenise import Tokeniser
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train.collator import PackedCollator
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.core.learning_rate import default_learning_rate
from stx_mine.stages.train.losses.mnr import PackedMNRLoss
from stx_mine.stages.train.packed_sampler import PackedBatchSampler
from stx_mine.stages.train.schedule import Schedule
from stx_mine.stages.train.stage import run_train
from stx_mine.stages.train.trainer import row_numbers, train
from stx_mine.store.batches import list_packings


@pytest.fixture
def packed_run(small_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    run_pack(PackConfig(run_dir=str(run), batch_size=64))
    return run


@pytest.fixture
def model():
    return load_model("package:wordllama", device="cpu")


def test_sampler_reads_packings_in_order_then_cycles_in_a_new_order():
    sampler = PackedBatchSampler(range(24), 3, num_packings=2, num_passes=4, seed=1)
    batches = [batch[0] // 3 for batch in sampler]
    assert all(batch == list(range(batch[0], batch[0] + 3)) for batch in sampler)
    assert len(batches) == len(sampler) == 16
    assert batches[:8] == list(range(8))
    assert sorted(batches[8:12]) == [0, 1, 2, 3]
    assert sorted(batches[12:]) == [4, 5, 6, 7]
    orders = {
        tuple(PackedBatchSampler(range(24), 3, num_packings=2, num_passes=4, seed=s)._order(2))
        for s in range(20)
    }
    assert len(orders) > 5


def test_sampler_slices_keep_a_packed_batch_together():
    """Rank r of 2 takes every second slice: together the ranks see one packed batch a step."""
    sampler = PackedBatchSampler(range(16), 2, packed_batch_size=4)
    slices = list(sampler)
    for step in range(4):
        together = slices[2 * step] + slices[2 * step + 1]
        assert together == list(range(4 * step, 4 * step + 4))


def test_sampler_changes_the_order_every_epoch():
    sampler = PackedBatchSampler(range(400), 4)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        orders.append([batch[0] for batch in sampler])
    assert sorted(orders[1]) == sorted(orders[0]) == sorted(orders[2])
    assert orders[0] != orders[1] != orders[2]


@pytest.mark.parametrize(("rows", "size", "packed"), [(10, 4, None), (16, 3, 8), (8, 8, 12)])
def test_sampler_refuses_sizes_that_do_not_fit(rows, size, packed):
    with pytest.raises(ValueError, match="pack"):
        PackedBatchSampler(range(rows), size, packed_batch_size=packed)


def test_row_numbers_are_not_pickled_for_a_fingerprint(packed_run, monkeypatch):
    """Below a folder of `pip install --target`, dill takes pyarrow by value, and fails."""

    def refuse(*_):
        raise AssertionError("pickled")

    monkeypatch.setattr(arrow_dataset, "generate_fingerprint", refuse)
    rows = row_numbers(list_packings(packed_run / "batches"))
    assert rows["row"][-1] == len(rows) - 1 > 64


def test_collator_gives_every_row_its_own_texts(packed_run, model):
    shards = [one for packing in list_packings(packed_run / "batches") for one in packing]
    seen = {}

    def tokenise(texts, role, prompt):
        seen[role] = texts
        return Tokeniser(model)(texts, role, prompt)

    collator = PackedCollator(shards, tokenise)
    num_batches = sum(shard.num_batches for shard in shards)
    for number in (0, num_batches - 1):
        table = collator.read(number)
        start = number * 64
        batch = collator([{"row": row} for row in range(start, start + 64)])
        label = batch["label"]
        assert len(set(seen["query"])) == len(seen["query"])
        assert len(set(seen["passage"])) == len(seen["passage"])
        assert len(batch["passage_offsets"]) == len(seen["passage"])
        masked = {tuple(one) for one in label["ignored"].T.tolist()}
        for row, columns in enumerate(table.to_pylist()):
            assert seen["query"][label["anchors"][row]] == columns["anchor"]
            assert seen["passage"][label["targets"][row]] == columns["positive"]
            for slot, passage in enumerate(label["negatives"][row].tolist()):
                expected = columns[f"negative_{slot + 1}"]
                assert (seen["passage"][passage] if passage >= 0 else None) == expected
            assert sum(one == row for one, _ in masked) == len(columns["ignore_ids"])


def test_prompts_are_those_of_encode_query_and_encode_document(model):
    model.prompts = {"query": "search: ", "document": "text: "}
    for role, encode in (("query", model.encode_query), ("passage", model.encode_document)):
        features = Tokeniser(model)(["the cat sat"], role)
        with torch.no_grad():
            found = model(features)["sentence_embedding"][0].numpy()
        np.testing.assert_allclose(found, encode("the cat sat"), rtol=1e-6)


def test_plain_sentence_transformers_trains_on_whole_strict_batches(small_run, tmp_path, model):
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    run_pack(PackConfig(run_dir=str(run), batch_size=32, k=2, policy="strict", packings=1))
    dataset = load_dataset(str(run / "batches"), split="train", cache_dir=str(tmp_path / "cache"))
    assert dataset.column_names == ["anchor", "positive", "negative_1", "negative_2"]
    anchors = dataset["anchor"]
    batches = {frozenset(anchors[i : i + 32]) for i in range(0, len(dataset), 32)}
    seen = []

    class Recording(MultipleNegativesRankingLoss):
        def forward(self, sentence_features, labels):
            seen.append(len(sentence_features[0]["offsets"]))
            return super().forward(sentence_features, labels)

    class Watching(SentenceTransformerTrainer):
        def _build_dataloader(self, dataset, batch_size, dataset_kind):
            loader = super()._build_dataloader(dataset, batch_size, dataset_kind)
            rows = list(loader.batch_sampler)
            assert {frozenset(anchors[i] for i in batch) for batch in rows} == batches
            return loader

    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path / "out"),
        num_train_epochs=1,
        per_device_train_batch_size=32,
        batch_sampler=PackedBatchSampler,
        report_to="none",
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
    )
    Watching(model=model, args=arguments, train_dataset=dataset, loss=Recording(model)).train()
    assert seen == [32] * len(batches)


def loaded(folder, tmp_path, name=None):
    return load_dataset(str(folder), name, split="train", cache_dir=str(tmp_path / "cache"))


def test_the_sampler_refuses_batches_that_need_a_mask(packed_run, tmp_path, model):
    """Packed by the policy merge, however a person opens them."""
    folder = packed_run / "batches"
    default, full = loaded(folder, tmp_path), loaded(folder, tmp_path, "full")
    assert "ignore_ids" not in default.column_names
    files = load_dataset(
        "parquet",
        data_files=f"{folder}/epoch-000/*.parquet",
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    texts = default.select_columns(["anchor", "positive"]).map(lambda row: row)
    for dataset in (default, full, texts):
        with pytest.raises(
            ValueError, match=r"the policy merge, .* `stx-mine pack --policy strict"
        ):
            PackedBatchSampler(dataset, 64)
    with pytest.raises(ValueError, match=r"found ignore_ids.* `stx-mine pack --policy strict"):
        PackedBatchSampler(files, 64)
    streamed = load_dataset(str(folder), split="train", streaming=True)
    assert streamed.info.description.endswith("policy merge")
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path / "out"),
        per_device_train_batch_size=64,
        batch_sampler=PackedBatchSampler,
        report_to="none",
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
    )
    for dataset in (default, texts):
        trainer = SentenceTransformerTrainer(
            model=model,
            args=arguments,
            train_dataset=dataset,
            loss=MultipleNegativesRankingLoss(model),
        )
        with pytest.raises(ValueError, match="--policy strict"):
            trainer.train()


def test_the_sampler_refuses_a_text_that_a_batch_repeats():
    """Whoever packed it, and whatever is known of it."""
    rows = {"anchor": [f"a{n}" for n in range(8)], "positive": [f"p{n % 6}" for n in range(8)]}
    PackedBatchSampler(Dataset.from_dict(rows), 4)
    with pytest.raises(
        ValueError, match=r"found 'p0' twice in batch 0: .* --policy strict .*train"
    ):
        PackedBatchSampler(Dataset.from_dict(rows), 8)


def test_the_sampler_takes_strict_batches_and_names_their_configuration(run_copy, tmp_path):
    config = {"run_dir": str(run_copy), "batch_size": 32, "k": 2, "packings": 2, "overwrite": True}
    run_pack(PackConfig(**config, policy="strict"))
    dataset = loaded(run_copy / "batches", tmp_path)
    assert len(PackedBatchSampler(dataset, 16, packed_batch_size=32)) == len(dataset) // 16
    full = loaded(run_copy / "batches", tmp_path, "full")
    with pytest.raises(ValueError, match=r'what load_dataset\(DIR, split="train"\) gives'):
        PackedBatchSampler(full, 32)
    both = full.select_columns(["anchor", "positive", "negative_1", "negative_2"])
    assert len(PackedBatchSampler(both, 32, num_packings=2, num_passes=2)) == len(both) // 32
    run_pack(PackConfig(**config, policy="strict", layout="ids"))
    with pytest.raises(ValueError, match=r"ids alone .* --layout inline"):
        PackedBatchSampler(loaded(run_copy / "batches", tmp_path), 32)


def test_the_sampler_refuses_slices_of_one_label(run_copy, tmp_path):
    run_pack(PackConfig(run_dir=str(run_copy), batch_size=16, layout="labels", overwrite=True))
    dataset = loaded(run_copy / "batches", tmp_path)
    assert len(PackedBatchSampler(dataset, 16)) == len(dataset) // 16
    with pytest.raises(ValueError, match=r"two labels or more in every step, found .* alone in"):
        PackedBatchSampler(dataset, 2, packed_batch_size=16)
    with pytest.raises(ValueError, match="found text_id"):
        PackedBatchSampler(loaded(run_copy / "batches", tmp_path, "full"), 16)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"loss": "triplet"},
        {"symmetric": True, "weight": "logq", "matryoshka_dims": (64, 256)},
        {"negatives": "hard", "shared_negatives": 32, "hardness": 5.0},
    ],
)
def test_training_lowers_the_loss_and_saves_a_model_that_loads(packed_run, options):
    report = run_train(TrainConfig(run_dir=str(packed_run), device="cpu", **options))
    assert report.counts["last_loss"] < 0.8 * report.counts["first_loss"]
    trained = SentenceTransformer(str(packed_run / "model"), device="cpu")
    base = load_model("package:wordllama", device="cpu")
    assert not torch.equal(next(trained.parameters()), next(base.parameters()))
    assert not (packed_run / "model" / "checkpoints").exists()


class InterruptedRunError(Exception):
    pass


def test_a_run_that_dies_goes_on_with_the_very_next_batch(packed_run, tmp_path):
    packings = list_packings(packed_run / "batches")
    batches = sum(shard.num_batches for shard in packings[0])
    passes = len(packings) + 1
    schedule = Schedule(
        num_passes=passes, learning_rate=0.01, warmup=0.1, seed=3, checkpoint_steps=2
    )

    def run(folder, stop_after=None):
        model = load_model("package:wordllama", device="cpu")
        inner, seen = PackedMNRLoss(model, 0.05, 32, 64), []

        class Watched(torch.nn.Module):
            def forward(self, features, labels):
                if stop_after is not None and len(seen) == stop_after:
                    raise InterruptedRunError
                seen.append(float(features[1]["input_ids"].sum()))
                return inner(features, labels)

        try:
            collator = PackedCollator(
                [shard for packing in packings for shard in packing], Tokeniser(model)
            )
            train(model, Watched(), packings, collator, schedule, folder)
        except InterruptedRunError:
            pass
        return seen, next(model.parameters()).detach()

    whole, weights = run(tmp_path / "whole")
    assert len(whole) == batches * passes
    # Every batch of the packings that were read once is another one.
    assert len(set(whole)) == batches * len(packings)
    first, _ = run(tmp_path / "broken", stop_after=5)
    second, resumed = run(tmp_path / "broken")
    assert first == whole[:5]
    # The last checkpoint was written after step 4.
    assert second == whole[4:]
    torch.testing.assert_close(resumed, weights)


def test_learning_rates_follow_the_batch_and_the_kind_of_model():
    # Measured on five sets: benchmarks/results/learning_rates.json.
    for size in (64, 2_048):
        most = 0.05 if size == 64 else 0.1
        assert default_learning_rate(size, 6, 8_192_000, static=True)[0] == most
        assert default_learning_rate(size, 50, 8_192_000, static=True)[0] == most
        assert default_learning_rate(size, 800, 8_192_000, static=True)[0] == pytest.approx(0.05)
    other = default_learning_rate(2_048, 9, 8_192_000, static=True, ranks=False)[0]
    assert other == pytest.approx(0.0996, 1e-3)
    assert default_learning_rate(64, 9, 22_000_000, static=False)[0] == pytest.approx(1.5e-4)
    assert default_learning_rate(16, 9, 22_000_000, static=False)[0] == pytest.approx(7.5e-5)
    assert default_learning_rate(65_536, 9, 22_000_000, static=False)[0] == pytest.approx(2e-4)
    assert default_learning_rate(65_536, 9, 400_000_000, static=False)[0] == pytest.approx(5e-5)
    assert default_learning_rate(16, 9, 400_000_000, static=False)[0] == pytest.approx(2.5e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"negatives": "hard", "symmetric": True}, "--symmetric does not fit --negatives hard"),
        ({"negatives": "hard", "weight": "logq"}, "--weight logq does not fit --negatives hard"),
        (
            {"shared_negatives": 3},
            "--shared-negatives 3 needs --negatives hard",
        ),
        (
            {"loss": "triplet", "hardness": 1.0},
            "--hardness 1.0 needs --loss mnr, found --loss triplet",
        ),
        ({"matryoshka_dims": (64, 0)}, "at least 1, found 0"),
    ],
)
def test_options_that_do_not_fit_one_another_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        TrainConfig(**options)


def test_more_dimensions_than_the_model_has_are_refused(packed_run):
    config = TrainConfig(run_dir=str(packed_run), device="cpu", matryoshka_dims=(64, 512))
    with pytest.raises(ConfigError, match="256 dimensions of the model, found 512"):
        run_train(config)


def test_shared_passages_are_drawn_anew_for_each_batch(packed_run):
    shards = [one for packing in list_packings(packed_run / "batches") for one in packing]
    collator = PackedCollator(shards, lambda texts, role, prompt: {}, num_shared=16, seed=1)
    drawn = [collator.collate(collator.read(n))["label"]["shared"].tolist() for n in (0, 1, 0)]
    assert drawn[0] == drawn[2] != drawn[1]
    assert all(len(set(one)) == 16 for one in drawn)
    other = PackedCollator(shards, lambda texts, role, prompt: {}, num_shared=16, seed=2)
    assert other.collate(other.read(0))["label"]["shared"].tolist() != drawn[0]


def test_a_model_of_this_run_is_the_students_default(packed_run):
    report = run_train(TrainConfig(run_dir=str(packed_run), device="cpu", epochs=1))
    assert report.counts["passes"] == 1


def test_a_transformer_trains_on_packed_batches_in_mini_batches(packed_run, tiny_transformer):
    config = TrainConfig(
        run_dir=str(packed_run),
        model=str(tiny_transformer),
        batch_tokens=1_024,
        max_length=32,
        learning_rate=5e-3,
        device="cpu",
    )
    counts = run_train(config).counts
    assert counts["last_loss"] < counts["first_loss"] - 0.1
    trained = SentenceTransformer(str(packed_run / "model"), device="cpu")
    assert trained.max_seq_length == 32
    before = SentenceTransformer(str(tiny_transformer), device="cpu")
    text = "a small dog"
    assert not np.allclose(trained.encode(text), before.encode(text), atol=1e-3)
