"""Texts that were tokenised once give the inputs that tokenising them anew gives."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

from stx_mine.models.load import load_model
from stx_mine.models.tokenise import Tokeniser
from stx_mine.stages.train.known_tokens import RememberingTokeniser

TEXTS = st.lists(
    st.sampled_from(["", "a b", "a  b ", "über", "x " * 60, "日本", "b", "a"]), min_size=1
)


@pytest.fixture(params=["static", "transformer"])
def model(request: pytest.FixtureRequest, tiny_transformer: Path) -> SentenceTransformer:
    name = "package:wordllama" if request.param == "static" else str(tiny_transformer)
    return load_model(name, "cpu", max_length=None if request.param == "static" else 16)


def same(ours: dict, theirs: dict) -> bool:
    return set(ours) == set(theirs) and all(
        np.array_equal(np.asarray(ours[name]), np.asarray(theirs[name])) for name in theirs
    )


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(batches=st.lists(TEXTS, min_size=1, max_size=5), limit=st.sampled_from([0, 40, 1 << 30]))
def test_inputs_are_those_of_the_tokeniser_whatever_was_met_before(model, batches, limit) -> None:
    plain = Tokeniser(model)
    remembering = RememberingTokeniser(plain, limit)
    for texts in batches:
        for role, prompt in (("query", None), ("passage", "passage: "), ("text", None)):
            assert same(remembering(texts, role, prompt), plain(texts, role, prompt))


def test_a_text_is_tokenised_once_until_the_limit(model) -> None:
    remembering = RememberingTokeniser(Tokeniser(model), 1 << 20)
    remembering(["a", "b"], "query")
    known = remembering._known["query", None]
    assert known is not None, "token ids are all that these models take"
    asked: list[str] = []
    tokens = known.inputs.tokens

    class Asked:
        def tokens(self, texts):
            asked.extend(texts.to_pylist())
            return tokens(texts)

        batch = known.inputs.batch

    known.inputs = Asked()
    remembering(["b", "c", "a", "c"], "query")
    remembering(["c", "b"], "query")
    assert asked == ["c"]
    known.limit = 0
    remembering(["c"], "query")
    assert asked == ["c", "c"]


def test_fixed_widths_are_left_to_the_tokenizer(tiny_transformer) -> None:
    model = load_model(str(tiny_transformer), "cpu")
    plain = Tokeniser(model, pad_to=8)
    remembering = RememberingTokeniser(plain)
    for texts in (["a b c"], ["a " * 9, "b"]):
        assert same(remembering(texts, "query"), plain(texts, "query"))
