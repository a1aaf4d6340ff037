"""Chunks of one document, which a column `of_document` names, stay in one part."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stx_mine.stages.split.config import SplitConfig
from stx_mine.stages.split.stage import run_split

DOCUMENTS, CHUNKS = 40, 5


def chunk(document: int, number: int) -> str:
    return f"chunk {'abcdefghij'[number] * 3} of the document number {document} has words"


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path]:
    """Pairs of one query a chunk, and all chunks; one chunk stands in two documents."""
    rows = [(d, n) for d in range(DOCUMENTS) for n in range(CHUNKS)]
    queries = [f"what is said of {'abcdefghij'[n]} in {d}" for d, n in rows]
    texts = [chunk(d, n) for d, n in rows]
    names = [f"doc-{d}.md" for d, _ in rows]
    texts[7 * CHUNKS] = texts[3 * CHUNKS]  # Of document 3, which comes first.
    pairs, corpus = tmp_path / "pairs.parquet", tmp_path / "passages.parquet"
    table = pa.table({"query": queries, "passage": texts, "of_document": names})
    pq.write_table(table.slice(0, len(rows) - 1), pairs)
    ids = [f"{name}#{n}" for name, (_, n) in zip(names, rows, strict=True)]
    pq.write_table(pa.table({"_id": ids, "text": texts, "of_document": names}), corpus)
    return pairs, corpus


def parts_of_documents(folder: Path) -> dict[str, set[str]]:
    """Document -> the parts that hold a pair of it, by the text of its chunk."""
    corpus = [json.loads(line) for line in (folder / "corpus.jsonl").open()]
    of = {row["_id"]: row["of_document"] for row in corpus}
    found = defaultdict(set)
    for part in ("train", "dev", "test"):
        for line in (folder / f"qrels/{part}.tsv").read_text().splitlines()[1:]:
            found[of[line.split("\t")[1]]].add(part)
    return found


@pytest.mark.parametrize("options", [{}, {"ignore": "case"}, {"jaccard": 0.95}])
def test_queries_of_one_document_stay_in_one_part(
    made: tuple[Path, Path], tmp_path: Path, options: dict[str, object]
) -> None:
    pairs, corpus = map(str, made)
    run = tmp_path / "run"
    report = run_split(SplitConfig(pairs=pairs, corpus=corpus, run_dir=str(run), **options))
    found = parts_of_documents(run / "split")
    assert set(found) == {f"doc-{d}.md" for d in range(DOCUMENTS)}
    assert all(len(parts) == 1 for parts in found.values())
    assert {part for parts in found.values() for part in parts} == {"train", "dev", "test"}
    # The chunk of two documents is one of the first, and ties them not together.
    assert report.counts["components"] == DOCUMENTS
    assert report.counts["pairs_kept"] == DOCUMENTS * CHUNKS - 1
    said = "199 passages are chunks of 40 documents (of_document), which stay in one part"
    assert any(said in line for line in report.lines)
    # Divided by query, the same documents are on both sides.
    assert report.counts["leaks"]["query"]["texts"] > 20
    assert report.counts["leaks"]["component"]["texts"] == 0


def test_without_the_column_documents_are_divided(made: tuple[Path, Path], tmp_path: Path) -> None:
    pairs, _ = made
    plain = tmp_path / "plain.parquet"
    pq.write_table(pq.read_table(pairs).drop_columns("of_document"), plain)
    report = run_split(SplitConfig(pairs=str(plain), run_dir=str(tmp_path / "run")))
    assert report.counts["components"] > 4 * DOCUMENTS
    first = json.loads((tmp_path / "run/split/corpus.jsonl").open().readline())
    assert "of_document" not in first


def test_passages_of_no_document_are_their_own(made: tuple[Path, Path], tmp_path: Path) -> None:
    pairs, _ = made
    table = pq.read_table(pairs)
    names = np.array(table["of_document"].to_pylist(), object)
    names[: 10 * CHUNKS] = None
    mixed = tmp_path / "mixed.parquet"
    pq.write_table(table.set_column(2, "of_document", pa.array(names.tolist())), mixed)
    report = run_split(SplitConfig(pairs=str(mixed), run_dir=str(tmp_path / "run")))
    # Documents 3 and 7 share a chunk.
    assert report.counts["components"] == 10 * CHUNKS - 1 + (DOCUMENTS - 10)
