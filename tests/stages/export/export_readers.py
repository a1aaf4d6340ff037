"""The tests' own reader of every layout, by its documented schema."""

import csv
import json
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

Line = tuple[str, list[str], list[str]]


def parquet(folder: Path, name: str) -> list[dict]:
    """The lines of the Parquet files of a folder, in the order of their names."""
    tables = [pq.read_table(path) for path in sorted((folder / name).glob("*.parquet"))]
    return pa.concat_tables(tables).to_pylist()


def json_lines(folder: Path, name: str = "data") -> list[dict]:
    """The lines of the JSON lines of a folder, in the order of their names."""
    paths = sorted((folder / name).glob("*.jsonl"))
    return [json.loads(line) for path in paths for line in path.open(encoding="utf-8")]


def json_documents(folder: Path) -> list:
    """The documents `train-*.json` of a folder, in the order of their names."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("train-*.json"))]


def tabbed(path: Path) -> list[list[str]]:
    """The fields of each line; no quotes, no header line."""
    with path.open(encoding="utf-8", newline="\n") as handle:
        return [line.removesuffix("\n").split("\t") for line in handle]


def triplet(folder: Path) -> list[Line]:
    lines = parquet(folder, "data")
    return [(one["anchor"], [one["positive"]], [one["negative"]]) for one in lines]


def n_tuple(folder: Path) -> list[Line]:
    return [
        (one.pop("anchor"), [one.pop("positive")], list(one.values()))
        for one in parquet(folder, "data")
    ]


def labeled_pair(folder: Path) -> list[Line]:
    lines = []
    for query, some in groupby(parquet(folder, "data"), lambda one: one["anchor"]):
        of_label = {0: [], 1: []}
        for one in some:
            of_label[one["label"]].append(one["positive"])
        lines.append((query, of_label[1], of_label[0]))
    return lines


def labeled_list(folder: Path) -> list[Line]:
    lines = []
    for one in parquet(folder, "data"):
        labeled = list(zip(one["positive"], one["labels"], strict=True))
        of_label = {label: [text for text, other in labeled if other == label] for label in (0, 1)}
        lines.append((one["anchor"], of_label[1], of_label[0]))
    return lines


def flagembedding(folder: Path) -> list[Line]:
    return [(one["query"], one["pos"], one["neg"]) for one in json_lines(folder)]


def three_table(folder: Path) -> list[Line]:
    queries = {one["query_id"]: one["text"] for one in parquet(folder, "queries")}
    texts = {one["document_id"]: one["text"] for one in parquet(folder, "documents")}
    lines = []
    for one in parquet(folder, "scores"):
        first, *others = (texts[passage] for passage in one["document_ids"])
        lines.append((queries[one["query_id"]], [first], others))
    return lines


def tevatron(folder: Path) -> list[Line]:
    return [
        (
            one["query"],
            [passage["text"] for passage in one["positive_passages"]],
            [passage["text"] for passage in one["negative_passages"]],
        )
        for one in json_lines(folder)
    ]


def tevatron_ids(folder: Path) -> list[Line]:
    texts = {one["docid"]: one["text"] for one in parquet(folder, "corpus")}
    return [
        (
            one["query_text"],
            [texts[docid] for docid in one["positive_document_ids"]],
            [texts[docid] for docid in one["negative_document_ids"]],
        )
        for one in parquet(folder, "data")
    ]


def colbert(folder: Path) -> list[Line]:
    queries = {int(qid): text for qid, text in tabbed(folder / "queries.tsv")}
    collection = tabbed(folder / "collection.tsv")
    assert [int(pid) for pid, _ in collection] == list(range(len(collection)))
    lines = []
    for line in (folder / "triples.jsonl").open(encoding="utf-8"):
        qid, first, *others = json.loads(line)
        negatives = [collection[pid][1] for pid in others]
        lines.append((queries[qid], [collection[first][1]], negatives))
    return lines


def ms_marco(folder: Path) -> list[Line]:
    queries, texts = (dict(tabbed(folder / name)) for name in ("queries.tsv", "collection.tsv"))
    triples = tabbed(folder / "triples.tsv")
    return [
        (queries[qid], [texts[pid]], [texts[negative] for _, _, negative in some])
        for (qid, pid), some in groupby(triples, lambda one: tuple(one[:2]))
    ]


def nemo(folder: Path) -> list[Line]:
    lines = []
    for document in json_documents(folder):
        [corpus] = document["corpus"]
        metadata = json.loads((folder / corpus["path"] / "merlin_metadata.json").read_text())
        texts = {one["id"]: one["text"] for one in parquet(folder, corpus["path"])}
        for one in document["data"]:
            assert one["corpus_id"] == metadata["corpus_id"]
            roles = ([texts[doc["id"]] for doc in one[role]] for role in ("pos_doc", "neg_doc"))
            lines.append((one["question"], *roles))
    return lines


def ms_swift(folder: Path) -> list[Line]:
    def texts(messages: list[dict]) -> str:
        [message] = messages
        assert message["role"] == "user"
        return message["content"]

    return [
        (
            texts(one["messages"]),
            list(map(texts, one["positive_messages"])),
            list(map(texts, one["negative_messages"])),
        )
        for one in json_lines(folder)
    ]


def dpr(folder: Path) -> list[Line]:
    lines = []
    for one in (one for document in json_documents(folder) for one in document):
        assert one["answers"] == one["negative_ctxs"] == []
        roles = ("positive_ctxs", "hard_negative_ctxs")
        assert {context["title"] for role in roles for context in one[role]} == {""}
        lines.append((one["question"], *([c["text"] for c in one[role]] for role in roles)))
    return lines


def beir(folder: Path) -> list[Line]:
    texts = {
        name: {one["_id"]: one["text"] for one in map(json.loads, (folder / name).open("rb"))}
        for name in ("queries.jsonl", "corpus.jsonl")
    }
    with (folder / "qrels/train.tsv").open(encoding="utf-8") as handle:
        judged = list(csv.DictReader(handle, delimiter="\t"))
    assert {one["score"] for one in judged} == {"1"}
    return [
        (
            texts["queries.jsonl"][one["query-id"]],
            [texts["corpus.jsonl"][one["corpus-id"]]],
            [],
        )
        for one in judged
    ]


def trec_run(folder: Path) -> list[Line]:
    """Query id, and the ids of its hits in order, as negatives: a run holds no texts."""
    lines = []
    rows = (line.split(" ") for line in (folder / "run.trec").read_text().splitlines())
    for qid, some in groupby(rows, lambda one: one[0]):
        hits = list(some)
        assert [int(hit[3]) for hit in hits] == list(range(1, len(hits) + 1))
        assert {(hit[1], hit[5]) for hit in hits} == {("Q0", "stx-mine")}
        lines.append((qid, [], [hit[2] for hit in hits]))
    return lines


READERS: dict[str, Callable[[Path], list[Line]]] = {
    "triplet": triplet,
    "n-tuple": n_tuple,
    "labeled-pair": labeled_pair,
    "labeled-list": labeled_list,
    "flagembedding": flagembedding,
    "three-table": three_table,
    "tevatron": tevatron,
    "tevatron-ids": tevatron_ids,
    "colbert": colbert,
    "ms-marco": ms_marco,
    "nemo": nemo,
    "ms-swift": ms_swift,
    "dpr": dpr,
    "beir": beir,
    "trec-run": trec_run,
}
