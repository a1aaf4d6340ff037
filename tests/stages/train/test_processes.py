"""Training in several processes is training in one: gradients, order of rows, resume, files."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import Cli, cli_command, cli_environment
from ranks import (
    BATCH,
    CACHED,
    CASES,
    LOSSES,
    WHOLE,
    double_model,
    packed_shards,
    run_ranks,
    step,
)
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from stx_mine.models.tokenise import Tokeniser
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train.checkpoints import last_checkpoint, list_files, remove_incomplete
from stx_mine.stages.train.collator import PackedCollator, text_rareness
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.held_back import hold_back
from stx_mine.stages.train.probe import plan_probe
from stx_mine.stages.train.processes import Processes
from stx_mine.store.batches import list_packings, slot_text_ids
from stx_mine.store.training_log import TRAINING_LOG, read_log

B = 64


@pytest.fixture(scope="module")
def folder(small_input, tiny_transformer, tmp_path_factory) -> Path:
    """`run`: packed batches of many rows to a query and to a passage; `tiny`: a transformer.

    `labels`: batches of (text, label) rows.
    """
    folder = tmp_path_factory.mktemp("processes")
    shutil.copytree(tiny_transformer, folder / "tiny")
    texts = pq.read_table(small_input / "pairs.parquet")
    rows = np.arange(7 * B)
    queries, passages = rows % 40, (rows + rows // 40 * 11) % 90
    pairs = {"query": texts.column(0).take(queries), "passage": texts.column(1).take(passages)}
    pq.write_table(pa.table(pairs), folder / "pairs.parquet")
    run = {"run_dir": str(folder / "run"), "device": "cpu"}
    run_embed(
        EmbedConfig(
            pairs=str(folder / "pairs.parquet"), corpus=str(small_input / "corpus.parquet"), **run
        )
    )
    run_mine(MineConfig(k=4, relative_margin=None, min_score=0.15, **run))
    run_pack(PackConfig(run_dir=run["run_dir"], batch_size=B, scores=True))
    rows = {"text": texts.column(1), "label": np.arange(len(texts)) % 40}
    pq.write_table(pa.table(rows), folder / "labels.parquet")
    labels = {"layout": "labels", "labeled": str(folder / "labels.parquet")}
    run_pack(PackConfig(run_dir=str(folder / "labels"), batch_size=B, **labels))
    return folder


@pytest.fixture(scope="module")
def two_processes(folder) -> Path:
    """The folder with what two processes found in every case."""
    run_ranks(2, "gradients", folder)
    return folder


def test_the_batch_of_the_cases_has_all_that_is_hard(folder):
    collator = PackedCollator(packed_shards(folder), lambda texts, role, prompt: {"texts": texts})
    label = collator.collate(collator.read(BATCH))["label"]
    assert label["ignored"].shape[1] > B
    assert label["num_anchors"] < B
    assert len(label["targets"].unique()) < B
    full = (label["negatives"] >= 0).all(1)
    assert full.any()
    assert not full.all()
    assert label["num_passages"] % 2 or label["num_anchors"] % 2, "shares of different lengths"


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda n: "-".join(map(str, CASES[n])))
def test_two_processes_have_the_loss_and_the_gradients_of_one(two_processes, number):
    found = [load_file(two_processes / f"{number}-{rank}.safetensors") for rank in range(2)]
    losses = [one.pop("loss").item() for one in found]
    loss, expected = step(two_processes, CASES[number], Processes())
    # Over labels each has the loss of the whole batch.
    assert (losses[0] == losses[1]) == CASES[number][1].startswith("batch-")
    assert sum(losses) / 2 == pytest.approx(loss, abs=1e-9)
    assert any(one.abs().max() > 1e-4 for one in expected.values())
    for one in found:
        assert set(one) == set(expected)
        for name, gradient in expected.items():
            torch.testing.assert_close(one[name], gradient, atol=1e-9, rtol=1e-6)


def slow_loss(table: pa.Table, config: TrainConfig, embedded: dict[int, torch.Tensor]) -> object:
    """The loss by loops over rows and slots, from the ids of the table.

    Args:
        table: A packed batch.
        config: The options; no hard negatives alone, no shared ones, no Matryoshka.
        embedded: Group -> unit vectors of the text as anchor and as passage.
    """
    rows = table.to_pylist()
    right: dict[int, set[int]] = {}
    for row in rows:
        known = right.setdefault(row["anchor_id"], set())
        known |= {row["positive_id"], *row["ignore_ids"]}
    slots = [one for row in rows for one in (row["positive_id"], *row["negative_ids"])]
    anchor_slots = [row["anchor_id"] for row in rows]
    counted = config.weight == "count"
    passages = slots if counted else sorted(set(slots))
    anchors = anchor_slots if counted else sorted(set(anchor_slots))
    scale, losses = 1 / config.temperature, []
    for row in rows:
        query, positive = row["anchor_id"], row["positive_id"]
        score = embedded[query][0] @ embedded[positive][1]
        others = [
            embedded[query][0] @ embedded[one][1]
            for one in passages
            if one != positive and one not in right[query]
        ]
        logits = [scale * one + config.hardness * one.detach() for one in others]
        logits += [scale * score] * passages.count(positive)
        losses.append(torch.stack(logits).logsumexp(0) - scale * score)
        if config.symmetric:
            logits = [
                scale * embedded[one][0] @ embedded[positive][1]
                for one in anchors
                if one == query or positive not in right[one]
            ]
            losses.append(torch.stack(logits).logsumexp(0) - scale * score)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("name", ["mnr", "symmetric", "count"])
def test_a_packed_batch_has_the_loss_of_loops_over_its_ids(folder, name):
    config = TrainConfig(**LOSSES[name])
    loss, _ = step(folder, ("static", name, WHOLE), Processes())
    model = double_model(folder, "static")
    collator = PackedCollator(packed_shards(folder), Tokeniser(model))
    table = collator.read(BATCH)
    ids = table.column("anchor_id").to_pylist(), slot_text_ids(table, 4).T.tolist()
    texts = {}
    for row, (anchor, slots) in zip(table.to_pylist(), zip(*ids, strict=True), strict=True):
        texts[anchor] = row["anchor"]
        for place, slot in enumerate(slots):
            texts[slot] = row[f"negative_{place}"] if place else row["positive"]
    texts.pop(-1)
    vectors = model.encode(list(texts.values()), convert_to_tensor=True, normalize_embeddings=True)
    both = {group: (one, one) for group, one in zip(texts, vectors, strict=True)}
    # Logarithms of counts are float32.
    assert float(slow_loss(table, config, both)) == pytest.approx(loss, abs=1e-7)


@pytest.mark.parametrize("name", LOSSES)
def test_mini_batches_and_chunks_change_nothing(folder, name):
    whole = step(folder, ("transformer", name, WHOLE), Processes())
    cached = step(folder, ("transformer", name, CACHED), Processes())
    unchunked = step(folder, ("transformer", name, WHOLE), Processes(), chunk_rows=1_000)
    for loss, gradients in (cached, unchunked):
        assert loss == pytest.approx(whole[0], abs=1e-9)
        for key, gradient in gradients.items():
            torch.testing.assert_close(gradient, whole[1][key], atol=1e-9, rtol=1e-6)


def test_rareness_is_one_over_the_share_of_batches(folder):
    shards = packed_shards(folder)
    anchors, passages = text_rareness(shards)
    collator = PackedCollator(shards, lambda texts, role, prompt: {})
    tables = [collator.read(n) for n in range(sum(shard.num_batches for shard in shards))]
    held = [set(slot_text_ids(table, 4).flatten().tolist()) for table in tables]
    asked = [set(table.column("anchor_id").to_pylist()) for table in tables]
    for rareness, sets in ((anchors, asked), (passages, held)):
        for group in set().union(*sets) - {-1}:
            assert rareness[group] == len(sets) / sum(group in one for one in sets)


@pytest.mark.parametrize("num_shares", [2, 4, 64])
def test_shares_have_every_text_once_and_every_row_once(folder, num_shares):
    """Less the last text, which fills up the shorter shares."""
    collator = PackedCollator(packed_shards(folder), lambda texts, role, prompt: {"texts": texts})
    whole = collator(rows_of(1, 0, 1))
    parts = [collator(rows_of(1, share, num_shares)) for share in range(num_shares)]
    for role in ("anchor", "passage"):
        texts = whole[f"{role}_texts"]
        columns = [part[f"{role}_texts"] for part in parts]
        assert len({len(column) for column in columns}) == 1
        dealt = [text for row in zip(*columns, strict=True) for text in row]
        assert dealt[: len(texts)] == texts
        assert set(dealt[len(texts) :]) <= {texts[-1]}
        assert len(dealt) - len(texts) < num_shares
    for name in ("anchors", "targets", "negatives"):
        together = torch.cat([part["label"][name] for part in parts])
        torch.testing.assert_close(together, whole["label"][name])
    ignored = [
        part["label"]["ignored"] + torch.tensor([[share * B // num_shares], [0]])
        for share, part in enumerate(parts)
    ]
    torch.testing.assert_close(torch.cat(ignored, 1), whole["label"]["ignored"])


def rows_of(batch: int, share: int, num_shares: int) -> list[dict[str, int]]:
    size = B // num_shares
    first = batch * B + share * size
    return [{"row": row} for row in range(first, first + size)]


def settings(kind: str, folder: Path) -> dict[str, object]:
    if kind == "static":
        return {"checkpoint_steps": 4, "epochs": 3}
    small = {"model": str(folder / "tiny"), "max_length": 24, "batch_tokens": 512}
    return {"checkpoint_steps": 4, "epochs": 1, "learning_rate": 5e-3, **small}


def seen(log: Path, num_processes: int) -> list[list[int]]:
    """Rows of every step, of all processes."""
    ranks = [json.loads(log.with_name(f"{log.name}-{r}").read_text()) for r in range(num_processes)]
    return [[row for rows in step for row in rows] for step in zip(*ranks, strict=True)]


WATCHED: dict[str, Any] = {
    "epochs": 4,
    "evaluation_steps": 2,
    "patience": 4,
    "checkpoint_steps": 4,
    "learning_rate": "probe",
    "validation_share": 0.2,
}
TIMED = ("seconds", "samples_per_second", "eta_seconds", "peak_rss_bytes")


def untimed_log(run: Path) -> list[dict[str, object]]:
    return [
        {key: value for key, value in line.items() if key not in TIMED}
        for line in read_log(run / "model" / TRAINING_LOG)
    ]


def assert_alike(one: object, other: object, rel: float) -> None:
    """Numbers within dicts and lists are as good as equal."""
    if isinstance(one, dict):
        assert isinstance(other, dict)
        assert set(one) == set(other)
        for key, value in one.items():
            assert_alike(value, other[key], rel)
    else:
        assert other == pytest.approx(one, rel=rel, abs=rel)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return dict(SentenceTransformer(str(run / "model"), device="cpu").state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["static", "transformer"])
def test_a_killed_run_goes_on_with_the_very_next_batch(folder, tmp_path, kind):
    """Killed after step 6 of a run with checkpoints after every fourth."""
    how, log = json.dumps(settings(kind, folder)), tmp_path / "log"
    for name in ("whole", "broken"):
        shutil.copytree(folder / "run", tmp_path / name)
    run_ranks(2, "training", tmp_path / "whole", log, -1, how)
    expected = seen(log, 2)
    assert all(step == list(range(step[0], step[0] + B)) for step in expected)
    killed = run_ranks(2, "training", tmp_path / "broken", log, 6, how, check=False)
    assert killed == [-signal.SIGKILL] * 2
    assert seen(log, 2) == expected[:6]
    shutil.copytree(tmp_path / "broken", tmp_path / "alone")
    run_ranks(2, "training", tmp_path / "broken", log, -1, how)
    assert seen(log, 2) == expected[4:]
    whole = weights(tmp_path / "whole")
    resumed = weights(tmp_path / "broken")
    assert all(torch.equal(one, resumed[name]) for name, one in whole.items())
    assert untimed_log(tmp_path / "broken") == untimed_log(tmp_path / "whole")
    if kind == "static":
        # Without dropout another number of processes changes nothing but rounding.
        run_ranks(1, "training", tmp_path / "alone", log, -1, how)
        assert seen(log, 1) == expected[4:]
        for key, one in weights(tmp_path / "alone").items():
            torch.testing.assert_close(one, whole[key], atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_a_watched_run_that_is_killed_is_the_whole_one(folder, small_input, tmp_path):
    """Two processes that probe, hold back, evaluate and stop early, killed after step 7."""
    how = json.dumps({**WATCHED, "evaluation": [str(small_input / "pairs.parquet")]})
    log = tmp_path / "log"
    for name in ("whole", "broken", "alone"):
        shutil.copytree(folder / "run", tmp_path / name)
    run_ranks(2, "training", tmp_path / "whole", log, -1, how)
    # The probe's steps come first: three rates of as many steps.
    packings = hold_back(
        list_packings(folder / "run/batches"), WATCHED["validation_share"]
    ).packings
    probed = 3 * plan_probe(packings, 0).num_steps
    killed = run_ranks(2, "training", tmp_path / "broken", log, probed + 7, how, check=False)
    assert killed == [-signal.SIGKILL] * 2
    live = untimed_log(tmp_path / "broken")
    assert [one["step"] for one in live] == list(range(8))
    plan = json.loads((tmp_path / "broken/model/plan.json").read_text())
    run_ranks(2, "training", tmp_path / "broken", log, -1, how)
    expected = untimed_log(tmp_path / "whole")
    assert untimed_log(tmp_path / "broken") == expected
    assert live == expected[:8]
    whole = weights(tmp_path / "whole")
    assert all(torch.equal(one, whole[name]) for name, one in weights(tmp_path / "broken").items())
    # One process finds the same, but for rounding and the texts that fill up a share.
    run_ranks(1, "training", tmp_path / "alone", log, -1, how)
    alone = untimed_log(tmp_path / "alone")
    rates = [
        json.loads((tmp_path / name / "model/plan.json").read_text())["choices"]
        for name in ("whole", "alone")
    ]
    assert rates[0]["learning_rate"] == rates[1]["learning_rate"]
    assert plan["choices"] == rates[0]
    assert_alike(
        {key: value for key, value in alone[0].items() if key != "tokens"}, expected[0], 1e-5
    )


def test_torchrun_speaks_with_one_voice(folder, tmp_path, cli_here: Cli):
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = [*launch, "--no-python", *cli_command("train", "--run-dir", run, "--device", "cpu")]
    done = subprocess.run(
        command, capture_output=True, text=True, env=cli_environment(), timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("model: done in") == 1
    assert done.stdout.count("processes: 2") == 1
    again = cli_here("train", "--device", "cpu", run_dir=run)
    assert "skipped" in again.stdout
    assert not (run / "model/checkpoints").exists()


@pytest.mark.slow
def test_two_processes_merge_once(folder, small_input, tmp_path):
    """The first evaluates, merges and writes; the other one waits for it."""
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    words = ("--device", "cpu", "--epochs", "1", "--run-dir", str(run))
    held_out = ("--evaluation", str(small_input / "pairs.parquet"), "--merge-with-base", "auto")
    command = [sys.executable, *torchrun, "-m", "stx_mine", "train", *words, *held_out]
    done = subprocess.run(command, capture_output=True, text=True, env=cli_environment())
    assert done.returncode == 0, done.stderr[-2_000:]
    assert done.stdout.count("merged with the base: ") == 1
    assert (run / "model/manifest.json").exists()


@pytest.mark.slow
def test_processes_that_cannot_share_a_batch_are_told_what_fits(folder, tmp_path, cli_here):
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "3"]
    command = [*launch, "--no-python", *cli_command("train", "--run-dir", run, "--device", "cpu")]
    done = subprocess.run(
        command, capture_output=True, text=True, env=cli_environment(), timeout=240
    )
    assert done.returncode != 0
    lines = [one for one in done.stderr.splitlines() if one.startswith("stx-mine: error")]
    assert len(lines) == 1
    assert "divides the batch size 64, found 3; start 1, 2, 4, 8, 16, 32, 64, or pack" in lines[0]
    assert not (run / "model").exists()


def test_a_checkpoint_that_is_cut_short_is_passed_over(tmp_path):
    assert last_checkpoint(tmp_path / "none") is None
    best = {"global_step": 16, "best_model_checkpoint": "/elsewhere/checkpoint-4"}
    states = {4: '{"global_step": 4}', 12: '{"global_step": 12}', 16: json.dumps(best), 20: '{"gl'}
    for number, state in states.items():
        folder = tmp_path / f"checkpoint-{number}"
        (folder / "1_Pooling").mkdir(parents=True)
        for name in ("model.safetensors", "1_Pooling/config.json"):
            (folder / name).write_text("whole")
        list_files(folder, 1)
        (folder / "trainer_state.json").write_text(state)
    (tmp_path / "checkpoint-24").mkdir()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-16")
    # Without the best one until then, a checkpoint would end in another model.
    (tmp_path / "checkpoint-4" / "1_Pooling" / "config.json").unlink()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-12")
    remove_incomplete(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-12", "checkpoint-16"]
    (tmp_path / "checkpoint-12" / "model.safetensors").write_text("")
    assert last_checkpoint(tmp_path) is None


def test_the_random_numbers_of_every_process_belong_to_a_checkpoint(tmp_path):
    folder = tmp_path / "checkpoint-4"
    folder.mkdir()
    (folder / "rng_state_0.pth").write_text("0")
    (folder / "model.safetensors").write_text("weights")
    list_files(folder, 2)
    (folder / "trainer_state.json").write_text('{"global_step": 4}')
    assert last_checkpoint(tmp_path) is None
    (folder / "rng_state_1.pth").write_text("1")
    assert last_checkpoint(tmp_path) == str(folder)
