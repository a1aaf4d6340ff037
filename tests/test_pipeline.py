"""Pipeline files: YAML to configs in order, rounds, and whole runs of real stages."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from conftest import Cli, Finished
from sentence_transformers import SentenceTransformer

from stx_mine.commands import COMMANDS, PIPELINE_STAGES
from stx_mine.errors import ConfigError
from stx_mine.pipeline import Pipeline, load_pipeline, pipeline_steps
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.train.config import TrainConfig
from stx_mine.store.artifact import require
from stx_mine.store.files import checksum, read_json
from stx_mine.store.run_dir import RunDir

EVERY_STAGE = """
run_dir: RUN
evaluate:
  data: dev.parquet
  corpus: corpus.parquet
train: {}
pack:
  batch_size: 64
embed:
  pairs: pairs.parquet
  corpus: corpus.parquet
  query_column: query
  model: package:wordllama
  max_length: 64
mine:
  k: 4
"""


def load(folder: Path, content: str, *overrides: str, overwrite: bool = False) -> Pipeline:
    path = folder / "pipeline.yaml"
    path.write_text(content.replace("RUN", str(folder / "run")))
    return load_pipeline(str(path), list(overrides), overwrite)


def steps(pipeline: Pipeline) -> list[tuple[int, str]]:
    return [(number, stage) for number, stage, _ in pipeline_steps(pipeline)]


def config_of(pipeline: Pipeline, stage: str, number: int = 1) -> Any:
    return next(
        config
        for at, name, config in pipeline_steps(pipeline)
        if (at, name) == (number, stage) or (name == stage == "evaluate")
    )


# --- YAML and overrides ---


def test_a_key_of_the_file_is_a_field_of_the_config(tmp_path: Path) -> None:
    pipeline = load(tmp_path, EVERY_STAGE)
    assert config_of(pipeline, "mine") == MineConfig(run_dir=str(tmp_path / "run"), k=4)
    assert config_of(pipeline, "embed") == EmbedConfig(
        run_dir=str(tmp_path / "run"),
        pairs="pairs.parquet",
        corpus="corpus.parquet",
        query_column="query",
        max_length=64,
    )


def test_stages_come_in_the_order_of_the_work_not_of_the_file(tmp_path: Path) -> None:
    order = ["embed", "mine", "pack", "train", "evaluate"]
    assert [stage for _, stage in steps(load(tmp_path, EVERY_STAGE))] == order


def test_every_stage_of_a_pipeline_is_a_command_with_the_same_fields() -> None:
    for stage, config_type in PIPELINE_STAGES.items():
        assert COMMANDS[stage].config is config_type
    assert set(COMMANDS) - set(PIPELINE_STAGES) == {
        *("init", "ingest", "calibrate", "tune", "publish", "fetch", "diff", "merge")
    }


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text("")
    with pytest.raises(ConfigError, match="expected at least one stage in"):
        load_pipeline(str(path), [])


@pytest.mark.parametrize("empty", ["train:", "train: {}", "train: null"])
def test_a_stage_without_fields_runs_with_its_defaults(tmp_path: Path, empty: str) -> None:
    pipeline = load(tmp_path, f"run_dir: RUN\n{empty}\n")
    assert config_of(pipeline, "train") == TrainConfig(run_dir=str(tmp_path / "run"))


def test_numbers_lists_and_null_take_the_type_of_their_field(tmp_path: Path) -> None:
    content = "mine:\n  relative_margin: null\n  max_score: 1\nevaluate:\n  models: [a, b]\n"
    pipeline = load(tmp_path, content)
    mine = config_of(pipeline, "mine")
    assert mine.relative_margin is None
    assert isinstance(mine.max_score, float)
    assert config_of(pipeline, "evaluate").models == ("a", "b")


def test_overrides_replace_add_and_are_typed(tmp_path: Path) -> None:
    pipeline = load(
        tmp_path,
        EVERY_STAGE,
        "mine.k=6",
        "mine.relative_margin=null",
        "pack.policy=strict",
        "index.factory=Flat",
        "evaluate.models=[x, y]",
        "run_dir=elsewhere",
        "rounds=3",
    )
    assert config_of(pipeline, "mine").k == 6
    assert config_of(pipeline, "mine").relative_margin is None
    assert config_of(pipeline, "pack").policy == "strict"
    assert config_of(pipeline, "pack").batch_size == 64
    assert config_of(pipeline, "index").factory == "Flat"
    assert config_of(pipeline, "evaluate").models == ("x", "y")
    assert (pipeline.run_dir, pipeline.rounds) == ("elsewhere", 3)


def test_the_last_of_two_overrides_counts(tmp_path: Path) -> None:
    assert config_of(load(tmp_path, EVERY_STAGE, "mine.k=6", "mine.k=7"), "mine").k == 7


@pytest.mark.parametrize("value", ["2e-05", "2e-5", "0.00002", "2.0e-5"])
def test_a_learning_rate_may_be_written_as_people_write_it(tmp_path: Path, value: str) -> None:
    pipeline = load(tmp_path, EVERY_STAGE, f"train.learning_rate={value}")
    assert config_of(pipeline, "train").learning_rate == pytest.approx(2e-5)


def test_overwrite_reaches_every_stage(tmp_path: Path) -> None:
    pipeline = load(tmp_path, EVERY_STAGE, overwrite=True)
    assert all(config.overwrite for _, _, config in pipeline_steps(pipeline))
    assert not any(config.overwrite for _, _, config in pipeline_steps(load(tmp_path, EVERY_STAGE)))


def test_values_out_of_range_are_refused_when_the_file_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--batch-size must be at least 2, found 1"):
        load(tmp_path, EVERY_STAGE, "pack.batch_size=1")


@pytest.mark.parametrize("name", ["quickstart", "minilm"])
def test_the_pipelines_of_the_repository_load(repo_root: Path, name: str) -> None:
    pipeline = load_pipeline(str(repo_root / f"pipelines/{name}.yaml"), [])
    named = {stage for _, stage in steps(pipeline)}
    shown = {"show"} if name == "quickstart" else set()
    assert named == {"embed", "mine", "pack", "train", "evaluate"} | shown
    for stage in ("embed", "evaluate"):
        for key in ("pairs", "corpus", "data"):
            value = pipeline.settings[stage].get(key)
            paths = value if isinstance(value, tuple) else (value,)
            assert all(path is None or (repo_root / path).exists() for path in paths)


def test_every_field_of_every_stage_can_be_set_in_the_file(tmp_path: Path) -> None:
    for stage, config_type in PIPELINE_STAGES.items():
        defaults = {
            one.name: list(one.default) if isinstance(one.default, tuple) else one.default
            for one in fields(config_type)
            if one.name not in ("run_dir", "overwrite")
        }
        pipeline = load(tmp_path, yaml.safe_dump({"run_dir": "here", stage: defaults}))
        if stage != "evaluate":
            assert config_of(pipeline, stage) == config_type(run_dir="here")


# --- rounds ---


def test_two_rounds_mine_with_what_the_first_one_trained(tmp_path: Path) -> None:
    pipeline = load(tmp_path, EVERY_STAGE, "rounds=2")
    round_stages = ["embed", "mine", "pack", "train"]
    assert steps(pipeline) == [
        *((1, stage) for stage in round_stages),
        *((2, stage) for stage in round_stages),
        (2, "evaluate"),
    ]
    run, second = tmp_path / "run", tmp_path / "run/rounds/2"
    by_step = {(number, stage): config for number, stage, config in pipeline_steps(pipeline)}
    for stage in round_stages:
        assert by_step[1, stage].run_dir == str(run)
        assert by_step[2, stage].run_dir == str(second)

    embed = by_step[2, "embed"]
    assert embed.model == str(run / "model")
    assert (embed.pairs, embed.corpus, embed.query_column) == (None, None, None)
    assert embed.max_length == 64
    assert by_step[1, "embed"].model == "package:wordllama"
    assert by_step[2, "mine"].k == by_step[1, "mine"].k == 4
    # The first model is trained anew: train.model stays open.
    assert by_step[2, "train"].model is None

    evaluate = by_step[2, "evaluate"]
    assert evaluate.run_dir == str(run)
    assert evaluate.models == ("package:wordllama", str(run / "model"), str(second / "model"))


def test_texts_are_joined_once_for_all_rounds(tmp_path: Path) -> None:
    pipeline = load(tmp_path, f"{EVERY_STAGE}\ndedup:\n  cosine: 0.95\n", "rounds=2")
    first, second = ([stage for at, stage in steps(pipeline) if at == number] for number in (1, 2))
    assert first[:3] == ["embed", "dedup", "mine"]
    assert "dedup" not in second


def test_each_round_is_reported_after_the_evaluation(tmp_path: Path) -> None:
    pipeline = load(tmp_path, f"{EVERY_STAGE}\nreport:\n  queries: 3\n", "rounds=2")
    assert steps(pipeline)[-3:] == [(2, "evaluate"), (1, "report"), (2, "report")]
    first, second = [one for _, stage, one in pipeline_steps(pipeline) if stage == "report"]
    assert second.run_dir == str(Path(first.run_dir) / "rounds/2")
    assert (first.queries, second.queries) == (3, 3)


JUDGED = """
run_dir: RUN
embed: {pairs: PAIRS, corpus: CORPUS, device: cpu}
mine: {k: 4, device: cpu, votes: 1, judged: relabel}
judge: {cross_encoder: "judging_length:score", name: length}
pack: {batch_size: 32, packings: 1}
"""


def test_judges_are_asked_about_what_is_found_without_them(
    tmp_path: Path, small_input: Path, cli_here: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "judging_length.py").write_text(
        "import numpy as np\n"
        "def score(pairs):\n"
        "    return np.array([1 / (1 + abs(len(q) - len(p))) for q, p in pairs])\n"
    )
    monkeypatch.chdir(tmp_path)
    content = JUDGED.replace("PAIRS", str(small_input / "pairs.parquet"))
    pipeline = load(tmp_path, content.replace("CORPUS", str(small_input / "corpus.parquet")))
    assert steps(pipeline) == [
        *((1, stage) for stage in ("embed", "mine", "judge", "mine", "pack"))
    ]
    alone, judged = (config for _, stage, config in pipeline_steps(pipeline) if stage == "mine")
    assert (alone.judges, alone.votes) == ((), None)
    assert (judged.judges, judged.votes) == (("length",), 1)
    done = cli_here("run", tmp_path / "pipeline.yaml")
    assert done.code == 0, done.stderr
    run = RunDir(tmp_path / "run")
    counts = require(run, "negatives").counts
    assert counts["pairs_made"] > 100
    digest = require(run, "batches").digest
    again = cli_here("run", tmp_path / "pipeline.yaml")
    assert again.stdout.count("done before, skipped") == 6
    assert require(run, "batches").digest == digest


def test_later_rounds_of_a_run_without_a_model_have_the_one_that_was_trained(
    tmp_path: Path,
) -> None:
    way = ("encoder=some.module:embed", "similarity=dot", "query_prompt='ask: '")
    content = EVERY_STAGE.replace("  model: package:wordllama\n  max_length: 64\n", "")
    overrides = (*(f"embed.{one}" for one in way), "train.model=package:other", "rounds=2")
    pipeline = load(tmp_path, content, *overrides)
    assert config_of(pipeline, "embed").encoder == "some.module:embed"
    second = config_of(pipeline, "embed", 2)
    assert (second.encoder, second.similarity) == (None, None)
    assert second.model == str(tmp_path / "run/model")
    assert second.query_prompt == "ask: "
    trained = [str(tmp_path / "run/model"), str(tmp_path / "run/rounds/2/model")]
    assert list(config_of(pipeline, "evaluate").models) == trained


def test_three_rounds_chain(tmp_path: Path) -> None:
    pipeline = load(tmp_path, EVERY_STAGE, "rounds=3", "train.model=package:other")
    third = config_of(pipeline, "embed", 3)
    assert third.model == str(tmp_path / "run/rounds/2/model")
    assert third.run_dir == str(tmp_path / "run/rounds/3")
    assert config_of(pipeline, "train", 3).model == "package:other"


def test_named_models_are_the_ones_that_are_evaluated(tmp_path: Path) -> None:
    pipeline = load(tmp_path, EVERY_STAGE, "rounds=2", "evaluate.models=[one]")
    assert config_of(pipeline, "evaluate").models == ("one",)


# --- real runs ---


def write_pipeline(folder: Path, small_input: Path, repo_root: Path) -> Path:
    dev = pq.read_table(repo_root / "data/quickstart/dev.parquet").slice(0, 200)
    pq.write_table(dev, folder / "dev.parquet")
    content = {
        "run_dir": str(folder / "run"),
        "rounds": 2,
        "embed": {
            "pairs": f"{small_input}/pairs.parquet",
            "corpus": f"{small_input}/corpus.parquet",
            "device": "cpu",
        },
        "mine": {"k": 2, "device": "cpu"},
        "pack": {"batch_size": 64, "packings": 1},
        "verify": {},
        "train": {"epochs": 1, "device": "cpu"},
        "evaluate": {"data": str(folder / "dev.parquet"), "device": "cpu"},
    }
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(content))
    return folder / "pipeline.yaml"


def stage_lines(done: Finished) -> list[str]:
    """The lines of stdout that open the summary of a stage or a round."""
    return [line for line in done.stdout.splitlines() if re.match(r"(\w+: done|round )", line)]


def modified(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".lock")
    }


def test_two_rounds_from_pairs_to_numbers_and_again(
    tmp_path: Path, small_input: Path, repo_root: Path, cli_here: Cli
) -> None:
    path = write_pipeline(tmp_path, small_input, repo_root)
    first = cli_here("run", path)
    assert first.code == 0, first
    run = RunDir(tmp_path / "run")

    opened = [line.split(" in ")[0].split(" ->")[0] for line in stage_lines(first)]
    assert opened == [
        "round 1 of 2",
        "texts: done",
        "embeddings: done",
        "negatives: done",
        "batches: done",
        "verify: done",
        "model: done",
        "round 2 of 2",
        "embeddings: done",
        "negatives: done",
        "batches: done",
        "verify: done",
        "model: done",
        "evaluations: done",
    ]
    weights = []
    for number in (1, 2):
        one = run.round_dir(number)
        assert require(one, "batches").counts["batches"] == 600 // 64
        model = require(one, "model")
        assert model.counts["steps"] == 600 // 64
        assert SentenceTransformer(str(model.folder), device="cpu").encode("text").shape == (256,)
        weights.append(require(one, "embeddings").extra["contract"]["weights"])
    assert weights[0] != weights[1], "round 2 mines with another model"
    assert not (run.path / "rounds/2/texts").exists()
    results = read_json(run.path / "evaluations/dev/results.json")["models"]
    assert list(results) == [
        "package:wordllama",
        str(run.path / "model"),
        str(run.path / "rounds/2/model"),
    ]
    for metrics in results.values():
        assert all(0 <= value <= 1 for value in metrics.values())

    before = modified(run.path)
    again = cli_here("run", path)
    assert again.code == 0, again
    lines = [line for line in stage_lines(again) if not line.startswith(("round", "verify"))]
    assert len(lines) == 10
    for line in lines:
        assert ": done before, skipped -> " in line
    assert modified(run.path) == before


def test_a_changed_setting_is_refused_and_overwrite_goes_on_from_there(
    tmp_path: Path, small_input: Path, repo_root: Path, cli_here: Cli
) -> None:
    path = write_pipeline(tmp_path, small_input, repo_root)
    command = ("run", path, "--set", "rounds=1")
    content = yaml.safe_load(path.read_text())
    for later in ("train", "evaluate"):
        content.pop(later)
    path.write_text(yaml.safe_dump(content))
    assert cli_here(*command).code == 0
    kept = modified(tmp_path / "run/hits")
    error = cli_here(*command, "--set", "pack.batch_size=32").error
    assert "batch_size was 64 and is 32 now" in error
    done = cli_here(*command, "--set", "pack.batch_size=32", "--overwrite")
    assert done.code == 0, done
    assert "batches: done in" in done.stdout
    assert "embeddings: done before, skipped" in done.stdout
    assert modified(tmp_path / "run/hits") == kept


def files_of(folder: Path) -> dict[str, str]:
    skip = {"plan.json", "manifest.json"}
    return {
        path.relative_to(folder).as_posix(): checksum(path)
        for path in folder.rglob("*")
        if path.is_file() and path.name not in skip
    }


@pytest.mark.slow
def test_the_same_bytes_under_two_hash_seeds(tmp_path: Path, small_input: Path, cli: Cli) -> None:
    artifacts = ("texts", "embeddings", "hits/dense", "negatives", "batches")
    made: list[dict[str, Any]] = []
    for seed in ("0", "4242"):
        run_dir = tmp_path / seed
        content = {
            "run_dir": str(run_dir),
            "embed": {"pairs": f"{small_input}/pairs.parquet", "device": "cpu"},
            "mine": {"k": 2, "sampling": "random", "device": "cpu", "query_block": 256},
            "pack": {"batch_size": 32, "packings": 2, "shard_rows": 128},
        }
        path = tmp_path / f"{seed}.yaml"
        path.write_text(yaml.safe_dump(content))
        done = cli("run", path, PYTHONHASHSEED=seed)
        assert done.code == 0, done
        merge = {name: files_of(run_dir / name) for name in artifacts}
        digests = {name: require(RunDir(run_dir), *name.split("/")).digest for name in artifacts}
        strict = ("pack", "--policy", "strict", "--batch-size", "32", "--overwrite")
        done = cli(*strict, run_dir=run_dir, PYTHONHASHSEED=seed)
        assert done.code == 0, done
        made.append({**merge, "digests": digests, "strict": files_of(run_dir / "batches")})
    assert made[0] == made[1]
    assert len(made[0]["batches"]) > 5
    assert len(made[0]["negatives"]) > 1
    assert made[0]["strict"] != made[0]["batches"]
