"""`split --jaccard`: no near-copy of a held-out text is in training, beside brute force."""

import json
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stx_mine.core.similarity import unit_rows
from stx_mine.core.terms import terms
from stx_mine.errors import ArtifactError, ConfigError, InputError
from stx_mine.models.load import load_model
from stx_mine.stages.dedup import near_texts
from stx_mine.stages.dedup.config import DedupConfig
from stx_mine.stages.dedup.stage import run_dedup
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.split.config import SplitConfig
from stx_mine.stages.split.stage import run_split
from stx_mine.store.stage_report import StageReport

Pair = tuple[str, str]
BASES = 120
WORDS = [f"{stem}{chr(97 + n)}" for stem in ("amber", "bridge", "candle") for n in range(26)]


def sentence(rng: np.random.Generator) -> str:
    return " ".join(rng.choice(WORDS, 12, False))


def edited(text: str, rng: np.random.Generator) -> str:
    words = text.split()
    match int(rng.integers(4)):
        case 0:
            return f"{text.upper()}?"
        case 1:
            words[int(rng.integers(len(words)))] = "otherwise"
        case 2:
            words = words[:-1]
        case _:
            words = [*words, "indeed"]
    return " ".join(words)


def planted_pairs() -> list[Pair]:
    """Pairs of new texts, and pairs with a near-copy of a query or a positive, in any role."""
    rng = np.random.default_rng(0)
    pairs = [(sentence(rng), sentence(rng)) for _ in range(BASES)]
    for number in range(0, BASES, 3):
        query, passage = pairs[number]
        copies = [
            (edited(query, rng), sentence(rng)),
            (sentence(rng), edited(passage, rng)),
            (edited(passage, rng), sentence(rng)),
        ]
        pairs.append(copies[number % 3])
    # A number that differs is another text.
    pairs += [(f"{pairs[1][0]} {number}", sentence(rng)) for number in range(3)]
    return [pairs[row] for row in rng.permutation(len(pairs))]


PAIRS = planted_pairs()


def write_pairs(path: Path, pairs: list[Pair], **columns: list[str]) -> Path:
    table = {"query": [query for query, _ in pairs], "passage": [text for _, text in pairs]}
    pq.write_table(pa.table({**table, **columns}), path)
    return path


def split(path: Path, run: Path, **options: Any) -> StageReport:
    return run_split(SplitConfig(pairs=str(path), run_dir=str(run), test=0.2, dev=0.1, **options))


def parts_of(run: Path, grade: str = "1") -> dict[str, list[Pair]]:
    folder, texts = run / "split", dict[str, dict[str, str]]()
    for name in ("queries", "corpus"):
        rows = map(json.loads, (folder / f"{name}.jsonl").read_text().splitlines())
        texts[name] = {row["_id"]: row["text"] for row in rows}
    parts = {}
    for name in ("train", "dev", "test"):
        lines = (folder / f"qrels/{name}.tsv").read_text().splitlines()[1:]
        rows = [line.split("\t") for line in lines]
        parts[name] = [(texts["queries"][q], texts["corpus"][p]) for q, p, s in rows if s == grade]
    return parts


@cache
def form_of(text: str) -> tuple[str, tuple[str, ...], frozenset[tuple[str, ...]]]:
    """A text without case and punctuation, its numbers, and its runs of two words."""
    form = text.lower().strip("?")
    words = [form[a:b] for a, b in terms(form)]
    runs = frozenset(tuple(words[i : i + 2]) for i in range(len(words) - 1))
    return form, tuple(word for word in words if word.isdigit()), runs


def alike(one: str, other: str, jaccard: float) -> bool:
    (form, numbers, runs), (other_form, other_numbers, other_runs) = form_of(one), form_of(other)
    if form == other_form:
        return True
    share = len(runs & other_runs) / len(runs | other_runs)
    return numbers == other_numbers and share >= jaccard


