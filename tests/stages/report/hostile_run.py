"""A run with every artifact that a page tells of, of texts and names that try to be markup."""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from stx_mine.stages.audit.config import AuditConfig
from stx_mine.stages.audit.stage import run_audit
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.evaluate.config import EvaluateConfig
from stx_mine.stages.evaluate.stage import run_evaluate
from stx_mine.stages.judge.config import JudgeConfig
from stx_mine.stages.judge.stage import run_judge
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.stage import run_train
from stx_mine.stages.tune.config import TuneConfig
from stx_mine.stages.tune.stage import run_tune

SCRIPT = "<script>alert(1)</script>"


def make_hostile_run(folder: Path) -> Path:
    """A run with everything, of texts, names and files that try to be markup."""
    words = ["red", "green", "blue", "round", "small", "old", "wet", "loud", "sweet", "thin"]
    names = ["apple", "river", "engine", "violin", "storm", "paper", "lamp", "boat"]
    texts = [(one, other) for one in words for other in names]
    pairs = pa.table(
        {
            "query": [f"{SCRIPT} a {one} {other} & <b>" for one, other in texts],
            "passage": [f"'\"><img src=x onerror=alert(2)> {b}, {a} \x1b" for a, b in texts],
        }
    )
    file = folder / "<b>pairs & more.parquet"
    pq.write_table(pairs, file)
    run = folder / "run<i>"
    run_embed(
        EmbedConfig(pairs=str(file), model="package:wordllama", device="cpu", run_dir=str(run))
    )
    run_mine(MineConfig(k=2, device="cpu", run_dir=str(run)))
    (folder / "short_judge.py").write_text(
        "import numpy as np\n"
        "def judge(pairs):\n    return np.array([1 / (1 + len(p)) for _, p in pairs])\n"
    )
    sys.path.insert(0, str(folder))
    run_judge(
        JudgeConfig(run_dir=str(run), cross_encoder="short_judge:judge", name="short", band=9.0)
    )
    sys.path.remove(str(folder))
    run_audit(AuditConfig(run_dir=str(run), judge="short", device="cpu"))
    run_pack(PackConfig(batch_size=16, packings=2, run_dir=str(run)))
    run_train(TrainConfig(epochs=1, device="cpu", run_dir=str(run)))
    run_evaluate(
        EvaluateConfig(
            data=(str(file),),
            models=("package:wordllama", str(run / "model")),
            name="held <u>out",
            device="cpu",
            run_dir=str(run),
        )
    )
    pipeline = {
        "run_dir": str(run),
        "embed": {"pairs": str(file), "device": "cpu"},
        "mine": {"k": 2},
        "pack": {"batch_size": 16},
        "train": {"epochs": 1, "device": "cpu"},
    }
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(pipeline))
    run_tune(
        TuneConfig(
            pipeline=str(folder / "pipeline.yaml"),
            data=(str(file),),
            budget="10m",
            seeds=1,
            vary=("mine.k=0", "pack.batch_size=100000"),
        )
    )
    return run
