"""What an artifact was made of, as the sections of a card: data, hard negatives, batches, settings.

Names of files have only their last part: a card may be read by others.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stx_mine.store.artifact import MANIFEST, Manifest, read_manifest
from stx_mine.store.kinds import KINDS
from stx_mine.store.markdown import code_span, markdown_text
from stx_mine.store.run_dir import RunDir

# Fields of the mined negatives that say nothing of what a negative is.
_NO_THRESHOLDS = {"pool", "seed"}
_FINGERPRINTS = {"evaluation_content", "evaluation_reading", "merge_check_content"}


def made_of(run: RunDir, made: Manifest) -> dict[str, Manifest]:
    """The artifacts that one was made of, by name; only those that are still the same."""
    found: dict[str, Manifest] = {}
    wanted = dict(made.content["inputs"])
    while wanted:
        name, digest = wanted.popitem()
        artifact, _, subfolder = name.partition("/")
        folder = run.folder(artifact, subfolder or None) if artifact in KINDS else None
        if folder is not None and (folder / MANIFEST).exists():
            manifest = read_manifest(folder)
            if manifest.digest == digest:
                found[name] = manifest
                wanted |= {one: d for one, d in manifest.content["inputs"].items()}
    return found


def data_section(made: Mapping[str, Manifest]) -> str:
    """Pairs, texts and sources, in Markdown; empty without `texts` among the artifacts."""
    if "texts" not in made:
        return ""
    counts, config = made["texts"].counts, made["texts"].content["config"]
    dropped = _listed(counts["pairs_dropped"])
    lines = [
        f"- pairs: {counts['pairs_in']:,} read, {counts['pairs_kept']:,} kept"
        + (f"; dropped: {dropped}" if dropped else ""),
        f"- distinct texts: {counts['queries']:,} queries, {counts['passages']:,} passages",
    ]
    if config.get("corpus"):
        lines.append(f"- corpus: {code_span(Path(config['corpus']).name)}")
    if counts.get("known_negatives"):
        lines.append(f"- known negatives: {counts['known_negatives']:,}")
    parts = ["## Data", "", *lines]
    if config.get("sources"):
        parts += ["", "| source | pairs | file | weight |", "|---|---|---|---|"]
        parts += [
            f"| {markdown_text(one['name'])} | {counts['sources'][one['name']]['pairs_kept']:,} | "
            f"{code_span(Path(one['path']).name)} | {one['weight']:g} |"
            for one in config["sources"]
        ]
    return "\n".join(parts)


def negatives_section(made: Mapping[str, Manifest]) -> str:
    """What became of hits, and by which rules; empty without `negatives` among the artifacts."""
    if "negatives" not in made:
        return ""
    counts, fields = made["negatives"].counts, made["negatives"].fields
    settings = {name: value for name, value in fields.items() if name not in _NO_THRESHOLDS}
    if "hits/dense" in made:
        settings["search"] = made["hits/dense"].fields["search"]
    if "embeddings" in made:
        settings["miner"] = made["embeddings"].extra["miner"]
    return "\n".join(
        [
            "## Hard negatives",
            "",
            f"{counts['rows']:,} rows: {counts['rows_full']:,} with all {fields['k']} negatives, "
            f"{counts['rows_ragged']:,} with fewer, {counts['rows_empty']:,} with none. Of "
            f"{counts['hits_in']:,} hits {counts['pooled']:,} were kept; dropped: "
            f"{_listed(counts['dropped'])}.",
            "",
            *facts_table(settings),
        ]
    )


def batches_section(made: Mapping[str, Manifest]) -> str:
    """Sizes and settings of batches; empty without `batches` among the artifacts."""
    if "batches" not in made:
        return ""
    counts, fields = made["batches"].counts, made["batches"].fields
    named = ("batch_size", "policy", "k", "layout", "scores", "seed")
    facts = {name: fields.get(name) for name in named}
    facts |= {name: counts.get(name) for name in ("batches", "packings", "rows_packed")}
    return "\n".join(["## Batches", "", *facts_table(facts)])


def facts_table(facts: Mapping[str, Any]) -> list[str]:
    """A table of what is set; a switch that is off or an option that is not given is left out."""
    rows = [
        f"| {name.replace('_', ' ')} | {_cell(value)} |"
        for name, value in facts.items()
        if value not in (None, False, [], ()) and name not in _FINGERPRINTS
    ]
    return ["| | |", "|---|---|", *rows]


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return markdown_text(shown(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Iterable):
        return ", ".join(map(_cell, value))
    return "yes" if value is True else str(value)


def shown(name: str) -> str:
    """A name without the folders before it, where it is a path of this machine."""
    path = Path(name)
    local = path.is_absolute() or path.exists() or name.startswith((".", "~"))
    return path.name if local or len(path.parts) > 2 else name


def _listed(counts: Mapping[str, int]) -> str:
    named = [f"{name.replace('_', ' ')} {number:,}" for name, number in counts.items() if number]
    return ", ".join(named)
