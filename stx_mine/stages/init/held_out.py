"""What is held out of some data, and how: whole sets of pairs, what the data hold out, nothing."""

from dataclasses import dataclass
from pathlib import Path

from stx_mine.errors import InputError
from stx_mine.inputs.config import SourceFields
from stx_mine.inputs.configurations import SPLITS
from stx_mine.settings import given_fields, names_of
from stx_mine.stages.evaluate.config import EvaluateConfig
from stx_mine.stages.ingest.named_documents import NamedDocuments
from stx_mine.stages.init.config import InitConfig
from stx_mine.stages.init.core.recipe import held_out_sizes
from stx_mine.stages.init.peek import PairPeek
from stx_mine.stages.init.pipeline_file import Section, Setting
from stx_mine.stages.split.config import SplitConfig
from stx_mine.stages.split.graph import Division, pair_graph
from stx_mine.store.stage_report import percent

# So few sets of pairs that share no text are topics rather than questions.
_FEW_COMPONENTS = 200
_MADE = "queries/pairs.parquet"


@dataclass(frozen=True)
class HeldOut:
    """How pairs are held out.

    Attributes:
        split: The stage that divides; none where nothing is divided.
        pairs: What embed reads, and its options.
        dev: Settings of train.
        test: The stage that evaluates; none where nothing is held out.
        num_rows: Pairs to train on.
        words: What is held out, as the end of a sentence.
    """

    split: list[Section]
    pairs: list[Setting]
    dev: list[Setting]
    test: list[Section]
    num_rows: int
    words: str


def source_settings(config: InitConfig) -> list[Setting]:
    """How the input is to be read, where a person said it."""
    own = names_of(SourceFields)
    return [
        Setting(one.name, list(value) if isinstance(value, tuple) else value)
        for one in given_fields(config)
        for value in [getattr(config, one.name)]
        if one.name in own
    ]


def of_made_queries(config: InitConfig, num_passages: int) -> HeldOut:
    """What is held out of the queries that will be made of some passages."""
    test, dev = held_out_sizes(num_passages)
    return _divided(
        config,
        [Setting("pairs", str(Path(config.run_dir) / _MADE))],
        SplitConfig(test=test, dev=dev),
        "All queries of a passage stay in one part. What is held out was made, too: it shows how "
        "well passages are found by their own sentences, not by what people ask.",
        round(num_passages * (1 - _share(test, num_passages) - _share(dev, num_passages))),
    )


def of_pairs(peek: PairPeek, config: InitConfig) -> HeldOut:
    """What is held out of pairs: no text of it stands in training, if that can be done."""
    path, given = str(config.path), source_settings(config)
    if prepared := _prepared(peek, path, given):
        return prepared
    named = NamedDocuments.of([peek.source], peek.found.passages)
    graph, num_pairs = pair_graph(peek.found, None, named), peek.num_pairs
    test, dev = held_out_sizes(num_pairs)
    pairs = [Setting("pairs", path), *given]
    refusal = ""
    for unit in ("component", "query"):
        split = SplitConfig(test=test, dev=dev, unit=unit)
        try:
            division = Division.of(graph, split)
        except InputError as error:
            refusal = refusal or str(error)
            continue
        num_train = int((division.parts == 0).sum())
        return _divided(config, pairs, split, _split_reason(division, unit, refusal), num_train)
    reason = f"Nothing is held out: {refusal}. So nothing says whether the model is better."
    own = [Setting("pairs", path, reason), *given]
    return HeldOut([], own, [], [], num_pairs, "nothing, for a reason that stands under embed")


def _split_reason(division: Division, unit: str, refusal: str) -> str:
    leaks = {
        name: percent(one.texts, one.held_out)
        for name, one in division.leaks.items()
        if name in ("query", "pair")
    }
    if unit == "query":
        return (
            f"Held out by query: {leaks['query']} of the held-out pairs share a text with "
            f"training, which flatters every model. Without leaks it cannot be done: {refusal}."
        )
    beside = f"; drawn at random, {leaks['pair']} of them would" if "pair" in leaks else ""
    reason = f"No text of the held-out pairs stands in training{beside}."
    if len(division.components) < min(_FEW_COMPONENTS, len(division.parts) / 4):
        reason += (
            f" Only {len(division.components):,} sets of pairs share no text: test is made of "
            "whole sets, which is harder than new queries of known ones (docs/commands/split.md)."
        )
    return reason


def _prepared(peek: PairPeek, path: str, given: list[Setting]) -> HeldOut | None:
    """The parts that the data hold out themselves; None where there are none."""
    others = {part: next((n for n in SPLITS[part] if n in peek.held_out), "") for part in SPLITS}
    held = others["test"] or others["dev"]
    if not held:
        return None
    dev = []
    if others["dev"] and others["test"] and not given:
        reason = f"Evaluated while training ({others['dev']}): the best step is kept."
        dev = [Setting("evaluation", path, reason)]
    data = [Setting("data", path), *given, Setting("split", held)]
    reason = (
        f"The data hold out {held} themselves; the report says how many of its pairs share a text "
        "with training."
    )
    test = [
        Section("evaluate", EvaluateConfig, reason, tuple({one.name: one for one in data}.values()))
    ]
    pairs = [Setting("pairs", path), *given]
    return HeldOut([], pairs, dev, test, peek.num_pairs, f"{held}, as the data have it")


def _divided(
    config: InitConfig, pairs: list[Setting], split: SplitConfig, reason: str, num_rows: int
) -> HeldOut:
    """Pairs that the stage `split` divides."""
    folder = str(Path(config.run_dir) / "split")
    settings = [*pairs, Setting("test", _plain(split.test)), Setting("dev", _plain(split.dev))]
    if split.unit != SplitConfig.unit:
        settings.append(Setting("unit", split.unit))
    reason_of_ignore = (
        "Remove the # to keep texts together, too, that differ in case and punctuation only."
    )
    settings.append(Setting("ignore", "case,punctuation", reason_of_ignore, is_open=True))
    dev, words = list[Setting](), f"{_size(split.test)} for test"
    if split.dev:
        reason_of_dev = "Evaluated on dev while training: the best step is kept."
        dev = [Setting("evaluation", folder, reason_of_dev)]
        words += f", {_size(split.dev)} for dev"
    words += ", no text shared" if split.unit == "component" else ", by query"
    test = Section(
        "evaluate", EvaluateConfig, "Before and after, on test.", (Setting("data", folder),)
    )
    return HeldOut(
        [Section("split", SplitConfig, reason, tuple(settings))],
        [Setting("pairs", folder, "What split leaves for training; its corpus is that of all.")],
        dev,
        [test],
        num_rows,
        words,
    )


def _share(size: float, whole: int) -> float:
    return size if size < 1 else size / whole


def _plain(size: float) -> float:
    return int(size) if size == int(size) else size


def _size(size: float) -> str:
    return f"{size:.0%} of the pairs" if size < 1 else f"{size:,.0f} pairs"
