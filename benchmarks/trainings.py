"""Trainings of the quality benchmark: each is stored as it ends, so that a call continues.

Means are in a JSON file, and nDCG@10 of every test query, from which intervals are made, in
a file of arrays beside it.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BOOTSTRAPS = 1_000
UNTRAINED = "untrained"
# Fewer are told.
SEEDS = 3


@dataclass
class StoredTrainings:
    """What was trained and measured so far.

    Attributes:
        path: The JSON file; None: nothing is kept.
        content: What it holds.
        values_Q: nDCG@10 of each test query, by the name of a training and a set.
    """

    path: Path | None
    content: dict[str, Any]
    values_Q: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path | None) -> "StoredTrainings":
        """Read what is there."""
        if path is None or not path.exists():
            return cls(path, {"sets": {}})
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
            return cls(path, json.loads(path.read_text()), dict(arrays))

    def save(self) -> None:
        """Write both files."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Whole files only: a benchmark is stopped at any time.
        arrays, text = self.path.with_suffix(".npz.new"), self.path.with_suffix(".new")
        with arrays.open("wb") as file:
            np.savez_compressed(file, **self.values_Q)  # type: ignore[arg-type]
        text.write_text(json.dumps(self.content, indent=1) + "\n")
        arrays.replace(self.path.with_suffix(".npz"))
        text.replace(self.path)

    def join(self, others: list["StoredTrainings"]) -> None:
        """Add what others hold; of an arm that several tested, what more seeds were tested of."""
        for other in others:
            for label, content in other.content["sets"].items():
                own = self.of_set(label).content
                for part in ("trainings", "costs"):
                    own[part] |= content[part]
                for arm, test in content["tests"].items():
                    if len(test["seeds"]) > len(own["tests"].get(arm, {"seeds": []})["seeds"]):
                        own["tests"][arm] = test
                own |= {name: value for name, value in content.items() if name not in own}
            self.values_Q |= other.values_Q
        for label in self.content["sets"]:
            self.of_set(label).summarize()

    def of_set(self, label: str) -> "SetTrainings":
        """Those of one set with one kind of student."""
        content = self.content["sets"].setdefault(label, {})
        for part in ("trainings", "tests", "costs"):
            content.setdefault(part, {})
        return SetTrainings(self, label, content)


@dataclass(frozen=True)
class SetTrainings:
    """The trainings of one set.

    Attributes:
        store: Holds them.
        label: Of the set and the student.
        content: `trainings` has the tune score and processor seconds of each, `tests` the seeds
            of each arm that were tested with its recipe, `costs` what arms share.
    """

    store: StoredTrainings
    label: str
    content: dict[str, Any]

    def values_of(self, arm: str, on: str = "test") -> NDArray[np.float64]:
        """float64 (S, Q): nDCG@10 of each query for each seed of an arm that was tested."""
        tests = self.content["tests"][arm]["seeds"]
        return np.stack([self.store.values_Q[self.name(arm, seed, on)] for seed in tests]).astype(
            np.float64
        )

    def name(self, arm: str, seed: int | str, on: str) -> str:
        """Of the array of a test."""
        return f"{self.label}/{arm}/{seed}/{on}"

    def add_test(
        self, arm: str, seed: int, recipe: dict[str, Any], values_Q: dict[str, NDArray[np.float64]]
    ) -> None:
        """Store what a model reached on the test split, and on the sets that are elsewhere.

        Args:
            arm: Its arm.
            seed: Of its training.
            recipe: What it was trained with.
            values_Q: nDCG@10 of each query by what it is on.
        """
        test = self.content["tests"].setdefault(arm, {"recipe": recipe, "seeds": []})
        test["seeds"].append(seed)
        for on, values in values_Q.items():
            self.store.values_Q[self.name(arm, seed, on)] = values.astype(np.float32)
        self.summarize()
        self.store.save()

    def summarize(self) -> None:
        """Means and intervals of the arms that were tested."""
        arms = list(self.content["tests"])
        for arm in arms:
            test = self.content["tests"][arm]
            by_seed = self.values_of(arm).mean(1)
            test |= {"ndcg@10": float(by_seed.mean()), "by_seed": by_seed.tolist()}
            test["elsewhere"] = {
                on: float(self.values_of(arm, on).mean()) for on in self.content["elsewhere"]
            }
        self.content["differences"] = dict(self._differences(arms))

    def _differences(self, arms: list[str]) -> Iterable[tuple[str, list[float]]]:
        """Mean and 95% interval of arms less MNR and less our defaults, in points."""
        for other in ("mnr", "ours"):
            for arm in arms:
                if other in arms and arm not in (other, UNTRAINED):
                    gap = difference(self.values_of(arm), self.values_of(other))
                    yield f"{arm} - {other}", [round(100 * one, 2) for one in gap]


def difference(
    one_SQ: NDArray[np.float64], other_SQ: NDArray[np.float64]
) -> tuple[float, float, float]:
    """Mean difference of two arms and its 95% interval, over queries, which are paired, and seeds.

    Args:
        one_SQ: Values of the one, by seed and query.
        other_SQ: Those of the other.
    """
    rng = np.random.default_rng(0)
    num_queries, draws = one_SQ.shape[1], []
    for _ in range(BOOTSTRAPS):
        queries = rng.integers(0, num_queries, num_queries)
        means = [
            some[rng.integers(0, len(some), len(some))].mean(0)[queries].mean()
            for some in (one_SQ, other_SQ)
        ]
        draws.append(means[0] - means[1])
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(one_SQ.mean() - other_SQ.mean()), float(low), float(high)


def tables(content: dict[str, Any], words: dict[str, str]) -> str:
    """Markdown, a table a model: arms by sets, nDCG@10 with the difference to MNR in points.

    Args:
        content: Of the file.
        words: What an arm is called; those that have no words follow under their own name.
    """
    models = dict.fromkeys(one["model"] for one in content["sets"].values())
    return "\n\n".join(
        f"`{model}`:\n\n"
        + _table({k: one for k, one in content["sets"].items() if one["model"] == model}, words)
        for model in models
    )


def _table(sets: dict[str, Any], words: dict[str, str]) -> str:
    tested = {arm: None for one in sets.values() for arm in one["tests"]}
    heads = [f"{label.partition(',')[0]}, {one['batch_size']:,}" for label, one in sets.items()]
    lines = ["| arm | " + " | ".join(heads) + " |", "|---" * (1 + len(sets)) + "|"]
    for arm in [*(one for one in words if one in tested), *(tested.keys() - words.keys())]:
        cells = [_cell(one, arm) for one in sets.values()]
        lines.append(f"| {words.get(arm, arm)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(content: dict[str, Any], arm: str) -> str:
    test = content["tests"].get(arm)
    if test is None:
        return ""
    gap = content["differences"].get(f"{arm} - mnr")
    words = f" ({gap[0]:+.1f} [{gap[1]:+.1f}, {gap[2]:+.1f}])" if gap else ""
    seeds = f", {len(test['seeds'])} seeds" if 1 < len(test["seeds"]) < SEEDS else ""
    seeds = ", one seed" if len(test["seeds"]) == 1 and arm != UNTRAINED else seeds
    return f"{test['ndcg@10']:.3f}".lstrip("0") + words + seeds
