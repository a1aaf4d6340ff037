"""Sharing into a folder: what others load, what the card says, what is refused."""

import csv
import shutil
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Cli
from datasets import load_dataset
from sentence_transformers import SentenceTransformer

from stx_mine.errors import ArtifactError, ConfigError
from stx_mine.inputs.config import Source
from stx_mine.stages.audit.config import AuditConfig
from stx_mine.stages.audit.stage import run_audit
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.export.config import ExportConfig
from stx_mine.stages.export.stage import run_export
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.transfer.config import FetchConfig, PublishConfig
from stx_mine.stages.transfer.fetch import run_fetch
from stx_mine.stages.transfer.hub_address import HubAddress
from stx_mine.stages.transfer.licenses import LICENSES
from stx_mine.stages.transfer.publish import run_publish
from stx_mine.stages.verify.config import VerifyConfig
from stx_mine.stages.verify.stage import run_verify
from stx_mine.store.artifact import MANIFEST, PLAN, require
from stx_mine.store.audits import read_audits
from stx_mine.store.files import checksum, read_json
from stx_mine.store.run_dir import RunDir
from stx_mine.store.safe_yaml import parse_yaml

DATA, MODEL = "hf://datasets/me/x", "hf://me/model"
MARKS = {f".stx-mine/{name}" for name in (MANIFEST, PLAN, "README.md", "share.json")}


def share(run: Path, to: Path, url: str = DATA, **options):
    given = {"license": "mit", **options}
    return run_publish(PublishConfig(run_dir=str(run), url=url, to=str(to), **given))


