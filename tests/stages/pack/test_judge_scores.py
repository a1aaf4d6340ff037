"""`pack --scores judge:NAME`: the scores of what a judge judged, and none of the rest."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Cli, reseal

from stx_mine.errors import ArtifactError, ConfigError, ViolationError
from stx_mine.stages.judge.config import JudgeConfig
from stx_mine.stages.judge.stage import run_judge
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train.collator import PackedCollator
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.stage import run_train
from stx_mine.stages.verify.config import VerifyConfig
from stx_mine.stages.verify.stage import run_verify
from stx_mine.store.artifact import require
from stx_mine.store.batches import list_packings
from stx_mine.store.digests import text_digests
from stx_mine.store.judgements import JUDGEMENTS
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

# Letters in common: a poor judge, but one whose word can be checked.
FUNCTION = """
import numpy as np
def judge(pairs):
    return np.array([len(set(q) & set(p)) / len(set(q) | set(p)) for q, p in pairs])
"""


@pytest.fixture(scope="module")
def judged(small_run, tmp_path_factory) -> Path:
    """A run with judgements of what lies within a fifth of the positive's score."""
    folder = tmp_path_factory.mktemp("judged")
    shutil.copytree(small_run, folder / "run")
    (folder / "letters_of_pairs.py").write_text(FUNCTION)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        judge(folder / "run")
    return folder / "run"


def judge(run: Path, band: float = 0.2, name: str = "letters") -> None:
    config = {"cross_encoder": "letters_of_pairs:judge", "name": name, "band": band}
    run_judge(JudgeConfig(run_dir=str(run), **config))


def of_pair(query: str, passage: str) -> float:
    return float(np.float32(len(set(query) & set(passage)) / len(set(query) | set(passage))))


def known_pairs(run: Path) -> dict[bytes, float]:
    """What was judged, not at random, by the digests of its texts."""
    table = require(RunDir(run), "judgements", "letters").table(JUDGEMENTS)
    rows = table.to_pylist()
    return {row["pair"]: row["score"] for row in rows if not row["is_random"]}


@pytest.fixture
def copy(judged, tmp_path) -> Path:
    run = tmp_path / "run"
    shutil.copytree(judged, run)
    return run


def packed(run: Path, **options):
    own = {"batch_size": 64, "scores": "judge:letters", "packings": 2, **options}
    return run_pack(PackConfig(run_dir=str(run), **own))


def rows_of(run: Path, packing: int = 0):
    for shard in list_packings(run / "batches")[packing]:
        yield from pq.read_table(shard.path).to_pylist()


@pytest.mark.parametrize("options", [{}, {"policy": "strict", "batch_size": 32, "k": 2}])
def test_rows_have_the_scores_of_the_pairs_that_were_judged(copy, options):
    report = packed(copy, **options)
    digests = digests_of(copy)
    known, scored, found = known_pairs(copy), 0, []
    for row in rows_of(copy):
        k = len(row["negative_ids"])
        texts = [row["positive"], *(row[f"negative_{n + 1}"] for n in range(k))]
        query = digests[row["anchor"]]
        assert len(row["scores"]) == len(texts)
        for text, score in zip(texts, row["scores"], strict=True):
            assert score == known.get(query + digests[text])
            assert score is None or score == of_pair(row["anchor"], text)
            scored += score is not None
        found.append([one is not None for one in row["scores"]])
    assert 0 < scored < sum(map(len, found))
    counts = report.counts["scored"]
    distilled = [one for one in found if one[0] and any(one[1:])]
    assert counts["rows_in"] == len(found)
    assert counts["rows_scored"] == len(distilled) > 0
    assert counts["negatives_scored"] == sum(sum(one[1:]) for one in distilled)
    assert counts["negatives_in"] == sum(len(one) - 1 for one in found)
    assert counts["rows_unscored"]["no_positive"] == sum(not one[0] for one in found) > 0
    assert any(f"has scores of {len(distilled):,} (" in line for line in report.lines)
    run_verify(VerifyConfig(run_dir=str(copy)))
    assert "by the judge `letters`" in (copy / "batches/README.md").read_text()


def digests_of(run: Path) -> dict[str, bytes]:
    """The 16 bytes that stand for each text in judgements."""
    store = TextStore.open(require(RunDir(run), "texts"))
    found = {}
    for table in (store.queries, store.passages):
        texts = table.column("text").combine_chunks()
        for text, digest in zip(texts.to_pylist(), text_digests(texts).to_pylist(), strict=True):
            found[text] = digest
    return found


def test_a_wider_band_makes_batches_stale_and_scores_what_it_promises(copy, monkeypatch):
    monkeypatch.chdir(copy.parent)
    monkeypatch.syspath_prepend(copy.parent)
    (copy.parent / "letters_of_pairs.py").write_text(FUNCTION)
    first = packed(copy)
    band = first.counts["scored"]["band"]
    assert any(f"--band {band:g}` with the same judge" in line for line in first.lines)
    assert packed(copy).skipped
    judge(copy, band=band)
    with pytest.raises(ArtifactError, match="batches/ is stale: judgements/letters/ has changed"):
        require(RunDir(copy), "batches")
    second = packed(copy, overwrite=True)
    one, two = (report.counts["scored"] for report in (first, second))
    assert two["rows_scored"] > one["rows_scored"]
    assert two["negatives_scored"] > one["negatives_scored"]
    assert two["negatives_scored"] / two["negatives_in"] > 0.85


