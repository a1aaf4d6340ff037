"""False negatives among mined negatives, by rule, where hidden positives tell.

Every query shows one positive; what else is known to answer it is hidden, and is a false negative
if mined (`benchmarks.hidden_positives`). Mining is exact: the first 8 of 100 candidates that the
rule leaves. A rule costs yield (negatives) and hardness (their mean score), and so does a margin or
a rank offset; so each result stands beside the fewest false negatives that any margin and offset
reach with at least the same yield and the same hardness.

Each rule gets ONE threshold for all sets and models of the run: the lowest that drops at most 5% of
the first 8 candidates on every set without hidden positives (xquad).

    python -m benchmarks.false_negatives [--quick] [--sets banking77 xquad-en] [--models static]
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import machine
from benchmarks.closeness import CHOSEN, CHOSEN_GRID, RULES, Array, Closeness, measure_closeness
from benchmarks.hidden_positives import MODELS, NAMES, HiddenPositives, embed, load
from stx_mine.cli import quiet
from stx_mine.search.exact import ExactSearcher

K = 8
DEPTH = 100
MARGIN = 0.05
MAX_LOSS = 0.05
NUM_STEPS = 51
MARGINS = (None, *(round(step * 0.05, 2) for step in range(-12, 9)))
RIVAL_LIMITS = (0.65, 0.7)
OFFSETS = (0, 1, 2, 3, 5, 8, 12, 18, 25, 35, 50, 70)
QUICK_QUERIES = 800
# What a transformer embeds on a few cores in minutes; ask for other sets by --sets.
DEFAULT_SETS = {"static": NAMES, "minilm": ("banking77", "nl2bash", "xquad-en", "xquad-zh")}


@dataclass(frozen=True)
class Mined:
    """The candidates of one set under one model.

    Attributes:
        closeness: What the rules look at.
        valid_QK: Whether the place holds a candidate.
        false_QK: Whether the candidate is a hidden positive.
        ids_QK: The candidates.
    """

    closeness: Closeness
    valid_QK: NDArray[np.bool_]
    false_QK: NDArray[np.bool_]
    ids_QK: NDArray[np.int64]

    def margin(self, relative: float) -> NDArray[np.bool_]:
        """What a relative margin keeps."""
        t = self.closeness.raw
        kept: NDArray[np.bool_] = t.qc <= t.qp - np.abs(t.qp) * relative
        return kept


@dataclass(frozen=True)
class Outcome:
    """What a selection gives.

    Attributes:
        false_rate: Share of hidden positives among the negatives of queries that have any.
        negatives: Number of negatives of all queries.
        filled: Share of all slots that are filled.
        rows_full: Share of the queries with 8 negatives.
        hardness: Mean score of the negatives.
        lost: Share of the first 8 candidates of each query that were dropped.
    """

    false_rate: float
    negatives: int
    filled: float
    rows_full: float
    hardness: float
    lost: float


def mine(set_: HiddenPositives, model: str, seed: int) -> Mined:
    """Search the candidates of a set, and measure what the rules look at."""
    queries, passages = embed(set_.queries, "query", model), embed(set_.passages, "passage", model)
    depth = min(DEPTH + 2, len(passages))
    hits = ExactSearcher(passages).search(queries.rows(0, len(queries)), depth)
    excluded = (hits.ids_QK == set_.own[:, None]) | (hits.ids_QK == set_.shown[:, None])
    order = np.argsort(excluded, axis=1, kind="stable")[:, :DEPTH]
    ids_QK = np.take_along_axis(hits.ids_QK, order, 1)
    false_QK = np.array(
        [np.isin(ids, set_.hidden.row(row)) for row, ids in enumerate(ids_QK)], dtype=bool
    )
    closeness = measure_closeness(
        queries, passages, set_.shown, ids_QK, np.random.default_rng(seed)
    )
    return Mined(closeness, ~np.take_along_axis(excluded, order, 1), false_QK, ids_QK)


def outcome(mined: Mined, kept_QK: NDArray[np.bool_], offset: int = 0) -> Outcome:
    """Take the first 8 candidates that are kept, from a rank on."""
    valid = mined.valid_QK
    kept = kept_QK & valid & (np.cumsum(valid, 1) > offset)
    taken = kept & (np.cumsum(kept, 1) <= K)
    first = first_places(mined)
    labelled = taken[mined.false_QK.any(1)]
    num_false = int((taken & mined.false_QK).sum())
    return Outcome(
        false_rate=num_false / max(int(labelled.sum()), 1),
        negatives=int(taken.sum()),
        filled=float(taken.sum() / (K * len(taken))),
        rows_full=float((taken.sum(1) == K).mean()),
        hardness=float(mined.closeness.raw.qc[taken].mean()) if taken.any() else 0.0,
        lost=float((first & ~kept).sum() / first.sum()),
    )


def first_places(mined: Mined) -> NDArray[np.bool_]:
    """The first 8 candidates of each query."""
    first: NDArray[np.bool_] = mined.valid_QK & (np.cumsum(mined.valid_QK, 1) <= K)
    return first


def margins(mined: Mined) -> list[Outcome]:
    """What every margin with every rank offset gives."""
    found = []
    for relative in MARGINS:
        kept = np.ones_like(mined.valid_QK) if relative is None else mined.margin(relative)
        found += [outcome(mined, kept, offset) for offset in OFFSETS]
    return found


def beside(one: Outcome, others: list[Outcome]) -> float | None:
    """The lowest false rate among others with at least the yield and the hardness of one."""
    as_good = [
        other.false_rate
        for other in others
        if other.filled >= one.filled - 1e-3 and other.hardness >= one.hardness - 1e-3
    ]
    return min(as_good, default=None)


def threshold(runs: dict[str, Mined], suspicions: dict[str, Array]) -> float:
    """The lowest threshold that loses at most 5% of the first 8 where nothing is false."""
    clean = [run for run, mined in runs.items() if not mined.false_QK.any()]
    if not clean:
        raise ValueError(f"thresholds are set on sets without hidden positives; add one: {NAMES}")
    return float(
        max(np.quantile(suspicions[run][first_places(runs[run])], 1 - MAX_LOSS) for run in clean)
    )


def rivals(
    runs: dict[str, Mined], suspicions: dict[str, dict[str, Array]]
) -> dict[str, dict[str, dict[str, float | None]]]:
    """The lowest false rate of each rule with at least yield and hardness of the chosen one.

    The chosen rule has one threshold; each rival has the best of many, for every run its own. None:
    no threshold reaches that yield and hardness.
    """
    found: dict[str, dict[str, dict[str, float | None]]] = {
        str(limit): {} for limit in RIVAL_LIMITS
    }
    for run, mined in runs.items():
        if not mined.false_QK.any():
            continue
        reached = {
            name: [
                outcome(mined, values[run] <= step)
                for step in np.quantile(values[run][mined.valid_QK], np.linspace(0, 1, NUM_STEPS))
            ]
            for name, values in suspicions.items()
            if name != CHOSEN
        }
        for limit in RIVAL_LIMITS:
            target = outcome(mined, suspicions[CHOSEN][run] <= limit)
            rates = {name: beside(target, outcomes) for name, outcomes in reached.items()}
            found[str(limit)][run] = {CHOSEN: target.false_rate, **rates}
    return found


def measure_rules(runs: dict[str, Mined]) -> dict[str, object]:
    """Every rule at its one threshold, and the chosen rule over its grid, on every run."""
    others = {run: margins(mined) for run, mined in runs.items()}

    def results(suspicions: dict[str, Array], limit: float) -> dict[str, object]:
        found: dict[str, object] = {}
        for run, mined in runs.items():
            kept = suspicions[run] <= limit
            alone, both = outcome(mined, kept), outcome(mined, kept & mined.margin(MARGIN))
            found[run] = {
                **asdict(alone),
                "margins_false_rate": beside(alone, others[run]),
                "with_margin": {
                    **asdict(both),
                    "margins_false_rate": beside(both, others[run]),
                },
            }
        return found

    suspicions = {
        name: {run: rule(mined.closeness) for run, mined in runs.items()}
        for name, rule in RULES.items()
    }
    rules = {}
    for name, values in suspicions.items():
        limit = threshold(runs, values)
        rules[name] = {"threshold": limit, "runs": results(values, limit)}
    grid = {str(limit): results(suspicions[CHOSEN], limit) for limit in CHOSEN_GRID}
    everything = {run: np.ones_like(mined.valid_QK) for run, mined in runs.items()}
    return {
        "no rule": {run: asdict(outcome(runs[run], kept)) for run, kept in everything.items()},
        "margin": {
            run: asdict(outcome(mined, mined.margin(MARGIN))) for run, mined in runs.items()
        },
        "rules": rules,
        "chosen": {"rule": CHOSEN, "grid": grid},
        "rivals": rivals(runs, suspicions),
    }


def print_table(results: dict[str, object]) -> None:
    """Print a line a rule, and a line a threshold of the chosen rule."""
    tables = [("no rule", results["no rule"]), (f"margin {MARGIN}", results["margin"])]
    tables += [
        (f"{name} > {one['threshold']:.2f}", one["runs"]) for name, one in results["rules"].items()
    ]
    tables += [(f"{CHOSEN} > {limit}", one) for limit, one in results["chosen"]["grid"].items()]
    print(
        "each cell: false rate (of margins at equal yield and hardness) / slots filled / hardness"
    )
    for title, runs in tables:
        print(title)
        for run, one in runs.items():
            margins_rate = one.get("margins_false_rate")
            against = "" if margins_rate is None else f" ({margins_rate:.3f})"
            print(
                f"    {run:<18} {one['false_rate']:.3f}{against} / {one['filled']:.2f} / "
                f"{one['hardness']:.3f}  first 8 lost {one['lost']:.2f}"
            )


def headline(results: dict[str, object]) -> dict[str, object]:
    """The margin and the chosen rule on each run: false rate, slots filled, hardness, lost."""
    chosen = results["rules"][CHOSEN]
    keys = ("false_rate", "filled", "hardness", "lost")

    def short(runs: dict[str, dict[str, float]]) -> dict[str, list[float]]:
        return {run: [round(one[key], 3) for key in keys] for run, one in runs.items()}

    return {
        "columns": keys,
        "margin": short(results["margin"]),
        CHOSEN: short(chosen["runs"]),
        "threshold": round(chosen["threshold"], 3),
    }


def main() -> None:
    """Measure all rules and print the table; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a reduced run of under a minute")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--sets", nargs="+", choices=NAMES)
    parser.add_argument("--seed", type=int, default=0, help="decides which positive is shown")
    parser.add_argument("--output", type=Path, help="where to write the full results")
    arguments = parser.parse_args()
    quiet()
    limit = {}
    if arguments.quick:
        arguments.models, arguments.sets = ["static"], ["banking77", "xquad-en"]
        limit = {"max_queries": QUICK_QUERIES}
    runs = {
        f"{model} {name}": mine(load(name, arguments.seed, **limit), model, arguments.seed)
        for model in arguments.models
        for name in arguments.sets or DEFAULT_SETS[model]
    }
    results = measure_rules(runs)
    if arguments.output:
        content = {
            "machine": machine.describe(),
            "quick": arguments.quick,
            "seed": arguments.seed,
            **results,
        }
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(content, indent=2) + "\n")
    print_table(results)
    print(json.dumps(headline(results)))


if __name__ == "__main__":
    main()
