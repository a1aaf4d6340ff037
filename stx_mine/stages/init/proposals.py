"""The stages that `init` proposes for some data, each setting with its reason."""

from dataclasses import dataclass, replace
from pathlib import Path

from stx_mine.errors import InputError
from stx_mine.inputs.config import SourceFields
from stx_mine.inputs.configurations import SPLITS
from stx_mine.settings import given_fields, names_of
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.evaluate.config import EvaluateConfig
from stx_mine.stages.init.config import InitConfig
from stx_mine.stages.init.core.recipe import (
    FEW_PAIRS,
    Recipe,
    held_out_sizes,
    propose_recipe,
)
from stx_mine.stages.init.peek import PairPeek, PassagePeek, is_plain_english
from stx_mine.stages.init.pipeline_file import Section, Setting
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.queries.config import QueriesConfig
from stx_mine.stages.show.config import ShowConfig
from stx_mine.stages.split.config import SplitConfig
from stx_mine.stages.split.graph import Division, pair_graph
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.core.diagnoses import title_like
from stx_mine.store.stage_report import percent

# From this share of titles on, other queries are made; pairs that hold both ways; long passages.
_TITLES, _BOTH_ROLES, _LONG_WORDS = 0.5, 0.05, 300
# So few sets of pairs that share no text are topics rather than questions.
_FEW_COMPONENTS = 200
_MADE = "queries/pairs.parquet"


@dataclass(frozen=True)
class Proposal:
    """A pipeline for some data.

    Attributes:
        sections: Its stages.
        recipe: The model, and how it is trained.
        held_out: What is held out, as the end of a sentence.
    """

    sections: list[Section]
    recipe: Recipe
    held_out: str


@dataclass(frozen=True)
class _HeldOut:
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


def propose_pipeline(peek: PairPeek | PassagePeek, config: InitConfig, on_gpu: bool) -> Proposal:
    """A pipeline for what was read.

    Args:
        peek: What was read.
        config: What was asked for.
        on_gpu: Whether an accelerator will embed and train.

    Raises:
        InputError: There is one passage only.
    """
    if isinstance(peek, PassagePeek):
        _refuse_one(peek.num_distinct)
        first = [_queries_of_passages(peek, config)]
        held_out = _of_made_queries(config, peek.num_distinct)
        num_passages, sample = peek.num_distinct, peek.sample
        num_texts = 2 * num_passages
    else:
        sample = [text for pair in peek.sample for text in pair]
        num_passages, num_texts = len(peek.found.passages.digests), peek.num_texts
        _refuse_one(num_passages)
        first = _queries_of_titles(peek, config)
        held_out = _of_made_queries(config, num_passages) if first else _of_pairs(peek, config)
    recipe = propose_recipe(
        num_rows=held_out.num_rows,
        num_passages=num_passages,
        num_texts=num_texts,
        on_gpu=on_gpu,
        is_english=is_plain_english(sample),
        asked=config.model,
    )
    sections = [*first, *held_out.split, _embed(peek, held_out, recipe)]
    sections += [*_mine_and_pack(recipe), _train(held_out, recipe), *held_out.test]
    if config.device is not None:
        sections = [_on_device(one, config.device) for one in sections]
    return Proposal(sections, recipe, held_out.words)


def _refuse_one(num_passages: int) -> None:
    if num_passages < 2:
        raise InputError(
            "expected several passages, found one distinct text: there is nothing to tell it from; "
            "check the columns, or add passages with --corpus"
        )


def source_settings(config: InitConfig) -> list[Setting]:
    """How the input is to be read, where a person said it."""
    own = names_of(SourceFields)
    return [
        Setting(one.name, list(value) if isinstance(value, tuple) else value)
        for one in given_fields(config)
        for value in [getattr(config, one.name)]
        if one.name in own
    ]


def _queries_of_passages(peek: PassagePeek, config: InitConfig) -> Section:
    path = config.path if config.path is not None else config.corpus
    settings = [Setting("corpus", path), *_made_settings()]
    if config.corpus_column is not None:
        settings.insert(1, Setting("corpus_column", config.corpus_column))
    return Section(
        "queries",
        QueriesConfig,
        f"There are no queries, only {peek.num_distinct:,} distinct passages: queries are made of "
        "them. Real queries are better, however few: with pairs of them run init again.",
        tuple(settings),
    )


def _queries_of_titles(peek: PairPeek, config: InitConfig) -> list[Section]:
    """Other queries, where those of the pairs are titles; none where they are not."""
    given = source_settings(config)
    readable = {one.name for one in given} <= set(names_of(QueriesConfig))
    if peek.titles.contained < _TITLES or peek.source.is_folder or not readable:
        return []
    return [
        Section(
            "queries",
            QueriesConfig,
            f"{peek.titles.contained:.0%} of the queries stand word by word in their passage, as "
            "titles do: a model would learn to find copies. Other queries are made of the "
            "passages, and the titles are cut out of them (docs/titles.md). If they are queries "
            f"of people, remove this stage and have split read {config.path}.",
            (
                Setting("pairs", config.path),
                *given,
                *_made_settings(),
                Setting("cut_titles", True),
            ),
        )
    ]


def _made_settings() -> list[Setting]:
    return [
        Setting("method", ["crop", "keywords"], "A sentence, and the telling terms; no model."),
        Setting(
            "remove_share",
            0.9,
            "Most sentences are cut out of their passage, so that they are no copies of it.",
        ),
    ]


