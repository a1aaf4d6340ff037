"""The kernels of Triton: on a GPU where one is seen, else in Triton's interpreter."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

# A process of its own: the interpreter is chosen when triton is imported.
CHECK = """
import numpy as np, torch
from functools import partial
from stx_mine.search import exact, kernels
from stx_mine.search.exact import ExactSearcher
from stx_mine.search.ways import Way
from stx_mine.store.vectors import Vectors

device = "cuda:0" if torch.cuda.is_available() else "cpu"
# The interpreter has no bfloat16.
assert all(kernels._Sample.random(device, torch.float16, far).first_difference(shape) is None
           for far in (False, True) for _, shape in kernels.TILE_SHAPES)
exact._SLACK["float16"] = (4, 0.25)
for _, shape in kernels.TILE_SHAPES:
    maxima = partial(kernels.tile_maxima, shape=shape)
    way = Way(maxima, kernels.tile_members, kernels.tile_sums, wide=True)
    exact.way_of = lambda *_: way
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((2_001, 33)).astype(np.float32)
    rows[10:20], rows[30:32] = rows[0], 0
    passages = Vectors((rows,), "cosine")
    queries = passages.similarity.prepare(rng.standard_normal((150, 33)).astype(np.float32))
    queries[3] = 0
    one = ExactSearcher(passages, device="cpu").search(queries, 2)
    other = ExactSearcher(passages, 256, device, "float16", True, resident=True).search(queries, 2)
    assert (one.ids_QK == other.ids_QK).all() and (one.scores_QK == other.scores_QK).all()
    assert other.num_redone <= 3
print("right")
"""


def test_kernels_find_what_torch_and_the_cpu_find():
    import torch

    interpreted = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CHECK],
        capture_output=True,
        text=True,
        env={**os.environ, **interpreted},
        check=False,
    )
    assert done.stdout.strip() == "right", done.stderr
