"""Which judge a config names."""

from pathlib import Path
from typing import Any

from stx_mine.models.load import open_cross_encoder
from stx_mine.models.server import ModelServer
from stx_mine.models.user_function import UserFunction
from stx_mine.stages.judge.chats import AnswerFile, ServedChat
from stx_mine.stages.judge.config import JudgeConfig
from stx_mine.stages.judge.function_judge import FunctionJudge
from stx_mine.stages.judge.judge import Judge
from stx_mine.stages.judge.listwise_judge import ListwiseJudge
from stx_mine.stages.judge.network_judge import NetworkJudge
from stx_mine.stages.judge.prompt import Prompt
from stx_mine.stages.judge.rerank_judge import RerankJudge
from stx_mine.store.artifact import PLAN
from stx_mine.store.files import json_or_empty


def open_judge(config: JudgeConfig, folder: Path, place: Path, device: str | None) -> Judge:
    """The judge of a config.

    Args:
        config: The config.
        folder: Of its judgements, which may be there.
        place: Where the module of a function may lie.
        device: Of a network in this process; None for the best.

    Raises:
        ModelError: It cannot be loaded, or is no judge.
        ConfigError: There is no such prompt.
    """
    found = json_or_empty(folder / PLAN).get("fields")
    earlier: dict[str, Any] = found if isinstance(found, dict) else {}
    if config.reranker is not None:
        server = ModelServer.of_config("--reranker", config.reranker, config)
        return RerankJudge(server, config.score_scale, (earlier.get("probes"),))
    if config.asks_llm:
        prompt = Prompt.open(config.prompt)
        if config.llm is not None:
            server = ModelServer.of_config("--llm", config.llm, config)
            return ListwiseJudge(prompt, ServedChat(server, prompt), config.call_passages)
        answers = None if config.import_answers is None else Path(config.import_answers)
        chat = AnswerFile(answers, str(config.server_model), earlier.get("answers_as"))
        return ListwiseJudge(prompt, chat, config.call_passages)
    if config.is_function:
        return FunctionJudge(UserFunction.find("--cross-encoder", config.judge, place))
    return NetworkJudge(
        config, open_cross_encoder(config.judge, device, config.max_length, config.reading)
    )
