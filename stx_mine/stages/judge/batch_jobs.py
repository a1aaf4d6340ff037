"""Questions for a batch job of a server, and what came back."""

from collections.abc import Iterator
from pathlib import Path

from stx_mine.errors import ConfigError
from stx_mine.stages.judge.asked import AskedPairs
from stx_mine.stages.judge.chats import AnswerFile, as_batch_line
from stx_mine.stages.judge.config import JudgeConfig
from stx_mine.stages.judge.judge import Judge
from stx_mine.stages.judge.listwise_judge import ListwiseJudge, Question
from stx_mine.stages.judge.pair_scorer import PairScorer
from stx_mine.stages.judge.report import questions_report
from stx_mine.store.files import atomic
from stx_mine.store.stage_report import StageReport


def export_questions(config: JudgeConfig, scorer: PairScorer, asked: AskedPairs) -> StageReport:
    """Write the questions about pairs, a line each.

    Raises:
        ConfigError: The file is there, and nobody said --overwrite.
    """
    path = Path(str(config.export_questions))
    if path.exists() and not config.overwrite:
        raise ConfigError(
            f"expected no file at --export-questions {path}, found one; give another path, or "
            "--overwrite"
        )
    number = 0
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as lines:
        for question in _questions(scorer, asked):
            lines.write(as_batch_line(question))
            number += 1
    return questions_report(number, asked.table.num_rows, str(path))


def num_unknown(judge: Judge, scorer: PairScorer, asked: AskedPairs) -> int:
    """How many imported answers are to no question; 0 where a server is asked."""
    if not isinstance(judge, ListwiseJudge) or not isinstance(judge.chat, AnswerFile):
        return 0
    wanted = {question.id for question in _questions(scorer, asked)}
    return len(judge.chat.by_question.keys() - wanted)


def _questions(scorer: PairScorer, asked: AskedPairs) -> Iterator[Question]:
    judge = scorer.judge
    assert isinstance(judge, ListwiseJudge)
    for rows in asked.tasks.values():
        yield from judge.questions(scorer.pairs(asked.query_ids[rows], asked.passage_ids[rows]))
