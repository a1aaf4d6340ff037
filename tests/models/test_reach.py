"""Models are given the first million characters of a text, wherever they get it; that is said."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import Cli

from stx_mine.core import reach
from stx_mine.models.encoder import SentenceTransformerEncoder
from stx_mine.models.tokenise import Tokeniser
from stx_mine.stages.embed.fast_encoder import FastEncoder
from stx_mine.stages.embed.token_encoder import Tuning

LONG = "many words of it " * 20


@pytest.fixture(autouse=True)
def near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "MOST_CHARACTERS", 40)


def test_every_way_to_a_model_reads_as_far(tiny_transformer: Path) -> None:
    for name in ("package:wordllama", str(tiny_transformer)):
        opened = SentenceTransformerEncoder.load(name, "cpu", None, 8)
        whole = opened.encode([LONG, "short"], "passage")
        np.testing.assert_array_equal(whole, opened.encode([LONG[:40], "short"], "passage"))
        texts = pa.chunked_array([pa.array([LONG, "short"], pa.large_string())])
        embedded = FastEncoder(opened.model, Tuning("float32", 64, 1)).embed(texts, "passage")
        np.testing.assert_allclose(embedded.vectors, whole, atol=1e-5)
        inputs = Tokeniser(opened.model)([LONG], "passage")["input_ids"]
        assert (
            inputs.tolist() == Tokeniser(opened.model)([LONG[:40]], "passage")["input_ids"].tolist()
        )


def test_a_text_that_is_longer_is_said(tmp_path: Path, cli_here: Cli) -> None:
    long = "word " * 200_001
    (tmp_path / "pairs.csv").write_text(f"query,passage\na,{long}\nb,short\nc,other\n")
    done = cli_here(*("embed", tmp_path / "pairs.csv", "--device", "cpu"), run_dir=tmp_path / "run")
    assert done.code == 0
    assert "1 of the passages have more than 1,000,000 characters" in done.stdout + done.stderr
