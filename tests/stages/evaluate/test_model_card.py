"""The card of a trained model says what it was made of, and nothing of this machine."""

import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import ModelCard
from sentence_transformers import SentenceTransformer

from stx_mine.errors import ConfigError, TrainingError
from stx_mine.inputs.config import Source
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.evaluate.config import EvaluateConfig
from stx_mine.stages.evaluate.model_card import renew_cards, shown, write_card
from stx_mine.stages.evaluate.stage import run_evaluate
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.stage import run_train
from stx_mine.store.artifact import read_manifest
from stx_mine.store.files import read_json, write_json
from stx_mine.store.manifest import sealed
from stx_mine.store.run_dir import RunDir
from stx_mine.store.training_log import TRAINING_LOG, read_log


@pytest.fixture(scope="module")
def trained(small_run, tmp_path_factory):
    run = tmp_path_factory.mktemp("trained") / "run"
    shutil.copytree(small_run, run)
    run_pack(PackConfig(run_dir=str(run), batch_size=64, packings=2))
    run_train(TrainConfig(run_dir=str(run), device="cpu", learning_rate=0.05))
    return run


@pytest.fixture
def trained_run(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    return run


def card_of(run):
    return (run / "model" / "README.md").read_text("utf-8")


def test_a_card_says_what_the_manifests_say(trained):
    card = card_of(trained)
    counts = {
        name: read_manifest(trained / name).counts for name in ("texts", "negatives", "model")
    }
    for word in (
        "`pairs.parquet`",
        "- corpus: `corpus.parquet`",
        f"- pairs: {counts['texts']['pairs_in']:,} read, {counts['texts']['pairs_kept']:,} kept",
        f"{counts['negatives']['rows_full']:,} with all 4 negatives",
        f"known positive {counts['negatives']['dropped']['known_positive']:,}",
        "| relative margin | 0.05 |",
        "| miner | package:wordllama |",
        "| search | exact |",
        "| batch size | 64 |",
        "| policy | merge |",
        "| packings | 2 |",
        "| loss | mnr |",
        f"| steps | {counts['model']['steps']} |",
        "| learning rate | 0.05 (as asked) |",
        f"| last loss | {counts['model']['last_loss']:.4g} |",
        "256 dimensions, compares by cosine",
    ):
        assert word in card, word
    assert "icen" not in card
    assert "Metrics" not in card


def test_a_card_names_no_folder_of_this_machine(trained, small_input):
    card = card_of(trained)
    for folder in (trained, small_input, Path.cwd(), Path.home()):
        assert str(folder) not in card


def test_a_card_is_one_that_hubs_read(trained):
    card = ModelCard(card_of(trained))
    assert card.data.library_name == "sentence-transformers"
    assert card.data.pipeline_tag == "sentence-similarity"
    assert "stx-mine" in card.data.tags
    # A name of a package is no name of a hub.
    assert "base_model" not in yaml.safe_load(card_of(trained).split("---")[1])
    SentenceTransformer(str(trained / "model"), device="cpu")


def test_training_that_is_done_writes_a_lost_card_again(trained_run):
    card = card_of(trained_run)
    digest = read_manifest(trained_run / "model").digest
    (trained_run / "model" / "README.md").unlink()
    report = run_train(TrainConfig(run_dir=str(trained_run), device="cpu", learning_rate=0.05))
    assert report.skipped
    assert card_of(trained_run) == card
    assert read_manifest(trained_run / "model").digest == digest
    files = [one["file"] for one in read_manifest(trained_run / "model").content["files"]]
    assert "README.md" not in files
    assert "modules.json" in files


def test_a_card_has_the_metrics_before_and_after(trained_run, repo_root):
    dev = repo_root / "data/quickstart/dev.parquet"
    run_evaluate(EvaluateConfig(run_dir=str(trained_run), data=(str(dev),), device="cpu"))
    results = read_json(trained_run / "evaluations/dev/results.json")["models"]
    card = card_of(trained_run)
    rows = {line.split(" | ")[0]: line for line in card.splitlines() if line.startswith("| ")}
    assert "`dev`:" in card
    for when, name in (("| before", "package:wordllama"), ("| after", trained_run / "model")):
        for value in results[str(name)].values():
            assert f"{value:.4f}" in rows[when]
    # Another model of that name is another model.
    manifest = trained_run / "evaluations/dev/manifest.json"
    content = read_json(manifest)
    for _, contract in content["extra"]["models"]:
        contract["weights"] = "0" * 32
    write_json(manifest, sealed(content))
    renew_cards(RunDir(trained_run))
    assert "Metrics" not in card_of(trained_run)


def test_a_card_has_what_was_evaluated_while_it_trained(run_copy, repo_root):
    run_pack(PackConfig(run_dir=str(run_copy), batch_size=128, packings=1))
    dev = repo_root / "data/quickstart/dev.parquet"
    run_train(TrainConfig(run_dir=str(run_copy), device="cpu", evaluation=(str(dev),)))
    log = [one for one in read_log(run_copy / "model" / TRAINING_LOG) if "evaluations" in one]
    best = read_manifest(run_copy / "model").extra["evaluation"]["best_step"]
    card = card_of(run_copy)
    rows = {line.split(" | ")[0]: line for line in card.splitlines() if line.startswith("| ")}
    for when, step in (("| before", 0), ("| after", best)):
        found = next(one["evaluations"]["dev"] for one in log if one["step"] == step)
        for value in found.values():
            assert f"{value:.4f}" in rows[when]
    assert str(repo_root) not in card


def test_a_card_does_not_speak_of_what_was_made_since(trained_run):
    run_mine(MineConfig(run_dir=str(trained_run), k=2, relative_margin=0.2, device="cpu"))
    write_card(RunDir(trained_run))
    card = card_of(trained_run)
    assert "## Batches" in card
    assert "## Hard negatives" not in card


def test_a_card_lists_sources_and_their_prompts(small_input, tmp_path):
    pairs = pq.read_table(small_input / "pairs.parquet")
    sources = []
    for number, name in enumerate(("words", "more")):
        path = tmp_path / "secret" / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        part: pa.Table = pairs.slice(number * 200, 200)
        pq.write_table(part, path)
        sources.append(
            Source(name=name, path=str(path), query_prompt=f"{name}: ", weight=1 + number)
        )
    run = str(tmp_path / "run")
    run_embed(EmbedConfig(run_dir=run, sources=tuple(sources), device="cpu"))
    run_mine(MineConfig(run_dir=run, k=2, device="cpu"))
    run_pack(PackConfig(run_dir=run, batch_size=32, packings=1))
    run_train(TrainConfig(run_dir=run, device="cpu", epochs=1))
    card = card_of(Path(run))
    assert "secret" not in card
    counts = read_manifest(Path(run, "texts")).counts["sources"]
    assert f"| words | {counts['words']['pairs_kept']:,} | `words.parquet` | 1 |" in card
    assert f"| more | {counts['more']['pairs_kept']:,} | `more.parquet` | 2 |" in card
    assert '| words-query | `"words: "` |' in card


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("package:wordllama", "package:wordllama"),
        ("someone/some-model", "someone/some-model"),
        ("/home/someone/models/mine", "mine"),
        ("../models/mine", "mine"),
        ("a/b/c", "c"),
        ("random", "random"),
    ],
)
def test_only_the_last_part_of_a_path_is_shown(name, expected):
    assert shown(name) == expected


