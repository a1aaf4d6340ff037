"""Near-duplicates: `stx-mine dedup` beside MinHash of datasketch and SemHash, on planted edits.

15,000 texts that share less than half of their words, two WordNet glosses each, and 5,000 edits
of them: other case, other punctuation, one word in ten changed, the last tenth cut off, or another
number. An edit with another number is another text. A pair of texts counts as found where both lie
in one cluster; precision is over all pairs that were found, recall over the edits that are
duplicates.

    python -m benchmarks.dedup [--quick] [--texts 1000000] [--output benchmarks/results/dedup.json]

The peers need `pip install datasketch==2.0.0 semhash==0.5.0`; one that is missing is left out, and
named. datasketch is used as `text-dedup` does: word n-grams, 128 permutations, LSH, union-find.
SemHash embeds with the model that we embed with (`package:wordllama`). Time (wall) and memory
are those of a fresh process with two threads; ours includes all that `dedup` does after `ingest`.
"""

import argparse
import importlib.util
import json
import re
import string
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import machine
from benchmarks.datasets import text_key
from benchmarks.fresh import PeakMemory, run_fresh
from benchmarks.wheels import ROOT

SEED = 7
KINDS = ("case", "punctuation", "word", "truncation", "number")
# A setting of each tool is `tool:threshold`, of ours with the words of a shingle.
OURS = ("ours:1:0.7", "ours:1:0.75", "ours:2:0.55", "ours:2:0.6", "ours:2:0.7")
PEERS = ("datasketch:1:0.7", "datasketch:2:0.55", "datasketch:2:0.6", "semhash:0.9", "semhash:0.95")
QUICK = ("ours:1:0.7", "ours:2:0.6", "datasketch:1:0.7", "semhash:0.95")
COSTS = ("ours:1:0.7", "datasketch:1:0.7", "semhash:0.95")
_NEEDS = {"datasketch": "datasketch", "semhash": "semhash"}
_THREADS = 2
_NO_WORD = re.compile(r"\W")


def glosses() -> list[str]:
    """Texts of WordNet, in random order."""
    table = pq.read_table(ROOT / "data/quickstart/corpus.parquet")
    texts = table.column("passage").to_pylist()
    return [texts[row] for row in np.random.default_rng(SEED).permutation(len(texts))]


def base_texts(count: int) -> list[str]:
    """Texts of two glosses that share less than half of their words with each other."""
    found, holders = list[str](), dict[str, list[int]]()
    sets = list[set[str]]()
    texts = glosses()
    rng = np.random.default_rng(SEED)
    while len(found) < count:
        first, second = rng.choice(len(texts), 2, replace=False)
        text = f"{texts[first]}; {texts[second]}"
        if any(letter.isdigit() for letter in text):
            continue
        words = set(text.lower().split())
        shared = dict[int, int]()
        for word in words:
            for other in holders.get(word, ()):
                shared[other] = shared.get(other, 0) + 1
        if any(n / len(words | sets[other]) >= 0.5 for other, n in shared.items() if n >= 5):
            continue
        for word in words:
            # Words that nearly all texts hold tell nothing apart.
            holders.setdefault(word, []).append(len(found))
        found.append(text)
        sets.append(words)
    return found


def planted(num_base: int, num_edits: int) -> tuple[list[str], list[tuple[int, int, str]]]:
    """Texts in random order, and (text, edit of it, kind) by their places."""
    rng = np.random.default_rng(SEED + 1)
    texts = base_texts(num_base)
    words = sorted({word for text in texts for word in text.split() if word.isalpha()})
    edits = []
    for number in range(num_edits):
        kind = KINDS[number % len(KINDS)]
        if kind == "number":
            texts[number] += f" in {rng.integers(1_000, 2_000)}"
        edits.append((number, len(texts), kind))
        texts.append(edited(texts[number], kind, words, rng))
    order = rng.permutation(len(texts))
    places = np.argsort(order)
    edits = [(int(places[a]), int(places[b]), kind) for a, b, kind in edits]
    return [texts[row] for row in order], edits


