"""What an estimate consists of: the content of `results.json`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from stx_mine.stages.estimate.core.step_cost import Memory, ModelShape
from stx_mine.stages.estimate.step_time import StepTime
from stx_mine.stages.pack.hardness import BatchHardness

_FORMULA = (
    "16 bytes a parameter; 24 x dimensions a text; for a transformer 66 x hidden units x layers a "
    "token of a mini-batch (and 9 x heads x layers x its longest text, where attention weights are "
    "kept), for a static model 8 a token; 4 a score of a chunk of rows; float32, without inputs, "
    "code, and what allocators keep"
)


@dataclass(frozen=True)
class ScoringCost:
    """What a step costs with one way of scoring.

    Attributes:
        scores: Scores per step.
        memory: Bytes of a step.
        seconds_per_step: None where nothing was timed.
        seconds: Of all steps; None where nothing was timed.
    """

    scores: float
    memory: Memory
    seconds_per_step: float | None
    seconds: float | None

    def to_json(self) -> dict[str, Any]:
        """As `results.json` holds it."""
        return {
            "scores": self.scores,
            "bytes": {**asdict(self.memory), "total": self.memory.total},
            "seconds_a_step": self.seconds_per_step,
            "seconds": self.seconds,
        }

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        parts = {name: value for name, value in content["bytes"].items() if name != "total"}
        memory = Memory(**parts)
        return cls(content["scores"], memory, content["seconds_a_step"], content["seconds"])


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What a step costs with one batch size and one number of negatives.

    Attributes:
        batch_size: Rows per step.
        k: Negatives per row.
        counted: Where the numbers of texts come from: `batches`, `dry run`, or `at most` where
            they are upper bounds.
        batches_counted: Batches counted.
        texts: Distinct texts per step, the mean over the batches counted.
        queries: Of them anchors.
        passages: Of them positives and negatives.
        most_texts: Distinct texts of the batch that has most.
        texts_without_sharing: Texts per step for a trainer that embeds repeated texts anew.
        steps: Steps of the training.
        in_batch: The cost where rows are scored against all passages of the batch.
        own_negatives: The cost where rows are scored against their own passages.
        harder: Share of the rows whose own hardest negative scores above the other positives of
            the batch; None where nothing was mined, or rows have none.
        kept_share: Of the texts, whose activations fit into what `train` gives them, so that they
            go through the network once.
    """

    batch_size: int
    k: int
    counted: str
    batches_counted: int
    texts: float
    queries: float
    passages: float
    most_texts: float
    texts_without_sharing: float
    steps: int
    in_batch: ScoringCost
    own_negatives: ScoringCost
    harder: float | None = None
    kept_share: float = 1.0

    @property
    def size(self) -> tuple[int, int]:
        """Batch size and number of negatives."""
        return self.batch_size, self.k

    def to_json(self) -> dict[str, Any]:
        """As `results.json` holds it."""
        costs = {
            "in_batch": self.in_batch.to_json(),
            "own_negatives": self.own_negatives.to_json(),
        }
        return asdict(self) | costs

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        costs = {name: ScoringCost.of_json(content[name]) for name in ("in_batch", "own_negatives")}
        return cls(**{**content, **costs})


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What training will take, for the sizes asked for and others.

    Attributes:
        batch_size: Rows per step, as asked for.
        k: Negatives per row, as asked for.
        rows: Rows that one packing takes.
        model_name: The model to train.
        static: Whether it is a static model.
        shape: What memory depends on in it.
        chunk_rows: Rows whose scores exist at one time.
        batch_tokens: Tokens that go through a network at one time.
        measured: Seconds of the parts of a step; None where nothing was timed.
        cells: One cell is that of `batch_size` and `k`.
        hardness: Of a batch as asked for; None where nothing was mined.
    """

    batch_size: int
    k: int
    rows: int
    model_name: str
    static: bool
    shape: ModelShape
    chunk_rows: int
    batch_tokens: int
    measured: StepTime | None
    cells: list[Cell]
    hardness: BatchHardness | None = None

    @property
    def asked(self) -> Cell:
        """The cell of what was asked for."""
        (cell,) = (one for one in self.cells if one.size == (self.batch_size, self.k))
        return cell

    @property
    def memory_formula(self) -> str:
        """How memory is estimated, for people."""
        return _FORMULA

    def to_json(self) -> dict[str, Any]:
        """The content of `results.json`."""
        return {
            "batch_size": self.batch_size,
            "k": self.k,
            "rows": self.rows,
            "model": {"name": self.model_name, "static": self.static, **asdict(self.shape)},
            "chunk_rows": self.chunk_rows,
            "batch_tokens": self.batch_tokens,
            "memory_formula": self.memory_formula,
            "measured_seconds": None if self.measured is None else asdict(self.measured),
            "cells": [cell.to_json() for cell in self.cells],
            "hardness": None if self.hardness is None else asdict(self.hardness),
        }

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        shape, timed = dict(content["model"]), content["measured_seconds"]
        hardness = content.get("hardness")
        return cls(
            batch_size=content["batch_size"],
            k=content["k"],
            rows=content["rows"],
            model_name=shape.pop("name"),
            static=shape.pop("static"),
            shape=ModelShape(**shape),
            chunk_rows=content["chunk_rows"],
            batch_tokens=content["batch_tokens"],
            measured=None if timed is None else StepTime(**timed),
            cells=[Cell.of_json(cell) for cell in content["cells"]],
            hardness=None if hardness is None else BatchHardness(**hardness),
        )
