"""Training that is merged with its base: which share is taken, what is published or refused."""

import shutil
from pathlib import Path

import checkpoints
import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import REPO_ROOT

from stx_mine.errors import ArtifactError, ConfigError, InputError, ModelError
from stx_mine.models.encoder import weights_digest
from stx_mine.models.load import load_model
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.evaluate.config import EvaluateConfig
from stx_mine.stages.evaluate.core.resampling import bootstrap_intervals
from stx_mine.stages.evaluate.results import read_results
from stx_mine.stages.evaluate.stage import run_evaluate
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train import stage as train_stage
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.core.best_share import pooled_queries, smallest_as_good
from stx_mine.stages.train.stage import run_train
from stx_mine.store.artifact import read_manifest
from stx_mine.store.run_dir import RunDir

WORDLLAMA = "package:wordllama"
ALPHAS = [number / 10 for number in range(1, 11)]


@pytest.fixture(scope="module")
def packed(small_run, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("packed") / "run"
    shutil.copytree(small_run, run)
    run_pack(PackConfig(run_dir=str(run), batch_size=64, k=2, packings=2))
    return run


@pytest.fixture(scope="module")
def held_out(tmp_path_factory) -> tuple[str, str]:
    """Development pairs of the quickstart, and other rows of them as another domain."""
    folder, rows = tmp_path_factory.mktemp("held-out"), 300
    table = pq.read_table(REPO_ROOT / "data/quickstart/dev.parquet")
    pq.write_table(table.slice(0, rows), folder / "dev.parquet")
    pq.write_table(table.slice(rows, rows), folder / "elsewhere.parquet")
    return str(folder / "dev.parquet"), str(folder / "elsewhere.parquet")


def trained(run: Path, **options):
    return run_train(TrainConfig(**{"run_dir": str(run), "device": "cpu", "epochs": 1, **options}))


def copied(packed: Path, tmp_path: Path, name: str = "run") -> Path:
    shutil.copytree(packed, tmp_path / name)
    return tmp_path / name


def state(model: str | Path) -> dict[str, np.ndarray]:
    own = load_model(str(model), "cpu").state_dict()
    return {name: one.double().numpy() for name, one in own.items() if one.is_floating_point()}


def is_mixture(found: Path, trained_model: Path, base: str | Path, alpha: float) -> bool:
    after, whole, before = state(found), state(trained_model), state(base)
    return all(
        np.array_equal(
            after[name],
            (before[name] * (1 - alpha) + whole[name] * alpha).astype(np.float32),
        )
        for name in after
    )


# --- which share ---


def drawn(means: list[float], queries: int = 400, spread: float = 0.2) -> np.ndarray:
    """Metrics of the same queries: what differs between candidates is little beside the queries."""
    rng = np.random.default_rng(0)
    own = rng.normal(0.5, 0.3, (queries, 1))
    return own + np.array(means) + spread * rng.normal(size=(queries, len(means)))


def test_the_smallest_share_that_is_as_good_as_the_best_is_taken():
    assert smallest_as_good(drawn([0, 0.2, 0.5, 0.52, 0.515]), 0) == 2
    assert smallest_as_good(drawn([0, 0.5, 0.9]), 0) == 2
    assert smallest_as_good(drawn([0.9, 0.5, 0.2]), 0) == 0


def test_ties_go_to_the_smallest_share():
    assert smallest_as_good(np.ones((50, 4)), 0) == 0
    values = np.tile([0.1, 0.4, 0.4, 0.4], (50, 1))
    assert smallest_as_good(values, 0) == 1


def test_a_share_below_a_worse_one_is_not_taken():
    """The first cannot be told from the best either, but between the two lies one that is worse."""
    rng = np.random.default_rng(1)
    noise = rng.normal(size=30)
    wide = 0.95 + noise - noise.mean()
    values = np.stack([wide, np.full(30, 0.2), np.full(30, 1.01)], axis=1)
    low, _ = bootstrap_intervals(values[:, [2]] - values, 3)
    assert low[0] < 0 < low[1]
    assert smallest_as_good(values, 3) == 2


@pytest.mark.parametrize("seed", range(8))
def test_the_share_is_that_of_a_plain_search(seed):
    rng = np.random.default_rng(seed)
    values = drawn(list(rng.normal(0.5, 0.03, 6)), queries=80)
    best = max(range(6), key=lambda one: (values[:, one].mean(), -one))
    chosen = best
    for candidate in range(best - 1, -1, -1):
        gap = (values[:, best] - values[:, candidate])[:, None]
        if bootstrap_intervals(gap, 5)[0][0] > 0:
            break
        chosen = candidate
    assert smallest_as_good(values, 5) == chosen


def test_sets_count_alike_however_large():
    rng = np.random.default_rng(0)
    sets = [rng.random(7), rng.random(300), rng.random(1)]
    assert pooled_queries(sets).mean() == pytest.approx(np.mean([one.mean() for one in sets]))


# --- what is published ---


@pytest.fixture(scope="module")
def plain(packed, tmp_path_factory) -> Path:
    """The same training without a merge."""
    run = copied(packed, tmp_path_factory.mktemp("plain"))
    trained(run)
    return run / "model"


def test_a_number_is_the_share_of_the_trained_weights(packed, plain, tmp_path):
    run = copied(packed, tmp_path)
    report = trained(run, merge_with_base=0.3)
    assert is_mixture(run / "model", plain, WORDLLAMA, 0.3)
    assert "merged with the base: 0.3 trained + 0.7 base" in report.lines
    assert any("no data was given to compare" in line for line in report.lines)
    manifest = read_manifest(run / "model")
    assert manifest.extra["weights"] == weights_digest(load_model(str(run / "model"), "cpu"))
    card = (run / "model/README.md").read_text()
    assert "| merge with base | 0.3 trained + 0.7 base |" in card
    assert trained(run, merge_with_base=0.3).skipped
    with pytest.raises(ArtifactError, match=r"merge_with_base was 0\.3 and is 0\.5 now"):
        trained(run, merge_with_base=0.5)


def test_the_whole_share_changes_nothing(packed, plain, tmp_path):
    run = copied(packed, tmp_path)
    trained(run, merge_with_base=1)
    weights = "model.safetensors"
    assert (run / "model" / weights).read_bytes() == (plain / weights).read_bytes()


def test_auto_takes_the_share_that_the_evaluation_says(packed, held_out, tmp_path):
    run = copied(packed, tmp_path)
    dev, elsewhere = held_out
    # Without checkpoints that are better, the last step is kept.
    options = {"evaluation": (dev,), "patience": 0, "learning_rate": 0.1, "epochs": 4}
    report = trained(run, merge_with_base="auto", merge_check=(elsewhere,), **options)
    merged = read_manifest(run / "model").extra["merged_with_base"]
    assert [alpha for alpha, _ in merged["by_alpha"]] == ALPHAS
    means = dict(merged["by_alpha"])
    assert merged["best"] == max(ALPHAS, key=lambda alpha: (means[alpha], -alpha))
    assert merged["alpha"] <= merged["best"]
    scores = merged["scores"]
    assert set(scores) == {"dev", "elsewhere"}
    assert merged["checks"] == ["elsewhere"]
    assert scores["dev"]["merged"] == pytest.approx(means[merged["alpha"]], abs=1e-12)
    assert scores["dev"]["trained"] == pytest.approx(means[1.0], abs=1e-12)
    # What is published is what was measured.
    for path, name in ((dev, "dev"), (elsewhere, "elsewhere")):
        run_evaluate(EvaluateConfig(data=(path,), device="cpu", run_dir=str(run)))
        found = read_results(RunDir(run), name)
        assert found[str(run / "model")]["ndcg@10"] == pytest.approx(scores[name]["merged"])
        assert found[WORDLLAMA]["ndcg@10"] == pytest.approx(scores[name]["base"])
    (line,) = [one for one in report.lines if "by the share of the trained" in one]
    assert line.count(",") == 9
    (line,) = [one for one in report.lines if "on elsewhere (chose nothing)" in one]
    assert f"{scores['elsewhere']['trained']:.4f} trained" in line
    card = (run / "model/README.md").read_text()
    assert "| `elsewhere` |" in card
    assert "after, not merged" in card
    # The same run without the merge: the share is of its weights.
    other = copied(packed, tmp_path, "other")
    trained(other, **options)
    assert is_mixture(run / "model", other / "model", WORDLLAMA, merged["alpha"])


def test_adapters_are_merged_before(tiny_transformer, small_input, tmp_path):
    pytest.importorskip("peft")
    run = str(tmp_path / "run")
    pairs = str(small_input / "pairs.parquet")
    run_embed(EmbedConfig(pairs=pairs, model=str(tiny_transformer), device="cpu", run_dir=run))
    run_mine(MineConfig(k=1, relative_margin=None, device="cpu", run_dir=run))
    run_pack(PackConfig(run_dir=run, batch_size=128, k=1, packings=1))
    whole = copied(Path(run), tmp_path, "whole")
    options = {"lora_rank": 2, "learning_rate": 0.01}
    trained(whole, **options)
    trained(Path(run), merge_with_base=0.4, **options)
    assert is_mixture(Path(run) / "model", whole / "model", tiny_transformer, 0.4)


# --- what is cut or in the way ---


def test_a_call_that_died_before_the_merge_continues(packed, plain, tmp_path, monkeypatch):
    run = copied(packed, tmp_path)

    def die(*_):
        raise KeyboardInterrupt

    options = {"merge_with_base": 0.3, "checkpoint_steps": 2}
    with monkeypatch.context() as patched:
        patched.setattr(train_stage, "merge_with_base", die)
        with pytest.raises(KeyboardInterrupt):
            trained(run, **options)
    assert not (run / "model/manifest.json").exists()
    assert list((run / "model/checkpoints").glob("checkpoint-*"))
    trained(run, **options)
    assert is_mixture(run / "model", plain, WORDLLAMA, 0.3)


def test_a_base_that_has_changed_is_refused_and_the_training_kept(packed, tmp_path, monkeypatch):
    run = copied(packed, tmp_path)
    base, away = tmp_path / "base", tmp_path / "away"
    checkpoints.saved(load_model(WORDLLAMA, "cpu"), base)
    publish = train_stage.merge_with_base

    def changed(*arguments):
        base.rename(away)
        checkpoints.static(base)
        return publish(*arguments)

    options = {"model": str(base), "merge_with_base": 0.5, "checkpoint_steps": 2}
    with monkeypatch.context() as patched:
        patched.setattr(train_stage, "merge_with_base", changed)
        with pytest.raises(ModelError, match="the base that training began with, found other"):
            trained(run, **options)
    assert list((run / "model/checkpoints").glob("checkpoint-*"))
    shutil.rmtree(base)
    away.rename(base)
    trained(run, **options)
    assert (run / "model/manifest.json").exists()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"merge_with_base": "auto"}, r"--merge-with-base auto needs --evaluation, found none"),
        ({"merge_check": ("x",)}, r"--merge-check x needs --merge-with-base, found none"),
        ({"merge_with_base": 0}, r"--merge-with-base must be above 0, found 0"),
        ({"merge_with_base": 1.5}, r"--merge-with-base must be at most 1, found 1\.5"),
        ({"merge_with_base": "half"}, r"--merge-with-base must be auto or a number, found 'half'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, match):
    with pytest.raises(ConfigError, match=match):
        TrainConfig(**options)


def test_data_to_check_is_looked_at_before_training(packed, held_out, tmp_path):
    run = copied(packed, tmp_path)
    dev, _ = held_out
    with pytest.raises(InputError, match=r"nothing\.parquet"):
        trained(run, merge_with_base=0.5, merge_check=(str(tmp_path / "nothing.parquet"),))
    with pytest.raises(ConfigError, match="'dev' twice"):
        trained(run, merge_with_base=0.5, evaluation=(dev,), merge_check=(dev,))
    assert not (run / "model").exists()
