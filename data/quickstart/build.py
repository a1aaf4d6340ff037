"""Rebuild the quickstart data: WordNet 3.0 usage examples and the definitions they illustrate.

    python data/quickstart/build.py --wordnet /usr/share/wordnet

A query is one quoted usage example of a synset, its positive passage is "lemma: definition". The
dev split holds whole connected components of the query-passage graph, so that no dev text is a
training text. The same WordNet files, seed and pyarrow version give the same bytes.
"""

import argparse
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")
NUM_DEV_QUERIES = 3_000
MAX_COMPONENT_ROWS = 50
SEED = 42

Pair = tuple[str, str]


@dataclass(frozen=True)
class Gloss:
    """The two halves of a WordNet gloss: what the synset means, and how it is used."""

    definition: str
    examples: tuple[str, ...]


def parse_gloss(gloss: str) -> Gloss | None:
    """Split a gloss into its definition and its quoted examples.

    The examples start at the first quotation that follows a separator outside brackets; a
    quotation before that ('the phrase "make strides"') belongs to the definition. What follows
    a closing quote (an author's name, a remark) is left out.

    Returns:
        None if the quotation marks are unbalanced, which a few glosses of WordNet 3.0 are.
    """
    spans = gloss.split('"')
    if len(spans) % 2 == 0:
        return None
    for opening in range(1, len(spans), 2):
        before = '"'.join(spans[:opening]).rstrip()
        if before.endswith((";", ":", ",", ".")) and before.count("(") == before.count(")"):
            examples = (collapse(example) for example in spans[opening::2])
            return Gloss(clean_definition(before), tuple(filter(None, examples)))
    return Gloss(clean_definition(gloss), ())


def clean_definition(text: str) -> str:
    """Return `text` without the separators, or the "e.g.", that introduced the examples."""
    text = collapse(text).rstrip(" ;:,")
    return text.removesuffix("e.g.").rstrip(" ;:,")


def collapse(text: str) -> str:
    """Return `text` with every run of white space made one space, and none at the ends."""
    return " ".join(text.split())


def first_lemma(fields: str) -> str:
    """Return the first lemma of a synset line as plain text, without adjective markers."""
    lemma = fields.split()[4]
    return lemma.partition("(")[0].replace("_", " ")


def read_pairs(lines: Iterable[str]) -> Iterator[Pair]:
    """Yield (example, "lemma: definition") for each example in the lines of a `data.*` file."""
    for line in lines:
        if line.startswith("  "):  # the licence that heads every file
            continue
        fields, _, text = line.partition("|")
        gloss = parse_gloss(text)
        if gloss is None:
            continue
        for example in gloss.examples:
            yield example, f"{first_lemma(fields)}: {gloss.definition}"


def text_key(text: str) -> str:
    """Return what two texts share if they count as the same text."""
    return collapse(unicodedata.normalize("NFKC", text))


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


def choose_dev(pairs: Sequence[Pair], rng: np.random.Generator) -> np.ndarray:
    """Choose whole small components, in random order, until there are enough dev queries.

    Returns:
        bool `[num_pairs]`: True where the pair is a dev pair.
    """
    component_of = component_of_pairs(pairs)
    queries_of: dict[int, set[str]] = {}
    for component, (query, _) in zip(component_of.tolist(), pairs, strict=True):
        queries_of.setdefault(component, set()).add(text_key(query))
    num_rows = np.bincount(component_of)
    chosen: list[int] = []
    num_queries = 0
    for component in rng.permutation(np.flatnonzero(num_rows <= MAX_COMPONENT_ROWS)).tolist():
        if num_queries >= NUM_DEV_QUERIES:
            break
        chosen.append(component)
        num_queries += len(queries_of[component])
    return np.isin(component_of, chosen)


def write(path: Path, columns: dict[str, list[str]]) -> None:
    """Write string columns as one Parquet row group, as small as zstd makes it."""
    pq.write_table(
        pa.table(columns),
        path,
        compression="zstd",
        compression_level=22,
        row_group_size=1 << 20,
        data_page_size=1 << 24,
        dictionary_pagesize_limit=1 << 24,
        write_statistics=False,
    )
    print(f"{path.name}: {len(next(iter(columns.values()))):,} rows, {path.stat().st_size:,} bytes")


def write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    """Write pairs as the columns `query` and `passage`."""
    queries, passages = zip(*pairs, strict=True)
    write(path, {"query": list(queries), "passage": list(passages)})


def build(wordnet: Path, directory: Path) -> None:
    """Read WordNet's files and write `pairs`, `corpus` and `dev` into `directory`."""
    seen: dict[Pair, None] = {}
    for part in PARTS_OF_SPEECH:
        with (wordnet / f"data.{part}").open(encoding="ascii") as lines:
            seen.update(dict.fromkeys(read_pairs(lines)))
    pairs = list(seen)
    directory.mkdir(parents=True, exist_ok=True)
    is_dev = choose_dev(pairs, np.random.default_rng(SEED))
    write_pairs(directory / "pairs.parquet", (pairs[i] for i in np.flatnonzero(~is_dev)))
    write_pairs(directory / "dev.parquet", (pairs[i] for i in np.flatnonzero(is_dev)))
    write(directory / "corpus.parquet", {"passage": list(dict.fromkeys(p for _, p in pairs))})


def main() -> None:
    """Parse the command line and build the data."""
    parser = argparse.ArgumentParser(description="Rebuild the quickstart data from WordNet 3.0.")
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    missing = [p for p in PARTS_OF_SPEECH if not (arguments.wordnet / f"data.{p}").is_file()]
    if missing:
        sys.exit(
            f"error: no data.{missing[0]} in {arguments.wordnet}: run `apt-get install "
            "wordnet-base`, or name WordNet's folder with --wordnet"
        )
    build(arguments.wordnet, arguments.output)


if __name__ == "__main__":
    main()
