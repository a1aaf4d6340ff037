"""A run at a glance: what was read, by which models, how many, how long."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stx_mine.store.artifact import Manifest


@dataclass(frozen=True)
class InputFact:
    """Something that was read.

    Attributes:
        role: What it holds: pairs, corpus, queries, or data to evaluate on.
        path: As it was named.
        columns: Which columns were taken, where that is known.
    """

    role: str
    path: str
    columns: str


@dataclass(frozen=True)
class NumberFact:
    """A number, or a word, of a run.

    Attributes:
        label: What it is.
        value: It.
    """

    label: str
    value: str | int | float


@dataclass(frozen=True)
class ArtifactFact:
    """A finished artifact.

    Attributes:
        name: It.
        command: The command line that made it.
        finished: When, in UTC.
        bytes: Size of its files.
        seconds: What the call that finished it took, where its manifest says so.
        peak_bytes: The most memory that the process of that call had held.
    """

    name: str
    command: str
    finished: str
    bytes: int
    seconds: float | None
    peak_bytes: int | None


@dataclass(frozen=True)
class Glance:
    """A run at a glance."""

    inputs: list[InputFact]
    numbers: list[NumberFact]
    artifacts: list[ArtifactFact]


def glance_of(manifests: dict[str, Manifest]) -> Glance:
    """What manifests say of a run.

    Args:
        manifests: Artifact -> manifest, of those that are there.
    """
    inputs, numbers = list[InputFact](), list[NumberFact]()
    for name, facts in (
        ("texts", _of_texts),
        ("embeddings", _of_embeddings),
        ("negatives", _of_negatives),
        ("batches", _of_batches),
        ("model", _of_model),
    ):
        if name in manifests:
            numbers += [NumberFact(*one) for one in facts(manifests[name])]
    if "texts" in manifests:
        inputs += _inputs(manifests["texts"])
    for name, one in manifests.items():
        if name.startswith("evaluations/"):
            data = one.content["config"].get("data") or ()
            inputs += [InputFact("evaluation", str(path), "") for path in data]
    return Glance(list(dict.fromkeys(inputs)), numbers, _artifacts(manifests))


def _inputs(texts: Manifest) -> Iterator[InputFact]:
    config, fields = texts.content["config"], texts.fields
    sources = config.get("sources")
    columns = (fields.get("content") or {}).get("columns", "")
    for role in ("pairs", "corpus", "queries"):
        if config.get(role) and not sources:
            yield InputFact(role, str(config[role]), columns if role == "pairs" else "")
    for source in sources or ():
        content = fields.get(f"{source['name']}.content") or {}
        yield InputFact(f"pairs of {source['name']}", source["path"], content.get("columns", ""))
        if source.get("corpus"):
            yield InputFact(f"corpus of {source['name']}", source["corpus"], "")


def _artifacts(manifests: dict[str, Manifest]) -> list[ArtifactFact]:
    return [
        ArtifactFact(
            name,
            str(one.content.get("command", "")),
            str(one.content.get("finished", "")),
            sum(entry["bytes"] for entry in one.entries.values()),
            one.counts.get("seconds", one.content.get("took", {}).get("seconds")),
            one.content.get("took", {}).get("peak_rss_bytes"),
        )
        for name, one in manifests.items()
    ]


_Facts = Iterator[tuple[str, str | int | float]]


def _of_texts(manifest: Manifest) -> _Facts:
    counts = manifest.counts
    dropped = {name: n for name, n in counts["pairs_dropped"].items() if n}
    yield "pairs read", counts["pairs_in"]
    yield "pairs kept", counts["pairs_kept"]
    for name, number in dropped.items():
        yield f"pairs dropped: {name.replace('_', ' ')}", number
    yield "distinct queries", counts["queries"]
    yield "distinct passages", counts["passages"]


def _of_embeddings(manifest: Manifest) -> _Facts:
    contract: dict[str, Any] = manifest.extra.get("contract") or {}
    yield "model that embeds", str(manifest.extra["miner"])
    for name in ("dim", "similarity"):
        if contract.get(name):
            yield {"dim": "dimensions"}.get(name, name), contract[name]


def _of_negatives(manifest: Manifest) -> _Facts:
    counts, fields = manifest.counts, manifest.fields
    yield "negatives of a full row (k)", int(manifest.extra["k"])
    yield "depth of the search", fields["depth"]
    for name in ("relative_margin", "absolute_margin"):
        if fields[name] is not None:
            yield name.replace("_", " "), fields[name]
    for name in ("full", "ragged", "empty"):
        words = {"full": "rows with k negatives", "ragged": "rows with fewer"}
        yield words.get(name, "rows without any"), counts[f"rows_{name}"]


def _of_batches(manifest: Manifest) -> _Facts:
    counts, fields = manifest.counts, manifest.fields
    yield "rows of a batch", fields["batch_size"]
    yield "policy", fields["policy"]
    yield "batches of a packing", counts["batches"]
    yield "packings", counts["packings"]


def _of_model(manifest: Manifest) -> _Facts:
    counts = manifest.counts
    yield "model that was trained", str(manifest.extra["base_model"])
    yield "loss", manifest.fields["loss"]
    yield "steps", counts["steps"]
    yield "peak learning rate", counts["learning_rate"]
    yield "training loss, first and last", f"{counts['first_loss']:.3f} → {counts['last_loss']:.3f}"