def across(parts: dict[str, list[Pair]], jaccard: float) -> int:
    """Pairs of texts of different parts that are alike."""
    texts = {name: {text for pair in pairs for text in pair} for name, pairs in parts.items()}
    return sum(
        alike(one, other, jaccard)
        for first, second in (("train", "dev"), ("train", "test"), ("dev", "test"))
        for one, other in product(texts[first], texts[second])
    )


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("near") / "pairs.parquet", PAIRS)


def test_no_near_copy_crosses_parts(pairs_file: Path, tmp_path: Path) -> None:
    report = split(pairs_file, tmp_path / "near", jaccard=0.6)
    parts = parts_of(tmp_path / "near")
    assert sorted(pair for part in parts.values() for pair in part) == sorted(PAIRS)
    assert across(parts, 0.6) == 0
    # Without it they do, which the same planted copies show.
    split(pairs_file, tmp_path / "plain")
    assert across(parts_of(tmp_path / "plain"), 0.6) > 0
    joined = report.counts["joined"]
    assert joined["equal"] > 0 and joined["near"] > 0
    assert joined["equal"] + joined["near"] == BASES // 3
    assert joined["other_numbers"] > 0
    assert report.counts["leaks"]["component"] == {
        **report.counts["leaks"]["component"],
        "positives": 0,
        "texts": 0,
    }
    said = "\n".join(report.lines)
    assert f"{BASES // 3} (" in said and "near (Jaccard of runs of 2 words >= 0.6)" in said
    assert "least jaccard 0." in said
    again = split(pairs_file, tmp_path / "near", jaccard=0.6)
    assert again.skipped and again.lines == report.lines


def test_parts_know_no_order_of_rows(pairs_file: Path, tmp_path: Path) -> None:
    turned = write_pairs(tmp_path / "turned.parquet", PAIRS[::-1])
    for unit in ("component", "query", "pair"):
        found = []
        for path in (pairs_file, turned):
            split(path, tmp_path / f"{path.stem}-{unit}", jaccard=0.6, unit=unit)
            parts = parts_of(tmp_path / f"{path.stem}-{unit}")
            found.append({name: sorted(pairs) for name, pairs in parts.items()})
        assert found[0] == found[1]


