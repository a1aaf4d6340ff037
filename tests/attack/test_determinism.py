"""The same bytes whatever the hash seed, the threads, the sizes of blocks, and where it was killed.

Of one command or two at a time the default suite says so (`test_pipeline.py`, `test_engine.py`);
here it is every command of a run, and every file that it leaves. `test_kills.py` has engines and
shares.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest
from kills import CASES, Place, differences, open_laboratory, tree_of
from warm import BLAS_THREADS
from whole_run import STEPS, write_input

from stx_mine.store.listing import MANIFEST, PLAN


class Way(NamedTuple):
    """A way to make the same.

    Attributes:
        seed: PYTHONHASHSEED.
        threads: Of torch, BLAS and the tokenizers.
        options: More options of a step, none of which decides bytes of data; plans and manifests
            name some of them.
        killed: Whether every command is killed halfway first.
    """

    seed: str
    threads: str
    options: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    killed: bool = False


WAYS = {
    "two threads": Way("123", "2"),
    "other blocks": Way(
        "7",
        "1",
        {
            "mine": ("--passage-block", "37", "--corpus-parts", "1"),
            "train": ("--checkpoint-steps", "2"),
            "evaluate": ("--encode-batch-size", "7"),
        },
    ),
    "killed halfway": Way("99", "1", killed=True),
}


def made(place: Place, way: Way) -> dict[str, str]:
    """What all commands leave, made in one way; without what says how long something took."""
    write_input(place.work / "input")
    (place.work / "temporary").mkdir()
    for step in STEPS:
        argv = (*CASES[step].killed, *way.options.get(step, ()))
        if way.killed:
            # A whole one elsewhere says how long it takes.
            place.run(argv, after_s=0.3)
        done = place.run(argv)
        assert done.code == 0, (step, done)
    found = tree_of(place.work)
    timed = ("run/estimates/", "run/report/")
    return {name: one for name, one in found.items() if not name.startswith(timed)}


def data_of(tree: Mapping[str, str]) -> dict[str, str]:
    """A tree without what names options."""
    names = [name for name in tree if Path(name).name not in (PLAN, MANIFEST)]
    return {name: tree[name] for name in names}


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("name", list(WAYS))
def test_every_command_makes_the_same_bytes(tmp_path: Path, name: str) -> None:
    trees = []
    for number, way in enumerate([Way("0", "1"), WAYS[name]]):
        threads = dict.fromkeys(("OMP_NUM_THREADS", BLAS_THREADS, "RAYON_NUM_THREADS"), way.threads)
        with ExitStack() as stack:
            env = {"PYTHONHASHSEED": way.seed, **threads}
            made_in = open_laboratory(tmp_path / str(number), 1, stack, **env)
            place = made_in.places[0]
            place.work.mkdir(parents=True)
            trees.append(made(place, way))
    compared = map(data_of, trees) if WAYS[name].options else trees
    assert differences(*compared) == []
    assert len(data_of(trees[0])) > 40
