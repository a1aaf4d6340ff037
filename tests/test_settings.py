"""What a value of an option may be is checked in one place, for every option and every way in."""

from collections.abc import Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import yaml
from conftest import Cli

from stx_mine.commands import COMMANDS, PIPELINE_STAGES
from stx_mine.errors import ConfigError
from stx_mine.inputs.config import Source
from stx_mine.pipeline import load_pipeline
from stx_mine.settings import MAX_SEED, command_line_of, flag, words_of
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.ingest.config import IngestConfig
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.train.config import TrainConfig

NOT_FINITE = (float("nan"), float("inf"), float("-inf"))
EMPTY_MEANS_SOMETHING = {
    (command, name)
    for command in ("embed", "evaluate")
    for name in ("query_prompt", "passage_prompt")
}
# A space may be one; an empty one is refused where a file is read.
EMPTY_MEANS_SOMETHING |= {
    (command, "delimiter")
    for command in ("init", "ingest", "embed", "dedup", "split", "evaluate", "verify")
}


def kinds(hint: Any) -> set[Any]:
    """The plain types that a type is made of."""
    return {hint}.union(*map(kinds, get_args(hint)))


def options_with(kind: type) -> Iterator[tuple[str, "Field[Any]", bool]]:
    """(command, field, whether it is a list) of all options that take values of a type."""
    for command, one in COMMANDS.items():
        hints = get_type_hints(one.config)
        for declared in fields(one.config):
            hint = hints[declared.name]
            if kind in kinds(hint) and not (kind is str and words_of(hint)):
                yield command, declared, isinstance(declared.default, tuple)


def refused(command: str, one: "Field[Any]", value: Any, is_list: bool) -> str:
    """The message about a value from Python."""
    with pytest.raises(ConfigError) as caught:
        COMMANDS[command].config(**{one.name: (value,) if is_list else value})
    assert flag(one) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_number_that_is_not_finite_is_refused_from_python() -> None:
    walked = list(options_with(float))
    assert len(walked) > 25
    for command, one, is_list in walked:
        for value in NOT_FINITE:
            assert "must be finite" in refused(command, one, value, is_list)


def test_a_number_that_is_not_finite_is_refused_on_the_command_line(cli_here: Cli) -> None:
    for command, one, _ in options_with(float):
        for word in ("nan", "inf", "-inf"):
            error = cli_here(command, f"{flag(one)}={word}").error
            assert f"{flag(one)} must be finite, found {word}" in error


