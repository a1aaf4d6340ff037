"""Queries that a server with a language model writes: of passages, and of windows of chunks."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import xxhash

from stx_mine import progress
from stx_mine.core.terms import num_words, term_of, terms
from stx_mine.core.titles import find_title
from stx_mine.models.chats import REFUSED, AnswerError, ChatServer, tokens_of
from stx_mine.models.server import ModelServer
from stx_mine.stages.queries.answer_log import AnswerLog
from stx_mine.stages.queries.config import QueriesConfig
from stx_mine.stages.queries.core.windows import AskedRows
from stx_mine.stages.queries.counts import WrittenCounts
from stx_mine.stages.queries.makers import Made, Passage
from stx_mine.stages.queries.query_prompt import QueryPrompt, queries_in

_PROBE = {
    "messages": [{"role": "user", "content": "Answer with the word yes."}],
    "max_tokens": 1,
    "temperature": 0,
}
_MULTI = "multi"


@dataclass(frozen=True)
class QueryRequest:
    """A question for queries.

    Attributes:
        passages: What they are to be of.
        kinds: Kind -> queries of it.
        body: The request of a chat, JSON-ready.
        num_cut: Passages that were too long for the prompt, and cut.
        window: Place of the first passage of a window in its block, from 1; 0 for one passage.
    """

    passages: list[Passage]
    kinds: dict[str, int]
    body: dict[str, Any]
    num_cut: int
    window: int


@dataclass(frozen=True)
class QueryAsker:
    """Asks a server for queries; what it answers is stored as it comes.

    Attributes:
        config: The config.
        chat: Who is asked.
        prompt: What is asked.
    """

    config: QueriesConfig
    chat: ChatServer
    prompt: QueryPrompt

    @classmethod
    def open(cls, config: QueriesConfig) -> "QueryAsker":
        """The asker of a config; nobody is asked yet.

        Raises:
            ConfigError: There is no such prompt.
        """
        assert config.generator is not None
        server = ModelServer(
            "--generator",
            config.generator.rstrip("/"),
            config.generator_model,
            config.requests,
            config.requests_per_minute,
            "--generator-model",
        )
        prompt = QueryPrompt.open(config.prompt)
        # What the server takes, the prompt knows.
        probe = {
            **_PROBE,
            **{name: prompt.options[name] for name in _PROBE if name in prompt.options},
        }
        probe = {name: value for name, value in probe.items() if value is not None}
        return cls(config, ChatServer(server, probe), prompt)

    def contract(self) -> dict[str, Any]:
        """What decides the queries beside the config, JSON-ready."""
        return {
            "llm": self.chat.server.model,
            "answers_as": self.chat.answers_as,
            "prompt": self.prompt.digest,
        }

    def requests(
        self, passages: list[Passage], asked: AskedRows, start: int
    ) -> Iterator[QueryRequest]:
        """What is asked about the passages of a block.

        Args:
            passages: The first of each text, by row.
            asked: What is asked about which rows of the input.
            start: The row with which the block begins.
        """
        singles = {kind: self.config.per_passage for kind in self.config.kinds if kind != _MULTI}
        by_row = {passage.row: passage for passage in passages}
        for passage in passages:
            if asked.single_N[start + passage.row]:
                yield self._request([passage], singles, 0)
        for first, last in (asked.windows_from(start, passages[-1].row) - start).tolist():
            # A passage that is nothing but its title is none any more.
            found = [by_row[row] for row in range(first, last) if row in by_row]
            if len(found) > 1:
                yield self._request(found, {_MULTI: self.config.per_passage}, first + 1)

    def _request(self, passages: list[Passage], kinds: dict[str, int], window: int) -> QueryRequest:
        limit = self.prompt.max_characters
        texts = [passage.text for passage in passages]
        sampling = {
            "max_new_tokens": self.config.max_new_tokens,
            "temperature": self.config.temperature,
            "top_p": self.config.top_p,
            "seed": self.config.seed,
        }
        body = self.prompt.body([text[:limit] for text in texts], kinds, sampling)
        num_cut = sum(len(text) > limit for text in texts)
        return QueryRequest(passages, kinds, body, num_cut, window)

    def write_for(
        self, passages: list[Passage], asked: AskedRows, start: int, log: AnswerLog
    ) -> WrittenCounts:
        """Ask about the passages of a block, and give each what was written for it.

        Args:
            passages: The first of each text, by row.
            asked: What is asked about which rows of the input.
            start: The row with which the block begins.
            log: The answers so far.

        Returns:
            What was asked, answered, and left out.
        """
        tally = _Tally(self.config)
        if not passages:
            return tally.give(passages, asked, start)
        stream = self.requests(passages, asked, start)
        number = asked.num_from(start, passages[-1].row)
        with progress.step("asking for queries", number, "questions") as step:

            def ask(request: QueryRequest) -> list[dict[str, Any]]:
                answers = self._answers(request, log)
                step.advance()
                return answers

            # Few at a time are held: questions hold the texts of their passages.
            while some := list(islice(stream, 64 * self.config.requests)):
                answers = self.chat.server.map(ask, some)
                for request, found in zip(some, answers, strict=True):
                    tally.add(request, found)
        return tally.give(passages, asked, start)

    def _answers(self, request: QueryRequest, log: AnswerLog) -> list[dict[str, Any]]:
        """What was answered, before or now: once, or twice where the first answer is none."""
        content = [self.chat.server.model, self.chat.answers_as, request.body]
        asked = xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode())
        found: list[dict[str, Any]] = log[asked]
        while len(found) < 2:
            if found and _read(found[-1], request)[0]:
                break
            body = request.body
            if found and "seed" in body:
                body = {**body, "seed": body["seed"] ^ 1}
            answer = self.chat.ask(body)
            if answer is None:
                break
            kept: dict[str, Any] = {
                name: answer[name] for name in ("choices", "usage") if name in answer
            }
            log.add(asked, kept)
            found = [*found, kept]
        return found


def _read(answer: dict[str, Any], request: QueryRequest) -> tuple[list[tuple[str, str]], str]:
    """The queries of an answer, or the reason why there are none."""
    try:
        return queries_in(answer, request.kinds), ""
    except AnswerError as error:
        return [], str(error)


@dataclass
class _Tally:
    """Takes in answers, and leaves out what is no query of its passage."""

    config: QueriesConfig
    written: dict[int, list[tuple[str, str, int]]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    totals: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    made: Counter[str] = field(default_factory=Counter)

    def add(self, request: QueryRequest, answers: list[dict[str, Any]]) -> None:
        """Take in the answers to a question; the last one counts."""
        self.totals.update(
            questions=1,
            answers=len(answers),
            retried=int(len(answers) > 1),
            cut=request.num_cut,
        )
        for answer in answers:
            self.totals.update(tokens_of(answer))
        found, reason = _read(answers[-1], request) if answers else ([], REFUSED)
        if not found:
            self.failures[reason] += 1
            for passage in request.passages:
                self.reasons.setdefault(passage.row, reason.replace(" ", "_"))
            return
        self.totals["lines"] += len(found)
        left = dict(request.kinds)
        for number, (kind, query) in enumerate(found):
            why = self._unfit(query, request.passages)
            if not why and not left[kind]:
                why = "more_than_asked"
            if why:
                self.dropped[why] += 1
                for passage in request.passages:
                    self.reasons.setdefault(passage.row, why)
                continue
            left[kind] -= 1
            self.made[kind] += 1
            item = -(request.window << 8) - number if request.window else 0
            for passage in request.passages:
                self.written.setdefault(passage.row, []).append((kind, query, item))

    def _unfit(self, query: str, passages: list[Passage]) -> str:
        """Why a query is none of its passages; empty where it is one."""
        if num_words(query) < self.config.min_words:
            return "too_short"
        for passage in passages:
            if find_title(query, passage.text) or find_title(query, passage.title):
                return "verbatim"
            known = self.written.get(passage.row, ())
            if _words(query) in [_words(one) for _, one, _ in known]:
                return "repeated"
        return ""

    def give(self, passages: list[Passage], asked: AskedRows, start: int) -> WrittenCounts:
        """Give each passage its queries, or the reason why it has none."""
        beyond = asked.single_beyond_N
        num_beyond = 0
        for passage in passages:
            row = start + passage.row
            num_beyond += int(beyond[row])
            found = self.written.get(passage.row, [])
            reason = self.reasons.get(
                passage.row, "beyond_budget" if beyond[row] else "in_no_window"
            )
            passage.written = Made(
                tuple(query for _, query, _ in found),
                "" if found else reason,
                tuple(kind for kind, _, _ in found),
                tuple(item for _, _, item in found),
            )
        if passages:
            num_beyond += len(asked.windows_from(start, passages[-1].row, beyond=True))
        totals = {name: int(self.totals[name]) for name in _TOTALS}
        return WrittenCounts(
            **totals,
            beyond_budget=num_beyond,
            failures=dict(sorted(self.failures.items())),
            dropped=dict(sorted(self.dropped.items())),
            made=dict(sorted(self.made.items())),
        )


def _words(text: str) -> list[str]:
    """The words of a text, whatever stands between them."""
    return [term_of(text, span) for span in terms(text)]


_TOTALS = (
    "questions",
    "answers",
    "retried",
    "cut",
    "lines",
    "tokens_read",
    "tokens_written",
)