def _of_made_queries(config: InitConfig, num_passages: int) -> _HeldOut:
    test, dev = held_out_sizes(num_passages)
    return _divided(
        config,
        [Setting("pairs", str(Path(config.run_dir) / _MADE))],
        SplitConfig(test=test, dev=dev),
        "All queries of a passage stay in one part. What is held out was made, too: it shows how "
        "well passages are found by their own sentences, not by what people ask.",
        round(num_passages * (1 - _share(test, num_passages) - _share(dev, num_passages))),
    )


def _of_pairs(peek: PairPeek, config: InitConfig) -> _HeldOut:
    path, given = str(config.path), source_settings(config)
    if prepared := _prepared(peek, path, given):
        return prepared
    graph, num_pairs = pair_graph(peek.found, None), peek.num_pairs
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
    return _HeldOut([], own, [], [], num_pairs, "nothing, for a reason that stands under embed")


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


def _prepared(peek: PairPeek, path: str, given: list[Setting]) -> _HeldOut | None:
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
    return _HeldOut([], pairs, dev, test, peek.num_pairs, f"{held}, as the data have it")


def _divided(
    config: InitConfig, pairs: list[Setting], split: SplitConfig, reason: str, num_rows: int
) -> _HeldOut:
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
    return _HeldOut(
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


def _embed(peek: PairPeek | PassagePeek, held_out: _HeldOut, recipe: Recipe) -> Section:
    settings = [*held_out.pairs, Setting("model", recipe.model, f"{_capital(recipe.of_model)}.")]
    if isinstance(peek, PairPeek):
        both, number = peek.num_in_both_roles, len(peek.found.queries.digests)
        if both >= _BOTH_ROLES * number:
            reason = (
                f"{percent(both, number)} of the queries are passages too: if each pair holds both "
                "ways, as duplicate questions do, remove the # here."
            )
            settings.append(Setting("symmetric", True, reason, is_open=True))
    most = peek.lengths["passages"].most
    if most > _LONG_WORDS:
        reason = (
            f"One passage of twenty has more than {most:,} words. Remove the # to cut long ones "
            "into chunks of 256 tokens that share 32 (pipelines/documents.yaml)."
        )
        settings.append(Setting("chunk", [256, 32], reason, is_open=True))
    return Section("embed", EmbedConfig, "Every distinct text is embedded once.", tuple(settings))


def _mine_and_pack(recipe: Recipe) -> list[Section]:
    batch = [Setting("batch_size", recipe.batch_size, f"{_capital(recipe.of_batch)}.")]
    if recipe.is_large:
        batch.append(Setting("layout", "ids", "Texts stand beside the shards once."))
    return [
        Section(
            "mine",
            MineConfig,
            "Hard negatives: what scores near the positive, but not above 95% of it (the default "
            "relative_margin: 0.05), since that may be an answer too. `stx-mine calibrate` compares "
            "other settings on your data.",
            (Setting("k", recipe.k, f"{_capital(recipe.of_k)}."),),
        ),
        Section("pack", PackConfig, "Batches are made in advance.", tuple(batch)),
        Section(
            "show",
            ShowConfig,
            "Three queries with their negatives: look whether those are wrong answers.",
            (Setting("random", 3), Setting("limit", 4)),
        ),
    ]


def _train(held_out: _HeldOut, recipe: Recipe) -> Section:
    settings = list(held_out.dev)
    if recipe.is_large:
        settings.append(Setting("chunk_rows", 4_096, "Fewer logits exist at one time."))
    reason = "Two passes; the learning rate follows from the model and the size of the batches."
    return Section("train", TrainConfig, reason, tuple(settings))


def _on_device(section: Section, device: str) -> Section:
    if section.stage not in ("embed", "mine", "train", "evaluate"):
        return section
    return replace(section, settings=(*section.settings, Setting("device", device)))


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def problems_of(peek: PairPeek | PassagePeek, sections: list[Section]) -> list[str]:
    """What is wrong with the data, and what to do, in plain sentences.

    Args:
        peek: What was read.
        sections: The stages that are proposed for it.
    """
    if isinstance(peek, PassagePeek):
        return _few(peek.num_distinct, "passages")
    counts, found = peek.found.counts, _few(peek.num_pairs, "pairs")
    repeated = counts.pairs_dropped.get("repeated_pair", 0)
    if 2 * repeated > counts.pairs_in:
        found.append(
            f"{percent(repeated, counts.pairs_in)} of the rows repeat a pair and count once; if "
            "that is not meant, check the columns and how the file was written"
        )
    often = peek.num_of_most_frequent
    if 5 * often > peek.num_pairs >= FEW_PAIRS:
        found.append(
            f"one passage is the positive of {percent(often, peek.num_pairs)} of the pairs; if it "
            "answers nothing, such as 'see above', remove those rows"
        )
    lengths = peek.lengths
    if lengths["queries"].median > 2 * max(lengths["passages"].median, 5):
        found.append(
            "the queries are longer than their passages; if the columns are the wrong way round, "
            "give --query-column and --passage-column"
        )
    titles = title_like(peek.titles, {})
    if titles is not None and sections[0].stage != "queries":
        found.append(titles)
    return found


def _few(number: int, what: str) -> list[str]:
    if number >= FEW_PAIRS:
        return []
    return [
        f"{number:,} {what} are too few to learn much from, and to tell a better model from a "
        f"worse one; a few hundred are a beginning, thousands are good: add more"
    ]
