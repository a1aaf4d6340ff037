"""The card of a trained model (`model/README.md`), made of what the manifests of its run say.

A card is a view: it is no file of the artifact, and is written again whenever there is more to say.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stx_mine.stages.evaluate.results import RESULTS
from stx_mine.store.artifact import MANIFEST, Manifest, read_manifest
from stx_mine.store.files import atomic
from stx_mine.store.markdown import code_span, markdown_text
from stx_mine.store.places import finished_below
from stx_mine.store.provenance import (
    batches_section,
    data_section,
    facts_table,
    made_of,
    negatives_section,
    shown,
)
from stx_mine.store.run_dir import RunDir
from stx_mine.store.training_log import TRAINING_LOG, read_log

CARD = "README.md"
_SETTINGS = "config_sentence_transformers.json"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def renew_cards(run: RunDir) -> None:
    """Write the cards of the models of a run and of its later rounds that are finished."""
    rounds = sorted((run.path / "rounds").glob("*"))
    for one in (run, *map(RunDir, rounds)):
        if (one.folder("model") / MANIFEST).exists():
            write_card(one)


def write_card(run: RunDir) -> None:
    """Write the card of the finished model of a run, or of a round, where it says anything new."""
    card, place = model_card(run), run.folder("model") / CARD
    if not place.exists() or place.read_text("utf-8") != card:
        with atomic(place) as path:
            path.write_text(card, "utf-8")


def model_card(run: RunDir) -> str:
    """The card, in Markdown; of paths it has only the last part.

    Args:
        run: A run, or a round, with a finished `model/`.
    """
    model = read_manifest(run.folder("model"))
    made = made_of(run, model)
    parts = [
        _head(model, made),
        usage_section(model.json(_SETTINGS)),
        data_section(made),
        negatives_section(made),
        batches_section(made),
        _training(model),
        _metrics(run, model),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(model: Manifest, made: Mapping[str, Manifest]) -> str:
    base = str(model.extra["base_model"])
    contract = model.fields["model"]
    limit = contract["max_length"]
    files = " and ".join(map(code_span, _pair_files(made)))
    pairs = "(query, passage) pairs" + (f" of {files}" if files else "")
    return "\n".join(
        [
            *front_matter([base]),
            "",
            f"# {markdown_text(shown(base))}, trained with stx-mine",
            "",
            "A [sentence-transformers](https://www.sbert.net) model for retrieval: "
            f"{code_span(shown(base))} trained on {pairs} by stx-mine {model.content['stx_mine']}. "
            f"It has {contract['dim']} dimensions, compares by {contract['similarity']}"
            + (f", and reads {limit:,} tokens." if limit else "."),
        ]
    )


def front_matter(bases: Sequence[str]) -> list[str]:
    """What the hub reads at the head of the card of a model.

    Args:
        bases: Names of what it was made of; those that are no hub ids are left out.
    """
    about: dict[str, Any] = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": ["sentence-transformers", "sentence-similarity", "feature-extraction", "stx-mine"],
    }
    known = [base for base in bases if _HUB_ID.fullmatch(base) and not Path(base).exists()]
    if known:
        about["base_model"] = known if len(known) > 1 else known[0]
    # JSON is YAML; a list of short words needs no more.
    return ["---", *(f"{name}: {_quoted(value)}" for name, value in about.items()), "---"]


def usage_section(settings: Mapping[str, Any]) -> str:
    """How a model is used, and its prompts.

    Args:
        settings: Those of sentence-transformers.
    """
    prompts = dict(settings.get("prompts") or {})
    named = [
        f"| {markdown_text(name)} | {code_span(_quoted(text))} |" for name, text in prompts.items()
    ]
    table = ["", "| prompt | text |", "|---|---|", *named] if any(prompts.values()) else []
    return "\n".join(
        [
            "## Usage",
            "",
            "```python",
            "from sentence_transformers import SentenceTransformer",
            "",
            'model = SentenceTransformer("PATH-OR-ID-OF-THIS-MODEL")',
            'queries = model.encode_query(["a question"])',
            'passages = model.encode_document(["a passage", "another one"])',
            "print(model.similarity(queries, passages))",
            "```",
            *table,
        ]
    )


def _training(model: Manifest) -> str:
    counts = model.counts
    facts = dict(model.fields)
    # In the key they stand for what they are, not by their names.
    facts |= {name: model.content["config"].get(name) for name in ("model", "guide")}
    facts |= {name: counts.get(name) for name in ("steps", "passes", "rows_seen", "processes")}
    if merged := model.extra.get("merged_with_base"):
        # Also where the evaluation chose it.
        facts["merge_with_base"] = f"{merged['alpha']:g} trained + {1 - merged['alpha']:g} base"
    reason = model.extra["learning_rate_reason"]
    facts["learning_rate"] = f"{counts['learning_rate']:.4g} ({reason})"
    for name in ("first_loss", "last_loss"):
        facts[name] = counts.get(name)
    return "\n".join(["## Training", "", *facts_table(facts)])


def _metrics(run: RunDir, model: Manifest) -> str:
    """What evaluations say of the model and of its base, and what the training log says."""
    parts = [_of_evaluation(evaluation, model) for evaluation in _evaluations(run)]
    parts += [_of_log(model), _of_merge(model)]
    found = [part for part in parts if part]
    return "\n\n".join(["## Metrics", *found]) if found else ""


def _evaluations(run: RunDir) -> list[Manifest]:
    """All evaluations of the run, and of the run that a round belongs to."""
    folders = dict.fromkeys((run.folder("evaluations"), run.first_round.folder("evaluations")))
    found = [path for folder in folders for path in finished_below(folder, "evaluations")]
    return [read_manifest(path) for path in found]


def _of_evaluation(evaluation: Manifest, model: Manifest) -> str:
    """The metrics of the model and of its base, which are known by their weights."""
    results = evaluation.json(RESULTS).get("models", {})
    found = {
        contract["weights"]: results.get(name)
        for name, contract in evaluation.extra.get("models", ())
    }
    after = found.get(model.extra.get("weights"))
    if not after:
        return ""
    rows = {"before": found.get(model.fields["model"]["weights"]), "after": after}
    return "\n".join([f"{code_span(evaluation.folder.name)}:", "", *_rows_of_metrics(rows)])


def _of_log(model: Manifest) -> str:
    """Metrics of the evaluations while it trained: untrained, and of the step that was kept."""
    kept = model.extra.get("evaluation")
    if kept is None:
        return ""
    log = model.read(TRAINING_LOG, read_log)
    found = {one["step"]: one["evaluations"] for one in log if "evaluations" in one}
    parts = ["While it trained:"]
    for name in kept["sets"]:
        after = "after, not merged" if model.extra.get("merged_with_base") else "after"
        rows = {"before": found[0][name], after: found[kept["best_step"]][name]}
        parts += ["", f"{code_span(name)}:", "", *_rows_of_metrics(rows)]
    return "\n".join(parts)


def _of_merge(model: Manifest) -> str:
    """The metric that decides, of base, trained and merged model."""
    merged = model.extra.get("merged_with_base")
    if not merged or not merged["scores"]:
        return ""
    rows = [
        f"| {code_span(name)} | {' | '.join(f'{value:.4f}' for value in scores.values())} |"
        for name, scores in merged["scores"].items()
    ]
    head = ["nDCG@10 before and after it was merged:", "", "| | base | trained | merged |"]
    return "\n".join([*head, "|---|---|---|---|", *rows])


def _rows_of_metrics(rows: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """A table with a row per model and a column per number."""
    found = {when: row for when, row in rows.items() if row}
    values = [item for row in found.values() for item in row.items()]
    metrics = list(dict.fromkeys(name for name, value in values if isinstance(value, float)))
    cells = {
        when: [f"{row[name]:.4f}" if name in row else "" for name in metrics]
        for when, row in found.items()
    }
    return [
        f"| | {' | '.join(metrics)} |",
        "|---" * (1 + len(metrics)) + "|",
        *(f"| {when} | {' | '.join(row)} |" for when, row in cells.items()),
    ]


def _pair_files(made: Mapping[str, Manifest]) -> list[str]:
    """Names of the files of pairs."""
    if "texts" not in made:
        return []
    config = made["texts"].content["config"]
    paths = [one["path"] for one in config.get("sources") or ()] or [config.get("pairs")]
    return list(dict.fromkeys(Path(path).name for path in paths if path))


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
