"""The recipes in `pipelines/`: each loads as it stands, and runs on a part of the data."""

import json
import re
from pathlib import Path

import pytest
from conftest import Cli
from model_server import serve

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
    "documents": [BATCHES, "queries.corpus=docs/commands", "queries.chunk=[96, 8]"],
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
    for stage, field, path in inputs_of(recipe):
        assert Path(path).exists() or made_by(recipe, path), (stage, field)


def inputs_of(recipe: Path) -> list[tuple[str, str, str]]:
    """Stage, field and path of whatever a recipe reads."""
    fields = ("pairs", "corpus", "data")
    return [
        (stage, field, values[field])
        for stage, values in read_yaml(recipe).items()
        if isinstance(values, dict)
        for field in fields
        if field in values
    ]


def made_by(recipe: Path, path: str) -> bool:
    """Whether a path lies in an artifact that an earlier stage of the recipe makes."""
    content = read_yaml(recipe)
    below = path.removeprefix(f"{content['run_dir']}/")
    return below != path and below.partition("/")[0] in content


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
    changes += in_place(recipe, small_input, tmp_path / "run")
    pipeline = load_pipeline(str(recipe), changes)
    stages = [report.stage for _, report, _ in run_pipeline(pipeline, _run)]
    assert len(stages) >= len(pipeline.settings)
    again = [report for _, report, _ in run_pipeline(load_pipeline(str(recipe), changes), _run)]
    assert all(report.skipped for report in again if report.stage != "show")


def in_place(recipe: Path, small_input: Path, run: Path) -> list[str]:
    """Changes that have a recipe read a part of the data, and write to a run directory."""
    changes = [f"run_dir={run}"]
    for stage, field, path in inputs_of(recipe):
        if made_by(recipe, path):
            below = path.removeprefix(read_yaml(recipe)["run_dir"])
            changes.append(f"{stage}.{field}={run}{below}")
        elif stage != "queries":
            name = "corpus" if field == "corpus" else "pairs"
            changes.append(f"{stage}.{field}={small_input / name}.parquet")
    return changes


def _run(name, config):
    return stage_of(name)(config)


def test_the_documents_recipe_takes_a_language_model_by_uncommenting_a_line(
    small_input: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(Path(__file__).parent.parent)
    source = Path("pipelines/documents.yaml")
    passage = re.compile(r"<(passage-[0-9a-f]+)>\n(.*?)\n</\1>", re.DOTALL)

    def answer(path, body):
        content = body["messages"][0]["content"]
        words = re.findall(r"[a-z]{6,}", " ".join(text for _, text in passage.findall(content)))
        kinds = re.findall(r'of kind "(\w+)"', content)
        lines = [
            json.dumps({"kind": kind, "query": f"{kind} of {' '.join(words[place::9][:4])} asked"})
            for place, kind in enumerate(kinds)
        ]
        message = {"content": "\n".join(lines) or "yes"}
        return 200, {"model": "one", "choices": [{"message": message}]}

    with serve(answer) as served:
        lines = source.read_text().splitlines()
        (place,) = [n for n, line in enumerate(lines) if line.startswith("  # generator: http")]
        lines[place] = f"  generator: {served.url}"
        recipe = tmp_path / "documents.yaml"
        recipe.write_text("\n".join(lines))
        changes = [*REDUCED["documents"], *in_place(recipe, small_input, tmp_path / "run")]
        changes.append("queries.max_calls=60")
        pipeline = load_pipeline(str(recipe), changes)
        reports = {report.stage: report for _, report, _ in run_pipeline(pipeline, _run)}
    assert set(reports["queries"].counts["methods"]) == {"crop", "keywords", "generate"}
    assert reports["queries"].counts["written"]["questions"] == 60
    leaks = reports["split"].counts["leaks"]["component"]
    assert leaks["texts"] == 0 < leaks["held_out"]
    assert any("chunks of" in line for line in reports["split"].lines)
    assert (tmp_path / "run/evaluations/split/results.json").exists()


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
