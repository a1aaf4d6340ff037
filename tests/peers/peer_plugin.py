"""A plugin of pytest for the suites of sentence-transformers, in a process of their own.

Their models come from the hub. Here stand for them the vectors of wordllama, and networks with
random weights where only the calls matter. With STX_FUNCTIONS_OF=stages their
`mine_hard_negatives` is the one of `mined_by_stages`.
"""

import os
import re
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import checkpoints
import loss_by_packing
import mined_by_stages
import pytest
import sentence_transformers.util
from conftest import tiny_transformer  # noqa: F401
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from stx_mine.models.load import load_model


class Tokenizes(SentenceTransformer):
    """As before version 5.4, `encode` calls `tokenize` where that is watched."""

    def tokenize(self, texts: Any, **others: Any) -> Any:
        return super().preprocess(texts, **others)

    def preprocess(self, texts: Any, prompt: str | None = None, **others: Any) -> Any:
        if "tokenize" not in vars(self):
            return super().preprocess(texts, prompt=prompt, **others)
        return self.tokenize([(prompt or "") + text for text in texts])


@pytest.fixture(scope="module")
def static_model(request: pytest.FixtureRequest) -> SentenceTransformer:
    """The vectors of wordllama for the words of the test file, which are quick to load."""
    words = dict.fromkeys(re.findall(r"\w+", request.path.read_text().lower()))
    numbers = {word: number for number, word in enumerate(["[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    table = load_model("package:wordllama", device="cpu").encode(list(numbers))
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, table)], device="cpu")


@pytest.fixture
def static_retrieval_mrl_en_v1_model(static_model: SentenceTransformer) -> SentenceTransformer:
    return deepcopy(static_model)


@pytest.fixture
def paraphrase_distilroberta_base_v1_model(
    tiny_transformer: Path,  # noqa: F811
) -> SentenceTransformer:
    return Tokenizes(str(tiny_transformer), device="cpu")


@pytest.fixture
def reranker_bert_tiny_model(tiny_transformer: Path, tmp_path: Path) -> CrossEncoder:  # noqa: F811
    return CrossEncoder(str(checkpoints.reranker(tiny_transformer, tmp_path)), device="cpu")


@pytest.fixture(autouse=True)
def functions(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tiny_transformer: Path,  # noqa: F811
) -> None:
    """What they test is ours, under every name that their tests call it by."""
    losses = getattr(request.module, "losses", None)
    if losses is not None:
        # These load their model themselves, by its name on the hub.
        tiny = partial(SentenceTransformer, str(tiny_transformer), device="cpu")
        monkeypatch.setattr(request.module, "SentenceTransformer", lambda name: tiny())
    if os.environ["STX_FUNCTIONS_OF"] == "peer":
        return
    if losses is not None:
        name = "CachedMultipleNegativesRankingLoss"
        monkeypatch.setattr(losses, name, loss_by_packing.CachedMultipleNegativesRankingLoss)
    ours = mined_by_stages.mine_hard_negatives
    for module in (request.module, sentence_transformers.util):
        monkeypatch.setattr(module, "mine_hard_negatives", ours, raising=False)
