"""Diff: which negatives differ between two runs, and why; reads both, changes neither."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged
from stx_mine.engine.local import run_tasks
from stx_mine.errors import ConfigError, InputError
from stx_mine.stages.diff.comparison import Comparison, PoolOverlap, SettingDifference
from stx_mine.stages.diff.config import DiffConfig
from stx_mine.stages.diff.core.diff import REASONS, Changes, ChangeSample, compare_pools, explain
from stx_mine.stages.diff.counts import ComparedRows, SharedCounts
from stx_mine.stages.diff.examples import CHANGES, GAINED, LOST, examples_of
from stx_mine.stages.diff.report import diff_report
from stx_mine.stages.diff.sides import Matched
from stx_mine.store.files import write_json
from stx_mine.store.mined_run import MinedRun
from stx_mine.store.stage_report import StageReport

# Pairs compared at one time.
_BLOCK = 4_096
_SEED = 42


def run_diff(config: DiffConfig) -> StageReport:
    """Compare the negatives of two runs.

    Raises:
        ConfigError: Both are the same directory.
        InputError: Neither run has the query, or the file is in the way.
        ArtifactError: There is no such directory, or a run has no negatives, or stale ones, or was
            mined again meanwhile.
    """
    path_a, path_b = str(config.run_a), config.run_b or config.run_dir
    if Path(path_a).resolve() == Path(path_b).resolve():
        raise ConfigError(
            f"expected two run directories, found {path_a} twice; name another one (a finished "
            "run can be copied before it is mined again)"
        )
    _refuse_existing(config)
    a, b = (MinedRun.open(path, config.check) for path in (path_a, path_b))
    matched = Matched.of(a, b, config.query)
    comparison = _comparison(config, matched)
    for side in (matched.a, matched.b):
        side.refuse_changed()
    written, document = None, ""
    if config.json == "-":
        document = json.dumps(comparison.to_json(), indent=2, ensure_ascii=False)
    elif config.json is not None:
        written = config.json
        _write(Path(written), comparison)
    return diff_report(comparison, written, document)


def _refuse_existing(config: DiffConfig) -> None:
    if config.json in (None, "-"):
        return
    path = Path(str(config.json))
    if path.is_dir() or (path.exists() and not config.overwrite):
        what, way = ("a folder", "") if path.is_dir() else ("there already", "--overwrite, or ")
        raise InputError(f"{path} is {what}; give {way}another file to --json")


def _write(path: Path, comparison: Comparison) -> None:
    try:
        write_json(path, comparison.to_json())
    except OSError as error:
        raise InputError(
            f"cannot write {path} ({error.strerror}); give another file to --json"
        ) from error


@dataclass
class _Tally:
    """Counts over blocks of rows.

    Attributes:
        sample: Changes that are shown as examples.
        rows: Rows compared, by how their pools differ.
        shared: Negatives of A that B has too, over all rows.
        overlap: Sum over rows of the overlap of the first k.
        reasons: int64 (2, reasons): lost and gained negatives.
    """

    sample: ChangeSample
    rows: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("empty", "equal", "reordered", "changed"), 0)
    )
    shared: int = 0
    overlap: float = 0.0
    reasons: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros((len(CHANGES), len(REASONS)), np.int64)
    )


def _comparison(config: DiffConfig, matched: Matched) -> Comparison:
    a, b = matched.a, matched.b
    row_a, row_b = a.is_row[matched.pairs_a], b.is_row[matched.pairs_b]
    rows = np.flatnonzero(row_a & row_b)
    k = config.k or min(a.k, b.k)
    tally = _Tally(ChangeSample(config.limit, 4, np.random.default_rng(_SEED)))
    run_tasks(
        range(0, len(rows), _BLOCK),
        lambda first: _compare(matched, rows[first : first + _BLOCK], k, tally),
        "comparing",
    )
    lost, gained = tally.reasons
    filled = len(rows) - tally.rows["empty"]
    return Comparison(
        run_a=str(a.path),
        run_b=str(b.path),
        query=config.query,
        models={"a": a.model, "b": b.model},
        settings=_settings(a, b),
        queries=matched.queries.counts(),
        passages=matched.passages.counts(),
        pairs=matched.num_pairs,
        rows=ComparedRows(
            only_a=int((row_a & ~row_b).sum()),
            both=len(rows),
            only_b=int((row_b & ~row_a).sum()),
            neither=int((~row_a & ~row_b).sum()),
            **tally.rows,
        ),
        negatives=SharedCounts(only_a=int(lost.sum()), both=tally.shared, only_b=int(gained.sum())),
        overlap=PoolOverlap(k, tally.overlap / filled if filled else None),
        reasons={
            name: {reason: int(n) for reason, n in zip(REASONS, counts, strict=True) if n}
            for name, counts in zip(CHANGES, tally.reasons, strict=True)
        },
        examples=examples_of(matched, tally.sample.numbers()),
    )


def _settings(a: MinedRun, b: MinedRun) -> list[SettingDifference]:
    """The settings that decide bytes and differ."""
    of_a, of_b = a.settings(), b.settings()
    differing = []
    for artifact in dict.fromkeys([*of_a, *of_b]):
        fields_a, fields_b = of_a.get(artifact, {}), of_b.get(artifact, {})
        for name in dict.fromkeys([*fields_a, *fields_b]):
            values = fields_a.get(name), fields_b.get(name)
            if values[0] != values[1]:
                differing.append(SettingDifference(artifact, name, *values))
    return differing


def _compare(matched: Matched, rows: NDArray[np.int64], k: int, tally: _Tally) -> None:
    """Add a block of rows that both runs have to the tally."""
    a, b, passages = matched.a, matched.b, matched.passages
    pairs_a, pairs_b = matched.pairs_a[rows], matched.pairs_b[rows]
    pools_a, pools_b = a.units.pools(a.units_of(pairs_a)), b.units.pools(b.units_of(pairs_b))
    difference = compare_pools(
        Ragged(pools_a.offsets, passages.of_a[pools_a.values]),
        Ragged(pools_b.offsets, passages.of_b[pools_b.values]),
        k,
    )
    tally.rows["empty"] += int(difference.empty_R.sum())
    tally.rows["equal"] += int(difference.equal_R.sum())
    tally.rows["reordered"] += int((difference.same_R & ~difference.equal_R).sum())
    tally.rows["changed"] += int((~difference.same_R & ~difference.empty_R).sum())
    tally.shared += difference.num_shared
    tally.overlap += float(difference.overlap_R.sum())
    for kind, changes, side, ids, pairs in (
        (LOST, difference.lost, b, passages.ids_b, pairs_b),
        (GAINED, difference.gained, a, passages.ids_a, pairs_a),
    ):
        if not len(changes.rows_C):
            continue
        reasons = _reasons(side, changes, ids[changes.ids_C], pairs)
        tally.reasons[kind] += np.bincount(reasons, minlength=len(REASONS))
        kinds = np.full(len(reasons), kind)
        # As `examples_of` takes them.
        numbers = np.stack([rows[changes.rows_C], kinds, changes.ids_C, reasons], 1)
        tally.sample.add(kind * len(REASONS) + reasons, numbers)


def _reasons(
    side: MinedRun, changes: Changes, ids_C: NDArray[np.int64], pairs: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Why a run has no such negatives; hits are read of the rows that changed."""
    changed, rows_C = np.unique(changes.rows_C, return_inverse=True)
    judged = side.units.take(side.units_of(pairs[changed]))
    positives, _ = side.positives.take(side.store.pair_query_ids[pairs[changed]])
    groups = side.groups.passages[ids_C] if side.store.num_passages else ids_C
    return explain(
        rows_C,
        ids_C,
        np.where(ids_C >= 0, groups, -1),
        judged.hits,
        judged.verdicts,
        positives,
    )
