"""The stages that `init` proposes for some data, each setting with its reason."""

from dataclasses import dataclass, replace

from stx_mine.errors import InputError
from stx_mine.settings import names_of
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.init.config import InitConfig
from stx_mine.stages.init.core.recipe import Recipe, propose_recipe
from stx_mine.stages.init.held_out import HeldOut, of_made_queries, of_pairs, source_settings
from stx_mine.stages.init.peek import PairPeek, PassagePeek, is_plain_english
from stx_mine.stages.init.pipeline_file import Section, Setting
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.queries.config import QueriesConfig
from stx_mine.stages.show.config import ShowConfig
from stx_mine.stages.train.config import TrainConfig
from stx_mine.store.stage_report import percent

# From this share of titles on, other queries are made; pairs that hold both ways; long passages.
_TITLES, _BOTH_ROLES, _LONG_WORDS = 0.5, 0.05, 300


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
        held_out = of_made_queries(config, peek.num_distinct)
        num_passages, sample = peek.num_distinct, peek.sample
        num_texts = 2 * num_passages
    else:
        sample = [text for pair in peek.sample for text in pair]
        num_passages, num_texts = len(peek.found.passages.digests), peek.num_texts
        _refuse_one(num_passages)
        first = _queries_of_titles(peek, config)
        held_out = of_made_queries(config, num_passages) if first else of_pairs(peek, config)
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


def _queries_of_passages(peek: PassagePeek, config: InitConfig) -> Section:
    path = config.path if config.path is not None else config.corpus
    settings = [Setting("corpus", path), *_made_settings()]
    if config.corpus_column is not None:
        settings.insert(1, Setting("corpus_column", config.corpus_column))
    most = peek.lengths["passages"].most
    if most > _LONG_WORDS:
        reason = (
            f"One passage of twenty has more than {most:,} words. Remove the # to cut long ones "
            "into chunks of 256 tokens that share 32, and to make queries of these; split keeps "
            "those of one document in one part."
        )
        settings.append(Setting("chunk", [256, 32], reason, is_open=True))
    settings.append(
        Setting(
            "generator",
            "http://localhost:8000/v1",
            "Remove the # to have a language model behind a server write queries, too "
            "(docs/commands/queries.md).",
            is_open=True,
        )
    )
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


def _embed(peek: PairPeek | PassagePeek, held_out: HeldOut, recipe: Recipe) -> Section:
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
    if most > _LONG_WORDS and isinstance(peek, PairPeek):
        reason = (
            f"One passage of twenty has more than {most:,} words. Remove the # to cut long ones "
            "into chunks of 256 tokens that share 32 (docs/input.md)."
        )
        settings.append(Setting("chunk", [256, 32], reason, is_open=True))
    return Section("embed", EmbedConfig, "Every distinct text is embedded once.", tuple(settings))


def _mine_and_pack(recipe: Recipe) -> list[Section]:
    batch = [Setting("batch_size", recipe.batch_size, f"{_capital(recipe.of_batch)}.")]
    if recipe.passes is not None:
        batch.append(Setting("packings", recipe.passes, f"{_capital(recipe.of_passes)}."))
    if recipe.is_large:
        batch.append(Setting("layout", "ids", "Texts stand beside the shards once."))
    return [
        Section(
            "mine",
            MineConfig,
            "Hard negatives: what scores near the positive, but not above 95% of it (the default "
            "relative_margin: 0.05), since that may be an answer too. `stx-mine calibrate` "
            "compares other settings on your data.",
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


def _train(held_out: HeldOut, recipe: Recipe) -> Section:
    settings = list(held_out.dev)
    if recipe.is_large:
        settings.append(Setting("chunk_rows", 4_096, "Fewer logits exist at one time."))
    if recipe.is_network:
        because = (
            "bf16 where it is measured to be faster than float32; weights and loss stay float32."
        )
        settings.append(Setting("precision", "auto", because))
    reason = (
        "A pass over each packing; the learning rate follows from the model and the size of the "
        "batches."
    )
    return Section("train", TrainConfig, reason, tuple(settings))


def _on_device(section: Section, device: str) -> Section:
    if section.stage not in ("embed", "mine", "train", "evaluate"):
        return section
    return replace(section, settings=(*section.settings, Setting("device", device)))


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]