def test_no_name_of_others_is_markup_in_a_card(trained_run):
    """Names of files, sources, models and prompts, as somebody may have chosen them."""
    evil = "x\n---\nlicense: evil\n---\n<script>alert(1)</script>|`](http://evil)"
    path = trained_run / "texts" / "manifest.json"
    texts = read_json(path)
    texts["config"] |= {
        "corpus": evil,
        "sources": [{"name": evil, "path": evil, "weight": 1.0}],
    }
    texts["counts"]["sources"] = {evil: {"pairs_kept": 1}}
    write_json(path, sealed(texts))
    path = trained_run / "model" / "manifest.json"
    model = read_json(path)
    model["extra"]["base_model"] = evil
    model["config"] |= {"model": evil, "guide": "s3://user:secret@bucket/guide"}
    settings = trained_run / "model" / "config_sentence_transformers.json"
    write_json(settings, {**read_json(settings), "prompts": {evil: evil}})
    for one in model["files"]:
        if one["file"] == settings.name:
            one["bytes"] = settings.stat().st_size
    write_json(path, sealed(model))
    write_card(RunDir(trained_run))
    card = card_of(trained_run)
    head = yaml.safe_load(card.split("---\n")[1])
    assert set(head) == {"library_name", "pipeline_tag", "tags"}
    assert card.split("\n").count("---") == 2
    assert "<script" not in card and "secret" not in card
    assert not re.search(r"(?<!\\)\]\(http://evil", card)
    assert "alert(1)" in card


def test_a_training_that_overwrites_and_fails_keeps_the_earlier_model(trained_run):
    def files():
        paths = (trained_run / "model").rglob("*")
        return {path: path.read_bytes() for path in paths if path.is_file()}

    before = files()
    for wrong in ({"learning_rate": 1e30}, {"precision": "fp16"}):
        with pytest.raises((TrainingError, ConfigError)):
            run_train(
                TrainConfig(
                    run_dir=str(trained_run),
                    device="cpu",
                    overwrite=True,
                    **{"learning_rate": 0.01, **wrong},
                )
            )
        assert files() == before
    # What a kill after the last file leaves is cleared by the next command.
    (trained_run / "model" / "checkpoints" / "checkpoint-9").mkdir(parents=True)
    again = TrainConfig(run_dir=str(trained_run), device="cpu", learning_rate=0.05)
    assert run_train(again).skipped
    assert files() == before
    assert not (trained_run / "model" / "checkpoints").exists()
