"""`dedup --against`: planted leaks beside brute force, what is dropped, and what is refused."""

import json
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Cli
from hypothesis import given, settings
from hypothesis import strategies as st

from stx_mine.core.ragged import ragged_sets
from stx_mine.core.terms import terms
from stx_mine.errors import ConfigError, InputError
from stx_mine.inputs.config import Source
from stx_mine.models.load import load_model
from stx_mine.stages.dedup.config import DedupConfig
from stx_mine.stages.dedup.core.best_matches import best_matches
from stx_mine.stages.dedup.core.shingles import jaccards
from stx_mine.stages.dedup.leaks import LEAKS
from stx_mine.stages.dedup.near_texts import near_pairs
from stx_mine.stages.dedup.stage import run_dedup
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.evaluate.config import EvaluateConfig
from stx_mine.stages.evaluate.stage import run_evaluate
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.store.artifact import require
from stx_mine.store.groups import TextGroups
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

FAMILIES = 30
WORDS = "amber bridge candle desert engine forest garden harbor island jungle kettle".split()
Pair = tuple[str, str]


def sentence(number: int, length: int = 12) -> str:
    rng = np.random.default_rng(number)
    words = [f"{word}{chr(97 + n)}" for word in WORDS for n in range(26)]
    return " ".join(rng.choice(words, length, False))


def near(text: str) -> str:
    first, *rest = text.split()
    return " ".join([first, *rest[:-1], "otherwise"])


def turned(text: str) -> str:
    """The same words in another order: the same vector of a static model, no shingle of two."""
    return " ".join(text.split()[::-1])


QUERIES = [sentence(number) for number in range(FAMILIES)]
PASSAGES = [sentence(1_000 + number) for number in range(FAMILIES)]
TRAINING: list[Pair] = list(zip(QUERIES, PASSAGES, strict=True))
# Queries 0 to 3 and positives 10 to 13 leak: as they are, by case, nearly, and by their words.
EDITS = (str, lambda text: f"{text.upper()}!", near, turned)
FIRST: list[Pair] = [
    *((edit(QUERIES[n]), sentence(2_000 + n)) for n, edit in enumerate(EDITS)),
    *((sentence(3_000 + n), edit(PASSAGES[10 + n])) for n, edit in enumerate(EDITS)),
    # Another number is another text.
    (f"{QUERIES[20]} 7", sentence(4_000)),
]
# In the roles of the other side.
SECOND: list[Pair] = [(PASSAGES[15], sentence(5_000)), (sentence(5_001), QUERIES[16])]


def write_pairs(path: Path, pairs: list[Pair]) -> Path:
    columns = {"query": [query for query, _ in pairs], "passage": [text for _, text in pairs]}
    pq.write_table(pa.table(columns), path)
    return path