def test_near_copies_of_a_query_stay_together_by_query(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    queries = [sentence(rng) for _ in range(60)]
    pairs = [(query, sentence(rng)) for query in queries]
    pairs += [(edited(query, rng), sentence(rng)) for query in queries]
    path = write_pairs(tmp_path / "pairs.parquet", pairs)
    split(path, tmp_path / "run", jaccard=0.6, unit="query")
    parts = parts_of(tmp_path / "run")
    asked = {name: [(query, query) for query, _ in part] for name, part in parts.items()}
    assert across(asked, 0.6) == 0


def test_a_near_copy_of_a_held_out_text_is_no_negative_of_training(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    pairs = [(sentence(rng), sentence(rng)) for _ in range(40)]
    negatives = [edited(passage, rng) for _, passage in pairs[::-1]]
    path = write_pairs(tmp_path / "pairs.parquet", pairs, negative=negatives)
    report = split(path, tmp_path / "run", jaccard=0.6)
    parts, judged = parts_of(tmp_path / "run"), parts_of(tmp_path / "run", "0")
    held_out = {text for name in ("dev", "test") for pair in parts[name] for text in pair}
    assert judged["train"]
    for _, negative in judged["train"]:
        assert not any(alike(negative, text, 0.6) for text in held_out)
    assert report.counts["not_relevant_dropped"]["held_out_text"] > 0


def test_case_and_punctuation_alone(pairs_file: Path, tmp_path: Path) -> None:
    report = split(pairs_file, tmp_path / "run", ignore="case,punctuation")
    assert report.counts["joined"]["near"] == 0 < report.counts["joined"]["equal"]
    texts = [
        {text.lower().strip("?") for pair in pairs for text in pair}
        for pairs in parts_of(tmp_path / "run").values()
    ]
    assert len(set().union(*texts)) == sum(map(len, texts))


def test_a_threshold_that_joins_too_much_is_refused(
    pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loose = {"jaccard": 0.01, "shingle_size": 1, "ignore": "case,numbers"}
    with pytest.raises(ConfigError, match=r"at most 50% of the \d+ texts .* nothing was divided"):
        split(pairs_file, tmp_path / "run", **loose)
    assert not (tmp_path / "run/split").exists()
    with pytest.raises(InputError, match=r"; give a --jaccard above 0\.01, which ties fewer"):
        split(pairs_file, tmp_path / "run", **loose, max_joined=1)
    monkeypatch.setattr(near_texts.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"stx-mine\[dedup\]"):
        split(pairs_file, tmp_path / "run", jaccard=0.6)


def test_the_dedup_of_a_run_says_what_is_one_text(tmp_path: Path) -> None:
    """By vectors too; and where the run knows a text of a form that the input lacks."""
    rng = np.random.default_rng(8)
    bases = [(sentence(rng), sentence(rng)) for _ in range(60)]
    pairs = list(bases)
    # The same words in another order, and case.
    pairs += [(" ".join(query.split()[::-1]), sentence(rng)) for query, _ in bases[:20]]
    pairs += [(sentence(rng), text.title()) for _, text in bases[20:40]]
    more = [(sentence(rng), f"{text.upper()}!") for _, text in bases[20:40]]
    path = write_pairs(tmp_path / "pairs.parquet", pairs)
    known = write_pairs(tmp_path / "more.parquet", [*more, *pairs])
    run = str(tmp_path / "known")
    run_embed(EmbedConfig(pairs=str(known), model="package:wordllama", run_dir=run))
    with pytest.raises(ConfigError, match=r"groups that dedup made .* found those of equal texts"):
        split(path, tmp_path / "run", groups=run)
    run_dedup(DedupConfig(run_dir=run, cosine=0.95))
    report = split(path, tmp_path / "run", groups=run)
    parts = parts_of(tmp_path / "run")
    model = load_model("package:wordllama", "cpu")
    for role in (0, 1):
        texts = {name: sorted({pair[role] for pair in part}) for name, part in parts.items()}
        vectors = {name: unit_rows(model.encode(some)) for name, some in texts.items()}
        for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
            assert (vectors[one] @ vectors[other].T).max() < 0.95
    lowered = [{text.lower() for pair in part for text in pair} for part in parts.values()]
    assert len(set().union(*lowered)) == sum(map(len, lowered))
    assert report.counts["joined"]["equal"] == 20 <= report.counts["joined"]["near"]
    assert any("`stx-mine dedup --cosine 0.95` has found" in line for line in report.lines)
    assert split(path, tmp_path / "run", groups=run).skipped
    # Another threshold is another split.
    run_dedup(DedupConfig(run_dir=run, cosine=0.9999))
    with pytest.raises(ArtifactError, match="groups was"):
        split(path, tmp_path / "run", groups=run)


def test_texts_that_the_run_has_not_are_told(pairs_file: Path, tmp_path: Path) -> None:
    run = str(tmp_path / "known")
    known = write_pairs(tmp_path / "known.parquet", PAIRS[:100])
    run_embed(EmbedConfig(pairs=str(known), model="package:wordllama", run_dir=run))
    run_dedup(DedupConfig(run_dir=run))
    report = split(pairs_file, tmp_path / "run", groups=run)
    texts = {text for pair in PAIRS for text in pair}
    unknown = len(texts - {text for pair in PAIRS[:100] for text in pair})
    assert report.counts["joined"]["unknown"] == unknown > 0
    assert any(f"{unknown:,} of the {len(texts):,} texts" in line for line in report.warnings)
    other = write_pairs(tmp_path / "other.parquet", [("one", "first"), ("two", "second")] * 20)
    with pytest.raises(InputError, match=r"found none of 4; name the run that read the same pairs"):
        split(other, tmp_path / "others", groups=run)
    with pytest.raises(ConfigError, match=r"--jaccard 0.6|--groups"):
        split(pairs_file, tmp_path / "run", groups=run, jaccard=0.6)
    with pytest.raises(ArtifactError, match="expected a run directory at"):
        split(pairs_file, tmp_path / "run", groups=str(tmp_path / "nowhere"))
