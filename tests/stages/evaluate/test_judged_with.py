"""What models are judged with, how data is read by default, and what may replace an evaluation."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sentence_transformers import SentenceTransformer

from stx_mine.errors import ArtifactError, ConfigError
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.evaluate.config import EvaluateConfig
from stx_mine.stages.evaluate.results import read_results
from stx_mine.stages.evaluate.stage import run_evaluate
from stx_mine.stages.ingest.config import IngestConfig
from stx_mine.stages.ingest.stage import run_ingest
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.stage import run_train
from stx_mine.store.artifact import read_manifest
from stx_mine.store.files import read_json
from stx_mine.store.run_dir import RunDir
from stx_mine.store.training_log import TRAINING_LOG, read_log

PROMPT, LENGTH = "find the command: ", 12


# --- prompts and length ---


@pytest.fixture(scope="module")
def prompted(small_input, tiny_transformer, tmp_path_factory) -> Path:
    """A run with a prompt and a length of its own, and a trained model."""
    run = tmp_path_factory.mktemp("prompted") / "run"
    run_embed(
        EmbedConfig(
            run_dir=str(run),
            pairs=str(small_input / "pairs.parquet"),
            corpus=str(small_input / "corpus.parquet"),
            model=str(tiny_transformer),
            query_prompt=PROMPT,
            max_length=LENGTH,
            device="cpu",
        )
    )
    run_mine(MineConfig(run_dir=str(run), k=1, relative_margin=None, device="cpu"))
    run_pack(PackConfig(run_dir=str(run), batch_size=128, packings=1))
    pairs, corpus = str(small_input / "pairs.parquet"), str(small_input / "corpus.parquet")
    config = TrainConfig(
        run_dir=str(run),
        device="cpu",
        evaluation=(pairs,),
        evaluation_corpus=corpus,
        epochs=1,
        learning_rate=1e-3,
    )
    run_train(config)
    return run


@pytest.fixture
def prompted_run(prompted, tmp_path) -> Path:
    run = tmp_path / "run"
    shutil.copytree(prompted, run)
    return run


def data_of(small_input: Path) -> dict[str, str]:
    return {
        "data": str(small_input / "pairs.parquet"),
        "corpus": str(small_input / "corpus.parquet"),
        "device": "cpu",
    }


def test_the_base_model_is_judged_with_the_prompts_and_the_length_of_the_run(
    prompted_run, small_input, tiny_transformer, tmp_path
):
    # Weights decide what is the base model, and a copy of a folder is the same model.
    copy, other = tmp_path / "copy", "package:wordllama"
    shutil.copytree(tiny_transformer, copy)
    names = (str(copy), str(prompted_run / "model"), other)
    report = run_evaluate(
        EvaluateConfig(run_dir=str(prompted_run), models=names, **data_of(small_input))
    )
    results = read_json(prompted_run / "evaluations/pairs/results.json")
    its_own = {"query_prompt": PROMPT, "passage_prompt": None, "max_length": LENGTH}
    assert results["judged_with"] == {
        names[0]: {"of_run": "base", **its_own},
        names[1]: {"of_run": "trained", **its_own},
        other: {"of_run": None, "query_prompt": None, "passage_prompt": None, "max_length": None},
    }
    lines = "\n".join(report.lines)
    assert f"{copy} (the run's base model): query prompt {PROMPT!r}; {LENGTH} tokens" in lines
    assert f"{other} (not of this run): no prompts; all tokens" in lines
    # The same numbers as those of training, before and after it.
    log = read_log(prompted_run / "model" / TRAINING_LOG)
    model = read_manifest(prompted_run / "model")
    kept = next(one for one in log if one["step"] == model.extra["evaluation"]["best_step"])
    for line, name in ((log[0], names[0]), (kept, names[1])):
        assert results["models"][name] == pytest.approx(line["evaluations"]["pairs"], abs=1e-9)


def test_what_is_asked_for_stands_before_what_the_run_has(
    prompted_run, small_input, tiny_transformer
):
    base = str(tiny_transformer)
    plain = run_evaluate(
        EvaluateConfig(
            run_dir=str(prompted_run / "elsewhere"), models=(base,), **data_of(small_input)
        )
    )
    assert any(f"{base} (not of this run): no prompts" in line for line in plain.lines)
    asked = {"query_prompt": "", "max_length": SentenceTransformer(base).max_seq_length}
    run_evaluate(
        EvaluateConfig(run_dir=str(prompted_run), models=(base,), **asked, **data_of(small_input))
    )
    own, given = (
        read_results(RunDir(run), "pairs")[base]
        for run in (prompted_run / "elsewhere", prompted_run)
    )
    assert own == pytest.approx(given)
    run_evaluate(
        EvaluateConfig(
            run_dir=str(prompted_run), models=(base,), name="as-the-run", **data_of(small_input)
        )
    )
    assert read_results(RunDir(prompted_run), "as-the-run")[base] != pytest.approx(own)
    with pytest.raises(ConfigError, match=r"--query-prompt .*does not fit --source"):
        EvaluateConfig(data=("d",), query_prompt="a", source="b")


def test_the_base_of_a_run_that_trained_another_model_is_that_model(
    small_run, small_input, tiny_transformer, tmp_path
):
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    run_pack(PackConfig(run_dir=str(run), batch_size=128, packings=1))
    student = str(tiny_transformer)
    run_train(
        TrainConfig(run_dir=str(run), device="cpu", model=student, max_length=9, learning_rate=1e-3)
    )
    run_evaluate(EvaluateConfig(run_dir=str(run), **data_of(small_input)))
    found = read_json(run / "evaluations/pairs/results.json")["judged_with"]
    assert list(found) == [student, str(run / "model")]
    assert [one["of_run"] for one in found.values()] == ["base", "trained"]
    assert {one["max_length"] for one in found.values()} == {9}


def test_training_says_how_much_of_its_evaluation_data_it_has_seen(prompted, small_input):
    pairs, corpus = str(small_input / "pairs.parquet"), str(small_input / "corpus.parquet")
    report = run_train(
        TrainConfig(
            run_dir=str(prompted),
            device="cpu",
            evaluation=(pairs,),
            evaluation_corpus=corpus,
            epochs=1,
            learning_rate=1e-3,
        )
    )
    assert report.skipped
    for way in ("text", "positive", "group"):
        (line,) = (line for line in report.lines if f"in training by {way}" in line)
        assert line.startswith("pairs: ")
        assert "(100.0%)" in line
    assert any("100% of the queries by group are in training" in one for one in report.warnings)


# --- columns ---


def test_columns_of_the_run_are_those_of_its_evaluations(tmp_path):
    """A file whose first two columns are others; a file that lacks them is read as ever."""
    texts = [f"passage {number} of {number * 7}" for number in range(30)]
    table = {
        "source": ["a"] * 30,
        "number": [f"n{number}" for number in range(30)],
        "ask": [f"find {text}" for text in texts],
        "answer": texts,
    }
    train, test = tmp_path / "train.parquet", tmp_path / "test.parquet"
    pq.write_table(pa.table(table).slice(0, 15), train)
    pq.write_table(pa.table(table).slice(15), test)
    run = tmp_path / "run"
    run_ingest(
        IngestConfig(
            run_dir=str(run), pairs=str(train), query_column="ask", passage_column="answer"
        )
    )
    plain = tmp_path / "plain.parquet"
    pq.write_table(pa.table({"query": table["ask"], "passage": texts}), plain)
    config = {"run_dir": str(run), "device": "cpu"}
    report = run_evaluate(EvaluateConfig(data=str(test), **config))
    assert "read as the run reads its pairs: query column ask; passage column answer" in (
        report.lines
    )
    assert report.counts["queries"] == report.counts["passages"] == 15
    assert read_results(RunDir(run), "test")["package:wordllama"]["mrr@10"] > 0.5
    other = run_evaluate(EvaluateConfig(data=str(plain), **config))
    assert not any("read as the run" in line for line in other.lines)
    # What is asked for is what counts.
    with pytest.raises(ArtifactError, match="query_column was 'ask' and is 'number' now"):
        run_evaluate(EvaluateConfig(data=str(test), query_column="number", **config))


def test_titles_that_the_run_leaves_out_are_left_out(tmp_path, shared_data):
    run = tmp_path / "run"
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copytree(shared_data / "xquad-en", folder / "beir")
    run_ingest(IngestConfig(run_dir=str(run), pairs=str(folder / "beir"), title="none"))
    report = run_evaluate(EvaluateConfig(run_dir=str(run), data=str(folder / "beir"), device="cpu"))
    assert any("read as the run reads its pairs: title none" in line for line in report.lines)


# --- what may replace an evaluation ---


@pytest.fixture
def evaluated(small_run, small_input, tmp_path) -> tuple[Path, Path, dict[str, str]]:
    """A run with an evaluation of 40 pairs: run, data, options."""
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    data = tmp_path / "test.parquet"
    pq.write_table(pq.read_table(small_input / "pairs.parquet").slice(0, 40), data)
    options = {"run_dir": str(run), "data": str(data), "device": "cpu"}
    run_evaluate(EvaluateConfig(**options))
    return run, data, options


def results_of(run: Path) -> bytes:
    return (run / "evaluations/test/results.json").read_bytes()


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        (
            {"query_column": "passage", "passage_column": "query"},
            "query_column was None and is 'passage' now",
        ),
        ({"seed": 7}, "seed was 42 and is 7 now"),
        ({"own_passages": "ranked"}, "own_passages was 'auto' and is 'ranked' now"),
        (
            {"query_prompt": "a: "},
            "the query prompt of package:wordllama was None and is 'a: ' now",
        ),
        (
            {"models": ("TINY",)},
            "models was ['package:wordllama'] and is ['TINY'] now",
        ),
    ],
)
def test_other_settings_never_replace_an_evaluation(
    evaluated, tiny_transformer, changes, difference
):
    run, _, options = evaluated
    tiny = str(tiny_transformer)
    if "models" in changes:
        changes, difference = {"models": (tiny,)}, difference.replace("TINY", tiny)
    before = results_of(run)
    with pytest.raises(ArtifactError) as refused:
        run_evaluate(EvaluateConfig(**options, **changes))
    assert difference in str(refused.value)
    assert "give --name NAME to keep both, or --overwrite to replace it" in str(refused.value)
    assert results_of(run) == before
    run_evaluate(EvaluateConfig(**options, **changes, name="other"))
    assert results_of(run) == before
    key = read_manifest(run / "evaluations/test").content["key"]
    run_evaluate(EvaluateConfig(**options, **changes, overwrite=True))
    assert read_manifest(run / "evaluations/test").content["key"] != key


def test_other_data_of_the_same_name_is_refused_and_the_same_data_elsewhere_is_known(
    evaluated, small_input, tmp_path
):
    run, data, options = evaluated
    before = results_of(run)
    (tmp_path / "moved").mkdir()
    moved = tmp_path / "moved/test.parquet"
    shutil.copy(data, moved)
    again = run_evaluate(EvaluateConfig(**{**options, "data": str(moved)}))
    assert again.skipped
    pq.write_table(pq.read_table(small_input / "pairs.parquet").slice(40, 40), moved)
    with pytest.raises(ArtifactError, match=r"data was '.*test\.parquet' and is '.*moved"):
        run_evaluate(EvaluateConfig(**{**options, "data": str(moved)}))
    assert results_of(run) == before


def test_other_inputs_renew_an_evaluation_and_that_is_said(
    evaluated, small_input, tiny_transformer
):
    run, data, options = evaluated
    # The data has grown.
    pq.write_table(pq.read_table(small_input / "pairs.parquet").slice(0, 60), data)
    report = run_evaluate(EvaluateConfig(**options))
    assert report.lines[0] == "made anew: the content of the data changed or came since"
    # A model was trained: the default models are two.
    run_pack(PackConfig(run_dir=str(run), batch_size=64, packings=1))
    run_train(TrainConfig(run_dir=str(run), device="cpu", learning_rate=0.05))
    report = run_evaluate(EvaluateConfig(**options))
    assert report.lines[0] == f"made anew: model {run / 'model'} changed or came since"
    first = read_results(RunDir(run), "test")
    assert list(first) == ["package:wordllama", str(run / "model")]
    # It was trained again.
    run_train(TrainConfig(run_dir=str(run), device="cpu", learning_rate=0.01, overwrite=True))
    report = run_evaluate(EvaluateConfig(**options))
    assert report.lines[0] == f"made anew: model {run / 'model'} changed or came since"
    second = read_results(RunDir(run), "test")
    assert second["package:wordllama"] == first["package:wordllama"]
    assert second[str(run / "model")] != first[str(run / "model")]
    # More models and dimensions lose nothing; fewer would.
    more = ("package:wordllama", str(run / "model"), str(tiny_transformer))
    report = run_evaluate(EvaluateConfig(**options, models=more, dims=(8,)))
    assert f"model {tiny_transformer} changed or came since" in report.lines[0]
    assert run_evaluate(EvaluateConfig(**options, models=more, dims=(8,))).skipped
    with pytest.raises(ArtifactError, match=r"models was \[.*\] and is \['package:wordllama'\]"):
        run_evaluate(EvaluateConfig(**options, models=("package:wordllama",)))


def test_an_overview_of_other_sets_is_refused_before_anything_is_encoded(
    evaluated, small_input, tmp_path, monkeypatch
):
    run, data, options = evaluated
    sets = {}
    for name in "bc":
        sets[name] = str(tmp_path / f"{name}.parquet")
        pq.write_table(
            pq.read_table(small_input / "pairs.parquet").slice(ord(name), 20), sets[name]
        )
    both = {**options, "data": (str(data), sets["b"])}
    run_evaluate(EvaluateConfig(**both))
    monkeypatch.setitem(run_evaluate.__globals__, "evaluate_dims", None)
    with pytest.raises(ArtifactError, match=r"overview/ .* sets was \['test', 'b'\] and is"):
        run_evaluate(EvaluateConfig(**{**options, "data": (sets["c"], sets["b"])}))
    assert run_evaluate(EvaluateConfig(**both)).skipped
    monkeypatch.undo()
    report = run_evaluate(
        EvaluateConfig(**{**options, "data": (sets["c"], sets["b"])}, name="others")
    )
    assert np.isfinite(read_results(RunDir(run), "others")["package:wordllama"]["ndcg@10"])
    assert len(report.parts) == 2
    folders = {one.name for one in (run / "evaluations").iterdir()}
    assert folders == {"test", "b", "overview", "others-c", "others-b", "others"}
    overview = read_json(run / "evaluations/others/results.json")
    assert [row["data"] for row in overview["scores"]] == ["c", "b"]
