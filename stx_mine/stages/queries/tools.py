"""What a config makes queries with, and what it filters them with."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stx_mine.settings import key_fields
from stx_mine.stages.dedup.near_texts import refuse_without_rensa
from stx_mine.stages.queries.answer_log import JUDGED, earlier_answers
from stx_mine.stages.queries.asker import QueryAsker
from stx_mine.stages.queries.config import QueriesConfig
from stx_mine.stages.queries.filters import QueryFilters

if TYPE_CHECKING:
    from stx_mine.stages.queries.generator import QueryGenerator
    from stx_mine.stages.queries.judging import PairFilter
    from stx_mine.stages.queries.round_trip import RoundTrip

# Of these the content counts, not the name.
_NAMED = ("pairs", "corpus", "generator", "model")


@dataclass(frozen=True)
class QueryTools:
    """Models in this process and behind servers.

    Attributes:
        generator: Writes queries here; None where none does.
        asker: Has a server write them; None where none does.
        filters: What is dropped of what was made.
    """

    generator: "QueryGenerator | None"
    asker: QueryAsker | None
    filters: QueryFilters

    @classmethod
    def open(cls, config: QueriesConfig, target: Path) -> "QueryTools":
        """Load what the config names.

        Args:
            config: The config.
            target: The place of the queries, where answers of earlier commands may lie.

        Raises:
            ConfigError: A file or a package is missing.
            ModelError: A model cannot be loaded, or a server does not answer.
        """
        if 0 < config.near < 1:
            refuse_without_rensa("give --jaccard 1")
        asker = QueryAsker.open(config) if config.is_served else None
        filters = QueryFilters(config, _round_trip(config), _judge(config, target))
        return cls(_generator(config), asker, filters)

    def key(self, config: QueriesConfig) -> dict[str, Any]:
        """The settings that decide the queries, JSON-ready."""
        fields = {
            name: value
            for name, value in key_fields(config, "queries").items()
            if name not in _NAMED
        }
        writer = self.asker or self.generator
        fields["generator"] = writer and writer.contract()
        round_trip = self.filters.round_trip
        fields["model"] = round_trip and round_trip.contract()
        if self.filters.judge is not None:
            fields["judge"] = self.filters.judge.contract
        return fields


def _generator(config: QueriesConfig) -> "QueryGenerator | None":
    if config.generator is None or config.is_served:
        return None
    from stx_mine.stages.queries.generator import QueryGenerator, TokenSampling, read_prompt

    sampling = TokenSampling(
        prompt=None if config.prompt_file is None else read_prompt(config.prompt_file),
        max_passage_tokens=config.max_passage_tokens,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        batch_size=config.generate_batch_size,
    )
    return QueryGenerator.load(config.generator, config.device, sampling)


def _round_trip(config: QueriesConfig) -> "RoundTrip | None":
    if not config.top or config.model is None:
        return None
    from stx_mine.stages.queries.round_trip import RoundTrip

    return RoundTrip.load(config.model, config.top, config.device)


def _judge(config: QueriesConfig, target: Path) -> "PairFilter | None":
    if config.filter_judge is None:
        return None
    from stx_mine.stages.queries.judging import PairFilter

    return PairFilter.open(config, earlier_answers(target, JUDGED))
