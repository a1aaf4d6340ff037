"""Disks that are full, broken or read-only from some change on, and what commands make of them."""

import errno
import random
from collections.abc import Sequence
from dataclasses import dataclass

from changes import OPERATIONS
from kills import Case, Laboratory, Place, broken_artifacts, differences, tree_of
from warm import Ended

_ERRORS = {number: errno.errorcode[number] for number in OPERATIONS}


@dataclass(frozen=True)
class Fault:
    """What a command met, and what came of it.

    Attributes:
        case: Its case.
        error: The errno, by name.
        first: The change from which on it was met.
        problems: What was wrong.
    """

    case: str
    error: str
    first: str
    problems: list[str]

    def __str__(self) -> str:
        return f"{self.case}, {self.error} from {self.first}: {'; '.join(self.problems)}"


def meet(
    laboratory: Laboratory, case: Case, place: Place, error: int, first: int, again: bool = True
) -> Fault:
    """Run a case on a disk that fails from a change on, then on a whole one.

    Args:
        laboratory: Where the case was measured.
        case: What is run.
        place: Where.
        error: The errno.
        first: The change from which on it fails.
        again: Whether it is run again on the whole disk, which has to end it.
    """
    undisturbed = laboratory.undisturbed[case.name]
    place.bring(laboratory.state(case.before))
    before = tree_of(place.work)
    ended = place.run(case.killed, error=error, error_from=first)
    problems = wrong_end(ended)
    problems += broken_artifacts(place.work)
    if "--overwrite" not in case.killed:
        lost = sorted(before.keys() - tree_of(place.work).keys())
        problems += [f"{name} is lost" for name in lost[:3]]
    if again:
        for argv in case.after:
            mended = place.run(argv)
            if mended.code != 0:
                problems.append(f"again: rc {mended.code}: {mended.stderr}")
        problems += differences(undisturbed.trees[False], tree_of(place.work, case.deterministic))
    trace = undisturbed.trace
    what, path = trace[first - 1] if first <= len(trace) else ("?", "?")
    return Fault(case.name, _ERRORS[error], f"change {first}, {what} {path}", problems)


def wrong_end(ended: Ended) -> list[str]:
    """What is wrong with how a command ended that met a fault."""
    lines = ended.stderr.splitlines()
    if ended.code == 0:
        # Whatever failed was not needed, such as a file that was to be removed.
        return []
    if ended.code != 2:
        return [f"rc {ended.code}: {' | '.join(lines[-3:])[-400:]}"]
    errors = [line for line in lines if line.startswith("stx-mine: error: ")]
    others = [line for line in lines if line not in errors and "warning: " not in line]
    if len(errors) != 1 or others:
        return [f"expected one line, found {' | '.join(lines)[-400:]}"]
    return []


def choose_firsts(trace: Sequence[tuple[str, str]], error: int, count: int, seed: int) -> list[int]:
    """Changes from which on a disk fails: the first of all, and some over the whole command."""
    rng = random.Random(f"{seed} {error}")
    numbers = range(1, len(trace) + 1)
    return [1, *(rng.choice(numbers) for _ in range(count - 1))]
