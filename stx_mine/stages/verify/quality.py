"""Verify what was measured of the negatives: how many of them may be false."""

from pathlib import Path

from stx_mine.errors import ArtifactError, ConfigError, ViolationError
from stx_mine.stages.verify.artifacts import artifact_kind
from stx_mine.stages.verify.report import false_share_lines, false_share_violated
from stx_mine.store.artifact import read_manifest, require
from stx_mine.store.audits import read_audits
from stx_mine.store.run_dir import RunDir


def check_false_share(folder: Path, most: float) -> tuple[str, ...]:
    """Check that every audit by a judge or a person rules out a larger share of false negatives.

    The upper end of its interval counts: what was found of few is no proof for the others. Hidden
    positives do not count: how many answers nobody has labelled, they do not tell.

    Args:
        folder: A run, or its batches.
        most: The largest share that is allowed.

    Returns:
        What the audits found, as sentences.

    Raises:
        ConfigError: There is no audit of these negatives, or the folder is neither.
        ArtifactError: The negatives are missing, or others than those of the batches.
        ViolationError: An audit does not rule it out.
    """
    of_batches = artifact_kind(folder) == "batches"
    run = RunDir(folder.parent if of_batches else folder)
    if not of_batches and not run.folder("negatives").is_dir():
        raise ConfigError(
            f"--max-false {most:g} is for a run, or for batches inside one, found {folder}; name "
            "one of them, or leave it out"
        )
    negatives = require(run, "negatives")
    if of_batches:
        packed = read_manifest(folder).content["inputs"].get("negatives")
        if packed != negatives.digest:
            raise ArtifactError(
                f"--max-false {most:g} needs the negatives that {folder}/ was packed of, found "
                f"others in {negatives.folder}/; run `stx-mine pack --overwrite` (--run-dir "
                f"{run.path})"
            )
    audits, others = read_audits(run)
    found = [one for one in audits if one.is_estimate]
    if not found:
        why = [f"audits/{one.name}: hidden positives only compare rules" for one in audits]
        why += [f"audits/{name}: {reason}" for name, reason in others.items()]
        beside = f" ({'; '.join(why)})" if why else ""
        raise ConfigError(
            f"--max-false {most:g} needs an audit of the negatives by a judge or a person, found "
            f"none of these{beside}; run `stx-mine audit --judge NAME --run-dir {run.path}`, or "
            "fill in a --sheet"
        )
    if above := [one for one in found if one.high > most]:
        raise ViolationError(false_share_violated(folder, above, most))
    return false_share_lines(found)
