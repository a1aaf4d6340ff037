"""`dedup` on a run with planted duplicates: what it joins, and who respects it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stx_mine.errors import ArtifactError, ConfigError, TaskShardsLeftError
from stx_mine.stages.dedup import near_texts
from stx_mine.stages.dedup.config import DedupConfig
from stx_mine.stages.dedup.regroup import JOINED
from stx_mine.stages.dedup.stage import run_dedup
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.verify.config import VerifyConfig
from stx_mine.stages.verify.stage import run_verify
from stx_mine.store.artifact import require
from stx_mine.store.groups import TextGroups
from stx_mine.store.negatives import pool_files
from stx_mine.store.pools import PoolBlock
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore
from stx_mine.store.vectors import Vectors

FAMILIES = 60
WORDS = "amber bridge candle desert engine forest garden harbor island jungle kettle".split()


def sentence(family: int) -> str:
    rng = np.random.default_rng(family)
    words = rng.choice([f"{word}{chr(97 + n)}" for word in WORDS for n in range(26)], 14, False)
    return f"the {' '.join(words)} of family {chr(97 + family // 26)}"


def planted() -> dict[str, list[str]]:
    """By kind, a passage for each family beside the positive."""
    sentences = [sentence(family) for family in range(FAMILIES)]
    return {
        "positive": sentences,
        "exact": [f"{one.capitalize()}!" for one in sentences],
        "near": [one.replace(" of family", " in this family") for one in sentences],
        "numbers": [f"{one} 7" for one in sentences],
    }


@pytest.fixture(scope="module")
def planted_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embedded pairs (a query for each family), and a corpus with planted duplicates."""
    folder = tmp_path_factory.mktemp("planted")
    kinds = planted()
    queries = [" ".join(one.split()[2:5]) for one in kinds["positive"]]
    corpus = folder / "corpus.parquet"
    pq.write_table(pa.table({"text": [text for texts in kinds.values() for text in texts]}), corpus)
    run = folder / "run"
    embed(run, list(zip(queries, kinds["positive"], strict=True)), corpus=str(corpus))
    return run


def embed(run: Path, pairs: list[tuple[str, str]], **options: object):
    """Write pairs beside a run, and embed them."""
    path = run.parent / "pairs.parquet"
    columns = {"query": [query for query, _ in pairs], "passage": [text for _, text in pairs]}
    pq.write_table(pa.table(columns), path)
    settings = {"model": "package:wordllama", "device": "cpu", **options}
    return run_embed(EmbedConfig(pairs=str(path), run_dir=str(run), **settings))