def test_a_number_that_is_not_finite_is_refused_in_a_pipeline(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    walked = [one for one in options_with(float) if one[0] in PIPELINE_STAGES]
    assert len(walked) > 25
    for command, one, is_list in walked:
        for value in NOT_FINITE:
            content = {command: {one.name: [value] if is_list else value}}
            path.write_text(yaml.safe_dump(content))
            with pytest.raises(ConfigError, match=f"{flag(one)} must be finite"):
                load_pipeline(str(path), [])


@pytest.mark.parametrize("weight", NOT_FINITE)
def test_a_number_of_a_source_is_checked_too(weight: float) -> None:
    with pytest.raises(ConfigError, match="weight"):
        IngestConfig(sources=(Source(name="a", path="a.csv", weight=weight),))
    with pytest.raises(ConfigError, match="--min-grade must be finite"):
        IngestConfig(sources=(Source(name="a", path="a.csv", min_grade=weight),))


def test_a_whole_number_is_nothing_else() -> None:
    walked = list(options_with(int))
    assert len(walked) > 60
    for command, one, is_list in walked:
        for value in (True, "8", 8.5):
            assert "a whole number" in refused(command, one, value, is_list)


def test_a_switch_is_on_or_off() -> None:
    walked = list(options_with(bool))
    assert len(walked) > len(COMMANDS)
    for command, one, is_list in walked:
        for value in (1, "yes", None):
            assert "true or false" in refused(command, one, value, is_list)


def test_an_empty_text_is_refused_unless_it_means_something(cli_here: Cli) -> None:
    walked = list(options_with(str))
    assert len(walked) > 60
    accepted = set()
    for command, one, is_list in walked:
        if one.metadata["empty"]:
            accepted.add((command, one.name))
            continue
        for value in ("", " \t"):
            assert "must not be empty" in refused(command, one, value, is_list)
        if not one.metadata["argument"]:
            assert "must not be empty" in cli_here(command, flag(one), "").error
    assert accepted == EMPTY_MEANS_SOMETHING
    assert EmbedConfig(query_prompt="").query_prompt == ""


@pytest.mark.parametrize("text", ["a\0b", "\udcff"])
def test_a_text_that_no_file_can_hold_is_refused(text: str) -> None:
    for command, one, is_list in options_with(str):
        assert "must be UTF-8 without zero bytes" in refused(command, one, text, is_list)
    for name in ("name", "path", "query_prompt"):
        with pytest.raises(ConfigError, match="must be UTF-8 without zero bytes"):
            IngestConfig(sources=(Source(**{"name": "a", "path": "a.csv", name: text}),))


def test_what_is_out_of_range_is_refused_at_both_ends() -> None:
    walked = 0
    for kind in (int, float):
        for command, one, is_list in options_with(kind):
            bounds = {name: one.metadata[name] for name in ("minimum", "above", "maximum")}
            for name, bound in bounds.items():
                if bound is None:
                    continue
                beyond = {"minimum": bound - 1, "above": bound, "maximum": bound + 1}[name]
                message = refused(command, one, kind(beyond), is_list)
                assert {"minimum": "at least", "above": "above", "maximum": "at most"}[
                    name
                ] in message
                walked += 1
    assert walked > 90


def test_every_seed_is_one_that_everything_takes() -> None:
    walked = [(command, one) for command, one, _ in options_with(int) if one.name == "seed"]
    assert len(walked) > 4
    for command, one in walked:
        if command != "queries":
            assert f"at most {MAX_SEED}, found" in refused(command, one, MAX_SEED + 1, False)


def test_equal_settings_are_held_alike() -> None:
    """They are part of keys: 1 and 1.0, a path and its text would be other artifacts."""
    config = MineConfig(relative_margin=1, k=np.int64(4), run_dir=Path("a/b"))
    assert (config.relative_margin, config.k, config.run_dir) == (1.0, 4, "a/b")
    assert (type(config.relative_margin), type(config.k)) == (float, int)
    assert TrainConfig(matryoshka_dims=[64, 32]).matryoshka_dims == (64, 32)
    assert TrainConfig(report_to="wandb").report_to == ("wandb",)
    assert TrainConfig(learning_rate=1).learning_rate == 1.0
    assert MineConfig(relative_margin=None).relative_margin is None


@pytest.mark.parametrize(
    ("config", "given", "said"),
    [
        (MineConfig, {"k": -1}, "--k must be at least 0"),
        (MineConfig, {"sampling_temperature": 0.1}, "needs --sampling weighted"),
        (MineConfig, {"range_min": 10, "range_max": 12}, "leave 2 ranks.* --range-max 18 .*--k 2"),
        (MineConfig, {"range_max": 7}, "leave 7 ranks, fewer than the k=8"),
        (MineConfig, {"range_min": 95}, r"--depth must be at least --range-min 95 \+ k=8.* 103"),
        (MineConfig, {"range_min": 95, "max_depth": 102}, "give --max-depth 103"),
        (
            MineConfig,
            {"absolute_margin": 0.2, "upper_margin": 0.1},
            "--upper-margin must be at least --absolute-margin 0.2, found 0.1",
        ),
        (TrainConfig, {"learning_rate": 0}, "--learning-rate must be above 0, found 0"),
        (TrainConfig, {"learning_rate": -1e-5}, "--learning-rate must be above 0"),
        (TrainConfig, {"epochs": 0}, "--epochs must be at least 1"),
        (TrainConfig, {"hardness": -1.0}, "--hardness must be at least 0"),
        (PackConfig, {"layout": "labels", "source_temperature": 2.0}, "needs --layout inline or"),
        (PackConfig, {"layout": "labels", "sources_per_batch": "one"}, "needs --layout inline or"),
    ],
)
def test_what_would_do_something_else_in_silence_is_refused(
    config: type, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        config(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"range_min": 10, "range_max": 18},
        {"range_min": 92},
        {"range_min": 95, "max_depth": 400},
        {"range_min": 95, "sources": "dense,bm25"},
        {"range_min": 95, "candidates": "run.trec"},
        {"absolute_margin": 0.1, "upper_margin": 0.1},
        {"sampling": "weighted", "sampling_temperature": 0.1},
    ],
)
def test_what_works_is_not_refused(given: dict[str, Any]) -> None:
    MineConfig(**given)


def test_a_command_line_says_what_is_switched_off_as_the_command_reads_it() -> None:
    words = command_line_of("mine", MineConfig(relative_margin=None, closeness=0.7))
    assert words == "stx-mine mine --relative-margin none --closeness 0.7"
