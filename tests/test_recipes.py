"""The recipes in `pipelines/`: each loads as it stands, and runs on a part of the data."""

from pathlib import Path

import pytest
from conftest import Cli

from stx_mine.commands import PIPELINE_STAGES, stage_of
from stx_mine.pipeline import load_pipeline, run_pipeline
from stx_mine.store.safe_yaml import read_yaml

RECIPES = sorted((Path(__file__).parent.parent / "pipelines").glob("*.yaml"))
BATCHES = "pack.batch_size=64"
# What makes a recipe small enough for a test; a cross-encoder and MiniLM come from no hub here.
REDUCED: dict[str, list[str]] = {
    "quickstart": [BATCHES],
    "rounds": [BATCHES, "train.epochs=1"],
    "large-batch": ["pack.batch_size=256"],
    "positive-aware": [BATCHES],
    "judged": [BATCHES, "judge.cross_encoder={cross_encoder}", "judge.device=cpu"],
    "documents": [BATCHES, "embed.chunk=[16, 4]"],
    "ray": [BATCHES, "embed.workers=1", "mine.workers=1", "pack.workers=1"],
    "triplet": [BATCHES],
    "labels": ["pack.batch_size=32"],
    "export": [],
    "minilm": [
        BATCHES,
        "embed.model={transformer}",
        "embed.max_length=16",
        "train.epochs=1",
        "mine.relative_margin=none",
    ],
}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_and_says_what_it_is_for(recipe: Path, monkeypatch) -> None:
    monkeypatch.chdir(recipe.parent.parent)
    pipeline = load_pipeline(str(recipe), [])
    assert pipeline.run_dir == f"stx-run/{recipe.stem}"
    assert set(pipeline.settings) <= set(PIPELINE_STAGES)
    assert recipe.read_text().startswith("# ")
    embed = read_yaml(recipe)["embed"]
    assert Path(embed["pairs"]).exists() and Path(embed["corpus"]).exists()


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(path, marks=[pytest.mark.slow] if path.stem == "ray" else [])
        for path in RECIPES
    ],
    ids=lambda path: path.stem,
)
def test_a_recipe_runs(
    recipe: Path,
    small_input: Path,
    tiny_cross_encoder: Path,
    tiny_transformer: Path,
    tmp_path: Path,
    monkeypatch,
) -> None:
    monkeypatch.chdir(recipe.parent.parent)
    named = {"cross_encoder": tiny_cross_encoder, "transformer": tiny_transformer}
    changes = [one.format(**named) for one in REDUCED[recipe.stem]]
    changes += [f"embed.{name}={small_input / name}.parquet" for name in ("pairs", "corpus")]
    if "evaluate" in read_yaml(recipe):
        changes += [f"evaluate.data={small_input}/pairs.parquet"]
        changes += [f"evaluate.corpus={small_input}/corpus.parquet"]
    changes += [f"run_dir={tmp_path / 'run'}"]
    pipeline = load_pipeline(str(recipe), changes)
    stages = [report.stage for _, report, _ in run_pipeline(pipeline, _run)]
    assert len(stages) >= len(pipeline.settings)
    again = [report for _, report, _ in run_pipeline(load_pipeline(str(recipe), changes), _run)]
    assert all(report.skipped for report in again if report.stage != "show")


def _run(name, config):
    return stage_of(name)(config)


def test_the_end_of_a_pipeline_says_what_to_try(
    small_input: Path, tmp_path: Path, cli_here: Cli
) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        f"run_dir: {tmp_path / 'run'}\n"
        f"embed:\n  pairs: {small_input / 'pairs.parquet'}\n"
        "mine:\n  k: 2\nshow:\n  random: 1\n"
    )
    done = cli_here("run", path)
    assert done.code == 0, done.stderr
    assert f"stx-mine show --run-dir {tmp_path / 'run'} --suspects" in done.stdout
    assert "margins count from" in done.stdout