def edited(text: str, kind: str, words: Sequence[str], rng: np.random.Generator) -> str:
    """One edit of a text."""
    parts = text.split()
    some = max(1, len(parts) // 10)
    match kind:
        case "case":
            return text.upper() if rng.random() < 0.5 else text.title()
        case "punctuation":
            bare = text.translate(str.maketrans("", "", ";,.:!?()"))
            return f"{bare}." if rng.random() < 0.5 else f'"{bare}"!'
        case "word":
            for place in rng.choice(len(parts), some, replace=False):
                parts[place] = str(rng.choice(words))
            return " ".join(parts)
        case "truncation":
            return " ".join(parts[:-some])
        case _:
            return " ".join([*parts[:-1], str(int(parts[-1]) + int(rng.integers(1, 90)))])


def many_texts(count: int) -> Iterator[list[str]]:
    """Blocks of texts of three glosses; one in five is an edit of one before it."""
    rng = np.random.default_rng(SEED + 2)
    texts = glosses()
    words = list(string.ascii_lowercase)
    for first in range(0, count, 50_000):
        size = min(50_000, count - first)
        block = [
            "; ".join(texts[one] for one in row) for row in rng.integers(0, len(texts), (size, 3))
        ]
        for place in range(0, size - 1, 5):
            block[place + 1] = edited(block[place], KINDS[place // 5 % 4], words, rng)
        yield block


# --- the tools: a cluster for each text ------------------------------------------------------


def cluster_ours(path: Path, words: str, threshold: str) -> tuple[list[int], float]:
    """The group of each text, and the seconds of `dedup`."""
    from stx_mine.stages.dedup.config import DedupConfig
    from stx_mine.stages.dedup.stage import run_dedup
    from stx_mine.stages.ingest.config import IngestConfig
    from stx_mine.stages.ingest.stage import run_ingest
    from stx_mine.store.artifact import require
    from stx_mine.store.groups import TextGroups
    from stx_mine.store.run_dir import RunDir
    from stx_mine.store.texts import TextStore

    with tempfile.TemporaryDirectory() as folder:
        pairs = Path(folder, "pairs.parquet")
        first = pq.read_table(path).slice(0, 1).column("text").to_pylist()
        pq.write_table(pa.table({"query": ["a question of no text"], "passage": first}), pairs)
        run = str(Path(folder, "run"))
        run_ingest(IngestConfig(pairs=str(pairs), corpus=str(path), run_dir=run))
        began = time.perf_counter()
        run_dedup(
            DedupConfig(
                run_dir=run, jaccard=float(threshold), shingle_size=int(words), max_joined=1
            )
        )
        seconds = time.perf_counter() - began
        groups = TextGroups.open(require(RunDir(run), "groups")).passages.tolist()
        passages = TextStore.open(require(RunDir(run), "texts")).passages.column("text")
        # `ingest` has numbered distinct texts.
        by_text = dict(zip(map(text_key, passages.to_pylist()), groups, strict=True))
        return [by_text[text_key(text)] for text in read(path)], seconds


def cluster_datasketch(path: Path, words: str, threshold: str) -> tuple[list[int], float]:
    """Union-find over what the LSH of datasketch returns for each text."""
    from datasketch import MinHash, MinHashLSH

    texts, size = read(path), int(words)
    began = time.perf_counter()
    lsh = MinHashLSH(threshold=float(threshold), num_perm=128)
    parents = list(range(len(texts)))

    def root(one: int) -> int:
        while parents[one] != one:
            parents[one] = parents[parents[one]]
            one = parents[one]
        return one

    for number, text in enumerate(texts):
        tokens = [token for token in _NO_WORD.split(text.lower()) if token]
        grams = {" ".join(tokens[i : i + size]) for i in range(max(1, len(tokens) - size + 1))}
        sketch = MinHash(num_perm=128)
        sketch.update_batch([gram.encode() for gram in grams])
        for other in lsh.query(sketch):
            a, b = root(number), root(other)
            parents[max(a, b)] = min(a, b)
        lsh.insert(number, sketch)
    return [root(number) for number in range(len(texts))], time.perf_counter() - began


def cluster_semhash(path: Path, threshold: str) -> tuple[list[int], float]:
    """Each text and those that SemHash drops for it."""
    from semhash import SemHash

    from stx_mine.models.load import load_model

    texts = read(path)
    began = time.perf_counter()
    model = load_model("package:wordllama", "cpu")
    index = SemHash.from_records(records=texts, model=_Encoder(model))
    found = index.self_deduplicate(threshold=float(threshold))
    seconds = time.perf_counter() - began
    # It counts equal texts once, and a text is known by itself.
    clusters = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    for one in found.filtered:
        for other, _ in one.duplicates[:1]:
            clusters[one.record] = clusters[other]
    return [clusters[text] for text in texts], seconds


class _Encoder:
    """A model as SemHash calls it."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def encode(self, inputs: Sequence[str], **_: Any) -> Any:
        return self._model.encode(list(inputs), batch_size=1_024)


def read(path: Path) -> list[str]:
    """All texts."""
    return pq.read_table(path).column("text").to_pylist()


TOOLS = {"ours": cluster_ours, "datasketch": cluster_datasketch, "semhash": cluster_semhash}


def measure(setting: str, path: Path, edits: Path | None) -> dict[str, Any]:
    """Run one tool in this process."""
    tool, *options = setting.split(":")
    with PeakMemory() as memory:
        clusters, seconds = TOOLS[tool](path, *options)
    cost = {"seconds": round(seconds, 2), "rss_mb": round(memory.rss_mb)}
    if edits is None:
        return cost | {"joined": len(clusters) - len(set(clusters))}
    return cost | judged(clusters, json.loads(edits.read_text()))


def judged(clusters: Sequence[int], edits: Iterable[tuple[int, int, str]]) -> dict[str, Any]:
    """Precision over pairs of one cluster, recall over edits, in all and by kind."""
    wanted = {(min(a, b), max(a, b)) for a, b, kind in edits if kind != "number"}
    members = dict[int, list[int]]()
    for text, cluster in enumerate(clusters):
        members.setdefault(cluster, []).append(text)
    found = {pair for group in members.values() for pair in combinations(group, 2)}
    joined = {
        kind: float(np.mean([clusters[a] == clusters[b] for a, b, other in edits if other == kind]))
        for kind in KINDS
    }
    return {
        "precision": round(len(found & wanted) / max(1, len(found)), 4),
        "recall": round(len(found & wanted) / len(wanted), 4),
        "joined_by_kind": {kind: round(share, 4) for kind, share in joined.items()},
    }


def available(settings: Iterable[str]) -> list[str]:
    """Those whose tool is installed; the others are named."""
    found = []
    for setting in settings:
        needs = _NEEDS.get(setting.split(":")[0])
        if needs and importlib.util.find_spec(needs) is None:
            print(f"{setting} is left out: {needs} is not installed")
        else:
            found.append(setting)
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer texts and settings")
    parser.add_argument("--texts", type=int, help="texts of the measurement of costs")
    parser.add_argument("--output", type=Path, help="where to write the full results")
    parser.add_argument("--setting", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.setting:
        setting, path, *edits = arguments.setting
        print(json.dumps(measure(setting, Path(path), Path(edits[0]) if edits else None)))
        return
    quick = arguments.quick
    quality, costs = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        path, edits = Path(folder, "texts.parquet"), Path(folder, "edits.json")
        texts, pairs = planted(*((3_000, 1_000) if quick else (15_000, 5_000)))
        pq.write_table(pa.table({"text": texts}), path)
        edits.write_text(json.dumps(pairs))
        for setting in available(QUICK if quick else (*OURS, *PEERS)):
            words = ["--setting", setting, str(path), str(edits)]
            quality[setting] = run_fresh("benchmarks.dedup", words, _THREADS)
            print(setting, quality[setting])
        most = arguments.texts or (20_000 if quick else 1_000_000)
        for count in dict.fromkeys((most // 10, most)):
            many = Path(folder, f"many-{count}.parquet")
            with pq.ParquetWriter(many, pa.schema([("text", pa.string())])) as writer:
                for block in many_texts(count):
                    writer.write_table(pa.table({"text": block}))
            # Peers that need many minutes for all are compared on a tenth.
            for setting in available(COSTS if count < most else COSTS[:1]):
                cost = run_fresh("benchmarks.dedup", ["--setting", setting, str(many)], _THREADS)
                costs[f"{setting} {count}"] = cost
                print(setting, count, cost)
    headline = {"quality": quality, "costs": costs}
    if arguments.output:
        content = {"machine": machine.describe(), "quick": quick, **headline}
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(headline))


if __name__ == "__main__":
    main()