def write_folder(folder: Path, pairs: list[Pair]) -> Path:
    """A BEIR folder whose corpus has a passage of training that is relevant to nothing."""
    (folder / "qrels").mkdir(parents=True)
    queries = [{"_id": f"q{n}", "text": query} for n, (query, _) in enumerate(pairs)]
    # Of other qrels: it is no query of the test.
    queries.append({"_id": "other", "text": QUERIES[29]})
    corpus = [{"_id": f"p{n}", "title": "", "text": text} for n, (_, text) in enumerate(pairs)]
    corpus.append({"_id": "more", "title": "", "text": PASSAGES[28]})
    for name, rows in (("queries", queries), ("corpus", corpus)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [f"q{n}\tp{n}\t1\n" for n in range(len(pairs))]
    for name, some in (("test", lines), ("train", ["other\tmore\t1\n"])):
        header = "query-id\tcorpus-id\tscore\n"
        (folder / f"qrels/{name}.tsv").write_text(header + "".join(some))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an embedded run, `first.parquet` and the BEIR folder `second`."""
    folder = tmp_path_factory.mktemp("leaks")
    write_pairs(folder / "first.parquet", FIRST)
    write_folder(folder / "second", SECOND)
    pairs = write_pairs(folder / "pairs.parquet", TRAINING)
    settings = {"model": "package:wordllama", "device": "cpu"}
    run_embed(EmbedConfig(pairs=str(pairs), run_dir=str(folder / "run"), **settings))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "all")
    return tmp_path / "all"


def dedup(folder: Path, *names: str, **options: Any):
    against = tuple(str(folder / name) for name in names)
    return run_dedup(DedupConfig(run_dir=str(folder / "run"), against=against, **options))


def leaks_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of the leaks, their text of training beside them."""
    run = RunDir(folder / "run")
    store, manifest = TextStore.open(require(run, "texts")), require(run, "duplicates", "leaks")
    texts = store.passages["text"].to_pylist() + store.queries["text"].to_pylist()
    return [
        {**row, "training": texts[row["text_id"]], "evaluation": Path(row["evaluation"]).name}
        for row in manifest.table(LEAKS).to_pylist()
    ]


def shingles_of(text: str) -> set[tuple[str, ...]]:
    words = [text[a:b] for a, b in terms(text)]
    return {tuple(words[i : i + 2]) for i in range(len(words) - 1)}


def expected_leaks(jaccard: float, cosine: float) -> set[tuple[str, str, str, str]]:
    """(training text, set, text, kind) of every leak, by looking at every pair of texts."""
    form = {text: text.lower().strip("!") for text in np.unique([*TRAINING, *FIRST, *SECOND])}
    vectors = dict(zip(form, load_model("package:wordllama", "cpu").encode([*form]), strict=True))

    def score(one: str, other: str, same_role: bool) -> tuple[int, float]:
        if form[one] == form[other]:
            return 0, 1.0
        if [c for c in one if c.isdigit()] != [c for c in other if c.isdigit()]:
            return 3, 0.0
        a, b = shingles_of(form[one]), shingles_of(form[other])
        if len(a & b) / len(a | b) >= jaccard:
            return 1, len(a & b) / len(a | b)
        close = vectors[one] @ vectors[other]
        close /= np.linalg.norm(vectors[one]) * np.linalg.norm(vectors[other])
        return (2, float(close)) if same_role and close >= cosine else (3, 0.0)

    found = set()
    for side, name, pairs in product((0, 1), ("first.parquet", "second"), (FIRST, SECOND)):
        if (name == "second") != (pairs is SECOND):
            continue
        for text in {pair[side] for pair in TRAINING}:
            others = [(pair[role], role) for pair in pairs for role in (0, 1)]
            scored = [(*score(text, other, role == side), other) for other, role in others]
            kind, _, other = min(scored, key=lambda one: (one[0], -one[1]))
            if kind < 3:
                found.add((text, name, other, ("exact", "jaccard", "cosine")[kind]))
    return found


def test_leaks_are_those_of_every_pair_of_texts(folder: Path) -> None:
    report = dedup(folder, "first.parquet", "second", jaccard=0.7, cosine=0.9)
    rows = leaks_of(folder)
    found = {(row["training"], row["evaluation"], row["text"], row["kind"]) for row in rows}
    assert found == expected_leaks(0.7, 0.9)
    kinds = ("exact", "exact", "jaccard", "cosine")
    planted = {(QUERIES[n], "first.parquet", FIRST[n][0], kind) for n, kind in enumerate(kinds)}
    planted |= {
        (PASSAGES[10 + n], "first.parquet", FIRST[4 + n][1], kind) for n, kind in enumerate(kinds)
    }
    planted |= {(text, "second", text, "exact") for text in (PASSAGES[15], QUERIES[16])}
    assert found == planted and len(rows) == len(planted)
    counts = require(RunDir(folder / "run"), "duplicates", "leaks").counts
    by_kind = {"exact": 2, "jaccard": 1, "cosine": 1}
    assert counts["sets"][str(folder / "first.parquet")] == {
        "queries": 9,
        "positives": 9,
        "queries_found": 4,
        "positives_found": 4,
        "pairs_by_query": by_kind,
        "pairs_by_positive": by_kind,
    }
    # In `second` neither the query of other qrels nor what is relevant to nothing is one.
    assert counts["sets"][str(folder / "second")] == {
        "queries": 2,
        "positives": 2,
        "queries_found": 1,
        "positives_found": 1,
        "pairs_by_query": {"exact": 1},
        "pairs_by_positive": {"exact": 1},
    }
    assert counts["other_numbers"] >= 1
    said = "\n".join(report.lines)
    assert (
        f'  equal: "{PASSAGES[15][:70]}..." = "{PASSAGES[15][:70]}..." (query of the set)' in said
    )
    assert "--drop-leaks queries would drop 5 pairs, --drop-leaks texts 10" in said
    assert not len(TextGroups.open(require(RunDir(folder / "run"), "groups")).dropped_pairs)


def test_without_thresholds_equal_texts_are_found_alone(folder: Path) -> None:
    dedup(folder, "first.parquet", ignore="nothing")
    assert {row["training"] for row in leaks_of(folder)} == {QUERIES[0], PASSAGES[10]}
    # Other sets, or other settings, are looked for without being asked to overwrite.
    dedup(folder, "second", ignore="nothing")
    assert {row["training"] for row in leaks_of(folder)} == {PASSAGES[15], QUERIES[16]}
    numbers = {"ignore": "case,punctuation,numbers", "overwrite": True}
    dedup(folder, "first.parquet", jaccard=0.7, **numbers)
    assert QUERIES[20] in {row["training"] for row in leaks_of(folder)}


@pytest.mark.parametrize(("which", "dropped"), [("queries", 5), ("texts", 10)])
def test_leaks_are_dropped_and_evaluate_sees_none(folder: Path, which: str, dropped: int) -> None:
    options = {"jaccard": 0.7, "cosine": 0.9, "drop_leaks": which}
    report = dedup(folder, "first.parquet", "second", **options)
    assert report.counts["dropped_pairs"] == dropped
    reasons = {"leaked_query": 5, "leaked_positive": dropped - 5, "repeated": 0}
    assert report.counts["pairs_dropped"] == reasons
    assert any(f"{reasons['leaked_query']} for their query" in line for line in report.lines)
    again = dedup(folder, "first.parquet", "second", **options)
    assert again.skipped and again.lines == report.lines
    run = str(folder / "run")
    mined = run_mine(MineConfig(run_dir=run, k=1, device="cpu", relative_margin=None))
    assert mined.counts["pairs_dropped"]["dedup"] == dropped
    assert mined.counts["rows"] == FAMILIES - dropped
    data = (str(folder / "first.parquet"), str(folder / "second"))
    run_evaluate(EvaluateConfig(data=data, run_dir=run, device="cpu"))
    for name in ("first", "second"):
        results = json.loads((folder / f"run/evaluations/{name}/results.json").read_text())
        seen = results["seen_in_training"]
        assert seen["by_text"]["seen"] == 0
        left = int(which == "queries" and name == "first")
        assert seen["by_positive"]["seen"] == seen["by_group"]["seen"] == left


def test_the_device_changes_nothing(folder: Path) -> None:
    dedup(folder, "first.parquet", cosine=0.9)
    run = RunDir(folder / "run")
    before = {kind: require(run, "duplicates", kind).digest for kind in ("cosine", "leaks")}
    for kind in before:
        shutil.rmtree(folder / "run/duplicates" / kind)
    dedup(folder, "first.parquet", cosine=0.9, device="cpu")
    assert {kind: require(run, "duplicates", kind).digest for kind in before} == before
    with pytest.raises(ConfigError, match=r"--device cuda:99 is not here"):
        dedup(folder, cosine=0.9, device="cuda:99")
    with pytest.raises(ConfigError, match=r"--device cpu needs --cosine"):
        dedup(folder, device="cpu")


def test_what_cannot_be_done_is_refused_in_one_line(folder: Path, cli_here: Cli) -> None:
    with pytest.raises(ConfigError, match=r"first.parquet is named twice"):
        dedup(folder, "first.parquet", "first.parquet")
    with pytest.raises(ConfigError, match=r"--query-column query .* found no --against"):
        dedup(folder, query_column="query")
    with pytest.raises(ConfigError, match=r"--drop-leaks queries needs --against"):
        dedup(folder, drop_leaks="queries")
    with pytest.raises(InputError, match=r"nothing\.parquet"):
        dedup(folder, "nothing.parquet")
    with pytest.raises(ConfigError, match=r"leaves none of the 30 pairs .* `stx-mine split`"):
        dedup(folder, "pairs.parquet", drop_leaks="queries")
    report = dedup(folder, "pairs.parquet")
    assert any("100% of the training pairs" in line for line in report.warnings)
    words = ("--jaccard", "0.01", "--shingle-size", "1", "--max-joined", "0.1")
    done = cli_here("dedup", *words, run_dir=folder / "run")
    assert "expected to join at most 10% of the 60 texts (--max-joined), found " in done.error
    assert "Give a higher threshold" in done.error


def test_vectors_without_a_model_leave_letters(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.parquet", TRAINING)
    write_pairs(tmp_path / "first.parquet", FIRST)
    vectors = np.random.default_rng(0).normal(size=(FAMILIES, 8)).astype(np.float32)
    for name in ("queries", "passages"):
        np.save(tmp_path / f"{name}.npy", vectors)
    given = {
        f"{name}_vectors": str(tmp_path / f"{file}.npy")
        for name, file in (("query", "queries"), ("passage", "passages"))
    }
    run_embed(EmbedConfig(pairs=str(pairs), run_dir=str(tmp_path / "run"), **given))
    report = dedup(tmp_path, "first.parquet", jaccard=0.7, cosine=0.9, max_joined=1)
    assert {row["kind"] for row in leaks_of(tmp_path)} == {"exact", "jaccard"}
    assert any("compared by their letters alone" in line for line in report.warnings)


def test_sources_of_different_prompts_are_said(tmp_path: Path, tiny_transformer: Path) -> None:
    write_pairs(tmp_path / "first.parquet", FIRST)
    sources = tuple(
        Source(
            name=name,
            path=str(write_pairs(tmp_path / f"{name}.parquet", pairs)),
            query_prompt=f"{name}: ",
        )
        for name, pairs in (("one", TRAINING[:15]), ("two", TRAINING[15:]))
    )
    model = str(tiny_transformer)
    run_embed(EmbedConfig(sources=sources, model=model, run_dir=str(tmp_path / "run")))
    report = dedup(tmp_path, "first.parquet", cosine=0.9999, max_joined=1)
    assert any("different prompts (one, two)" in line for line in report.warnings)
    assert {"exact"} <= {row["kind"] for row in leaks_of(tmp_path)}


def test_another_model_is_refused(folder: Path, tiny_transformer: Path) -> None:
    model = folder / "model"
    shutil.copytree(tiny_transformer, model)
    run, pairs = str(folder / "other"), str(folder / "pairs.parquet")
    run_embed(EmbedConfig(pairs=pairs, run_dir=run, model=str(model), device="cpu", max_length=16))
    config = {"run_dir": run, "against": (str(folder / "first.parquet"),), "max_joined": 1.0}
    run_dedup(DedupConfig(**config, cosine=0.999))
    settings = json.loads((model / "config_sentence_transformers.json").read_text())
    settings["prompts"] = {**settings.get("prompts", {}), "query": "other: "}
    (model / "config_sentence_transformers.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=r"another one than that of .*embeddings/"):
        run_dedup(DedupConfig(**config, cosine=0.998))


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(*(st.integers(0, high) for high in (4, 2, 2)), st.sampled_from([0.5, 0.75, 1.0])),
        max_size=20,
    )
)
def test_best_matches_are_those_of_plain_python(rows: list[tuple[int, int, int, float]]) -> None:
    columns = list(zip(*rows, strict=True)) if rows else [(), (), (), ()]
    texts, sets, kinds = (np.array(one, np.int64) for one in columns[:3])
    scores, others = np.array(columns[3], np.float32), np.arange(len(rows))[::-1]
    best: dict[tuple[int, int], tuple[int, float, int, int]] = {}
    for number, (text, of, kind, score) in enumerate(rows):
        key = (kind, -score, int(others[number]), number)
        best[text, of] = min(best.get((text, of), key), key)
    expected = [best[key][-1] for key in sorted(best)]
    found = best_matches(texts, sets, kinds.astype(np.int8), scores, others)
    assert found.tolist() == expected


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(0, 9), max_size=8), min_size=2, max_size=24), st.data())
def test_pairs_across_a_border_are_those_of_all_pairs(sets: list[set[int]], data: Any) -> None:
    border = data.draw(st.integers(1, len(sets) - 1))
    rows = np.repeat(np.arange(len(sets)), [len(one) for one in sets])
    values = np.array([value for one in sets for value in sorted(one)], np.int64)
    ragged = ragged_sets(rows, values, len(sets))
    found = near_pairs(ragged, 0.9, border, proposed=0.5)
    left, right = np.array([*product(range(border), range(border, len(sets)))], np.int64).T
    alike = jaccards(ragged, left, right) >= 0.9
    assert [*zip(found.left.tolist(), found.right.tolist(), strict=True)] == [
        *zip(left[alike].tolist(), right[alike].tolist(), strict=True)
    ]