@pytest.fixture
def run(planted_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(planted_run, tmp_path / "run")
    return tmp_path / "run"


def dedup(run: Path, **options: object):
    return run_dedup(DedupConfig(run_dir=str(run), **options))


def passages_joined(run: Path) -> set[tuple[str, str]]:
    """The kind of the planted text and the likeness, of every passage that counts as another."""
    opened = RunDir(run)
    store = TextStore.open(require(opened, "texts"))
    kind_of = {text: kind for kind, texts in planted().items() for text in texts}
    rows = require(opened, "groups").table(JOINED).to_pylist()
    texts = store.passages["text"].to_pylist()
    return {
        (kind_of[texts[row["text_id"]]], row["kind"])
        for row in rows
        if row["text_id"] < store.num_passages
    }


def groups_of(run: Path) -> TextGroups:
    return TextGroups.open(require(RunDir(run), "groups"))


def test_equal_texts_are_joined_whatever_their_case_and_punctuation(run: Path) -> None:
    report = dedup(run)
    assert passages_joined(run) == {("exact", "exact")}
    assert report.counts["joined"] == {"exact": FAMILIES}
    assert report.counts["sizes"] == {"2": FAMILIES, "largest": 2}
    assert any("--jaccard" in line for line in report.lines)
    dedup(run, ignore="nothing", overwrite=True)
    assert passages_joined(run) == set()


def test_near_texts_are_joined_unless_their_numbers_differ(run: Path) -> None:
    report = dedup(run, jaccard=0.7)
    assert passages_joined(run) == {("exact", "exact"), ("near", "jaccard")}
    assert report.counts["other_numbers"] >= FAMILIES
    assert any("numbers" in line for line in report.lines)
    assert any(line.startswith("least jaccard 0.") for line in report.lines)
    groups = groups_of(run)
    assert set(np.unique(groups.passages, return_counts=True)[1]) == {1, 3}
    report = dedup(run, jaccard=0.7, ignore="case,punctuation,numbers", max_joined=0.9)
    assert ("numbers", "jaccard") in passages_joined(run)
    assert report.counts["other_numbers"] == 0


def test_texts_with_close_vectors_are_joined(run: Path) -> None:
    report = dedup(run, cosine=0.9, max_joined=0.9, ignore="nothing")
    embeddings = require(RunDir(run), "embeddings")
    vectors = Vectors.open(embeddings, "passages")
    scores = vectors.rows(0, len(vectors)) @ vectors.rows(0, len(vectors)).T
    rows = require(RunDir(run), "groups").table(JOINED).to_pylist()
    close = [row for row in rows if row["kind"] == "cosine" and row["text_id"] < len(vectors)]
    assert close and report.counts["joined"]["cosine"] >= len(close)
    for row in close:
        assert scores[row["text_id"], row["like_id"]] == pytest.approx(row["score"], abs=1e-5)
        assert row["score"] >= np.float32(0.9)
    found = require(RunDir(run), "duplicates", "cosine")
    table = found.table(found.names("passages")[0])
    above = np.argwhere(np.triu(scores, 1) >= found.fields["floor"] + 1e-5)
    ends = zip(table["left"].to_pylist(), table["right"].to_pylist(), strict=True)
    pairs = {tuple(sorted(one)) for one in ends}
    assert {tuple(one) for one in above.tolist()} <= pairs


def test_texts_with_many_neighbours_are_searched_deeper(tmp_path: Path) -> None:
    """A text with 40 close ones is a pair with all of them, beside one with 3."""
    rng = np.random.default_rng(0)
    words = [sentence(0).split() for _ in range(40)] + [sentence(1).split() for _ in range(3)]
    texts = [" ".join(rng.permutation(one)) for one in words] + [sentence(n) for n in range(2, 30)]
    embed(tmp_path / "run", [(f"query {chr(97 + n % 26) * n}", one) for n, one in enumerate(texts)])
    dedup(tmp_path / "run", cosine=0.95, max_joined=1, ignore="nothing")
    found = require(RunDir(tmp_path / "run"), "duplicates", "cosine")
    table = pa.concat_tables(found.table(name) for name in found.names("passages"))
    vectors = Vectors.open(require(RunDir(tmp_path / "run"), "embeddings"), "passages")
    scores = vectors.rows(0, len(vectors)) @ vectors.rows(0, len(vectors)).T
    expected = np.argwhere((scores >= found.fields["floor"]) & ~np.eye(len(scores), dtype=bool))
    ends = zip(table["left"].to_pylist(), table["right"].to_pylist(), strict=True)
    assert sorted(ends) == [tuple(one) for one in expected.tolist()]
    assert (np.bincount(table["left"].to_numpy()) >= 39).sum() >= 40


def test_another_threshold_searches_nothing(run: Path) -> None:
    dedup(run, jaccard=0.8, cosine=0.97, max_joined=1)
    opened = RunDir(run)
    before = {kind: require(opened, "duplicates", kind) for kind in ("exact", "jaccard", "cosine")}
    dedup(run, jaccard=0.75, cosine=0.99, max_joined=1)
    for kind, manifest in before.items():
        assert require(opened, "duplicates", kind).content == manifest.content
    # Further down the pairs are searched again, without being asked for --overwrite.
    dedup(run, jaccard=0.6, max_joined=1)
    assert require(opened, "duplicates", "jaccard").fields["floor"] == 0.5
    with pytest.raises(ArtifactError, match="shingles was 'words' and is 'characters' now"):
        dedup(run, jaccard=0.6, shingles="characters", max_joined=1)


def test_nothing_but_groups_changes_and_embed_leaves_them(run: Path) -> None:
    opened = RunDir(run)
    run_mine(MineConfig(run_dir=str(run), k=2, device="cpu", relative_margin=None))
    kept = {name: require(opened, name).digest for name in ("texts", "embeddings")}
    hits = require(opened, "hits", "dense").digest
    report = dedup(run, jaccard=0.7)
    assert any(line.startswith("stale now") and "negatives" in line for line in report.lines)
    assert {name: require(opened, name).digest for name in kept} == kept
    assert require(opened, "hits", "dense").digest == hits
    made = require(opened, "groups").digest
    plan = json.loads((run / "texts/manifest.json").read_text())["config"]
    again = {name: plan[name] for name in ("pairs", "corpus", "model", "device")}
    run_embed(EmbedConfig(**again, run_dir=str(run)))
    assert require(opened, "groups").digest == made


def test_other_texts_end_the_groups_and_it_is_said(run: Path, tmp_path: Path) -> None:
    dedup(run, jaccard=0.7)
    report = embed(run, [("one", "first text"), ("two", "second text")], overwrite=True)
    said = [line for part in (report, *report.parts) for line in part.warnings]
    assert any("stx-mine dedup --jaccard 0.7" in line for line in said)
    assert set(groups_of(run).passages) == {0, 1}


def test_no_duplicate_of_a_positive_is_a_negative_and_batches_hold_one_of_each(run: Path) -> None:
    dedup(run, jaccard=0.7)
    run_mine(MineConfig(run_dir=str(run), k=2, device="cpu", relative_margin=None))
    opened = RunDir(run)
    store, groups = TextStore.open(require(opened, "texts")), groups_of(run)
    negatives = require(opened, "negatives")
    block = PoolBlock.read(negatives, pool_files(negatives)[0])
    assert len(block.pools.values) > FAMILIES
    for place, query in enumerate(block.query_ids):
        pool = groups.passages[block.pools.row(place)]
        assert len(set(pool.tolist())) == len(pool)
        positives = store.pair_passage_ids[store.pair_query_ids == query]
        assert not set(pool.tolist()) & set(groups.passages[positives].tolist())
    run_pack(PackConfig(run_dir=str(run), batch_size=16, policy="strict", k=1))
    # It raises where a batch holds two texts of a group.
    run_verify(VerifyConfig(run_dir=str(run)))
    run_pack(PackConfig(run_dir=str(run), batch_size=16, k=1, overwrite=True))
    # And where one that is forbidden to a row is not masked.
    run_verify(VerifyConfig(run_dir=str(run)))


def test_dropped_passages_are_no_negatives(run: Path) -> None:
    report = dedup(run, jaccard=0.7, drop=True)
    groups = groups_of(run)
    assert len(groups.dropped_passages) == 2 * FAMILIES == report.counts["dropped_passages"]
    # One of each group stays.
    stays = np.setdiff1d(np.arange(len(groups.passages)), groups.dropped_passages)
    np.testing.assert_array_equal(np.sort(groups.passages[stays]), np.unique(groups.passages))
    mined = run_mine(MineConfig(run_dir=str(run), k=2, device="cpu", relative_margin=None))
    assert mined.counts["dropped"]["dropped_passage"] > 0
    negatives = require(RunDir(run), "negatives")
    pooled = PoolBlock.read(negatives, pool_files(negatives)[0]).pools.values
    assert len(pooled) and not set(pooled.tolist()) & set(groups.dropped_passages.tolist())


def test_one_pair_of_each_query_and_positive_stays(tmp_path: Path) -> None:
    run = tmp_path / "run"
    pairs = [("where is it", "it is here now"), ("Where is it?", "it is here now")]
    embed(run, [*pairs, ("who", "nobody at all")])
    dedup(run, drop=True)
    assert groups_of(run).dropped_pairs.tolist() == [1]
    mined = run_mine(MineConfig(run_dir=str(run), k=1, device="cpu", relative_margin=None))
    assert mined.counts["pairs_dropped"]["dedup"] == 1 and mined.counts["rows"] == 2
    assert any("dedup" in line for line in mined.warnings)


def test_batches_of_labels_keep_near_duplicates_of_queries_apart(tmp_path: Path) -> None:
    """Each query and its positive are a label; a near-copy of the query has another positive."""
    run = tmp_path / "run"
    sentences = [sentence(family) for family in range(FAMILIES)]
    copies = [one.replace(" of family", " in this family") for one in sentences]
    pairs = [(one, f"answer {number} {one[::-1]}") for number, one in enumerate(sentences)]
    pairs += [(one, f"other {number} {one[::-1]}") for number, one in enumerate(copies)]
    # Equal but for the dot, which --drop leaves out.
    pairs.append((f"{pairs[0][0]}.", pairs[0][1]))
    embed(run, pairs)
    dedup(run, jaccard=0.7, drop=True)
    packed = run_pack(PackConfig(run_dir=str(run), batch_size=16, layout="labels", overwrite=True))
    assert (packed.counts["pairs"], packed.counts["pairs_dropped"]) == (2 * FAMILIES, 1)
    assert any("(1 dropped by dedup)" in line for line in packed.lines)
    run_verify(VerifyConfig(run_dir=str(run)))
    store, groups = TextStore.open(require(RunDir(run), "texts")), groups_of(run)
    group_of = groups.of_text_ids(store)
    rows = pq.read_table(run / "batches/epoch-000")
    batches = rows["text_id"].to_numpy().reshape(-1, 16)
    assert len(batches) > 2
    for batch in batches:
        assert len(np.unique(group_of[batch])) == 16


def test_more_than_half_of_the_texts_is_refused_and_the_groups_stay(run: Path) -> None:
    before = require(RunDir(run), "groups").digest
    loose = {"jaccard": 0.3, "shingle_size": 1, "ignore": "case,punctuation,numbers"}
    with pytest.raises(ConfigError, match=r"found \d+ that count as another .* --jaccard 0.3: \d+"):
        dedup(run, **loose)
    assert require(RunDir(run), "groups").digest == before
    report = dedup(run, **loose, max_joined=1)
    assert any("count as another one" in line for line in report.warnings)


def test_what_cannot_be_done_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"--ignore must be nothing, or some of .* found 'case;"):
        DedupConfig(ignore="case;accents")
    with pytest.raises(ConfigError, match="jaccard"):
        DedupConfig(jaccard=1.5)
    with pytest.raises(ConfigError, match="shingle"):
        DedupConfig(shingle_size=3)
    (run / "rounds/2").mkdir(parents=True)
    with pytest.raises(ConfigError, match="the run that all rounds share"):
        dedup(run / "rounds/2")
    monkeypatch.setattr(near_texts.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"stx-mine\[dedup\]"):
        dedup(run, jaccard=0.8)


