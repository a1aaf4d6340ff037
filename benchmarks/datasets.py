"""The real retrieval sets that the benchmarks train and test on.

    python -m benchmarks.datasets      # build them all and print their sizes

| name | query | passage | comes from |
|---|---|---|---|
| wordnet | usage example | lemma and definition | `data/quickstart/` |
| nl2bash | task in English | shell command | a BEIR folder below `STX_DATA` |
| botocore | service and operation name | the operation's documentation | PyPI |
| google | service and method name | the method's description | PyPI |
| python | first paragraph of a docstring | the function's code | PyPI |

Every split holds whole connected components of the query-passage graph, so that no text of one
split occurs in another, in either role.
"""

import json
import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from benchmarks.wheels import CACHE, ROOT, Pair, functions, methods, operations

MAX_COMPONENT_ROWS = 50
MAX_SPLIT_QUERIES = 1_500

NAMES = ("wordnet", "nl2bash", "botocore", "google", "python")
# What is read from wheels.
_WHEELS: dict[str, Callable[[], Iterable[Pair]]] = {
    "botocore": operations,
    "google": methods,
    "python": functions,
}


@dataclass(frozen=True)
class Split:
    """Queries that no training pair shares a text with, and what each should find.

    Attributes:
        queries: Distinct query texts.
        positives: For each query, the indices of its passages in the set's corpus; never empty.
    """

    queries: list[str]
    positives: list[set[int]]


@dataclass(frozen=True)
class RetrievalSet:
    """A training set, the corpus to search, and two splits to measure on.

    Attributes:
        name: One of `NAMES`.
        train: Distinct (query, passage) pairs.
        corpus: All distinct passages, those of `tune` and `test` too.
        tune: The split to choose settings on.
        test: The split to report.
    """

    name: str
    train: list[Pair]
    corpus: list[str]
    tune: Split
    test: Split


