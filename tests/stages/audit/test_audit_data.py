"""Audits of real intent data, whose answers are known: the interval holds what is true."""

import csv
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stx_mine.stages.audit.config import AuditConfig
from stx_mine.stages.audit.sheet import ANSWER
from stx_mine.stages.audit.stage import run_audit
from stx_mine.stages.calibrate.config import CalibrateConfig
from stx_mine.stages.calibrate.stage import run_calibrate
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.store.artifact import require
from stx_mine.store.audits import read_audits
from stx_mine.store.negatives import pool_files
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

QUERIES, PASSAGES, K = 200, 1_500, 8


def answers_of(folder: Path) -> dict[str, set[str]]:
    """Some queries of a set, and the passages of a part of its corpus that answer them."""
    texts = {}
    for name in ("queries", "corpus"):
        lines = (folder / f"{name}.jsonl").read_text("utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        texts[name] = {row["_id"]: row["text"] for row in rows}
    rng = np.random.default_rng(0)
    queries, passages = (
        set(rng.permutation(list(texts[name]))[:number].tolist())
        for name, number in (("queries", QUERIES), ("corpus", PASSAGES))
    )
    found = defaultdict(set)
    [path] = (folder / "qrels").glob("*.tsv")
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            query, passage, _ = line.split("\t")
            if query in queries and passage in passages:
                found[texts["queries"][query]].add(texts["corpus"][passage])
    return found


def embedded(run: Path, pairs: list[tuple[str, str]], passages: set[str]) -> None:
    columns = dict(zip(("query", "passage"), zip(*pairs, strict=True), strict=True))
    pq.write_table(pa.table(columns), run.parent / "pairs.parquet")
    pq.write_table(pa.table({"passage": sorted(passages)}), run.parent / "corpus.parquet")
    run_embed(
        EmbedConfig(
            run_dir=str(run),
            pairs=str(run.parent / "pairs.parquet"),
            corpus=str(run.parent / "corpus.parquet"),
            model="package:wordllama",
            device="cpu",
        )
    )


def mined_negatives(run: Path) -> list[tuple[str, str]]:
    """The texts of every query and negative that a row gets."""
    store = TextStore.open(require(RunDir(run), "texts"))
    negatives = require(RunDir(run), "negatives")
    texts = [one.column("text").to_pylist() for one in (store.queries, store.passages)]
    return [
        (texts[0][row["query_id"]], texts[1][passage])
        for name in pool_files(negatives)
        for row in negatives.table(name).to_pylist()
        for passage in row["passage_ids"][:K]
    ]


@pytest.mark.parametrize("name", ["banking77", pytest.param("clinc150", marks=pytest.mark.slow)])
def test_a_person_who_knows_the_answers_finds_the_true_share(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    answers, run = answers_of(shared_data / name), tmp_path / "run"
    passages = set().union(*answers.values())
    embedded(run, [(query, min(answers[query])) for query in sorted(answers)], passages)
    run_mine(MineConfig(run_dir=str(run), k=K, device="cpu", relative_margin=0.05))
    mined = mined_negatives(run)
    true = np.mean([passage in answers[query] for query, passage in mined])
    assert 0.02 < true < 0.9
    sheet = tmp_path / "sheet.csv"
    run_audit(AuditConfig(run_dir=str(run), sheet=str(sheet), sample=300))
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row[ANSWER] = "yes" if row["negative"] in answers[row["query"]] else "no"
    with sheet.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    run_audit(AuditConfig(run_dir=str(run), answers=str(sheet), sample=300))
    [finding], _ = read_audits(RunDir(run))
    assert finding.num_audited == 300
    assert finding.low < true < finding.high
    assert finding.high - finding.low < 0.15


def test_calibration_finds_the_rule_that_mines_few_hidden_positives(
    shared_data: Path, tmp_path: Path
) -> None:
    answers, run = answers_of(shared_data / "banking77"), tmp_path / "run"
    pairs = [(query, one) for query in sorted(answers) for one in sorted(answers[query])[:6]]
    passages = set().union(*(set(sorted(one)[:6]) for one in answers.values()))
    embedded(run, pairs, passages)
    report = run_calibrate(CalibrateConfig(run_dir=str(run), device="cpu"))
    line = report.lines[-1].split()
    assert "--closeness" in line
    closeness = float(line[line.index("--closeness") + 1])
    options = {"relative_margin": None, "closeness": closeness}
    run_mine(MineConfig(run_dir=str(run), k=K, device="cpu", **options))
    run_audit(AuditConfig(run_dir=str(run), device="cpu"))
    content = json.loads((run / "audits/hidden/audit.json").read_text())
    rates = {one["rule"]: one["rate"] for one in content["curve"]}
    assert rates["as mined"] == rates[f"closeness {closeness:g}"]
    assert rates["as mined"] < 0.2 * rates["no rule"]
