"""The closing sentences of `estimate`, with a table over batch sizes and numbers of negatives."""

from collections.abc import Sequence

from stx_mine.stages.estimate.results import Cell, Estimate
from stx_mine.stages.estimate.step_time import StepTime
from stx_mine.store.artifact import Artifact
from stx_mine.store.stage_report import StageReport, make_report, plain_table


def estimate_report(
    artifact: Artifact, estimate: Estimate, notes: list[str], skipped: bool = False
) -> StageReport:
    """The report of a finished estimate.

    Args:
        artifact: The finished artifact.
        estimate: Its content.
        notes: Why artifacts of the run were not read.
        skipped: Whether it was finished before.
    """
    warnings = list(notes)
    if not estimate.static and not estimate.shape.layers:
        warnings.append("activations of this kind of model are not known, memory is without them")
    added = artifact.result.fields.get("interactions", [])
    return make_report(artifact, _lines(estimate, added), warnings, skipped=skipped)


def _lines(estimate: Estimate, interactions: Sequence[str]) -> list[str]:
    asked = estimate.asked
    in_batch, memory = asked.in_batch, asked.in_batch.memory
    parts = {
        "parameters": memory.parameters,
        "embeddings": memory.embeddings,
        "activations": memory.activations,
        "scores": memory.scores,
    }
    lines = [
        f"{estimate.rows:,} rows, {asked.steps:,} steps of {asked.batch_size:,} with {asked.k} "
        f"negatives; {estimate.model_name}, {estimate.shape.parameters:,} parameters",
        f"texts a step: {_texts(asked)} ({asked.queries:,.0f} queries, {asked.passages:,.0f} "
        f"passages; {_how(asked)}), {asked.texts_without_sharing:,.0f} if rows shared none",
        f"scores a step: {in_batch.scores:,.0f} of rows with passages of the batch"
        f"{_beside(interactions)}, {asked.own_negatives.scores:,.0f} with --negatives hard",
        f"memory: {_gib(memory.total)} GiB (of it "
        f"{', '.join(f'{name} {_gib(value)}' for name, value in parts.items())})",
        f"[memory: {estimate.memory_formula}]",
    ]
    if estimate.measured is not None:
        lines.append(
            f"time: {in_batch.seconds_per_step:.3g} s a step, {in_batch.seconds:,.0f} s in "
            f"all; {_rates(estimate.measured)}"
        )
    if asked.kept_share < 1:
        lines.append(
            f"activations of {asked.kept_share:.0%} of the texts of a step fit into "
            "--activation-share of the free memory; the others go through the network twice"
        )
    if estimate.hardness is not None:
        lines += estimate.hardness.sentences
    return [*lines, *_grid(estimate)]


def _beside(interactions: Sequence[str]) -> str:
    """What else rows are scored against, to go on with a sentence."""
    return f" and by {', '.join(interactions)}" if interactions else ""


def _rates(timed: StepTime) -> str:
    return (
        f"measured: {1e6 * timed.query:.3g} us a query, {1e6 * timed.passage:.3g} us a "
        f"passage, {1e9 * timed.score:.3g} ns a score, {timed.fixed:.3g} s a step beside"
    )


def _how(cell: Cell) -> str:
    if cell.counted == "batches":
        return f"counted in all {cell.batches_counted:,} packed batches"
    counted = f"{cell.batches_counted:,} batches of a dry run"
    if cell.counted == "at most":
        return f"an upper bound before mining, from {counted}"
    return f"counted in {counted}"


def _texts(cell: Cell) -> str:
    return f"{'<= ' if cell.counted == 'at most' else ''}{cell.texts:,.0f}"


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f}"


def _grid(estimate: Estimate) -> list[str]:
    """A table of all cells; `own` is --negatives hard.

    `mined harder` is the share of rows whose own negative is harder than what the batch brings.
    """
    head = ["rows", "k", "texts", "unshared", "scores", "own", "GiB", "own", "steps"]
    timed = estimate.measured is not None
    mined = any(cell.harder is not None for cell in estimate.cells)
    head += [*(["s", "own"] if timed else []), *(["mined harder"] if mined else [])]
    rows = []
    for cell in estimate.cells:
        ways = [cell.in_batch, cell.own_negatives]
        row = [f"{cell.batch_size:,}", str(cell.k), _texts(cell)]
        row.append(f"{cell.texts_without_sharing:,.0f}")
        row += [f"{way.scores:.3g}" for way in ways]
        row += [_gib(way.memory.total) for way in ways]
        row.append(f"{cell.steps:,}")
        row += [f"{way.seconds:,.0f}" for way in ways] if timed else []
        if mined:
            row.append("" if cell.harder is None else f"{cell.harder:.0%}")
        rows.append(row)
    return plain_table([head, *rows])
