"""Verify: every checksum and invariant of packed batches, from the shards alone.

Rows that `pack` did not write are checked by the rules that their texts alone can show; of a run,
and of any other artifact, the files are checked.
"""

from collections.abc import Iterator
from dataclasses import replace
from glob import has_magic
from itertools import chain, islice
from pathlib import Path

from stx_mine.errors import ConfigError, InputError, ViolationError
from stx_mine.inputs.files import suffix_of
from stx_mine.stages.verify.artifacts import ArtifactState, artifact_kind, check_artifacts
from stx_mine.stages.verify.config import VerifyConfig
from stx_mine.stages.verify.counts import VerifyCounts
from stx_mine.stages.verify.labels import check_label_packings
from stx_mine.stages.verify.pair_rows import open_rows, refuse_source_options
from stx_mine.stages.verify.pairs import check_pair_packings
from stx_mine.stages.verify.quality import check_false_share
from stx_mine.stages.verify.report import (
    artifacts_report,
    artifacts_violated,
    batches_report,
    batches_violated,
    rows_report,
    rows_violated,
)
from stx_mine.stages.verify.rows import check_rows, first_sentences
from stx_mine.store.artifact import MANIFEST, read_manifest
from stx_mine.store.batches import list_packings
from stx_mine.store.files import checksum
from stx_mine.store.manifest import remake
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import StageReport


def run_verify(config: VerifyConfig) -> StageReport:
    """Check a folder of packed batches, a file or folder of rows of others, or a run.

    Raises:
        InputError: There are neither packed batches nor rows.
        ConfigError: An option does not fit what is there.
        ViolationError: A checksum or an invariant does not hold, or an artifact is unfinished or
            stale (the first ones are named), or too many negatives may be false.
    """
    folder = (
        Path(config.directory) if config.directory else RunDir(config.run_dir).folder("batches")
    )
    if not folder.is_dir() and not _names_rows(config.directory or ""):
        raise InputError(
            f"expected a folder of packed batches at {folder}, found none; run `stx-mine pack`, or "
            "name rows: a file, a folder, a pattern or hf://datasets/ORG/NAME"
        )
    if folder.is_dir() and (artifact_kind(folder) == "batches" or any(folder.glob("epoch-*"))):
        return _with_quality(folder, config, _verify_batches(folder, config))
    if folder.is_dir() and artifact_kind(folder) != "exports":
        if states := check_artifacts(folder):
            return _with_quality(folder, config, _verify_artifacts(folder, config, states))
    return _verify_rows(config.directory or str(folder), config)


def _with_quality(folder: Path, config: VerifyConfig, report: StageReport) -> StageReport:
    """The report of what is sound, with what was measured of it where that is asked for."""
    if config.max_false is None:
        return report
    return replace(report, lines=report.lines + check_false_share(folder, config.max_false))


def _names_rows(name: str) -> bool:
    """Whether a name that is no folder's is that of rows: a file, a pattern, or one of the hub."""
    return bool(suffix_of(Path(name))) or has_magic(name) or name.startswith("hf://")


def _verify_artifacts(
    folder: Path, config: VerifyConfig, states: list[ArtifactState]
) -> StageReport:
    _refuse_row_options(f"{folder} holds artifacts of a run", config)
    if any(state.problems for state in states):
        raise ViolationError(artifacts_violated(folder, states, config.max_violations))
    return artifacts_report(folder, states)


def _verify_batches(folder: Path, config: VerifyConfig) -> StageReport:
    because = f"{folder} holds batches of `stx-mine pack`, which say it themselves"
    _refuse_row_options(because, config)
    listed = _listed_files(folder)
    violations = list(islice(_check_files(folder, listed), config.max_violations))
    if not violations:
        violations = list(islice(_check_content(folder), config.max_violations))
    if violations:
        raise ViolationError(batches_violated(folder, violations, config.max_violations))
    packings = list_packings(folder)
    batches = sum(shard.num_batches for shard in chain(*packings))
    counts = VerifyCounts(
        packings=len(packings),
        batches=batches,
        rows=batches * packings[0][0].batch_size,
        files=len(listed),
    )
    return batches_report(folder, counts)


def _verify_rows(name: str, config: VerifyConfig) -> StageReport:
    """Check a file or folder of rows in the order in which they stand."""
    path = Path(name)
    if config.max_false is not None:
        raise ConfigError(
            f"--max-false {config.max_false:g} is for a run, or for batches inside one, found "
            f"rows at {path}; leave it out"
        )
    listed = _listed_files(path)
    changed = list(islice(_check_files(path, listed), config.max_violations))
    reader = open_rows(name, config)
    summary = check_rows(reader, config.batch_size, config.max_violations)
    if not summary.rows:
        raise InputError(f"expected rows in {path}, found none; give a file with at least one row")
    if summary.broken_rows or changed:
        sentences = first_sentences(reader, summary)
        raise ViolationError(rows_violated(path, reader, summary, changed, sentences))
    return rows_report(path, reader, summary, len(listed))


def _refuse_row_options(because: str, config: VerifyConfig) -> None:
    if config.batch_size:
        raise ConfigError(f"--batch-size is for rows of others, {because}; leave it out")
    refuse_source_options(config, because)


def _listed_files(folder: Path) -> list[dict[str, str]]:
    has_manifest = (folder / MANIFEST).exists()
    return list(read_manifest(folder).content["files"]) if has_manifest else []


def _check_files(folder: Path, listed: list[dict[str, str]]) -> Iterator[str]:
    for file in listed:
        path = folder / file["file"]
        if not path.exists():
            yield f"{file['file']}: the file is missing; rebuild it with `{remake(folder)}`"
        elif checksum(path) != file["xxh3_128"]:
            what = "its bytes have changed since it was written (checksum)"
            yield f"{file['file']}: {what}; rebuild it with `{remake(folder)}`"


def _check_content(folder: Path) -> Iterator[str]:
    packings = list_packings(folder)
    sizes = {sum(shard.num_batches for shard in shards) for shards in packings}
    if len(sizes) > 1:
        yield f"packings differ in their number of batches: {sorted(sizes)}"
    if packings[0][0].texts_per_label is not None:
        yield from check_label_packings(folder, packings)
    else:
        yield from check_pair_packings(folder, packings)
