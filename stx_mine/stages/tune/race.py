"""The race: which policies are tried, how far and how often, within a budget of time."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from stx_mine import progress
from stx_mine.stages.tune.bench import TrialBench
from stx_mine.stages.tune.core.policies import (
    Ground,
    TunedPolicy,
    combinations,
    distinct_policies,
    first_policies,
    longer_as_given,
    other_rates,
    refinements,
    varied,
)
from stx_mine.stages.tune.core.ranking import PolicyScores
from stx_mine.stages.tune.trials import PolicyTrial

# Policies that get all seeds, beside that of the file and the best without negatives.
_FINALISTS = 3
# Shares of a training that a first trial may have, and steps that are left of the pipeline's at
# least: fewer say nothing about more of them.
_SHARES, _FEWEST_STEPS = (1.0, 0.5, 0.25, 0.125), 20
# Trials, about, of what helped together.
_TOGETHER = 3
# Share of the budget for trials with one seed; the rest is for the finalists.
_SCREENING = 0.65


@dataclass
class Race:
    """The trials that were run, and how the others are chosen.

    Attributes:
        bench: Runs trials.
        ground: What policies start from.
        budget: Seconds that may be spent in all.
        spent: Seconds that were spent before the first trial.
        seeds: Seeds of the finalists; the first is that of every other trial.
        axes: What a person asked to vary; empty for the usual.
        trials: Those that were run, in order.
        skipped: Names of policies that the budget had no room for, or not for all their seeds.
    """

    bench: TrialBench
    ground: Ground
    budget: float
    spent: float
    seeds: Sequence[int]
    axes: Mapping[tuple[str, str], Sequence[object]] = field(default_factory=dict)
    trials: list[PolicyTrial] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def run(self) -> list[PolicyScores]:
        """Run trials until the finalists have all their seeds, or the budget is spent.

        Returns:
            What the finalists reached.

        Raises:
            StxMineError: The pipeline cannot be run as it stands in its file.
        """
        as_given = TunedPolicy({})
        first = varied(self.ground, self.axes) if self.axes else first_policies(self.ground)
        whole = self._try(as_given, 1.0, self.seeds[0])
        later = [] if self.axes else refinements(self.ground, as_given, whole.learning_rate)
        share = self._share(whole, len(first) + len(later) + _TOGETHER)
        if not self.axes:
            first = [*self._probe(whole, share), *first_policies(self.ground)]
        screened = self._screen(first, share)
        start, singles = screened[0], screened
        if not self.axes:
            start = max(screened, key=lambda one: one.mean)
            changes = refinements(self.ground, start.policy, start.learning_rate)
            singles = self._screen([start.policy.changed(one) for one in changes], share)
            screened += singles + self._screen(longer_as_given(self.ground, start.policy), share)
        helpful = [one for one in _best_first(singles) if one.mean > start.mean]
        together = combinations(start.policy, [one.policy.beside(start.policy) for one in helpful])
        screened += self._screen(together, share)
        return self._finals(screened)

    def _probe(self, whole: PolicyTrial, share: float) -> list[TunedPolicy]:
        """Try twice and half the rate of the file: sizes and negatives are compared at the best."""
        policies = [TunedPolicy({}), *other_rates(whole.learning_rate)]
        found = self._screen(policies, share)
        best = max(found, key=lambda one: one.mean)
        given = self.ground.settings["train"].get("learning_rate", "auto")
        if best.policy.changes or isinstance(given, float | int):
            self.ground = replace(self.ground, learning_rate=best.learning_rate)
        return policies

    def _share(self, whole: PolicyTrial, num_trials: int) -> float:
        """How much of a training a first trial has, so that all of them fit their budget."""
        left = self.budget * _SCREENING - self._elapsed
        shares = [one for one in _SHARES if one * whole.whole_steps >= _FEWEST_STEPS]
        for share in shares:
            each = whole.seconds - whole.training_seconds * (1 - share)
            if each * num_trials <= left:
                return share
        return min(shares, default=1.0)

    def _screen(self, policies: Iterable[TunedPolicy], share: float) -> list[PolicyTrial]:
        """Try policies with one seed; the pipeline of the file always, others as time allows."""
        tried = []
        for policy in distinct_policies(list(policies)):
            known = self._known(policy, share, self.seeds[0]) or not policy.changes
            if not known and not self._fits(policy, share, self.budget * _SCREENING):
                self.skipped.append(policy.name)
                continue
            tried.append(self._try(policy, share, self.seeds[0]))
        return [one for one in tried if not one.failure]

    def _finals(self, screened: Sequence[PolicyTrial]) -> list[PolicyScores]:
        """Give the best policies their whole training, and all seeds."""
        order = _best_first(screened)
        # What a person has, and what mining has to beat, are among them.
        without = [one.policy for one in order if one.k == 0][:1]
        finalists = [*(one.policy for one in order[:_FINALISTS]), *without, TunedPolicy({})]
        runs: dict[str, list[PolicyTrial]] = {one.name: [] for one in distinct_policies(finalists)}
        for seed in self.seeds:
            for policy in distinct_policies(finalists):
                known = self._known(policy, 1.0, seed)
                if known or self._fits(policy, 1.0, self.budget):
                    runs[policy.name].append(self._try(policy, 1.0, seed))
                else:
                    self.skipped.append(f"{policy.name}, seed {seed}")
        found = ([one for one in some if not one.failure] for some in runs.values())
        return [self._scored(some) for some in found if some]

    def _scored(self, trials: Sequence[PolicyTrial]) -> PolicyScores:
        values_SQ = np.stack([self.bench.values(one) for one in trials])
        seconds = float(np.mean([one.whole_seconds for one in trials]))
        return PolicyScores(trials[0].policy.name, values_SQ, seconds)

    @property
    def _elapsed(self) -> float:
        return self.spent + sum(one.seconds for one in self.trials)

    def _fits(self, policy: TunedPolicy, share: float, budget: float) -> bool:
        """Whether there is time for a trial, by those that were run."""
        done = (policy.name, share)
        if any((one.policy.name, one.share) == done for one in self.trials if one.failure):
            return False
        known = [one for one in self.trials if not one.failure]
        model = next((one for one in known[::-1] if one.policy.name == policy.name), known[0])
        # Training follows the texts of the rows that it sees.
        ground, other = self.ground, model.policy
        texts = (2 + ground.k_of(policy)) / (2 + model.k)
        passes = share * ground.passes_of(policy) / ground.passes_of(other)
        training = model.training_seconds * texts * passes * model.whole_steps / model.steps
        seconds = model.seconds - model.training_seconds + training
        return self._elapsed + seconds <= budget

    def _known(self, policy: TunedPolicy, share: float, seed: int) -> PolicyTrial | None:
        wanted = (policy.name, share, seed)
        done = (one for one in self.trials if (one.policy.name, one.share, one.seed) == wanted)
        return next(done, None)

    def _try(self, policy: TunedPolicy, share: float, seed: int) -> PolicyTrial:
        if known := self._known(policy, share, seed):
            return known
        number = len(self.trials) + 1
        with progress.step(f"trial {number}: {policy.name}"):
            trial = self.bench.run(policy, share, seed)
        self.trials.append(trial)
        progress.say(f"{number:>4}  {_words(trial)}")
        return trial


def _best_first(trials: Sequence[PolicyTrial]) -> list[PolicyTrial]:
    return sorted(trials, key=lambda one: -one.mean)


def _words(trial: PolicyTrial) -> str:
    """A trial on a line."""
    if trial.failure:
        return f"not run      {trial.policy.name}: {trial.failure}"
    return (
        f"{trial.mean:.4f}  {trial.seconds:4.0f} s  {trial.steps:,} of {trial.whole_steps:,} "
        f"steps, seed {trial.seed}: {trial.policy.name}"
    )
