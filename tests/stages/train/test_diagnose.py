"""Diagnoses: each speaks where it should, with its figures, and is silent elsewhere."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stx_mine.core.titles import TitleShares
from stx_mine.stages.ingest.config import IngestConfig
from stx_mine.stages.ingest.stage import run_ingest
from stx_mine.stages.train.core.diagnoses import (
    diagnose,
    falls,
    over_fit,
    peak_in_warm_up,
    task_mismatch,
    title_like,
    uniform_drift,
)
from stx_mine.stages.train.diagnose import measure_titles
from stx_mine.store.artifact import require
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore


def log(
    ndcg: list[float] = (),
    losses: list[float] = (),
    rates: list[float] = (),
    cosines: list[dict[str, float]] = (),
    every: int = 10,
) -> list[dict[str, Any]]:
    """A log with one entry every so many steps, from step 0."""
    entries = []
    for number in range(max(map(len, (ndcg, losses, rates, cosines)), default=0)):
        entry: dict[str, Any] = {"step": number * every}
        if number < len(ndcg):
            entry["evaluations"] = {"dev": {"ndcg@10": ndcg[number], "mrr@10": 0.5}}
        if number < len(losses):
            entry["validation_loss"] = losses[number]
        if number < len(rates):
            entry["learning_rate"] = rates[number]
        if number < len(cosines):
            entry["cosine"] = {
                kind: {"mean": mean, "deciles": [mean] * 9}
                for kind, mean in cosines[number].items()
            }
        entries.append(entry)
    return entries


RISING, PEAKED = [0.5, 0.52, 0.55, 0.56], [0.5, 0.58, 0.54, 0.51]
FALLING_LOSS, RISING_LOSS = [2.0, 1.5, 1.2, 1.0], [2.0, 1.5, 1.2, 1.4]
WARM = [0.0, 0.1, 0.06, 0.02]


def test_a_task_mismatch_names_both_curves() -> None:
    said = task_mismatch(log(PEAKED, FALLING_LOSS))
    for part in ("0.5800 at step 10", "0.5100 at step 30", "1.5000 to 1.0000", "stx-mine queries"):
        assert part in said


@pytest.mark.parametrize(
    ("ndcg", "losses"),
    [
        (RISING, FALLING_LOSS),
        (PEAKED, [2.0, 1.5, 1.5, 1.6]),
        (PEAKED, []),
        ([0.5, 0.58, 0.58, 0.575], FALLING_LOSS),
        ([], FALLING_LOSS),
        ([0.6, 0.5], [2.0]),
    ],
)
def test_no_task_mismatch(ndcg: list[float], losses: list[float]) -> None:
    assert task_mismatch(log(ndcg, losses)) is None


def test_a_task_mismatch_of_measurements_at_different_steps() -> None:
    entries = [
        {"step": 0, "validation_loss": 2.0, "evaluations": {"dev": {"ndcg@10": 0.5}}},
        {"step": 5, "evaluations": {"dev": {"ndcg@10": 0.6}}},
        {"step": 7, "validation_loss": 1.5},
        {"step": 9, "evaluations": {"dev": {"ndcg@10": 0.4}}},
        {"step": 9, "loss": 1.0, "validation_loss": None},
    ]
    assert "2.0000 to 1.5000" in task_mismatch(entries)


def test_over_fit_names_the_best_and_the_last() -> None:
    said = over_fit(log(losses=RISING_LOSS))
    for part in ("1.2000 at step 20", "1.4000 at step 30", "--patience"):
        assert part in said
    assert over_fit(log(losses=FALLING_LOSS)) is None
    assert over_fit(log(losses=[1.0, 1.01])) is None
    assert over_fit(log(losses=[1.0])) is None
    assert over_fit([]) is None


def test_a_peak_in_warm_up_gives_a_lower_rate() -> None:
    said = peak_in_warm_up(log(PEAKED, rates=WARM))
    for part in ("0.1", "step 10 of 30", "0.5800", "0.5100", "--learning-rate 0.03"):
        assert part in said
    assert "before training" in peak_in_warm_up(log([0.6, 0.5, 0.5, 0.5], rates=WARM))


@pytest.mark.parametrize(
    ("ndcg", "rates"),
    [
        (RISING, WARM),
        ([0.5, 0.52, 0.58, 0.51], WARM),
        (PEAKED, []),
        # Warm-up lasts as long as the training: nothing can be said.
        ([0.5, 0.6, 0.5], [0.0, 0.05, 0.1]),
    ],
)
def test_no_peak_in_warm_up(ndcg: list[float], rates: list[float]) -> None:
    assert peak_in_warm_up(log(ndcg, rates=rates)) is None


def kinds(positive: float, hard: float, random: float) -> dict[str, float]:
    return {"positive": positive, "hard": hard, "random": random}


def test_a_uniform_drift_has_a_direction() -> None:
    down = uniform_drift(log(cosines=[kinds(0.7, 0.6, 0.3), kinds(0.5, 0.42, 0.12)]))
    for part in ("down together", "positive 0.700 -> 0.500", "random 0.300 -> 0.120", "-0.020"):
        assert part in down
    up = uniform_drift(log(cosines=[kinds(0.7, 0.6, 0.1), kinds(0.95, 0.93, 0.9)]))
    assert "up together" in up
    assert "collapse" in up
    assert "--learning-rate" in up


@pytest.mark.parametrize(
    "last",
    [
        kinds(0.8, 0.55, 0.1),
        kinds(0.68, 0.58, 0.28),
        # Random pairs fall much further than positives do: they come apart.
        kinds(0.6, 0.3, -0.1),
        kinds(0.9, 0.7, 0.36),
    ],
)
def test_no_uniform_drift(last: dict[str, float]) -> None:
    assert uniform_drift(log(cosines=[kinds(0.7, 0.6, 0.3), last])) is None
    assert uniform_drift(log(cosines=[last])) is None
    assert uniform_drift(log(cosines=[{"hard": 0.9}, {"hard": 0.1}])) is None


TITLES, QUESTIONS = TitleShares(100, 0.6, 0.8, 5.0), TitleShares(50, 0.0, 0.02, 9.0)


def test_title_like_anchors_are_compared_with_evaluation_queries() -> None:
    said = title_like(TITLES, {"dev": QUESTIONS})
    for part in ("80% of 100", "60% at its beginning", "2% of the queries of dev", "--cut-titles"):
        assert part in said
    assert "queries of" not in title_like(TITLES, {})
    assert title_like(QUESTIONS, {"dev": QUESTIONS}) is None
    # Evaluated on titles too: the task is the same.
    assert title_like(TITLES, {"dev": TITLES}) is None


def test_falls_are_sorted_by_depth_and_take_the_first_peak() -> None:
    entries = [
        {"step": step, "evaluations": {"a": {"ndcg@10": a}, "b": {"ndcg@10": b}}}
        for step, a, b in ((0, 0.5, 0.5), (1, 0.6, 0.8), (2, 0.6, 0.6), (3, 0.5, 0.3))
    ]
    assert [(one.name, one.peak_step) for one in falls(entries)] == [("b", 1), ("a", 1)]


def test_diagnose_says_all_of_it_and_nothing_of_a_healthy_run() -> None:
    bad = log(PEAKED, FALLING_LOSS, WARM, [kinds(0.7, 0.6, 0.3)] * 3 + [kinds(0.5, 0.42, 0.12)])
    assert len(diagnose(bad, training=TITLES, evaluations={"dev": QUESTIONS})) == 4
    healthy = log(RISING, FALLING_LOSS, WARM, [kinds(0.6, 0.5, 0.3), kinds(0.7, 0.4, 0.05)])
    assert diagnose(healthy, training=QUESTIONS, evaluations={"dev": QUESTIONS}) == []
    assert diagnose([]) == []


def test_titles_are_measured_on_the_store(small_input: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    rows = [f"title {n},Title {n}: and text" for n in range(30)]
    rows += [f"question {n},other text {n}" for n in range(10)]
    pairs.write_text("query,passage\n" + "\n".join(rows) + "\n")
    run_ingest(IngestConfig(pairs=str(pairs), run_dir=str(tmp_path / "run")))
    store = TextStore.open(require(RunDir(tmp_path / "run"), "texts"))
    pairs = np.stack([store.pair_query_ids, store.pair_passage_ids], axis=1)
    texts = store.queries.column("text"), store.passages.column("text")
    shares = measure_titles(*texts, pairs)
    assert (shares.num_pairs, shares.prefix, shares.contained) == (40, 0.75, 0.75)
    assert measure_titles(*texts, pairs, max_pairs=16).num_pairs == 16
