"""The summary of an estimate, with a table over batch sizes and numbers of negatives."""

from typing import Any

from stx_mine.store.report import plain_table


def estimate_lines(results: dict[str, Any]) -> list[str]:
    """Sentences about what was asked for, and a table of all cells.

    Args:
        results: The content of `results.json`.
    """
    where = (results["batch_size"], results["k"])
    (asked,) = (one for one in results["cells"] if (one["batch_size"], one["k"]) == where)
    model, timed, in_batch = results["model"], results["measured_seconds"], asked["in_batch"]
    memory = dict(in_batch["bytes"])
    total = memory.pop("total")
    lines = [
        f"{results['rows']:,} rows, {asked['steps']:,} steps of {where[0]:,} with {where[1]} "
        f"negatives; {model['name']}, {model['parameters']:,} parameters",
        f"texts a step: {_texts(asked)} ({asked['queries']:,.0f} queries, {asked['passages']:,.0f} "
        f"passages; {_how(asked)}), {asked['texts_without_sharing']:,.0f} if rows shared none",
        f"scores a step: {in_batch['scores']:,.0f} of rows with passages of the batch, "
        f"{asked['own_negatives']['scores']:,.0f} with --negatives hard",
        f"memory: {_gib(total)} GiB (of it "
        f"{', '.join(f'{name} {_gib(value)}' for name, value in memory.items())})",
        f"[memory: {results['memory_formula']}]",
    ]
    if timed is not None:
        lines.append(
            f"time: {in_batch['seconds_a_step']:.3g} s a step, {in_batch['seconds']:,.0f} s in "
            f"all; {_rates(timed)}"
        )
    return [*lines, *_grid(results["cells"])]


def _rates(timed: dict[str, float]) -> str:
    return (
        f"measured: {1e6 * timed['query']:.3g} us a query, {1e6 * timed['passage']:.3g} us a "
        f"passage, {1e9 * timed['score']:.3g} ns a score, {timed['fixed']:.3g} s a step beside"
    )


def _how(cell: dict[str, Any]) -> str:
    if cell["counted"] == "batches":
        return f"counted in all {cell['batches_counted']:,} packed batches"
    counted = f"{cell['batches_counted']:,} batches of a dry run"
    if cell["counted"] == "at most":
        return f"an upper bound before mining, from {counted}"
    return f"counted in {counted}"


def _texts(cell: dict[str, Any]) -> str:
    return f"{'<= ' if cell['counted'] == 'at most' else ''}{cell['texts']:,.0f}"


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f}"


def _grid(cells: list[dict[str, Any]]) -> list[str]:
    """A table of all cells; `own` is --negatives hard."""
    head = ["rows", "k", "texts", "unshared", "scores", "own", "GiB", "own", "steps", "s", "own"]
    timed = cells[0]["in_batch"]["seconds"] is not None
    rows = []
    for one in cells:
        ways = [one["in_batch"], one["own_negatives"]]
        row = [f"{one['batch_size']:,}", str(one["k"]), _texts(one)]
        row.append(f"{one['texts_without_sharing']:,.0f}")
        row += [f"{way['scores']:.3g}" for way in ways]
        row += [_gib(way["bytes"]["total"]) for way in ways]
        row.append(f"{one['steps']:,}")
        row += [f"{way['seconds']:,.0f}" for way in ways] if timed else []
        rows.append(row)
    return plain_table([head if timed else head[:-2], *rows])
