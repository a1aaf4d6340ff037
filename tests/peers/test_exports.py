"""The exports as the code of the peers reads them, in an environment of theirs."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import REPO_ROOT

from stx_mine.stages.export.config import ExportConfig
from stx_mine.stages.export.stage import run_export
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.store.artifact import require
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

K = 4
# Their pins conflict with each other's and with ours.
PYTHON = Path(os.environ.get("STX_PEERS", REPO_ROOT / ".venv-peers")) / "bin/python"
MODULES = {
    "pylate": "pylate",
    "flagembedding": "FlagEmbedding",
    "flagembedding_reranker": "FlagEmbedding",
    "colbert": "colbert",
    "nemo": "nemo_automodel",
    "ms_swift": "swift",
    "tevatron": "tevatron",
    "beir": "beir",
    "pytrec_eval": "pytrec_eval",
}


@pytest.fixture(scope="module")
def run(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("peers") / "run"
    shutil.copytree(small_run, run_dir)
    run_mine(MineConfig(k=K, relative_margin=0.2, device="cpu", run_dir=str(run_dir)))
    return run_dir


@pytest.fixture(scope="module")
def model(tiny_transformer: Path) -> Path:
    """A folder with a transformer that the transformers of the peers load, older than ours."""
    return tiny_transformer.parent / "bert"


def read(peer: str, folder: Path, model: Path, tmp_path: Path, **environment: str) -> Any:
    """What a peer makes of an export."""
    if not PYTHON.exists():
        pytest.skip(f"no environment with the peers at {PYTHON.parent.parent}; `make test-peers`")
    found = f"import importlib.util as u; print(u.find_spec({MODULES[peer]!r}) is not None)"
    there = subprocess.run([PYTHON, "-c", found], capture_output=True, text=True, check=True)
    if there.stdout.strip() != "True":
        pytest.skip(f"{MODULES[peer]} is not in {PYTHON.parent.parent}; `make test-peers`")
    script, output = Path(__file__).with_name("read_export.py"), tmp_path / "found.json"
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [PYTHON, script, peer, folder, model, output],
        capture_output=True,
        text=True,
        env={**inherited, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", **environment},
        cwd=tmp_path,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    return json.loads(output.read_text())


def export(run: Path, to: str, **fields: Any) -> Path:
    run_export(ExportConfig(to=to, run_dir=str(run), **fields))  # type: ignore[arg-type]
    return run / "exports" / to


def rows_of(run: Path, to: str, **fields: Any) -> list[list[Any]]:
    """[query, positives, negatives] by a layout of sentence-transformers, which has an oracle."""
    folder = export(run, to, **fields)
    lines = [pq.read_table(path).to_pylist() for path in sorted(folder.glob("data/*.parquet"))]
    return [
        [
            one["anchor"],
            [text for text, label in zip(one["positive"], one["labels"], strict=True) if label],
            [text for text, label in zip(one["positive"], one["labels"], strict=True) if not label],
        ]
        for part in lines
        for one in part
    ]


def by_query(run: Path) -> list[list[Any]]:
    """The same, a line per query."""
    positives: dict[str, list[str]] = {}
    negatives: dict[str, list[str]] = {}
    for query, positive, others in rows_of(run, "labeled-list"):
        positives.setdefault(query, []).extend(positive)
        negatives[query] = others
    return [[query, positives[query], negatives[query]] for query in positives]


def test_pylate_joins_and_collates_full_rows_and_fails_on_others(
    run: Path, model: Path, tmp_path: Path
) -> None:
    failed = read("pylate", export(run, "three-table"), model, tmp_path)
    assert "expected sequence of length" in failed["failed"]
    folder = export(run, "three-table", short_rows="drop")
    found = read("pylate", folder, model, tmp_path)
    wanted = rows_of(run, "labeled-list", short_rows="drop")
    assert len(wanted) > 32
    assert found["lines"] == wanted
    assert found["labels"] == [32, 1 + K]
    assert found["documents"] == [32 * (1 + K)]


@pytest.mark.parametrize("peer", ["flagembedding", "flagembedding_reranker"])
def test_flagembedding_reads_lists_and_scores(
    peer: str, run: Path, model: Path, tmp_path: Path
) -> None:
    found = read(peer, export(run, "flagembedding"), model, tmp_path)
    assert found["lines"] == by_query(run)
    # Its default: eight passages a group, each with the score to distil.
    assert found["groups"] == [[8, 8]]


def test_colbert_reads_examples_queries_and_collection(
    run: Path, model: Path, tmp_path: Path
) -> None:
    wanted = rows_of(run, "labeled-list")
    assert read("colbert", export(run, "colbert"), model, tmp_path) == wanted


def test_nemo_automodel_joins_ids_with_the_corpus(run: Path, model: Path, tmp_path: Path) -> None:
    folder = export(run, "nemo", short_rows="drop")
    found = read("nemo", folder, model, tmp_path, PASSAGES=str(1 + K))
    full = [line for line in by_query(run) if len(line[2]) == K]
    assert found == [[query, positives[:1], negatives] for query, positives, negatives in full]


def test_ms_swift_reads_messages_also_without_negatives(
    run: Path, model: Path, tmp_path: Path
) -> None:
    found = read("ms_swift", export(run, "ms-swift"), model, tmp_path)
    wanted = rows_of(run, "labeled-list")
    assert [line for line in found if line[2]] == wanted
    assert len(found) > len(wanted)


def test_tevatron_reads_inline_passages(run: Path, model: Path, tmp_path: Path) -> None:
    assert read("tevatron", export(run, "tevatron"), model, tmp_path) == by_query(run)


def test_beir_reads_all_pairs(run: Path, model: Path, tmp_path: Path) -> None:
    store = TextStore.open(require(RunDir(run), "texts"))
    queries, passages = (
        table.column("text").to_pylist() for table in (store.queries, store.passages)
    )
    wanted: dict[str, list[str]] = {}
    for query, passage in zip(store.pair_query_ids, store.pair_passage_ids, strict=True):
        wanted.setdefault(queries[query], []).append(passages[passage])
    found = read("beir", export(run, "beir"), model, tmp_path)
    assert {query: positives for query, positives, _ in found} == wanted


def test_pytrec_eval_judges_the_run(run: Path, model: Path, tmp_path: Path) -> None:
    folder = export(run, "trec-run")
    found = read("pytrec_eval", folder, model, tmp_path)
    relevant: dict[str, set[str]] = {}
    for line in (folder / "qrels.trec").read_text().splitlines():
        qid, _, docid, _ = line.split()
        relevant.setdefault(qid, set()).add(docid)
    wanted = dict.fromkeys(relevant, 0.0)
    for line in (folder / "run.trec").read_text().splitlines():
        qid, _, docid, rank, _, _ = line.split()
        if docid in relevant[qid] and not wanted[qid]:
            wanted[qid] = 1 / int(rank)
    assert found == pytest.approx(wanted)
    assert 0.2 < sum(found.values()) / len(found) < 1
