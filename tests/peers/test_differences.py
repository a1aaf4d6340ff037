"""Where stx-mine mines something else than sentence-transformers, as the page of it says."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mined_by_stages
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from numpy.typing import NDArray
from sentence_transformers.util import mine_hard_negatives

from stx_mine.models.load import load_model

# Scores with the query "q".
SCORES = {"q": 1.0, "p": 0.9, "over": 0.95, "near": 0.5, "near ": 0.5, "far": 0.4}


class OnACircle:
    """Every text is a point whose cosine with "q" is its score."""

    device = torch.device("cpu")
    model_card_data = SimpleNamespace(base_model="on a circle")

    def encode_query(self, texts: list[str], **others: Any) -> NDArray[np.float32]:
        points = [(SCORES[text], np.sqrt(1 - SCORES[text] ** 2)) for text in texts]
        return np.asarray(points, np.float32)

    encode_document = encode_query

    def similarity(self, left: NDArray[np.float32], right: Any) -> torch.Tensor:
        return torch.as_tensor(left) @ torch.as_tensor(right).T

    def similarity_pairwise(self, left: NDArray[np.float32], right: Any) -> torch.Tensor:
        return (torch.as_tensor(left) * torch.as_tensor(right)).sum(1)


@pytest.mark.parametrize(
    ("corpus", "options", "theirs", "ours"),
    [
        (["p", "over", "near", "far"], {}, ["over", "near"], ["over", "near"]),
        (["p", "over", "near", "far"], {"absolute_margin": 0.0}, ["near", "far"], ["near", "far"]),
        # "over" has rank 0 here, and none there.
        (
            ["p", "over", "near", "far"],
            {"absolute_margin": 0.0, "range_min": 1, "num_negatives": 1},
            ["far"],
            ["near"],
        ),
        (["p", "q", "near", "far"], {}, ["q", "near"], ["near", "far"]),
        (["p", "near", "near ", "far"], {}, ["near", "near "], ["near", "far"]),
    ],
    ids=["the same", "the same with a margin", "ranks before margins", "own text", "equal texts"],
)
def test_negatives_are_those_of_the_page(
    corpus: list[str], options: dict[str, Any], theirs: list[str], ours: list[str]
) -> None:
    given: dict[str, Any] = {
        "dataset": Dataset.from_dict({"query": ["q"], "passage": ["p"]}),
        "model": OnACircle(),
        "corpus": corpus,
        "num_negatives": 2,
        "output_scores": True,
        "verbose": False,
        **options,
    }
    mine = {"theirs": mine_hard_negatives, "ours": mined_by_stages.mine_hard_negatives}
    found = {name: function(**given) for name, function in mine.items()}
    assert found["theirs"]["negative"] == theirs
    assert found["ours"]["negative"] == ours
    for rows in found.values():
        for negative, scores in zip(rows["negative"], rows["scores"], strict=True):
            assert scores == pytest.approx([SCORES["p"], SCORES[negative]], abs=1e-6)


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({}, False),
        ({"output_format": "labeled-list", "output_scores": True}, False),
        ({"output_format": "n-tuple", "relative_margin": 0.05, "range_max": 31}, False),
        # Searched deeper than 31.
        ({"output_format": "n-tuple", "relative_margin": 0.05}, True),
    ],
    ids=["defaults", "lists with scores", "a margin", "a margin without a window"],
)
def test_rows_are_those_of_the_library(
    options: dict[str, Any], more: bool, small_input: Path
) -> None:
    pairs = pq.read_table(small_input / "pairs.parquet").to_pydict()
    given = {"model": load_model("package:wordllama", device="cpu"), "verbose": False, **options}
    theirs, ours = (
        function(Dataset.from_dict(pairs), **given).to_list()
        for function in (mine_hard_negatives, mined_by_stages.mine_hard_negatives)
    )
    scores = [[row.pop("scores", []) for row in rows] for rows in (theirs, ours)]
    assert len(theirs) > 100
    if more:
        assert len(ours) > len(theirs)
        assert all(row in ours for row in theirs)
    else:
        assert ours == theirs
        for left, right in zip(*scores, strict=True):
            assert left == pytest.approx(right, abs=1e-6)
