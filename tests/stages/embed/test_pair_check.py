"""A sample of pairs against random passages: misaligned columns are said, right ones are not."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed


@pytest.mark.parametrize("misaligned", [False, True])
def test_misaligned_pairs_are_said(small_input: Path, tmp_path: Path, misaligned: bool) -> None:
    pairs = pq.read_table(small_input / "pairs.parquet")
    passages, queries = (pairs.column(name).to_pylist() for name in ("passage", "query"))
    if misaligned:
        passages = passages[7:] + passages[:7]
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.table({"query": queries, "passage": passages}), path)
    corpus = str(small_input / "corpus.parquet")
    config = EmbedConfig(pairs=str(path), corpus=corpus, run_dir=str(tmp_path / "run"))
    said = [line for line in run_embed(config).warnings if "below a random passage" in line]
    assert bool(said) == misaligned
