"""What `calibrate` recommends, and what `audit` says of it, where all answers are known.

Every query shows up to 3 of its positives (`hidden_positives`); what else answers it nobody has
labelled, as far as the program knows. `calibrate` looks at 1,000 queries and recommends a line; the
negatives of that line, of the default and of no rule are compared with all answers. `audit --sheet`
is filled in by the truth, so that its interval can be held against the share of all negatives.

    python -m benchmarks.calibrate [--quick] [--sets banking77 clinc150 nl2bash] [--seed 0]

Prints one JSON object as its last line.
"""

import argparse
import csv
import json
import shlex
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks import machine
from benchmarks.false_negatives import K
from benchmarks.hidden_positives import HiddenPositives, load
from benchmarks.judges import Answers, begin_run, outcome_of
from stx_mine.cli import quiet
from stx_mine.stages.audit.config import AuditConfig
from stx_mine.stages.audit.sheet import ANSWER
from stx_mine.stages.audit.stage import run_audit
from stx_mine.stages.calibrate.config import CalibrateConfig
from stx_mine.stages.calibrate.stage import run_calibrate
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.store.audits import read_audits
from stx_mine.store.run_dir import RunDir

SETS = ("banking77", "clinc150", "nl2bash")
SHOWN, SAMPLE = 3, 400


def shown_pairs(set_: HiddenPositives, seed: int) -> list[tuple[int, int]]:
    """Query and passage of what the program is told: up to 3 positives of each query."""
    rng = np.random.default_rng(seed)
    return [
        (query, int(passage))
        for query, first in enumerate(set_.shown)
        for passage in [first, *rng.permutation(set_.hidden.row(query))[: SHOWN - 1]]
    ]


def recommended(run: Path) -> tuple[dict[str, object], float]:
    """The options of the line that `calibrate` prints, and the seconds that it took."""
    started = time.perf_counter()
    report = run_calibrate(CalibrateConfig(run_dir=str(run), k=K, device="cpu"))
    seconds = time.perf_counter() - started
    words = shlex.split(report.lines[-1])[2:]
    options: dict[str, object] = {}
    for name, word in zip(words[::2], words[1::2], strict=True):
        kind = int if name.startswith("--range") else float
        options[name[2:].replace("-", "_")] = None if word == "none" else word
        if name not in ("--run-dir",) and word != "none":
            options[name[2:].replace("-", "_")] = kind(word)
    options.pop("run_dir")
    return options, seconds


def audited(run: Path, place: Path, set_: HiddenPositives) -> dict[str, object]:
    """What a sample says that somebody fills in who knows all answers."""
    passages = {text: row for row, text in enumerate(set_.passages)}
    queries = {text: row for row, text in enumerate(set_.queries)}
    sheet = place / "sheet.csv"
    config = {"run_dir": str(run), "sample": SAMPLE}
    run_audit(AuditConfig(sheet=str(sheet), overwrite=True, **config))
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        texts = [row[name].removeprefix("'") for name in ("query", "negative")]
        answers = set_.hidden.row(queries[texts[0]])
        row[ANSWER] = "yes" if passages[texts[1]] in answers else "no"
    with sheet.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    run_audit(AuditConfig(answers=str(sheet), **config))
    [finding] = read_audits(RunDir(run))[0]
    return {"rate": finding.rate, "low": finding.low, "high": finding.high}


def measure(name: str, seed: int, **limit: int) -> dict[str, object]:
    """The recommended line, the default and no rule, on one set."""
    set_ = load(name, seed, **limit)
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        begin_run(set_, "static", Path(place), shown_pairs(set_, seed))
        answers = Answers(set_, run)
        options, seconds = recommended(run)
        arms = {"recommended": options, "no rule": {"relative_margin": None}, "default": {}}
        found: dict[str, object] = {"line": options, "seconds": seconds}
        for arm, fields in arms.items():
            run_mine(MineConfig(run_dir=str(run), k=K, device="cpu", **fields))
            found[arm] = asdict(outcome_of(run, answers))
            if arm == "recommended":
                found["audit"] = audited(run, Path(place), set_)
        return found


def print_table(results: dict[str, dict[str, object]]) -> None:
    """A line an arm."""
    print("each: false rate / rows full / hardness")
    for name, one in results.items():
        print(name, one["line"], f"{one['seconds']:.1f} s", one["audit"])
        for arm in ("recommended", "default", "no rule"):
            found = one[arm]
            print(
                f"    {arm:<12} {found['false_rate']:.3f} / {found['rows_full']:.2f} / "
                f"{found['hardness']:.3f}"
            )


def main() -> None:
    """Measure, print the table; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few queries of one set")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--queries", type=int, default=2_000, help="queries of a set, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    quiet()
    limit = {"max_queries": arguments.queries}
    if arguments.quick:
        arguments.sets, limit = ["banking77"], {"max_queries": 300}
    results = {name: measure(name, arguments.seed, **limit) for name in arguments.sets}
    content = {"machine": machine.describe(), "quick": arguments.quick, "seed": arguments.seed}
    content |= {"queries": limit["max_queries"], "results": results}
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(content, indent=2) + "\n")
    print_table(results)
    print(json.dumps(content))


if __name__ == "__main__":
    main()
