"""What the processes of a training run do in tests, and how tests start them.

`run_ranks(2, "gradients", folder)` runs `gradients(folder)` in two processes as torchrun would.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import torch
from conftest import cli_environment
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer

from stx_mine.models.load import load_model
from stx_mine.stages.train.choice import make_collator, make_loss
from stx_mine.stages.train.collator import PackedCollator
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.processes import Processes, average_gradients, joined
from stx_mine.stages.train.stage import run_train
from stx_mine.store.batches import BatchShard, list_packings

CACHED, WHOLE = 512, 1_000_000
BATCH = 1
GUIDE = "the other kind of model"
LOSSES: dict[str, dict[str, object]] = {
    "mnr": {"chunk_rows": 7},
    "triplet": {"loss": "triplet", "triplet_margin": 0.9},
    "symmetric": {"chunk_rows": 7, "symmetric": True, "hardness": 3.0},
    "count": {"chunk_rows": 7, "symmetric": True, "weight": "count"},
    "logq": {"chunk_rows": 7, "weight": "logq"},
    "hard": {"chunk_rows": 7, "negatives": "hard", "hardness": 3.0},
    "shared": {"chunk_rows": 7, "negatives": "hard", "shared_negatives": 20},
    "matryoshka": {"chunk_rows": 7, "matryoshka_dims": (4, 10)},
    "matryoshka triplet": {"loss": "triplet", "matryoshka_dims": (4, 10)},
    "euclidean": {"loss": "triplet", "metric": "euclidean", "chunk_rows": 7},
    "margin-mse": {"loss": "margin-mse", "chunk_rows": 7},
    "kl": {"loss": "kl", "chunk_rows": 7, "matryoshka_dims": (4, 10)},
    "mnr+kl": {"loss": "mnr+kl", "weights": (1, 0.5), "chunk_rows": 7, "teacher_temperature": 0.1},
    "triplet+margin-mse": {"loss": "triplet+margin-mse", "metric": "euclidean"},
    "mnr+margin-mse": {
        "loss": "mnr+margin-mse",
        "chunk_rows": 7,
        "guide": GUIDE,
        "interactions": ("query-query",),
        "matryoshka_dims": (4, 10),
    },
    "interactions": {
        "chunk_rows": 7,
        "weight": "count",
        "interactions": ("query-query", "passage-passage", "passage-query"),
    },
    "guide interactions": {
        "chunk_rows": 7,
        "guide": GUIDE,
        "interactions": ("query-query", "passage-passage", "passage-query"),
    },
    "guide": {"chunk_rows": 7, "symmetric": True, "guide": GUIDE},
    "guide hard": {"chunk_rows": 7, "negatives": "hard", "shared_negatives": 20, "guide": GUIDE},
    "batch-all": {"loss": "batch-all"},
    "batch-hard": {"loss": "batch-hard", "metric": "euclidean"},
    "batch-semi-hard": {"loss": "batch-semi-hard", "matryoshka_dims": (4, 10)},
    "batch-hard-soft-margin": {"loss": "batch-hard-soft-margin"},
}
CASES = [
    (kind, name, tokens)
    for name in LOSSES
    for kind, tokens in (("transformer", CACHED), ("transformer", WHOLE), ("static", WHOLE))
]


def run_ranks(num_processes: int, task: str, *args: object, check: bool = True) -> list[int]:
    """Run a function of this module in several processes; return their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for rank in range(num_processes):
        world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_processes}
        environment = cli_environment(
            **{name: str(value) for name, value in world.items()},
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=port,
            # What pytest has put there: the folders of tests that this file imports from.
            PYTHONPATH=os.pathsep.join(filter(None, sys.path)),
        )
        command = [sys.executable, __file__, task, *map(str, args)]
        started.append(subprocess.Popen(command, env=environment))
    codes = [process.wait(timeout=240) for process in started]
    assert not (check and any(codes)), codes
    return codes


def packed_shards(folder: Path) -> list[BatchShard]:
    """Shards of the run `folder/run`."""
    return [one for packing in list_packings(folder / "run/batches") for one in packing]


def double_model(folder: Path, kind: str) -> SentenceTransformer:
    """A small transformer or a small static model of random weights, in float64."""
    if kind == "transformer":
        model = load_model(str(folder / "tiny"), "cpu", max_length=24)
    else:
        tokenizer = Tokenizer.from_file(str(folder / "tiny/tokenizer.json"))
        tokenizer.no_padding()
        torch.manual_seed(0)
        static = StaticEmbedding(tokenizer, embedding_dim=12)
        model = SentenceTransformer(modules=[static], device="cpu")
    return model.to(torch.float64).eval()


def step(
    folder: Path, case: tuple[str, str, int], processes: Processes, **changes: object
) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of the first batch: this process's loss, everyone's gradients."""
    kind, name, tokens = case
    model = double_model(folder, kind)
    config = TrainConfig(**{"batch_tokens": tokens, **LOSSES[name], **changes})  # type: ignore[arg-type]
    guide = None
    if config.guide is not None:
        guide = double_model(folder, "static" if kind == "transformer" else "transformer")
    run = folder / ("labels" if config.kind.labels else "run")
    collator = make_collator(config, model, list_packings(run / "batches"), guide)
    batch = collator.collate(collator.read(BATCH), processes.rank, processes.size)
    features = [
        {key.removeprefix(part): value for key, value in batch.items() if key.startswith(part)}
        for part in ("anchor_", "passage_", "guide_anchor_", "guide_passage_", "text_")
    ]
    found = make_loss(config, model, guide)([one for one in features if one], batch["label"])
    loss = sum(found.values()) if isinstance(found, dict) else found
    loss.backward()
    average_gradients(model.parameters())
    gradients = {key: one.grad for key, one in model.named_parameters() if one.grad is not None}
    return loss.item(), gradients


def gradients(folder: Path) -> None:
    """Write loss and gradients of every case."""
    with joined("cpu") as processes:
        for number, case in enumerate(CASES):
            loss, found = step(folder, case, processes)
            path = folder / f"{number}-{processes.rank}.safetensors"
            save_file({**found, "loss": torch.tensor(loss, dtype=torch.float64)}, path)


def training(run_dir: Path, log: Path, kill_after: int, settings: str) -> None:
    """`run_train`, noting the rows of every step; dies at once after some steps (-1: never)."""
    collate, rows = PackedCollator.__call__, []

    def noting(collator: PackedCollator, features: list[dict[str, int]]) -> dict[str, object]:
        batch = collate(collator, features)
        batch["label"]["rows"] = torch.tensor([one["row"] for one in features])
        return batch

    def watch(_module: object, inputs: tuple[object, dict[str, torch.Tensor]]) -> None:
        if "rows" not in inputs[1]:
            # A batch that is held back: it is looked at, not trained on.
            return
        if len(rows) == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        rows.append(inputs[1]["rows"].tolist())
        log.with_name(f"{log.name}-{os.environ['RANK']}").write_text(json.dumps(rows))

    def watched(config: TrainConfig, *models: SentenceTransformer) -> torch.nn.Module:
        loss = make_loss(config, *models)
        loss.register_forward_pre_hook(watch)
        return loss

    PackedCollator.__call__ = noting  # type: ignore[method-assign]
    run_train.__globals__["make_loss"] = watched
    values = json.loads(settings)
    values["evaluation"] = tuple(values.get("evaluation", ()))
    run_train(TrainConfig(run_dir=str(run_dir), device="cpu", **values))


if __name__ == "__main__":
    if sys.argv[1] == "gradients":
        gradients(Path(sys.argv[2]))
    else:
        training(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
