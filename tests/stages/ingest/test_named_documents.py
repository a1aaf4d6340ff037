"""Passages that the input names as chunks of documents are of one group, and no negatives."""

import json
from pathlib import Path

import numpy as np

from stx_mine.inputs.config import Source
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.ingest.config import IngestConfig
from stx_mine.stages.ingest.stage import run_ingest
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.store.artifact import require
from stx_mine.store.groups import TextGroups
from stx_mine.store.negatives import pool_files, read_verdicts
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

TOPICS = "river castle bridge violin glacier lantern orchard kettle raven tunnel".split()
CHUNKS = 4


def write(folder: Path, name: str = "of_document") -> Path:
    """A BEIR folder: chunks of documents about topics, and a few passages of no document."""
    folder.mkdir()
    with (folder / "corpus.jsonl").open("w") as file:
        for topic in TOPICS:
            for number in range(CHUNKS):
                text = f"the {topic} in part {number}: {topic} of {'abcdefgh'[number] * 3}"
                line = {"_id": f"{topic}#{number}", "text": text, name: f"{topic}.md"}
                file.write(json.dumps(line) + "\n")
        for number in range(3):
            line = {"_id": f"alone{number}", "text": f"a river alone, number {number}", name: None}
            file.write(json.dumps(line) + "\n")
    rows = [(topic, n) for topic in TOPICS for n in range(CHUNKS)]
    with (folder / "queries.jsonl").open("w") as file:
        for topic, n in rows:
            query = f"where is {topic} {'abcdefgh'[n] * 3}"
            file.write(json.dumps({"_id": f"q-{topic}-{n}", "text": query}) + "\n")
    (folder / "qrels").mkdir()
    lines = [f"q-{topic}-{n}\t{topic}#{n}\t1\n" for topic, n in rows]
    (folder / "qrels/train.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    return folder


def opened(run: Path) -> TextStore:
    return TextStore.open(require(RunDir(run), "texts"))


def documents(store: TextStore) -> list[str]:
    """The document of each passage, by its original id; of one of no document the id."""
    return [one.partition("#")[0] for one in store.passages["original_id"].to_pylist()]


def test_chunks_of_one_document_are_one_group(tmp_path: Path) -> None:
    data, run = write(tmp_path / "data"), tmp_path / "run"
    report = run_ingest(IngestConfig(pairs=str(data), run_dir=str(run)))
    store = opened(run)
    names, groups = documents(store), TextGroups.open(require(RunDir(run), "groups")).passages
    expected = [names.index(name) for name in names]
    assert groups.tolist() == expected
    assert any(
        "40 passages are chunks of 10 documents (of_document), none of which is a negative" in line
        for line in report.lines
    )
    assert not any("not read: of_document" in line for line in report.lines)
    assert run_ingest(IngestConfig(pairs=str(data), run_dir=str(run))).skipped


def test_no_chunk_of_the_positives_document_is_mined(tmp_path: Path) -> None:
    data, plain = write(tmp_path / "data"), write(tmp_path / "plain", "page")
    from_own = {}
    for name, folder in (("data", data), ("plain", plain)):
        run = tmp_path / f"run-{name}"
        run_embed(EmbedConfig(pairs=str(folder), run_dir=str(run), device="cpu"))
        run_mine(MineConfig(run_dir=str(run), k=4, relative_margin=None, device="cpu"))
        store = opened(run)
        names, manifest = documents(store), require(RunDir(run), "negatives")
        own = dict(zip(store.pair_query_ids.tolist(), store.pair_passage_ids.tolist(), strict=True))
        rows = [
            (names[own[row["unit_id"]]], [names[one] for one in row["passage_ids"]])
            for file in pool_files(manifest)
            for row in read_verdicts(manifest, file).to_pylist()
        ]
        assert len(rows) == 40 and all(len(found) >= 4 for _, found in rows)
        from_own[name] = sum(own in found for own, found in rows)
    assert from_own == {"data": 0, "plain": 40}


def test_cut_passages_are_of_the_document_that_the_input_names(tmp_path: Path) -> None:
    data, run = write(tmp_path / "data"), tmp_path / "run"
    run_ingest(
        IngestConfig(
            pairs=str(data), run_dir=str(run), chunk=(12, 0), tokenizer="package:wordllama"
        )
    )
    store = opened(run)
    assert store.num_passages > 40 + 3
    names = documents(store)
    # A chunk of a chunk has the id of the chunk, and a number behind it.
    groups = TextGroups.open(require(RunDir(run), "groups")).passages
    assert groups.tolist() == [names.index(name) for name in names]


def test_a_query_that_is_a_chunk_of_its_document_is_no_pair(tmp_path: Path) -> None:
    data, run = write(tmp_path / "data"), tmp_path / "run"
    texts = [json.loads(line)["text"] for line in (data / "corpus.jsonl").open()]
    lines = (data / "queries.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    lines[0] = json.dumps({**first, "text": texts[1]})
    (data / "queries.jsonl").write_text("\n".join(lines) + "\n")
    report = run_ingest(IngestConfig(pairs=str(data), run_dir=str(run)))
    counts = report.counts
    assert counts["pairs_in"] == 40 and counts["pairs_kept"] == 39
    assert counts["pairs_dropped"]["query_is_its_passage"] == 1
    assert opened(run).num_pairs == 39


def test_documents_of_two_sources_are_two_whatever_they_are_called(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one"), write(tmp_path / "two")
    corpus = (two / "corpus.jsonl").read_text().replace('"the ', '"some ')
    (two / "corpus.jsonl").write_text(corpus)
    run = tmp_path / "run"
    sources = tuple(Source(name=one.name, path=str(one)) for one in (one, two))
    run_ingest(IngestConfig(sources=sources, run_dir=str(run)))
    groups = TextGroups.open(require(RunDir(run), "groups")).passages
    assert len(np.unique(groups)) == 2 * len(TOPICS) + 3