def fetch(run: Path, url: str | Path, **options):
    return run_fetch(FetchConfig(run_dir=str(run), url=str(url), **options))


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): checksum(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def head_of(folder: Path) -> dict:
    return parse_yaml((folder / "README.md").read_text("utf-8").split("\n---\n")[0][4:])


def test_a_data_set_loads_as_the_shards_are(trained_run, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    report = share(trained_run, tmp_path / "x")
    assert report.counts["files"] == report.counts["files_moved"] == 9
    for name, pattern in (("default", "epoch-000/*.parquet"), ("full", "epoch-*/*.parquet")):
        paths = sorted((trained_run / "batches").glob(pattern))
        rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
        found = load_dataset(str(tmp_path / "x"), name, split="train")
        assert len(found) == len(rows) > 500
        assert found.to_list() == [{key: row[key] for key in found.column_names} for row in rows]
    assert set(found.column_names) >= {"anchor", "positive", "negative_1", "ignore_ids"}
    # It needs no run to be checked.
    run_verify(VerifyConfig(directory=str(tmp_path / "x")))


def test_a_model_loads_and_embeds_as_that_of_the_run(trained_run, tmp_path) -> None:
    share(trained_run, tmp_path / "m", MODEL)
    texts = ["a dog", "the second text", ""]
    own, shared = (SentenceTransformer(str(p)) for p in (trained_run / "model", tmp_path / "m"))
    assert np.array_equal(own.encode(texts), shared.encode(texts))
    assert not (tmp_path / "m" / "checkpoints").exists()
    head = head_of(tmp_path / "m")
    assert head["license"] == "mit"
    assert head["library_name"] == "sentence-transformers"
    card = (tmp_path / "m" / "README.md").read_text("utf-8")
    assert 'SentenceTransformer("me/model")' in card
    assert "## Training" in card and "## Provenance" in card


def test_a_card_says_what_the_data_set_was_made_of(trained_run, tmp_path) -> None:
    share(trained_run, tmp_path / "x", license="cc-by-4.0")
    head = head_of(tmp_path / "x")
    assert next(iter(head)) == "license"
    assert (head["license"], head["size_categories"]) == ("cc-by-4.0", ["n<1K"])
    own = head_of(trained_run / "batches")
    assert {name: head[name] for name in own} == own
    card = (tmp_path / "x" / "README.md").read_text("utf-8")
    counts = require(RunDir(trained_run), "negatives").counts
    for said in (
        'load_dataset("me/x", "full")',
        f"{counts['rows']:,} rows: {counts['rows_full']:,} with all 4 negatives",
        "- pairs: 600 read, 600 kept",
        "| relative margin | 0.05 |",
        "| batch size | 32 |",
        "Not measured; `stx-mine audit` measures it.",
        require(RunDir(trained_run), "batches").digest,
    ):
        assert said in card, said


def test_a_card_says_how_many_negatives_are_false(trained_copy, tmp_path) -> None:
    """Also where that was measured only after they were packed."""
    sheet = tmp_path / "audit.csv"
    run_audit(AuditConfig(run_dir=str(trained_copy), sheet=str(sheet), sample=60))
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        row["false_negative"] = "no" if number % 10 else "yes"
    with sheet.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    run_audit(AuditConfig(run_dir=str(trained_copy), answers=str(sheet), sample=60))
    [finding], _ = read_audits(RunDir(trained_copy))
    for url in (DATA, MODEL):
        share(trained_copy, tmp_path / "x", url, overwrite=True)
        card = (tmp_path / "x" / "README.md").read_text("utf-8")
        assert f"## False negatives\n\n- {finding.sentence}\n" in card
        assert ": 6 of 60" in card and "Not measured" not in card
        shutil.rmtree(tmp_path / "x")


def test_no_path_of_this_machine_is_shared(trained_run, tmp_path) -> None:
    for url in (DATA, MODEL):
        share(trained_run, tmp_path / "x", url)
        for path in (tmp_path / "x").rglob("*"):
            if path.is_file():
                assert str(trained_run.parent).encode() not in path.read_bytes(), path
        said = read_json(tmp_path / "x/.stx-mine" / MANIFEST)
        assert said["config"]["run_dir"] == "run"
        shutil.rmtree(tmp_path / "x")


def test_names_of_others_are_no_markup_in_a_card(small_input, tmp_path) -> None:
    evil = "<script>alert(1)</script>\n---\nlicense: evil\n---"
    table = pq.read_table(small_input / "pairs.parquet")
    sources = []
    for number, name in enumerate((evil, "b---")):
        path = tmp_path / f"{number}<b>---`x`.parquet"
        pq.write_table(table.slice(number * 100, 100), path)
        sources.append(Source(name=name, path=str(path)))
    run = tmp_path / "run"
    model = "package:wordllama"
    run_embed(EmbedConfig(run_dir=str(run), sources=tuple(sources), device="cpu", model=model))
    run_mine(MineConfig(run_dir=str(run), k=2, device="cpu"))
    run_pack(PackConfig(run_dir=str(run), batch_size=32, packings=1, k=1))
    share(run, tmp_path / "x")
    card = (tmp_path / "x" / "README.md").read_text("utf-8")
    assert head_of(tmp_path / "x")["license"] == "mit"
    assert "license: evil" in card and "&lt;script&gt;" in card
    assert "<script" not in card and "<b>" not in card
    lines = card.split("\n")
    assert [number for number, line in enumerate(lines) if line == "---"][1:] == [
        lines.index("---", 1)
    ]


def test_an_export_is_shared_by_its_name(small_run, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    run_export(ExportConfig(run_dir=str(run), to="triplet"))
    name = "exports/triplet"
    share(run, tmp_path / "x", artifact=(name,))
    lines = require(RunDir(run), "exports", "triplet").counts["lines"]
    assert len(load_dataset(str(tmp_path / "x"), split="train")) == lines
    fetch(tmp_path / "other", tmp_path / "x")
    assert tree(tmp_path / "other" / name).keys() == tree(run / name).keys()


# --- back into a run ---


@pytest.mark.parametrize("url", [DATA, MODEL])
def test_what_is_fetched_is_what_was_shared(trained_run, tmp_path, url) -> None:
    share(trained_run, tmp_path / "x", url)
    name = "batches" if url == DATA else "model"
    other = tmp_path / "other"
    assert fetch(other, tmp_path / "x").counts["files_moved"] > 0
    before, after = tree(trained_run / name), tree(other / name)
    assert before.keys() == after.keys()
    said = {MANIFEST, PLAN}
    assert {k: v for k, v in before.items() if k not in said} == {
        k: v for k, v in after.items() if k not in said
    }
    own, shared = (require_any(run, name) for run in (trained_run, other))
    assert own["files"] == shared["files"] and own["key"] == shared["key"]
    assert own["digest"] == shared["digest"]
    assert fetch(other, tmp_path / "x").skipped
    # Also where it was made: nothing there is stale after that.
    copy = tmp_path / "copy"
    shutil.copytree(trained_run, copy)
    assert fetch(copy, tmp_path / "x").skipped
    require(RunDir(copy), "model")


def require_any(run: Path, name: str) -> dict:
    return read_json(run / name / MANIFEST)


def test_damage_in_a_shared_tree_is_found(trained_run, tmp_path) -> None:
    share(trained_run, tmp_path / "x")
    path = tmp_path / "x/epoch-000/train-00000-of-00001.parquet"
    raw = path.read_bytes()
    path.write_bytes(bytes([raw[0] ^ 1]) + raw[1:])
    with pytest.raises(ArtifactError, match=r"train-00000-of-00001\.parquet is damaged"):
        fetch(tmp_path / "other", tmp_path / "x")
    assert not (tmp_path / "other/batches").exists()
    share(trained_run, tmp_path / "x", overwrite=True)
    fetch(tmp_path / "other", tmp_path / "x")


# --- again, and in the way ---


def test_what_is_there_is_not_written_again(trained_run, tmp_path) -> None:
    share(trained_run, tmp_path / "x")
    before = tree(tmp_path / "x")
    assert share(trained_run, tmp_path / "x").skipped
    assert tree(tmp_path / "x") == before
    report = share(trained_run, tmp_path / "x", license="cc0-1.0")
    assert report.counts["files_moved"] == 2
    after = tree(tmp_path / "x")
    assert {name for name in after if after[name] != before[name]} == {
        "README.md",
        ".stx-mine/share.json",
    }
    assert head_of(tmp_path / "x")["license"] == "cc0-1.0"


def test_another_artifact_is_refused_until_overwrite(trained_copy, tmp_path) -> None:
    share(trained_copy, tmp_path / "x")
    before = tree(tmp_path / "x")
    run_pack(PackConfig(run_dir=str(trained_copy), batch_size=64, packings=1, overwrite=True))
    with pytest.raises(ArtifactError, match=r"holds another batches.*--overwrite"):
        share(trained_copy, tmp_path / "x")
    assert tree(tmp_path / "x") == before
    share(trained_copy, tmp_path / "x", overwrite=True)
    own = {name for name in tree(trained_copy / "batches") if name not in (MANIFEST, PLAN)}
    assert tree(tmp_path / "x").keys() == own | MARKS
    assert not (tmp_path / "x/epoch-001").exists()


def test_a_card_that_was_edited_is_kept_until_overwrite(trained_run, tmp_path) -> None:
    share(trained_run, tmp_path / "x")
    card = tmp_path / "x" / "README.md"
    written = card.read_text("utf-8")
    card.write_text(written + "\nMy own words.\n", "utf-8")
    for license_id in ("mit", "cc0-1.0"):
        with pytest.raises(ArtifactError, match=r"README\.md of .* was edited there.*--overwrite"):
            share(trained_run, tmp_path / "x", license=license_id)
    assert card.read_text("utf-8").endswith("My own words.\n")
    share(trained_run, tmp_path / "x", overwrite=True)
    assert card.read_text("utf-8") == written


def test_a_folder_of_others_is_left_alone(trained_run, tmp_path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "README.md").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ArtifactError, match=r"did not publish \(README\.md\).*left alone"):
            share(trained_run, theirs, overwrite=overwrite)
    assert tree(theirs).keys() == {"README.md"}
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ArtifactError, match="found a file"):
        share(trained_run, tmp_path / "file")
    # What somebody has put beside ours would be lost in a swap.
    share(trained_run, tmp_path / "x")
    (tmp_path / "x" / "LICENSE").write_text("mine")
    share(trained_run, tmp_path / "x", license="cc0-1.0")
    with pytest.raises(ArtifactError, match=r"did not publish \(LICENSE\), which would be lost"):
        share(trained_run, tmp_path / "x", overwrite=True)
    assert (tmp_path / "x" / "LICENSE").read_text() == "mine"
    # A link that leads elsewhere is no mark of ours.
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / ".stx-mine").symlink_to(tmp_path / "x/.stx-mine")
    with pytest.raises(ArtifactError, match="found something else"):
        share(trained_run, linked, overwrite=True)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def killed_at(number: int, patch: pytest.MonkeyPatch, act) -> bool:
    """Do something that dies at the n-th rename or removal; whether it died."""
    left = [number]

    def dies(whole):
        def change(self, *args, **options):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return whole(self, *args, **options)

        return change

    for name in ("replace", "unlink", "rmdir"):
        patch.setattr(Path, name, dies(getattr(Path, name)))
    try:
        act()
    except Killed:
        return True
    return False


