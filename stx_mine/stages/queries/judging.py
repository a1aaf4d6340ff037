"""A judge as a filter: whether passages answer their queries, as `stx-mine judge` asks."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from stx_mine import progress
from stx_mine.models.config import is_server
from stx_mine.models.load import open_cross_encoder
from stx_mine.models.server import ModelServer
from stx_mine.models.user_function import UserFunction
from stx_mine.stages.judge.chats import ServedChat
from stx_mine.stages.judge.config import JudgeConfig
from stx_mine.stages.judge.function_judge import FunctionJudge
from stx_mine.stages.judge.judge import Judge, PairTexts
from stx_mine.stages.judge.listwise_judge import ListwiseJudge
from stx_mine.stages.judge.network_judge import NetworkJudge
from stx_mine.stages.judge.prompt import Prompt
from stx_mine.stages.queries.answer_log import JUDGED, AnswerLog
from stx_mine.stages.queries.config import QueriesConfig
from stx_mine.store.digests import text_digests
from stx_mine.store.texts import TEXT_SCHEMA, TextStore

# The prompt that grades a passage by itself.
_PROMPT = "relevance"
_PASSAGES = 20


@dataclass(frozen=True)
class PairFilter:
    """Scores pairs by a judge; what it says is stored as it comes.

    Attributes:
        judge: The judge.
        requests: Questions at a time.
        earlier: What it has said before, by pair.
    """

    judge: Judge
    requests: int
    earlier: dict[str, list[Any]]

    @classmethod
    def open(cls, config: QueriesConfig, earlier: dict[str, list[Any]]) -> "PairFilter":
        """The judge that a config names.

        Raises:
            ModelError: It cannot be loaded.
        """
        return cls(_judge(config), config.requests, earlier)

    @cached_property
    def contract(self) -> dict[str, Any]:
        """What decides the scores, JSON-ready."""
        return self.judge.contract()

    def scores(self, pairs: pa.Table, folder: Path) -> NDArray[np.float32]:
        """float32 (N,): scores from 0 to 1, NaN where the judge gives none.

        Args:
            pairs: Columns `query` and `passage`.
            folder: Where what it says is stored.
        """
        found = np.full(len(pairs), np.nan, np.float32)
        names = self._names(pairs)
        log = AnswerLog(folder / JUDGED, self.earlier)
        try:
            for row, name in enumerate(names):
                for score in log[name]:
                    found[row] = score
            left = np.flatnonzero(np.isnan(found))
            # Pairs of a query stand together, as judges take them.
            left = left[np.argsort(_numbers(pairs["query"])[left], kind="stable")]
            size = 1_024
            if self.judge.listing is not None:
                size = 16 * self.requests
                progress.say(f"queries: {len(left):,} pairs to --filter-judge")
            starts = range(0, len(left), size)
            for start in progress.each(starts, "judging", len(starts), "blocks"):
                rows = left[start : start + size]
                scores = self.judge.score(_pair_texts(pairs.take(pa.array(rows)))).scores
                found[rows] = scores
                for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
                    if not np.isnan(score):
                        log.add(names[row], score)
        finally:
            log.close()
        return found

    def _names(self, pairs: pa.Table) -> list[str]:
        """What each pair is asked as: the digests of judge, query and passage."""
        of_judge = repr(sorted(self.contract.items())).encode()
        queries, passages = (
            [one for chunk in pairs[name].chunks for one in text_digests(chunk).to_pylist()]
            for name in ("query", "passage")
        )
        return [
            xxhash.xxh3_128_hexdigest(of_judge + query + passage)
            for query, passage in zip(queries, passages, strict=True)
        ]


def _judge(config: QueriesConfig) -> Judge:
    named = str(config.filter_judge)
    if is_server(named):
        limits = config.requests, config.requests_per_minute
        server = ModelServer(
            "--filter-judge", named.rstrip("/"), config.judge_model, *limits, "--judge-model"
        )
        prompt = Prompt.open(_PROMPT)
        return ListwiseJudge(prompt, ServedChat(server, prompt), _PASSAGES)
    if JudgeConfig(cross_encoder=named).is_function:
        return FunctionJudge(UserFunction.find("--filter-judge", named, Path.cwd()))
    judge = JudgeConfig(cross_encoder=named, device=config.device)
    return NetworkJudge(judge, open_cross_encoder(named, config.device, None, judge.reading))


def _numbers(texts: pa.ChunkedArray) -> NDArray[np.int64]:
    """int64 (N,): the place of the first row of each equal text."""
    return np.asarray(texts.dictionary_encode().combine_chunks().indices, np.int64)


def _pair_texts(pairs: pa.Table) -> PairTexts:
    """Pairs as a judge reads them: all are positives, as their queries were made of them."""
    tables, ids = [], []
    for name in ("query", "passage"):
        encoded = pairs[name].combine_chunks().dictionary_encode()
        blank = pa.nulls(len(encoded.dictionary), pa.large_string())
        tables.append(pa.table([encoded.dictionary, blank], schema=TEXT_SCHEMA))
        ids.append(np.asarray(encoded.indices, np.int64))
    queries, passages = tables
    store = TextStore(
        queries,
        passages,
        ids[0],
        ids[1],
        len(passages) + np.arange(len(queries)),
        np.empty((2, 0), np.int64),
    )
    return PairTexts(store, ids[0], ids[1])
