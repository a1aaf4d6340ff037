"""The peers: what sentence-transformers does by itself, on the same data and model.

Nothing here uses stx-mine. `train_mnr` is the recipe without mining, `mine` and `train_mined` are
the library's own hard negatives and its batch sampler without duplicates.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.training_args import BatchSamplers
from sentence_transformers.util import mine_hard_negatives
from transformers import PrinterCallback

from benchmarks.datasets import RetrievalSet, Split
from stx_mine.stages.evaluate.core.resampling import bootstrap_intervals

NUM_NEGATIVES = 4
RELATIVE_MARGIN = 0.05
TEMPERATURE = 0.05
WARMUP_SHARE = 0.1
ENCODE_BATCH_SIZE = 1_024
NUM_RETRIEVED = 100
NUM_RANKED = 10

OutputFormat = Literal["n-tuple", "triplet"]


@dataclass(frozen=True)
class Mined:
    """What `mine_hard_negatives` gave, and how much of the training set it kept.

    Attributes:
        dataset: Columns `query`, `passage`, and `negative` or `negative_1` to `negative_4`.
        num_pairs: Training pairs that went in.
        num_kept_pairs: Training pairs that occur in `dataset`.
        num_lost_rows: Rows short of one a pair (n-tuple) or `NUM_NEGATIVES` a pair (triplet).
        seconds: Wall time of the call, embedding included.
    """

    dataset: Dataset
    num_pairs: int
    num_kept_pairs: int
    num_lost_rows: int
    seconds: float


class Scores(TypedDict):
    """Retrieval quality of one model on one split, each measure in [0, 1], higher is better."""

    ndcg_at_10: float
    mrr_at_10: float
    recall_at_100: float
    ndcg_at_10_per_query: np.ndarray


def train_mnr(
    set_: RetrievalSet,
    model: SentenceTransformer,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    output_dir: Path,
    temperature: float = TEMPERATURE,
    bf16: bool = False,
) -> SentenceTransformer:
    """Train on the pairs with in-batch negatives only, in batches drawn at random."""
    arguments = training_arguments(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        output_dir=output_dir,
        batch_sampler=BatchSamplers.BATCH_SAMPLER,
        use_cpu=model.device.type == "cpu",
        bf16=bf16,
    )
    return train(model, pairs_dataset(set_), arguments, temperature)


def train_mined(
    set_: RetrievalSet,
    mined_dataset: Dataset,
    model: SentenceTransformer,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    output_dir: Path,
    temperature: float = TEMPERATURE,
    bf16: bool = False,
) -> SentenceTransformer:
    """Train on mined rows, in batches without duplicate texts.

    Args:
        set_: The set that was mined; its pairs must be those of `mined_dataset`.
        mined_dataset: `Mined.dataset`, in either format.
        model: Trained in place.
        steps: Number of optimizer steps; the data is repeated as often as needed.
        batch_size: Rows a step.
        learning_rate: The peak of the linear schedule.
        seed: Orders the rows.
        output_dir: Where the trainer may write; nothing is saved.
        temperature: Of the loss.
        bf16: Whether products are made in bf16.

    Raises:
        ValueError: A mined pair is no training pair of the set.
    """
    mined_pairs = zip(mined_dataset["query"], mined_dataset["passage"], strict=True)
    strangers = set(mined_pairs).difference(set_.train)
    if strangers:
        raise ValueError(f"{len(strangers):,} mined pairs are no training pairs of {set_.name}")
    arguments = training_arguments(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        output_dir=output_dir,
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        use_cpu=model.device.type == "cpu",
        bf16=bf16,
    )
    return train(model, mined_dataset, arguments, temperature)


def mine(
    set_: RetrievalSet,
    model: SentenceTransformer,
    output_format: OutputFormat = "n-tuple",
) -> Mined:
    """Mine hard negatives as a user would, with a relative margin and the default range.

    Args:
        set_: Its pairs are mined over their own passages, as the library does by default.
        model: Embeds both sides.
        output_format: "n-tuple" keeps only pairs with all `NUM_NEGATIVES` negatives; "triplet"
            keeps one row a negative.
    """
    started = time.perf_counter()
    dataset = mine_hard_negatives(
        pairs_dataset(set_),
        model,
        anchor_column_name="query",
        positive_column_name="passage",
        relative_margin=RELATIVE_MARGIN,
        num_negatives=NUM_NEGATIVES,
        output_format=output_format,
        verbose=False,
    )
    seconds = time.perf_counter() - started
    num_pairs = len(set_.train)
    full = num_pairs * (NUM_NEGATIVES if output_format == "triplet" else 1)
    num_kept_pairs = len(set(zip(dataset["query"], dataset["passage"], strict=True)))
    return Mined(dataset, num_pairs, num_kept_pairs, full - len(dataset), seconds)


def pairs_dataset(set_: RetrievalSet) -> Dataset:
    """Return the training pairs as a dataset with the columns `query` and `passage`."""
    queries, passages = zip(*set_.train, strict=True)
    return Dataset.from_dict({"query": list(queries), "passage": list(passages)})


def training_arguments(
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    output_dir: Path,
    batch_sampler: BatchSamplers,
    use_cpu: bool = True,
    bf16: bool = False,
) -> SentenceTransformerTrainingArguments:
    """Return what every arm trains with: a linear schedule, 10% warm-up, no saving."""
    return SentenceTransformerTrainingArguments(
        output_dir=str(output_dir),
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=round(WARMUP_SHARE * steps),
        seed=seed,
        batch_sampler=batch_sampler,
        use_cpu=use_cpu,
        bf16=bf16,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def train(
    model: SentenceTransformer,
    dataset: Dataset,
    arguments: SentenceTransformerTrainingArguments,
    temperature: float = TEMPERATURE,
) -> SentenceTransformer:
    """Train a model in place with the multiple-negatives ranking loss, and return it."""
    loss = MultipleNegativesRankingLoss(model, scale=1 / temperature)
    trainer = SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=dataset, loss=loss
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return model


def evaluate(model: SentenceTransformer, split: Split, corpus: list[str]) -> Scores:
    """Search the corpus for each query of a split by exact cosine similarity, and score it.

    nDCG has binary gains, and an ideal ranking of `min(10, positives)` hits. Recall@100 is the
    share of a query's positives among its first 100 hits. Ties go to the lower index.

    Returns:
        The means over the queries, and nDCG@10 of each as float64 `[num_queries]`.
    """
    ranked = search(model, split.queries, corpus)
    is_hit = [
        np.isin(row, list(positives))
        for row, positives in zip(ranked, split.positives, strict=True)
    ]
    hits = np.stack(is_hit)  # [num_queries, NUM_RETRIEVED]
    num_positives = np.array([len(positives) for positives in split.positives])
    top = hits[:, :NUM_RANKED]
    discounts = 1.0 / np.log2(np.arange(2, NUM_RANKED + 2))
    ideal = np.cumsum(discounts)[np.minimum(num_positives, NUM_RANKED) - 1]
    ndcg = (top * discounts).sum(axis=1) / ideal
    reciprocal_rank = np.where(top.any(axis=1), 1.0 / (top.argmax(axis=1) + 1), 0.0)
    return Scores(
        ndcg_at_10=float(ndcg.mean()),
        mrr_at_10=float(reciprocal_rank.mean()),
        recall_at_100=float((hits.sum(axis=1) / num_positives).mean()),
        ndcg_at_10_per_query=ndcg,
    )


def difference(one: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Mean difference of the scores of queries, and its 95% interval by a paired bootstrap."""
    low, high = bootstrap_intervals((one - other)[:, None], seed=0)[:, 0].tolist()
    return float((one - other).mean()), low, high


def search(
    model: SentenceTransformer, queries: list[str], corpus: list[str], block_size: int = 512
) -> np.ndarray:
    """Return the corpus indices of each query's `NUM_RETRIEVED` best hits, best first.

    Returns:
        int64 `[num_queries, NUM_RETRIEVED]`, fewer columns if the corpus is smaller.
    """
    options = {"batch_size": ENCODE_BATCH_SIZE, "normalize_embeddings": True}
    corpus_ND = model.encode_document(corpus, convert_to_tensor=True, **options)
    queries_QD = model.encode_query(queries, convert_to_tensor=True, **options)
    blocks = []
    for block in torch.split(queries_QD, block_size):
        top = torch.topk(block @ corpus_ND.T, k=min(NUM_RETRIEVED, len(corpus)), dim=1)
        scores, indices = top.values.cpu().numpy(), top.indices.cpu().numpy()
        order = np.lexsort((indices, -scores), axis=1)
        blocks.append(np.take_along_axis(indices, order, axis=1))
    return np.concatenate(blocks)