def test_a_share_killed_at_any_change_of_a_file_goes_on(
    trained_copy, tmp_path, monkeypatch
) -> None:
    share(trained_copy, tmp_path / "old")
    old = tree(tmp_path / "old")
    run_pack(PackConfig(run_dir=str(trained_copy), batch_size=64, packings=1, overwrite=True))
    share(trained_copy, tmp_path / "new")
    new = tree(tmp_path / "new")
    for number in range(100):
        where = tmp_path / f"at{number}"
        shutil.copytree(tmp_path / "old", where)
        again = partial(share, trained_copy, where, overwrite=True)
        with monkeypatch.context() as patch:
            was_killed = killed_at(number, patch, again)
        # A reader finds the old one, the new one, or none; never a mixture.
        if where.exists():
            found = tree(where)
            assert found == old or {k: v for k, v in found.items() if "share" not in k} == {
                k: v for k, v in new.items() if "share" not in k
            }
        again()
        after = tree(where)
        assert after.keys() == new.keys()
        assert [k for k in new if after[k] != new[k]] in ([], [".stx-mine/share.json"]), number
        left = [path.name for path in tmp_path.iterdir() if path.name.startswith(f"at{number}.")]
        assert left == []
        if not was_killed:
            assert number > 8
            return
    pytest.fail("it never ended")


