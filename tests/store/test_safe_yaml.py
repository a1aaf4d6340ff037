"""YAML from strangers: plain values, each key once, bounded in size, depth and time."""

import os
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stx_mine.errors import ConfigError
from stx_mine.inputs.stage_settings import load_sources
from stx_mine.pipeline import load_pipeline
from stx_mine.store.safe_yaml import dump_yaml, parse_yaml, read_yaml

SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=20,
)
BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@settings(deadline=None)
@given(VALUES)
def test_values_are_those_of_the_safe_loader(value: object) -> None:
    assert parse_yaml(yaml.safe_dump(value)) == value


@settings(deadline=None)
@example({"pairs": "a\x85", "b\u2028\u2029": ["\n'", "x\r\n y"]}, True)
@given(VALUES, st.booleans())
def test_what_is_written_reads_back(value: object, flow: bool) -> None:
    assert parse_yaml(dump_yaml(value, default_flow_style=flow)) == value


def test_anchors_and_merged_mappings_are_read() -> None:
    text = "common: &common {k: 4, seed: 1}\nmine: {<<: *common, k: 8}\nlist: [*common, *common]\n"
    assert parse_yaml(text)["mine"] == {"k": 8, "seed": 1}
    assert parse_yaml("") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mine: {k: 4}\nmine: {k: 8}\n", "key 'mine' stands twice"),
        ("mine: {k: 4, k: 8}\n", "key 'k' stands twice"),
        (BOMB, "more than 100,000 values, aliases written out"),
        ("a: &a [*a]\n", "alias stands within what it names"),
        ("[" * 100 + "]" * 100, "more than 32 levels"),
        ("[" * 5_000, "more than 32 levels"),
        ("#" * (1 << 20) + "##", "longer than 1,048,576"),
        ("a: !!python/object/apply:os.system [true]\n", "could not determine a constructor"),
        ("a: [1", "expected ',' or ']'"),
    ],
    ids=["two keys", "two inner keys", "bomb", "cycle", "deep", "open", "long", "object", "broken"],
)
def test_what_is_no_plain_value_is_refused_at_once(text: str, said: str, tmp_path: Path) -> None:
    started = time.process_time()
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        read_yaml(path)
    for load in (lambda: load_pipeline(str(path), []), lambda: load_sources(str(path))):
        with pytest.raises(ConfigError, match=rf"in YAML at {path}: .*{said}.*; fix the file"):
            load()
    assert time.process_time() - started < 5


def test_a_pipe_and_a_billion_rounds_do_not_hang(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="check the path"):
        load_pipeline(str(pipe), [])
    path = tmp_path / "rounds.yaml"
    path.write_text("rounds: 1000000000\nembed: {}\nmine: {}\npack: {}\ntrain: {}\n")
    with pytest.raises(ConfigError, match="from 1 to 100, found 1000000000"):
        load_pipeline(str(path), [])
