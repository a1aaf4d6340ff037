"""A training step of a transformer beside its network alone, on one core.

    python -m benchmarks.network_step [--quick] [--output benchmarks/results/network_step.json]

Rows are members of botocore with 4 negatives each, 64 rows a step, MiniLM. A step is forward,
backward and optimizer; the network alone is forward and backward of as many tokens in full
mini-batches of texts of one length, without padding, dropout or a loss. Processor seconds of one
thread, the median of some steps; the arms take turns, so that a slow phase of the machine hits all.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine
from benchmarks.steps import RATE, Case
from benchmarks.train import BATCH_TOKENS, TRANSFORMER, prepare
from stx_mine.cli import quiet
from stx_mine.models.token_batches import token_batches
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train.dropout import set_dropout

ROWS, K, STEPS = 64, 4, 4
QUICK_ROWS, QUICK_STEPS, QUICK_PAIRS = 8, 2, 3_000
# Tokens of the texts that the network alone is measured on.
LENGTH = 32


@dataclass
class Arm:
    """One way to make a step.

    Attributes:
        name: Its name.
        case: The model, its batches and the loss.
        half: Whether the network computes in bf16.
        seconds: Of each step.
    """

    name: str
    case: Case
    half: bool
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.case.model.train()
        self.optimizer = torch.optim.AdamW(self.case.model.parameters(), lr=RATE)

    def step(self, number: int) -> None:
        """One step, measured but for the batch."""
        features, labels = self.case.ours(number % self.case.num_batches)
        began = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            loss = self.case.loss(features, labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.seconds.append(time.process_time() - began)


def main() -> None:
    """Measure; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a reduced run of about a minute")
    parser.add_argument("--output", type=Path, help="where the results go")
    arguments = parser.parse_args()
    quiet()
    torch.set_num_threads(1)
    rows, steps = (QUICK_ROWS, QUICK_STEPS) if arguments.quick else (ROWS, STEPS)
    with tempfile.TemporaryDirectory() as folder:
        run_dir = str(prepare(Path(folder), QUICK_PAIRS if arguments.quick else 30_000))
        run_pack(PackConfig(run_dir=run_dir, batch_size=rows, k=K, packings=1))
        arms = [
            arm_of(run_dir, name, half, share, dropout)
            for half in (False, True)
            for name, share, dropout in (
                ("every mini-batch twice", 0.0, None),
                ("activations kept", None, None),
                ("activations kept, no dropout", None, 0.0),
            )
        ]
        for number in range(1 + steps):
            for arm in arms:
                arm.step(number)
        tokens, padded = count_tokens(arms[0].case, steps)
        result: dict[str, Any] = {"rows": rows, "k": K, "tokens": tokens, "padded": padded}
        for half, precision in ((False, "float32"), (True, "bf16")):
            alone = network_alone(arms[0].case, half) * tokens
            found = {
                arm.name: round(statistics.median(arm.seconds[1:]), 3)
                for arm in arms
                if arm.half == half
            }
            ratios = {name: round(seconds / alone, 2) for name, seconds in found.items()}
            result[precision] = {"alone": round(alone, 3), "seconds": found, "to_alone": ratios}
    result["machine"] = machine.describe()
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def arm_of(run_dir: str, name: str, half: bool, share: float | None, dropout: float | None) -> Arm:
    """An arm with a model of its own."""
    case = Case(run_dir, TRANSFORMER, BATCH_TOKENS, activation_share=share)
    if dropout is not None:
        set_dropout(case.model, dropout)
    return Arm(name, case, half)


def count_tokens(case: Case, steps: int) -> tuple[int, int]:
    """Tokens of a step, and those of mini-batches as full as the next text allows, padded."""
    tokens, padded = 0, 0
    for number in range(1, 1 + steps):
        for features in case.ours(number % case.num_batches)[0]:
            lengths = features["attention_mask"].sum(1).numpy()
            tokens += int(lengths.sum())
            batches = token_batches(lengths, BATCH_TOKENS)
            padded += sum(len(one) * int(lengths[one[0]]) for one in batches)
    return tokens // steps, padded // steps


def network_alone(case: Case, half: bool) -> float:
    """Processor seconds of a token, forwards and backwards, in full mini-batches of one length."""
    set_dropout(case.model, 0.0)
    shape = (BATCH_TOKENS // LENGTH, LENGTH)
    features = {
        "input_ids": torch.randint(1_000, 20_000, shape),
        "attention_mask": torch.ones(shape, dtype=torch.int64),
    }
    seconds = []
    for _ in range(1 + STEPS):
        began = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            embeddings = case.model(dict(features))["sentence_embedding"]
        embeddings.float().square().mean().backward()
        case.model.zero_grad()
        seconds.append(time.process_time() - began)
    return statistics.median(seconds[1:]) / BATCH_TOKENS


if __name__ == "__main__":
    main()
