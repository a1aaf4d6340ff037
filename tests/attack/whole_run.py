"""A small real run with every kind of artifact, made by the commands that a user would type."""

import os
from pathlib import Path

import pyarrow.parquet as pq
from conftest import REPO_ROOT

# Where `letters_judge` is found, whatever process runs a step.
_HERE = str(Path(__file__).resolve().parent)
if _HERE not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
    os.environ["PYTHONPATH"] = os.pathsep.join([_HERE, os.environ.get("PYTHONPATH", "")])
PAIRS, CORPUS, DEV = 240, 120, 60
STEPS: dict[str, list[str]] = {
    "queries": ["queries", "{input}/pairs.parquet", "--method", "crop", "--device", "cpu"],
    "split": ["split", "{input}/pairs.parquet", "--test", "0.2", "--dev", "0.1"],
    "embed": [
        *("embed", "{input}/pairs.parquet", "--corpus", "{input}/corpus.parquet"),
        *("--model", "package:wordllama", "--device", "cpu", "--shard-size", "100"),
    ],
    "dedup": [
        *("dedup", "--jaccard", "0.8", "--cosine", "0.95"),
        *("--against", "{input}/dev.parquet", "--device", "cpu"),
    ],
    "index": ["index", "--factory", "IVF4,Flat"],
    "mine": ["mine", "--k", "2", "--device", "cpu", "--query-block", "80"],
    "judge": [
        *("judge", "--cross-encoder", "letters_judge:score", "--name", "letters"),
        *("--task-pairs", "200"),
    ],
    "audit": ["audit", "--judge", "letters", "--sample", "60"],
    "pack": ["pack", "--batch-size", "32", "--packings", "2", "--shard-rows", "64"],
    "estimate": ["estimate", "--device", "cpu"],
    "train": [
        *("train", "--device", "cpu", "--checkpoint-steps", "3"),
        *("--evaluation", "{input}/dev.parquet", "--evaluation-steps", "4"),
    ],
    "evaluate": ["evaluate", "{input}/dev.parquet", "--device", "cpu"],
    "export": ["export", "--to", "triplet"],
    "report": ["report"],
}
"""The arguments of each command in order; `{input}` is the folder of `write_input`."""


def write_input(folder: Path) -> Path:
    """Write `pairs.parquet`, `corpus.parquet` and `dev.parquet` of the quickstart's first rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("pairs", PAIRS), ("corpus", CORPUS), ("dev", DEV)):
        table = pq.read_table(REPO_ROOT / f"data/quickstart/{name}.parquet")
        pq.write_table(table.slice(0, rows), folder / f"{name}.parquet")
    return folder


def arguments(step: str, input_folder: Path, run: Path) -> list[str]:
    """What stands after `stx-mine` for one step."""
    filled = [part.replace("{input}", str(input_folder)) for part in STEPS[step]]
    return [*filled, "--run-dir", str(run)]