def test_grades_are_said_to_be_too_few_for_logits(copy, monkeypatch):
    assert not any("different scores" in line for line in packed(copy).warnings)
    monkeypatch.chdir(copy.parent)
    monkeypatch.syspath_prepend(copy.parent)
    graded = "def grade(pairs):\n    return [len(p) % 3 / 2 for _, p in pairs]\n"
    (copy.parent / "grades_of_pairs.py").write_text("import numpy as np\n" + graded)
    config = {"cross_encoder": "grades_of_pairs:grade", "name": "grades", "band": 0.2}
    run_judge(JudgeConfig(run_dir=str(copy), **config))
    report = packed(copy, scores="judge:grades", overwrite=True)
    assert any("judge grades gives 3 different scores" in line for line in report.warnings)


def test_pairs_that_a_judge_made_have_its_scores(copy):
    judges = {"judges": ("letters",), "judged": "relabel"}
    run_mine(MineConfig(run_dir=str(copy), k=4, device="cpu", **judges))
    report = packed(copy)
    num_pairs = TextStore.open(require(RunDir(copy), "texts")).num_pairs
    made = [row for row in rows_of(copy) if row["row_id"] >= num_pairs]
    assert made
    assert all(row["scores"][0] is not None for row in made)
    assert report.counts["scored"]["rows_scored"] > 0


def test_judges_that_know_nothing_of_the_rows_are_refused(copy, monkeypatch):
    with pytest.raises(ArtifactError, match=r"judgements/nobody/ is missing; run `stx-mine judge`"):
        packed(copy, scores="judge:nobody")
    monkeypatch.chdir(copy.parent)
    monkeypatch.syspath_prepend(copy.parent)
    (copy.parent / "letters_of_pairs.py").write_text(FUNCTION)
    # What lies so near to the positive the margin keeps out of pools.
    judge(copy, band=0.01, name="narrow")
    said = r"needs judgements of the positive and of a negative of some row, found none in 6\d\d "
    with pytest.raises(ConfigError, match=said + r"rows; judge more, with .* --band 0\.\d+`"):
        packed(copy, scores="judge:narrow")
    assert not (copy / "batches").exists()
    for wrong in ("judge:", "letters", "judge"):
        with pytest.raises(ConfigError, match=f"must be judge:NAME, .* found '{wrong}'"):
            PackConfig(scores=wrong)


def test_scores_alone_are_those_of_the_miner(copy, cli_here: Cli):
    """On a command line the option may have a value, or none, wherever it stands."""
    keys = []
    for words in (
        ("--scores", "--batch-size", "64"),
        ("--batch-size", "64", "--scores"),
        ("--scores", "judge:letters", "--batch-size", "64"),
        ("--scores=judge:letters", "--batch-size", "64"),
    ):
        done = cli_here("pack", *words, "--overwrite", run_dir=copy)
        assert done.code == 0, done.stderr
        plan = json.loads((copy / "batches/plan.json").read_text())
        keys.append((plan["fields"]["scores"], plan["key"]))
    assert [scores for scores, _ in keys] == [True, True, "judge:letters", "judge:letters"]
    assert len({key for _, key in keys}) == 2
    error = cli_here("pack", "--scores", "x", run_dir=copy).error
    assert "--scores must be judge:NAME, or stand alone" in error


def test_verify_takes_no_score_for_none_of_a_judge_only(copy):
    packed(copy)
    run_verify(VerifyConfig(run_dir=str(copy)))
    packed(copy, scores=True, overwrite=True)
    path = next((copy / "batches").glob("epoch-000/*.parquet"))
    table = pq.read_table(path)
    values = table.column("scores").to_pylist()
    values[3][0] = None
    place = table.column_names.index("scores")
    broken = table.set_column(place, "scores", [values])
    pq.write_table(broken.cast(table.schema), path)
    reseal(copy / "batches")
    with pytest.raises(ViolationError):
        run_verify(VerifyConfig(directory=str(copy / "batches"), run_dir=str(copy)))


def test_a_student_learns_from_what_is_judged(copy):
    """Rows without scores teach the other term of a sum alone."""
    packed(copy)
    shards = [one for packing in list_packings(copy / "batches") for one in packing]
    assert {one.judge for one in shards} == {"letters"}
    label = PackedCollator(shards, lambda *_: {}, scores=True).collate(shards[0].batch(0))["label"]
    known, there = ~label["scores"].isnan(), label["negatives"] >= 0
    scored = known & known[:, :1]
    scored[:, 1:] &= there
    assert 0 < label["num_scored_rows"] == scored[:, 1:].any(1).sum() < 64
    assert label["num_scored_negatives"] == scored[:, 1:].sum()
    config = {"run_dir": str(copy), "device": "cpu", "temperature": 0.2, "epochs": 4}
    counts = run_train(TrainConfig(**config, loss="kl")).counts
    assert counts["last_loss"] < 0.8 * counts["first_loss"]
    report = run_train(TrainConfig(**config, loss="mnr+kl", overwrite=True))
    first, last = report.counts["terms"]["mnr"]
    assert last < 0.8 * first
    assert not any("multiplied" in line for line in report.warnings)
