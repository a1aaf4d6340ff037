"""The arms of the quality benchmark: each trains a fresh model for the same number of steps."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sentence_transformers import SentenceTransformer

from benchmarks import peers
from benchmarks.datasets import RetrievalSet, write_files
from stx_mine.config import EmbedConfig, MineConfig, PackConfig, TrainConfig
from stx_mine.models.load import load_model
from stx_mine.stages.embed import run_embed
from stx_mine.stages.mine import run_mine
from stx_mine.stages.pack import run_pack
from stx_mine.stages.train import run_train


@dataclass(frozen=True)
class Budget:
    """What every arm of a set has in common.

    Attributes:
        batch_size: Rows a step.
        passes: Passes over the training rows; a pass is floor(rows / batch_size) steps.
        num_rows: Training rows.
    """

    batch_size: int
    passes: int
    num_rows: int

    @property
    def steps(self) -> int:
        """Optimizer steps of every arm."""
        return self.passes * (self.num_rows // self.batch_size)


@dataclass
class Workbench:
    """One set with a folder for everything that its arms share.

    Attributes:
        set_: The set.
        budget: Steps and batch size.
        folder: Where runs go.
        base: The model that every arm starts from, by name.
        max_length: Tokens kept of a text; None: the model's own.
        mined: What sentence-transformers mined, by output format.
    """

    set_: RetrievalSet
    budget: Budget
    folder: Path
    base: str
    max_length: int | None
    mined: dict[str, peers.Mined] = field(default_factory=dict)

    def base_model(self) -> SentenceTransformer:
        """A fresh copy of the model that every arm starts from."""
        return load_model(self.base, device="cpu", max_length=self.max_length)

    def peer_rows(self, output_format: peers.OutputFormat) -> peers.Mined:
        """Mine with sentence-transformers, once per format."""
        if output_format not in self.mined:
            self.mined[output_format] = peers.mine(self.set_, self.base_model(), output_format)
        return self.mined[output_format]

    def base_run(self) -> Path:
        """Our run directory with embeddings and hits of the base model, made once."""
        run = self.folder / "base"
        if not run.exists():
            write_files(self.set_, self.folder / "files")
            files = self.folder / "files"
            pairs, corpus = str(files / "pairs.parquet"), str(files / "corpus.parquet")
            run_embed(self.embed_config(run, self.base, pairs=pairs, corpus=corpus))
            run_mine(MineConfig(run_dir=str(run), k=1))
        return run

    def embed_config(self, run: Path, model: str, **files: str) -> EmbedConfig:
        """How our runs embed."""
        return EmbedConfig(run_dir=str(run), model=model, max_length=self.max_length, **files)


def mnr(bench: Workbench, learning_rate: float, seed: int) -> SentenceTransformer:
    """In-batch negatives only, batches drawn at random."""
    return peers.train_mnr(
        bench.set_,
        bench.base_model(),
        steps=bench.budget.steps,
        batch_size=bench.budget.batch_size,
        learning_rate=learning_rate,
        seed=seed,
        output_dir=bench.folder / "peer",
    )


def peer(output_format: peers.OutputFormat) -> Callable[..., SentenceTransformer]:
    """`mine_hard_negatives` in one format, trained with the sampler without duplicates."""

    def arm(bench: Workbench, learning_rate: float, seed: int) -> SentenceTransformer:
        return peers.train_mined(
            bench.set_,
            bench.peer_rows(output_format).dataset,
            bench.base_model(),
            steps=bench.budget.steps,
            batch_size=bench.budget.batch_size,
            learning_rate=learning_rate,
            seed=seed,
            output_dir=bench.folder / "peer",
        )

    return arm


def ours(
    rounds: int, go_on: bool = False, **mine: float | None
) -> Callable[..., SentenceTransformer]:
    """Our defaults, or other fields of mine; the rounds share the steps.

    Each round trains the base model anew, or goes on with the model of the round before.
    """

    def arm(bench: Workbench, learning_rate: float, seed: int) -> SentenceTransformer:
        run = bench.folder / "ours"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(bench.base_run(), run)
        passes = split_evenly(bench.budget.passes, rounds)
        for number in range(1, rounds + 1):
            directory = run if number == 1 else run / "rounds" / str(number)
            if number > 1:
                teacher = run if number == 2 else run / "rounds" / str(number - 1)
                run_embed(bench.embed_config(directory, str(teacher / "model")))
            run_mine(MineConfig(run_dir=str(directory), **mine))
            count = passes[number - 1]
            run_pack(
                PackConfig(
                    run_dir=str(directory),
                    batch_size=bench.budget.batch_size,
                    packings=count,
                    seed=seed,
                )
            )
            run_train(
                TrainConfig(
                    run_dir=str(directory),
                    model=str(teacher / "model") if go_on and number > 1 else None,
                    epochs=count,
                    learning_rate=learning_rate,
                    seed=seed,
                    checkpoint_steps=1_000_000,
                )
            )
        return load_model(str(directory / "model"), "cpu", bench.max_length)

    return arm


def split_evenly(total: int, parts: int) -> list[int]:
    """Whole numbers that add up to `total`, the first ones not smaller than the last."""
    return [total // parts + (part < total % parts) for part in range(parts)]


ARMS: dict[str, Callable[..., SentenceTransformer]] = {
    "mnr": mnr,
    "st_ntuple": peer("n-tuple"),
    "st_triplet": peer("triplet"),
    "ours_round1": ours(1),
    "ours_round2": ours(2),
    "ours_continued": ours(2, go_on=True),
    "ours_closeness": ours(1, closeness=0.7, relative_margin=None),
    "ours_deeper": ours(1, max_depth=1_600),
}
