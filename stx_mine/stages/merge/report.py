"""The closing sentences of `merge`."""

from shlex import quote

from stx_mine.stages.merge.card import METHODS
from stx_mine.stages.merge.counts import MergeCounts
from stx_mine.store.artifact import Artifact
from stx_mine.store.stage_report import StageReport, make_report, plain_table


def merge_report(artifact: Artifact, skipped: bool = False) -> StageReport:
    """The report of a finished merge.

    Args:
        artifact: The merged model.
        skipped: Whether it was finished before.
    """
    manifest = artifact.result
    counts, extra = MergeCounts.read(manifest), manifest.extra
    models = extra["models"]
    names = list(dict.fromkeys(str(one["model"]) for one in models))
    first = str(models[0]["model"])
    table = [["model", "weight", "cosine to the first", "distance / its length"]]
    table += [
        [
            str(one["model"]),
            f"{one['weight']:.4g}",
            f"{one['cosine']:.4f}",
            f"{one['relative']:.4f}",
        ]
        for one in models
    ]
    to = str(artifact.target)
    compared = " ".join(f"--models {quote(one)}" for one in [*names, to])
    models_of = f"{counts.models} model{'' if counts.models == 1 else 's'}"
    lines = [
        f"{METHODS[manifest.fields['method']]} {models_of}: {counts.tensors:,} tensors, "
        f"{counts.parameters:,} parameters, saved as {extra['stored']} like those of {first}",
        *plain_table(table),
        f"load it with SentenceTransformer({to!r}), or compare it: "
        f"`stx-mine evaluate DATA {compared}`",
    ]
    lines += extra["read"]
    return make_report(artifact, lines, list(extra["notes"]), skipped=skipped)
