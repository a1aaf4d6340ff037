"""Disks that fail, clocks that are wrong, folders that vanish: one line, exit code 2, nothing lost.

Afterwards the same command ends as undisturbed. The long form meets `STX_ATTACK_KILLS` / 4 faults.
"""

import errno
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from changes import Plan
from faults import choose_firsts, meet, wrong_end
from kills import CASES, RUN, Laboratory, broken_artifacts, differences, open_laboratory, tree_of
from whole_run import STEPS

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS)
FAULTS = int(os.environ.get("STX_ATTACK_KILLS", "200")) // 4
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]
LONG_AGO_S = -400 * 86_400


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    """The states before the first steps, and a place."""
    with ExitStack() as stack:
        made = open_laboratory(tmp_path_factory.mktemp("faults"), 1, stack)
        made.build(["split", "embed", "index"])
        yield made


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    """The states before all steps, and two places."""
    with ExitStack() as stack:
        made = open_laboratory(tmp_path_factory.mktemp("faults"), 2, stack)
        made.build()
        yield made


def test_a_full_a_broken_and_a_read_only_disk(begun: Laboratory) -> None:
    place, case = begun.places[0], CASES["embed"]
    trace = begun.measure(case, place).trace
    met = [meet(begun, case, place, error, len(trace) * 2 // 3) for error in ERRORS]
    assert [str(one) for one in met if one.problems] == []


@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_every_command_on_a_disk_that_fails(whole: Laboratory, error: int) -> None:
    met, place = [], whole.places[0]
    for number, case in enumerate(CASES.values()):
        trace = whole.measure(case, place).trace
        count = max(2, FAULTS // (len(CASES) * len(ERRORS)))
        for first in choose_firsts(trace, error, count, seed=number):
            met.append(meet(whole, case, place, error, first))
    assert [str(one) for one in met if one.problems] == []


def test_a_clock_that_is_wrong_changes_nothing(begun: Laboratory) -> None:
    """It goes back between two commands, and during one."""
    place, case = begun.places[0], CASES["embed"]
    undisturbed = begun.measure(case, place)
    for first in (1, len(undisturbed.trace) // 2):
        place.bring(begun.state(case.before))
        assert place.run(case.killed, kill_at=len(undisturbed.trace) * 3 // 4).is_killed
        done = place.run(case.killed, clock_from=first, clock_offset=LONG_AGO_S)
        assert done.code == 0, done
        assert differences(undisturbed.trees[False], tree_of(place.work)) == []
        again = place.run(case.killed, clock_from=1, clock_offset=2 * LONG_AGO_S)
        assert "embeddings: done before, skipped" in again.stdout, again
    assert json.loads((place.work / "run/embeddings/manifest.json").read_text())["finished"]


def test_a_cache_that_cannot_be_written_is_named(begun: Laboratory) -> None:
    place, case = begun.places[0], CASES["cache"]
    undisturbed = begun.measure(case, place)
    in_cache = [n for n, (_, path) in enumerate(undisturbed.trace, 1) if path.startswith("/cache")]
    for error in ERRORS:
        for number in (in_cache[0], in_cache[len(in_cache) // 2], in_cache[-1]):
            place.bring(begun.state(case.before))
            plan = Plan(place.work / "cache", error=error, error_from=in_cache.index(number) + 1)
            ended = place.warm.run(case.killed, plan, cwd=place.work)
            assert wrong_end(ended) == []
            assert place.run(case.killed).code == 0
            assert differences(undisturbed.trees[False], tree_of(place.work)) == []
    place.bring(begun.state(case.before))
    (place.work / "cache").write_text("of somebody else")
    ended = place.run(case.killed)
    assert wrong_end(ended) == [] and ended.code == 2
    assert "cannot write to the embedding cache" in ended.stderr, ended


def test_a_working_directory_that_is_gone_is_said(begun: Laboratory) -> None:
    place, case = begun.places[0], CASES["embed"]
    place.bring(begun.state(case.before))
    before = tree_of(place.work)
    ended = place.warm.run(case.killed, Plan(place.work), cwd=place.work / "gone", vanishes=True)
    assert ended.code == 2, ended
    assert wrong_end(ended) == []
    assert tree_of(place.work) == before


def test_a_lock_of_a_dead_process_elsewhere_holds_nobody(begun: Laboratory) -> None:
    place, case = begun.places[0], CASES["split"]
    undisturbed = begun.measure(case, place)
    place.bring(begun.state(case.before))
    (place.work / RUN).mkdir(exist_ok=True)
    who = {
        "pid": 1,
        "host": f"not-{socket.gethostname()}",
        "command": "stx-mine train",
        "plan": "x",
    }
    for name in (".lock-stx-mine", ".lock-stx-mine-share-0-of-2"):
        (place.work / RUN / name).touch()
        (place.work / RUN / f"{name}.json").write_text(json.dumps(who))
    assert place.run(case.killed).code == 0
    assert differences(undisturbed.trees[False], tree_of(place.work)) == []


@pytest.mark.parametrize("step", list(STEPS))
def test_two_commands_at_once_on_one_run(whole: Laboratory, step: str) -> None:
    """One of them is refused by name, or comes so late that all is done."""
    case, place = CASES[step], whole.places[0]
    undisturbed = whole.measure(case, place)
    place.bring(whole.state(case.before))
    ended = []

    def run(number: int) -> None:
        warm = whole.places[number].warm
        ended.append(warm.run(case.killed, Plan(place.work), cwd=place.work))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one.code for one in ended} <= {0, 2}, ended
    for one in ended:
        if one.code == 2:
            # The holder may not have said yet who it is.
            assert "is in use by " in one.stderr, one
            assert wrong_end(one) == []
    assert broken_artifacts(place.work) == []
    assert place.run(case.killed).code == 0
    assert differences(undisturbed.trees[False], tree_of(place.work, case.deterministic)) == []
