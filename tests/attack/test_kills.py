"""Killed at any change of a file or at any moment, the same command ends as undisturbed.

The long form kills `STX_ATTACK_KILLS` times (200): every command, with other settings over an
earlier artifact, in shares, in processes, on Ray, to and from a URL. `kills.py` says how, and is a
program that kills one command at every change.
"""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from conftest import cli_command, cli_environment
from faults import meet
from kills import (
    CASES,
    FULL,
    INPUT,
    RUN,
    Case,
    Kill,
    Laboratory,
    Place,
    differences,
    open_laboratory,
    run_kills,
    tree_of,
)
from whole_run import arguments

from stx_mine.store.listing import MANIFEST, PLAN

# A token that lies in the home directory is of another Ray.
NO_TOKENS = {"RAY_AUTH_MODE": "disabled"}
KILLS = int(os.environ.get("STX_ATTACK_KILLS", "200"))


def wrong(kills: list[Kill]) -> list[str]:
    return [f"{one.case}, {one.moment}: {problem}" for one in kills for problem in one.problems]


def test_a_few_kills_and_a_full_disk(tmp_path: Path) -> None:
    with ExitStack() as stack:
        laboratory = open_laboratory(tmp_path, 1, stack)
        laboratory.build(["embed", "mine", "pack"])
        found = run_kills(laboratory, [CASES["embed"], CASES["mine"]], 8, seed=1)
        case, place = CASES["mine"], laboratory.places[0]
        half = len(laboratory.undisturbed["mine"].trace) // 2
        met = meet(laboratory, case, place, errno.ENOSPC, half)
    assert wrong(found) == []
    assert met.problems == []
    assert sum(one.reached for one in found) >= 6


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    """The states before and after every command, and two places to kill in."""
    with ExitStack() as stack:
        made = open_laboratory(tmp_path_factory.mktemp("kills"), 2, stack, **NO_TOKENS)
        made.build()
        yield made


@pytest.mark.slow
@pytest.mark.timeout(3_000)
def test_every_command_survives_kills(laboratory: Laboratory) -> None:
    found = run_kills(laboratory, list(CASES.values()), KILLS)
    assert wrong(found) == []
    assert {one.case for one in found} == {*CASES}
    assert sum(one.reached for one in found) > 0.8 * len(found)


@contextmanager
def ray_cluster() -> Iterator[str]:
    """The address of a Ray of its own, that outlives the commands that use it."""
    program = (
        "import ray, sys\n"
        "found = ray.init('local', num_cpus=2, include_dashboard=False, log_to_driver=False,"
        " object_store_memory=1 << 28)\n"
        "print(found.address_info['gcs_address'], flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=cli_environment(RAY_USAGE_STATS_ENABLED="0", **NO_TOKENS),
    )
    assert process.stdin and process.stdout
    try:
        address = process.stdout.readline().strip()
        assert address, "Ray did not start"
        yield address
    finally:
        process.stdin.close()
        process.wait(60)


def data_of(tree: dict[str, str]) -> dict[str, str]:
    """A tree without plans and manifests, which name the command line."""
    lists = (PLAN, MANIFEST)
    return {name: digest for name, digest in tree.items() if Path(name).name not in lists}


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_what_runs_on_ray_survives_kills(laboratory: Laboratory) -> None:
    pytest.importorskip("ray", reason="ray is not installed (pip install 'stx-mine[ray]')")
    with ray_cluster() as address:
        on_ray = ("--engine", "ray", "--ray-address", address, "--workers", "2")
        cases = [
            Case(f"{step}-ray", step, (*arguments(step, INPUT, RUN), *on_ray))
            for step in ("embed", "mine", "pack")
        ]
        found = run_kills(laboratory, cases, max(3, KILLS // 20))
        # What ran on Ray is what runs here.
        for case in cases:
            here = laboratory.measure(CASES[case.before], laboratory.places[0])
            both = here.trees[False], laboratory.undisturbed[case.name].trees[False]
            assert differences(*map(data_of, both)) == []
    assert wrong(found) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("step", ["embed", "mine", "pack"])
def test_two_shares_at_once_one_of_them_killed(laboratory: Laboratory, step: str) -> None:
    """As two machines would: one is killed at work and is run again, the other goes on."""
    place: Place = laboratory.places[0]
    undisturbed = laboratory.measure(CASES[step], place)
    for turn in range(max(1, KILLS // 100)):
        place.bring(laboratory.state(step))
        shares = [
            cli_command(*arguments(step, INPUT, RUN), "--task", f"{number}/2") for number in (0, 1)
        ]
        options = {
            "cwd": place.work,
            "env": cli_environment(OMP_NUM_THREADS="1"),
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.PIPE,
            "text": True,
        }
        killed, other = (subprocess.Popen(share, **options) for share in shares)
        # At some moment after its lock is there.
        while killed.poll() is None and not list((place.work / RUN).glob(".lock*-0-of-2")):
            time.sleep(0.01)
        time.sleep(turn * 0.2)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        again = [subprocess.run(shares[0], check=False, **options)]
        _, said = other.communicate(timeout=240)
        assert other.returncode == 0, said
        again += [subprocess.run(share, check=False, **options) for share in reversed(shares)]
        assert [one.returncode for one in again] == [0, 0, 0], again
        # A plain command clears the locks of shares.
        assert place.run(arguments(step, INPUT, RUN)).code == 0
        assert differences(undisturbed.trees[False], tree_of(place.work)) == []


@pytest.mark.slow
def test_what_is_abandoned_is_said_and_harms_nobody(laboratory: Laboratory) -> None:
    """Killed while it overwrites and never run again: others say so and read the earlier one."""
    place = laboratory.places[0]
    case = CASES["embed-other"]
    undisturbed = laboratory.measure(case, place)
    begun = [n for n, (_, path) in enumerate(undisturbed.trace, 1) if "embeddings.new/" in path]
    place.bring(laboratory.state(FULL))
    before = tree_of(place.work)
    assert place.run(case.killed, kill_at=begun[len(begun) // 2]).is_killed
    assert (place.work / "run/embeddings.new").is_dir()
    done = place.run(("export", "--to", "triplet", "--run-dir", "run"))
    assert done.code == 0, done
    assert "embeddings.new/ was begun beside embeddings/ and is not finished" in done.stderr
    published = place.run(("publish", "published", "--run-dir", "run"))
    assert published.code == 0, published
    assert not list((place.work / "published").rglob("*.new*"))
    shutil.rmtree(place.work / "published")
    shutil.rmtree(place.work / "run/embeddings.new")
    assert differences(before, tree_of(place.work)) == []