def test_chunks_are_refused(tmp_path: Path) -> None:
    text = " ".join(f"word{n}" for n in range(60))
    embed(tmp_path / "run", [("what", text), ("who", text[::-1])], chunk=(16, 0))
    with pytest.raises(ConfigError, match="before they are cut"):
        dedup(tmp_path / "run")


def test_shares_make_the_same_pairs(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "whole")
    options = {"cosine": 0.97, "max_joined": 1.0}
    dedup(tmp_path / "whole", **options)
    with pytest.raises(TaskShardsLeftError):
        dedup(run, task="0/2", **options)
    dedup(run, task="1/2", **options)
    opened = [RunDir(one) for one in (run, tmp_path / "whole")]
    for name, kind in (("duplicates", "exact"), ("duplicates", "cosine"), ("groups", None)):
        made = [require(one, name, kind).digest for one in opened]
        assert made[0] == made[1]


def test_later_rounds_read_the_groups_of_the_first(run: Path) -> None:
    """Their embeddings are others than those by which texts were joined."""
    dedup(run, cosine=0.97, max_joined=1)
    later = run / "rounds/2"
    run_embed(
        EmbedConfig(model="package:wordllama", device="cpu", truncate_dim=64, run_dir=str(later))
    )
    mined = run_mine(MineConfig(run_dir=str(later), k=2, device="cpu", relative_margin=None))
    assert mined.counts["rows"] == FAMILIES
    again = MineConfig(run_dir=str(run), k=2, device="cpu", relative_margin=None)
    assert run_mine(again).counts["rows"] == FAMILIES
    # Other embeddings of the run itself make them stale.
    run_embed(
        EmbedConfig(
            model="package:wordllama",
            device="cpu",
            truncate_dim=64,
            run_dir=str(run),
            overwrite=True,
        )
    )
    with pytest.raises(ArtifactError, match=r"groups/ is stale|duplicates/cosine/ is stale"):
        run_mine(again)