def load(name: str, seed: int = 42) -> RetrievalSet:
    """Read, or on first use build, one retrieval set.

    Args:
        name: One of `NAMES`.
        seed: Decides which components are held out. Which pairs of wordnet are held out is
            fixed by its files; there the seed decides only between `tune` and `test`.

    Raises:
        ValueError: The name is unknown.
        FileNotFoundError: The set's files are not there.
    """
    rng = np.random.default_rng(seed)
    if name == "wordnet":
        folder = ROOT / "data" / "quickstart"
        train, dev = read_pairs(folder / "pairs.parquet"), read_pairs(folder / "dev.parquet")
        passages = pq.read_table(folder / "corpus.parquet")["passage"].to_pylist()
    elif name in NAMES:
        pairs = read_nl2bash() if name == "nl2bash" else read_wheels(name)
        pairs = canonical_pairs(pairs)
        num_split = min(MAX_SPLIT_QUERIES, len({query for query, _ in pairs}) // 10)
        dev, train = take_components(pairs, 2 * num_split, rng)
        passages = [passage for _, passage in pairs]
    else:
        raise ValueError(f"unknown retrieval set {name!r}: choose one of {', '.join(NAMES)}")
    corpus = list(dict.fromkeys(passages))
    tune, test = take_components(dev, len({query for query, _ in dev}) // 2, rng)
    index_of = {passage: index for index, passage in enumerate(corpus)}
    return RetrievalSet(name, train, corpus, make_split(tune, index_of), make_split(test, index_of))


def part_of(set_: RetrievalSet, rows: int, queries: int, passages: int = 0) -> RetrievalSet:
    """A smaller set: some training pairs and queries, drawn at random, and their passages.

    Args:
        set_: The whole.
        rows: Training pairs at most.
        queries: Queries of each split at most.
        passages: Others fill the corpus up to so many.
    """
    rng = np.random.default_rng(0)
    train = [set_.train[i] for i in _drawn(len(set_.train), rows, rng)]
    wanted = dict.fromkeys(passage for _, passage in train)
    splits = {}
    for name in ("tune", "test"):
        full: Split = getattr(set_, name)
        kept = _drawn(len(full.queries), queries, rng)
        splits[name] = Split([full.queries[i] for i in kept], [full.positives[i] for i in kept])
        for positives in splits[name].positives:
            wanted.update(dict.fromkeys(set_.corpus[index] for index in sorted(positives)))
    for index in rng.permutation(len(set_.corpus)).tolist():
        if len(wanted) >= passages:
            break
        wanted[set_.corpus[index]] = None
    index_of = {passage: index for index, passage in enumerate(wanted)}
    moved = {
        name: Split(
            one.queries, [{index_of[set_.corpus[i]] for i in some} for some in one.positives]
        )
        for name, one in splits.items()
    }
    return RetrievalSet(set_.name, train, list(wanted), moved["tune"], moved["test"])


def _drawn(total: int, most: int, rng: np.random.Generator) -> list[int]:
    """Up to `most` of so many, in their order."""
    drawn: list[int] = np.sort(rng.permutation(total)[:most]).tolist()
    return drawn


def write_files(set_: RetrievalSet, directory: Path) -> None:
    """Write a set as Parquet, in the layout that the command line reads.

    `pairs.parquet`, `tune.parquet` and `test.parquet` have the columns `query` and `passage`, one
    row a positive; `corpus.parquet` has the column `passage`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    write_pairs(set_.train, directory / "pairs.parquet")
    pq.write_table(pa.table({"passage": set_.corpus}), directory / "corpus.parquet")
    write_pairs(split_pairs(set_.tune, set_.corpus), directory / "tune.parquet")
    write_pairs(split_pairs(set_.test, set_.corpus), directory / "test.parquet")


def split_pairs(split: Split, corpus: Sequence[str]) -> list[Pair]:
    """Return one (query, passage) a positive, in the order of queries, then of the corpus."""
    return [
        (query, corpus[index])
        for query, positives in zip(split.queries, split.positives, strict=True)
        for index in sorted(positives)
    ]


def read_pairs(path: Path) -> list[Pair]:
    """Read the columns `query` and `passage` of a Parquet file."""
    table = pq.read_table(path, columns=["query", "passage"])
    return list(zip(table["query"].to_pylist(), table["passage"].to_pylist(), strict=True))


def write_pairs(pairs: Iterable[Pair], path: Path) -> None:
    """Write pairs as a Parquet file with the columns `query` and `passage`."""
    queries, passages = zip(*pairs, strict=True)
    pq.write_table(pa.table({"query": list(queries), "passage": list(passages)}), path)


def beir_set(name: str) -> tuple[Split, list[str]]:
    """The test queries of a BEIR folder below `STX_DATA`, and its passages."""
    folder = beir_folder(name)
    queries = read_beir_texts(folder / "queries.jsonl")
    passages = read_beir_texts(folder / "corpus.jsonl")
    corpus = list(dict.fromkeys(passages.values()))
    index_of = {passage: index for index, passage in enumerate(corpus)}
    judged = read_beir_qrels(folder, "test")
    pairs = [(queries[query], passages[passage]) for query, passage, grade in judged if grade > 0]
    return make_split(pairs, index_of), corpus


# --- splitting -------------------------------------------------------------------------------


def text_key(text: str) -> str:
    """Return what two texts share if they count as the same text."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def canonical_pairs(pairs: Iterable[Pair]) -> list[Pair]:
    """Keep each pair of texts once, every text spelt as it first occurred.

    A pair whose passage is its query, and a pair with an empty text, is left out.
    """
    spelling: dict[str, str] = {}
    kept: dict[Pair, None] = {}
    for query, passage in pairs:
        keys = text_key(query), text_key(passage)
        if all(keys) and keys[0] != keys[1]:
            first_query = spelling.setdefault(keys[0], query)
            kept[first_query, spelling.setdefault(keys[1], passage)] = None
    return list(kept)


def component_of_pairs(pairs: Sequence[Pair]) -> np.ndarray:
    """Number the connected components of the graph whose nodes are texts and edges are pairs.

    Returns:
        int32 `[num_pairs]`: the component of each pair. A text is one node in both roles.
    """
    nodes: dict[str, int] = {}
    edges = np.array(
        [[nodes.setdefault(text_key(text), len(nodes)) for text in pair] for pair in pairs]
    )
    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=[len(nodes)] * 2)
    component_of_node: np.ndarray = connected_components(graph, directed=False)[1]
    component_of_pair: np.ndarray = component_of_node[edges[:, 0]]
    return component_of_pair


def take_components(
    pairs: Sequence[Pair], num_queries: int, rng: np.random.Generator
) -> tuple[list[Pair], list[Pair]]:
    """Take whole small components, in random order, until they hold enough queries.

    Args:
        pairs: The pairs to choose from.
        num_queries: Stop at this many distinct queries; the last component may exceed it.
        rng: Orders the components of at most `MAX_COMPONENT_ROWS` pairs; larger ones stay.

    Returns:
        The pairs taken and the pairs left, both in the order given.
    """
    component_of = component_of_pairs(pairs).tolist()
    queries_of: dict[int, set[str]] = {}
    for component, (query, _) in zip(component_of, pairs, strict=True):
        queries_of.setdefault(component, set()).add(text_key(query))
    small = np.flatnonzero(np.bincount(component_of) <= MAX_COMPONENT_ROWS)
    taken: set[int] = set()
    num_taken = 0
    for component in rng.permutation(small).tolist():
        if num_taken >= num_queries:
            break
        taken.add(component)
        num_taken += len(queries_of[component])
    inside = [pair for pair, c in zip(pairs, component_of, strict=True) if c in taken]
    outside = [pair for pair, c in zip(pairs, component_of, strict=True) if c not in taken]
    return inside, outside


def make_split(pairs: Iterable[Pair], index_of: dict[str, int]) -> Split:
    """Gather the positives of each query, as indices into the corpus."""
    positives_of: dict[str, set[int]] = {}
    for query, passage in pairs:
        positives_of.setdefault(query, set()).add(index_of[passage])
    return Split(list(positives_of), list(positives_of.values()))


# --- nl2bash: a BEIR folder ------------------------------------------------------------------


def read_nl2bash() -> list[Pair]:
    """Read the pairs of nl2bash from its BEIR folder below `STX_DATA`."""
    folder = beir_folder("nl2bash")
    passages = read_beir_texts(folder / "corpus.jsonl")
    queries = read_beir_texts(folder / "queries.jsonl")
    judged = read_beir_qrels(folder, "train")
    return [(queries[query], passages[passage]) for query, passage, grade in judged if grade > 0]


def beir_folder(name: str) -> Path:
    """A BEIR folder below `STX_DATA`.

    Raises:
        FileNotFoundError: It is not there.
    """
    folder = Path(os.environ.get("STX_DATA", ROOT.parent / "shared" / "data")) / name
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing: set STX_DATA to the folder that holds it")
    return folder


def read_beir_qrels(folder: Path, split: str) -> list[tuple[str, str, int]]:
    """The id of the query, that of the passage, and the grade of each judgement of a split."""
    lines = (folder / "qrels" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()[1:]
    rows = (line.split("\t") for line in lines)
    return [(query, passage, int(grade)) for query, passage, grade in rows]


def read_beir_texts(path: Path) -> dict[str, str]:
    """Map each `_id` of a BEIR file to its title and text, joined by a space."""
    texts = {}
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            texts[row["_id"]] = f"{row.get('title', '')} {row['text']}".strip()
    return texts


def read_wheels(name: str) -> list[Pair]:
    """Read the pairs of a set of `_WHEELS` from the cache, or from its wheels."""
    path = CACHE / f"{name}.parquet"
    if not path.is_file():
        found = list(_WHEELS[name]())
        partial = path.with_suffix(".tmp")
        write_pairs(found, partial)
        partial.replace(path)
    return read_pairs(path)


def main() -> None:
    """Print the sizes of every set."""
    print(f"{'set':<10}{'train':>9}{'corpus':>9}{'tune':>7}{'test':>7}{'positives/query':>17}")
    for name in NAMES:
        set_ = load(name)
        mean_positives = float(np.mean([len(p) for p in set_.test.positives]))
        print(
            f"{name:<10}{len(set_.train):>9,}{len(set_.corpus):>9,}{len(set_.tune.queries):>7,}"
            f"{len(set_.test.queries):>7,}{mean_positives:>17.2f}"
        )


if __name__ == "__main__":
    main()
