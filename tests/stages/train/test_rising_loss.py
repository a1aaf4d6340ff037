"""When a training loss rose: noise, short runs, many epochs; a false alarm costs a good model."""

import numpy as np
import pytest

from stx_mine.stages.train.core.rising_loss import rising_loss

LENGTHS = (6, 8, 12, 20, 50, 100)


def log_of(losses, steps_per_line=1):
    """A log as `train` writes it: a line for the first step, then one for every so many."""
    steps = [1] + [number * steps_per_line for number in range(1 + (steps_per_line == 1), 500)]
    return [{"step": step, "loss": float(one)} for step, one in zip(steps, losses, strict=False)]


def alarms(make, seeds=200):
    """Share of random runs that count as risen."""
    return np.mean(
        [rising_loss(log_of(make(np.random.default_rng(n)))) is not None for n in range(seeds)]
    )


@pytest.mark.parametrize("size", LENGTHS)
@pytest.mark.parametrize("spread", [0.02, 0.2, 0.6])
def test_runs_that_learn_or_stand_still_raise_no_alarm(size, spread):
    def noise(rng):
        return spread * rng.standard_normal(size)

    assert alarms(lambda rng: np.linspace(1.2, 0.6, size) + noise(rng)) == 0
    assert alarms(lambda rng: 1 + noise(rng)) <= 0.01
    assert alarms(lambda rng: np.linspace(1, 1.1, size) + noise(rng)) <= 0.01
    # A loss of almost nothing that doubles is nothing.
    assert alarms(lambda rng: np.linspace(0.01, 0.02, size) + 0.001 * noise(rng)) == 0


@pytest.mark.parametrize("size", LENGTHS)
def test_batches_of_unequal_difficulty_raise_none(size):
    """Skewed losses, and batches of an easy and a hard source in turn."""
    assert alarms(lambda rng: np.exp(0.8 * rng.standard_normal(size))) <= 0.01
    assert alarms(lambda rng: np.where(rng.random(size) < 0.5, 2.0, 0.1)) <= 0.02
    assert alarms(lambda rng: np.where(rng.random(size) < 0.2, 2.0, 0.1)) <= 0.02


@pytest.mark.parametrize("size", LENGTHS)
def test_a_loss_that_jumps_or_climbs_is_an_alarm(size):
    def noise(rng):
        return 0.03 * rng.standard_normal(size)

    jump = np.r_[1.19, np.full(size - 1, 5.53)]
    assert alarms(lambda rng: jump + noise(rng)) == 1
    assert alarms(lambda rng: np.linspace(1.19, 5.53, size) + noise(rng)) == 1
    late = np.r_[np.full(size - size // 3, 1.19), np.full(size // 3, 5.53)]
    if size >= 12:
        assert alarms(lambda rng: late + noise(rng)) == 1
    found = rising_loss(log_of(jump))
    assert (found.before, round(found.after, 2), found.steps) == (1.19, 5.53, size)


def test_several_epochs_each_of_which_falls_raise_no_alarm():
    """A saw: at the start of an epoch the loss is higher than at the end of the one before."""
    epoch = np.linspace(0.3, 0, 20)
    saw = np.concatenate([1.0 - 0.2 * number + epoch for number in range(4)])
    assert rising_loss(log_of(saw)) is None
    climbing = np.concatenate([1.0 + 0.4 * number + epoch for number in range(4)])
    assert rising_loss(log_of(climbing)) is not None


def test_the_first_step_counts_as_one_and_a_line_as_many():
    """A mean of 50 steps varies less than the first step, which is no outlier for that."""
    rng = np.random.default_rng(0)
    means = 1.5 + 0.3 * rng.standard_normal((30, 50)).mean(1)
    assert rising_loss(log_of(np.r_[0.9, means], 50)) is None
    assert rising_loss(log_of(np.r_[0.9, 4.5 + means], 50)) is not None


@pytest.mark.parametrize("losses", [[], [1.0], [1.0, 9.0], [1.0, 9.0, 9.0, 9.0, 9.0]])
def test_too_few_lines_tell_nothing(losses):
    assert rising_loss(log_of(losses)) is None


def test_entries_without_a_loss_are_passed_over():
    log = [{"step": 0, "cosine": {}}, *log_of(np.linspace(1, 9, 20)), {"step": 20, "loss": None}]
    assert rising_loss(log).steps == 20
