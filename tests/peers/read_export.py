"""Reads an export with the code of the peer that it is for, in an environment of the peers.

Run as `python read_export.py PEER FOLDER MODEL OUTPUT`; writes lines of [query, positives,
negatives] as JSON, or what else the peer made of it. MODEL is a folder with a tokenizer.
"""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Rows that are tokenised.
SOME = 32

Found = list[Any] | dict[str, Any]


def pylate(folder: Path, model: Path) -> Found:
    """The lists that `KDProcessing` joins, then a batch of the collator."""
    from datasets import load_dataset
    from pylate import models, utils

    def table(name: str) -> Any:
        return load_dataset(str(folder), name, split="train")

    joined = utils.KDProcessing(queries=table("queries"), documents=table("documents"))
    rows = table("scores").map(joined.map)
    colbert = models.ColBERT(model_name_or_path=str(model), device="cpu")
    collator = utils.ColBERTCollator(tokenize_fn=colbert.tokenize)
    batch = [{name: row[name] for name in ("query", "documents", "scores")} for row in rows]
    if len({len(row["scores"]) for row in batch}) > 1:
        try:
            collator(batch)
        except ValueError as error:
            return {"failed": str(error)}
    collated = collator(batch[:SOME])
    return {
        "lines": [[row["query"], row["documents"][:1], row["documents"][1:]] for row in rows],
        "labels": list(collated["label"].shape),
        "documents": list(collated["documents_input_ids"].shape)[:1],
    }


def _flagembedding(dataset: Any, arguments: Any, folder: Path, model: Path) -> Any:
    import torch
    from transformers import AutoTokenizer

    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT="29513")
    torch.distributed.init_process_group("gloo", rank=0, world_size=1)
    longest = {"query_max_len": 512, "passage_max_len": 512}
    chosen = arguments([str(folder / "data")], knowledge_distillation=True, **longest)
    return dataset(chosen, tokenizer=AutoTokenizer.from_pretrained(model))


def flagembedding(folder: Path, model: Path) -> Found:
    """The rows of the dataset of embedding models, and what it makes of each."""
    from FlagEmbedding.abc.finetune.embedder import (
        AbsEmbedderDataArguments,
        AbsEmbedderTrainDataset,
    )

    found = _flagembedding(AbsEmbedderTrainDataset, AbsEmbedderDataArguments, folder, model)
    made = [found[number] for number in range(SOME)]
    return {
        "lines": [[row["query"], row["pos"], row["neg"]] for row in found.dataset],
        "groups": sorted({(len(passages), len(scores)) for _, passages, scores in made}),
    }


def flagembedding_reranker(folder: Path, model: Path) -> Found:
    """The same of the dataset of rerankers."""
    from FlagEmbedding.abc.finetune.reranker import (
        AbsRerankerDataArguments,
        AbsRerankerTrainDataset,
    )

    found = _flagembedding(AbsRerankerTrainDataset, AbsRerankerDataArguments, folder, model)
    made = [found[number] for number in range(SOME)]
    return {
        "lines": [[row["query"], row["pos"], row["neg"]] for row in found.dataset],
        "groups": sorted({(len(pairs), len(scores)) for pairs, scores in made}),
    }


def colbert(folder: Path, model: Path) -> Found:
    """The examples with their texts."""
    from colbert.data import Collection, Examples, Queries

    queries, collection = (
        kind.cast(str(folder / name))
        for kind, name in ((Queries, "queries.tsv"), (Collection, "collection.tsv"))
    )
    examples = Examples.cast(str(folder / "triples.jsonl")).tolist(0, 1)
    texts = [[queries.data[qid], *(collection[pid] for pid in pids)] for qid, *pids in examples]
    return [[query, [positive], negatives] for query, positive, *negatives in texts]


def nemo(folder: Path, model: Path) -> Found:
    """What the dataset gives for the first epoch: one positive, and as many negatives as asked."""
    from nemo_automodel.components.datasets.llm.retrieval_dataset import make_retrieval_dataset

    paths = [str(path) for path in sorted(folder.glob("train-*.json"))]
    found = make_retrieval_dataset(data_dir_list=paths, n_passages=int(os.environ["PASSAGES"]))
    return [[row["question"], row["doc_text"][:1], row["doc_text"][1:]] for row in found]


def ms_swift(folder: Path, model: Path) -> Found:
    """The inputs of its template."""
    from datasets import load_dataset
    from swift.template.template_inputs import TemplateInputs

    files = sorted(map(str, (folder / "data").glob("*.jsonl")))
    lines = []
    for row in load_dataset("json", data_files=files, split="train"):
        found = TemplateInputs.from_dict(row)
        query, *passages = (
            one.messages[0]["content"] for one in (found.chosen, *found.positive, *found.negative)
        )
        count = len(found.positive)
        lines.append([query, passages[:count], passages[count:]])
    return lines


def tevatron(folder: Path, model: Path) -> Found:
    """The token ids of its dataset, 0.1 as on PyPI, and those of the texts as they stand."""
    from datasets import load_dataset
    from tevatron.datasets.dataset import HFTrainDataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    options = SimpleNamespace(
        dataset_name=str(folder),
        dataset_language=None,
        dataset_split="train",
        train_path=None,
        q_max_len=32,
        p_max_len=128,
        dataset_proc_num=1,
        train_n_passages=2,
        passage_field_separator=" ",
    )
    found = HFTrainDataset(tokenizer, options, None).process()

    def ids(text: str, longest: int) -> list[int]:
        encoded = tokenizer(text, add_special_tokens=False, max_length=longest, truncation=True)
        return list(encoded["input_ids"])

    lines = []
    for row, made in zip(load_dataset(str(folder), split="train"), found, strict=True):
        assert made["query"] == ids(row["query"], 32)
        texts = []
        for role, name in (("positive_passages", "positives"), ("negative_passages", "negatives")):
            texts.append([one["text"] for one in row[role]])
            assert made[name] == [ids(text, 128) for text in texts[-1]]
        lines.append([row["query"], *texts])
    return lines


def beir(folder: Path, model: Path) -> Found:
    """The pairs of the split."""
    from beir.datasets.data_loader import GenericDataLoader

    corpus, queries, qrels = GenericDataLoader(str(folder)).load("train")
    assert {one["title"] for one in corpus.values()} == {""}
    return [
        [queries[qid], [corpus[docid]["text"] for docid in judged], []]
        for qid, judged in qrels.items()
    ]


def pytrec_eval(folder: Path, model: Path) -> Found:
    """Reciprocal rank of each query."""
    import pytrec_eval

    with (folder / "qrels.trec").open() as qrels, (folder / "run.trec").open() as run:
        evaluator = pytrec_eval.RelevanceEvaluator(pytrec_eval.parse_qrel(qrels), {"recip_rank"})
        found = evaluator.evaluate(pytrec_eval.parse_run(run))
    return {qid: measures["recip_rank"] for qid, measures in found.items()}


PEERS = (
    pylate,
    flagembedding,
    flagembedding_reranker,
    colbert,
    nemo,
    ms_swift,
    tevatron,
    beir,
    pytrec_eval,
)

if __name__ == "__main__":
    name, folder, model, output = sys.argv[1:]
    [peer] = [one for one in PEERS if one.__name__ == name]
    Path(output).write_text(json.dumps(peer(Path(folder), Path(model))))