# --- mistakes ---


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([DATA], "expected --license for what is shared, found none; give one"),
        ([DATA, "--license", "MIT"], "found 'MIT' (did you mean mit?); give one, as mit"),
        ([DATA, "--license", "my own"], "must be an identifier of the hub, found 'my own'"),
        ([DATA, "--license", "mit"], "the hub cannot be reached: HF_HUB_OFFLINE is set; write"),
        ([DATA, "--license", "mit", "--public", "--to", "x"], "does not fit --to x"),
        ([DATA, "--license", "mit", "--artifact", "model"], "batches or exports/LAYOUT, found"),
        ([MODEL, "--license", "mit", "--artifact", "batches"], "one artifact, model, found"),
        ([DATA, "--license", "mit", "--artifact", "exports"], "one artifact, batches or exports"),
        ([DATA + "@main", "--license", "mit"], "found a revision, 'main'; leave it out"),
        (["hf://me", "--license", "mit", "--to", "x"], "expected hf://datasets/OWNER/NAME or"),
        (["hf://spaces/me/x", "--license", "mit"], "expected hf://datasets/OWNER/NAME or"),
        (["hf://datasets/me/x/y", "--license", "mit"], "expected hf://datasets/OWNER/NAME or"),
        (["file:///nowhere", "--license", "mit"], "--license is for hf://datasets/OWNER/NAME"),
        (["file:///nowhere", "--public"], "--public is for hf://datasets/OWNER/NAME"),
    ],
)
def test_mistakes_are_told_in_one_line(trained_run, tmp_path, cli_here, words, said) -> None:
    assert said in cli_here("publish", *words, run_dir=trained_run).error


def test_what_is_not_finished_is_not_shared(small_run, tmp_path, cli_here: Cli) -> None:
    words = ("publish", DATA, "--license", "mit", "--to", tmp_path / "x")
    assert "no finished batches in" in cli_here(*words, run_dir=small_run).error
    assert not (tmp_path / "x").exists()
    done = cli_here("fetch", DATA, run_dir=tmp_path / "run")
    assert "fetch from a folder that `publish --to` wrote" in done.error


def test_names_of_the_hub_are_read() -> None:
    assert HubAddress.of("s3://bucket/run") is None
    assert HubAddress.of("hf://datasets/me/x.y_z-1") == HubAddress(True, "me/x.y_z-1")
    assert HubAddress.of("hf://me/model@v1.0") == HubAddress(False, "me/model", "v1.0")
    assert HubAddress.of("hf://models/me/model").url == "hf://me/model"
    for wrong in (
        "hf://",
        "hf://me",
        "hf://a/b/c",
        "hf://datasets/a--b/c",
        "hf://../x",
        "hf://a/b.",
    ):
        with pytest.raises(ConfigError, match="expected hf://datasets/OWNER/NAME"):
            HubAddress.of(wrong)
    assert {"mit", "other", "unknown"} <= LICENSES and all(one == one.lower() for one in LICENSES)
