"""Packing of (text, label) rows: labels, batches, shards, `verify`, and the losses they are for."""

import csv
import json
import shutil
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Cli
from datasets import load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer import losses

from stx_mine.core.ragged import Ragged, offsets_of
from stx_mine.errors import ArtifactError, ConfigError, InputError, ViolationError
from stx_mine.stages.export.config import ExportConfig
from stx_mine.stages.export.stage import run_export
from stx_mine.stages.ingest.config import IngestConfig
from stx_mine.stages.ingest.stage import run_ingest
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.labels.core.batches import assign_labels, largest_batch, most_batches
from stx_mine.stages.pack.labels.core.labels import Labels, labels_of_pairs, labels_of_rows
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.packed_sampler import PackedBatchSampler
from stx_mine.stages.train.stage import run_train
from stx_mine.stages.verify.config import VerifyConfig
from stx_mine.stages.verify.stage import run_verify
from stx_mine.store.artifact import MANIFEST, read_manifest
from stx_mine.store.batches import list_packings
from stx_mine.store.files import checksum
from stx_mine.store.manifest import sealed

NO_ROWS = np.empty(0, np.int64)
rows_of_labels = st.lists(st.tuples(st.integers(-1, 12), st.integers(-1, 4)), max_size=60)
# Groups below 12 are passages; a text may be a query and a passage at once.
pairs_of_groups = st.lists(
    st.tuples(st.integers(0, 24), st.integers(0, 11)).filter(lambda pair: pair[0] != pair[1]),
    min_size=1,
    max_size=60,
)


def columns(rows):
    return (np.array([row[i] for row in rows], np.int64) for i in (0, 1))


def sets_of(ragged: Ragged) -> list[set[int]]:
    return [set(ragged.row(number).tolist()) for number in range(len(ragged))]


# --- which labels there are ---


@settings(deadline=None)
@given(rows_of_labels)
def test_rows_are_kept_or_dropped_by_reason(rows):
    found = labels_of_rows(*columns(rows), num_labels=5)
    given_rows = {(text, label) for text, label in rows if text >= 0 and label >= 0}
    under = defaultdict(set)
    for text, label in given_rows:
        under[text].add(label)
    several = {text for text, labels in under.items() if len(labels) > 1}
    by_label = {
        label: {text for text, other in given_rows if other == label and text not in several}
        for label in range(5)
    }
    kept = [label for label in range(5) if len(by_label[label]) > 1]
    assert found.kept.tolist() == kept
    assert sets_of(found.labels.texts) == [by_label[label] for label in kept]
    assert set(found.contradictory.tolist()) == several
    assert len(found.labels.texts.values) + sum(found.dropped.values()) == len(rows)
    dropped = found.dropped
    assert dropped["empty_text"] == sum(text < 0 for text, _ in rows)
    assert dropped["no_label"] == sum(text >= 0 > label for text, label in rows)
    assert dropped["text_under_several_labels"] == sum(len(under[text]) for text in several)
    assert dropped["only_text_of_its_label"] == sum(len(one) == 1 for one in by_label.values())


@settings(deadline=None)
@given(pairs_of_groups)
def test_queries_with_the_same_positives_are_a_label(pairs):
    labels, heads = labels_of_pairs(*columns(pairs), num_groups=25)
    passages = {passage for _, passage in pairs}
    positives = defaultdict(set)
    for query, passage in pairs:
        positives[query] |= {passage, *({query} & passages)}
    expected = defaultdict(set)
    for query in dict.fromkeys(query for query, _ in pairs):
        expected[frozenset(positives[query])] |= {query, *positives[query]}
    assert sets_of(labels.texts) == list(expected.values())
    assert set(heads.tolist()) <= positives.keys()
    for number, texts in enumerate(sets_of(labels.texts)):
        assert int(heads[number]) in texts
        # In a label every query knows every passage.
        inside = {query for query in texts & positives.keys() if positives[query] <= texts}
        assert texts == {*inside, *positives[int(heads[number])]}
    for query, passage in pairs:
        assert any({query, passage} <= texts for texts in sets_of(labels.texts))


def may_meet(one, other, pairs):
    """Whether two sets of texts share none and no pair joins them."""
    joined = any((q in one and p in other) or (q in other and p in one) for q, p in pairs)
    return not one & other and not joined


@settings(deadline=None)
@given(pairs_of_groups)
def test_labels_keep_apart_where_they_share_a_text_or_a_pair_joins_them(pairs):
    labels, _ = labels_of_pairs(*columns(pairs), num_groups=25)
    texts, forbidden = sets_of(labels.texts), sets_of(labels.forbidden)
    for one, other in combinations(range(len(texts)), 2):
        apart = (
            texts[one] & texts[other]
            or forbidden[one] & texts[other]
            or forbidden[other] & texts[one]
        )
        assert bool(apart) != may_meet(texts[one], texts[other], set(pairs))


def test_a_chain_of_pairs_is_not_one_label():
    chain = [(100 + n, n + step) for n in range(50) for step in (0, 1)]
    labels, _ = labels_of_pairs(*columns(chain), num_groups=200)
    assert sets_of(labels.texts) == [{100 + n, n, n + 1} for n in range(50)]


# --- batches ---


def labels_with(sizes) -> Labels:
    sizes = np.asarray(sizes)
    texts = Ragged(offsets_of(sizes), np.arange(sizes.sum()))
    return Labels(texts, Ragged(np.zeros(len(sizes) + 1, np.int64), NO_ROWS))


def check(labels, assignment, batch_size, each, pairs=()):
    """Every invariant by brute force."""
    rows_PB, texts = assignment.rows_PB, sets_of(labels.texts)
    everything = np.concatenate([rows_PB.ravel(), assignment.left_out])
    assert sorted(everything.tolist()) == list(range(len(labels.texts.values)))
    for rows in rows_PB:
        assert len(rows) == batch_size
        assert len(set(labels.texts.values[rows].tolist())) == batch_size
        counts = Counter(labels.of_rows[rows].tolist())
        assert len(counts) >= 2
        assert all(2 <= count <= each for count in counts.values())
        for one, other in combinations(counts, 2):
            assert may_meet(texts[one], texts[other], pairs)
        # Rows of a label stand together.
        assert np.count_nonzero(np.diff(labels.of_rows[rows])) == len(counts) - 1


@settings(deadline=None)
@given(
    st.lists(st.integers(2, 9), min_size=1, max_size=30),
    st.integers(2, 5),
    st.integers(2, 5),
    st.integers(0, 9),
)
def test_batches_of_labels_hold_every_invariant(sizes, each, groups, seed):
    labels, size = labels_with(sizes), each * groups
    bound = most_batches(labels.texts.lengths(), size, each)
    first = NO_ROWS
    for number in range(3):
        rng = np.random.default_rng([seed, number])
        assignment = assign_labels(labels, size, each, first, rng)
        check(labels, assignment, size, each)
        assert len(assignment.rows_PB) <= bound
        first = assignment.left_out


@settings(deadline=None)
@given(pairs_of_groups, st.integers(2, 4), st.integers(2, 4), st.integers(0, 9))
def test_batches_of_pairs_hold_every_invariant(pairs, each, groups, seed):
    labels, _ = labels_of_pairs(*columns(pairs), num_groups=25)
    rng = np.random.default_rng(seed)
    assignment = assign_labels(labels, each * groups, each, NO_ROWS, rng)
    check(labels, assignment, each * groups, each, set(pairs))


def test_batches_of_texts_that_are_queries_and_passages_hold_every_invariant():
    pairs = [(n, n + 1) for n in range(150)]
    labels, _ = labels_of_pairs(*columns(pairs), num_groups=151)
    assert all(len(one) for one in sets_of(labels.forbidden)[:-1])
    for seed in range(20):
        assignment = assign_labels(labels, 16, 2, NO_ROWS, np.random.default_rng(seed))
        check(labels, assignment, 16, 2, set(pairs))
        assert len(assignment.rows_PB) > 10


def test_a_passage_of_half_the_queries_does_not_stop_the_others():
    """Labels of three texts share one passage; a batch takes one of them, and an even rest."""
    own = [(3_000 + n, n) for n in range(2_000)]
    pairs = own + [(3_000 + n, 2_500) for n in range(0, 2_000, 2)]
    labels, _ = labels_of_pairs(*columns(pairs), num_groups=5_000)
    assignment = assign_labels(labels, 64, 4, NO_ROWS, np.random.default_rng(0))
    check(labels, assignment, 64, 4, set(pairs))
    # 2,000 rows of the others, and at most 3 of the rest a batch.
    assert 31 <= len(assignment.rows_PB) <= 32


@given(
    st.lists(st.integers(2, 9), min_size=1, max_size=12),
    st.integers(2, 4),
    st.integers(2, 5),
)
def test_the_bound_counts_what_labels_can_give(sizes, each, groups):
    size = each * groups
    usable = [one - one % 2 if each == 2 else one for one in sizes]
    fits = [
        number
        for number in range(200)
        if sum(min(one, number * each) for one in usable) >= number * size
    ]
    assert most_batches(np.array(sizes), size, each) == max(fits)
    widest = largest_batch(np.array(sizes), 3, each)
    assert widest % each == 0
    assert widest == 0 or widest >= 2 * each
    assert widest == 0 or most_batches(np.array(sizes), widest, each) >= 3
    assert most_batches(np.array(sizes), max(widest, each) + each, each) < 3


@pytest.mark.parametrize(
    ("sizes", "size", "each"),
    [
        ([100] * 150, 512, 4),
        ([100] * 150, 600, 4),
        ([130] * 77, 256, 4),
        (list(range(35, 188, 2)), 256, 4),
        ([2] * 900, 64, 4),
        ([3] * 900, 60, 4),
        ([5] * 900, 60, 6),
        ([1_000, 1_000, 20], 8, 4),
        ([3, 3, 3, 2], 9, 3),
    ],
)
def test_nearly_every_batch_is_filled_and_left_out_rows_come_first(sizes, size, each):
    labels, first = labels_with(sizes), NO_ROWS
    bound = most_batches(labels.texts.lengths(), size, each)
    for number in range(3):
        assignment = assign_labels(labels, size, each, first, np.random.default_rng([1, number]))
        check(labels, assignment, size, each)
        assert bound - 1 <= len(assignment.rows_PB) <= bound
        assert not np.isin(first, assignment.left_out).any()
        batches, _ = np.nonzero(np.isin(assignment.rows_PB, first))
        if len(first) and bound > 8:
            assert batches.mean() < 0.4 * bound
        first = assignment.left_out


def test_who_meets_whom_is_random_anew():
    labels = labels_with([40] * 30)
    met = Counter()
    for seed in range(30):
        for rows in assign_labels(labels, 32, 4, NO_ROWS, np.random.default_rng(seed)).rows_PB:
            met.update(combinations(sorted(set(labels.of_rows[rows].tolist())), 2))
    # 30 packings x 37 batches, in which 8 of 30 labels meet: 71 times a pair on average.
    assert len(met) == 30 * 29 / 2
    assert 40 < min(met.values()) <= max(met.values()) < 110
    same = [assign_labels(labels, 32, 4, NO_ROWS, np.random.default_rng(3)) for _ in range(2)]
    assert np.array_equal(same[0].rows_PB, same[1].rows_PB)


# --- from the command line to the shards ---


def banking(shared_data: Path) -> list[tuple[str, str]]:
    """(text, intent) of the training texts: those that the same queries name."""
    folder = shared_data / "banking77"
    intents: dict[str, str] = {}
    with (folder / "qrels/test.tsv").open() as lines:
        for query, passage, _ in csv.reader(list(lines)[1:], delimiter="\t"):
            intents.setdefault(passage, f"intent of {query}")
    with (folder / "corpus.jsonl").open() as lines:
        texts = {row["_id"]: row["text"] for row in map(json.loads, lines)}
    return [(text, intents[number]) for number, text in texts.items()]


@pytest.fixture(scope="module")
def labeled(tmp_path_factory, shared_data) -> Path:
    """A JSONL file of 10,003 real texts and some that cannot be used."""
    path = tmp_path_factory.mktemp("labeled") / "train.jsonl"
    rows = banking(shared_data)
    other = next(label for _, label in rows if label != rows[0][1])
    rows += [(" " + rows[0][0].replace(" ", "  "), other), ("", other), ("no label", None)]
    rows += [("alone", "rare")]
    path.write_text("".join(json.dumps({"label": b, "text": a}) + "\n" for a, b in rows))
    return path


@pytest.fixture(scope="module")
def packed(labeled, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("packed") / "run"
    run_pack(PackConfig(layout="labels", labeled=str(labeled), batch_size=256, run_dir=str(run)))
    return run


@pytest.fixture
def batches(packed, tmp_path) -> Path:
    """A copy that a test may break."""
    shutil.copytree(packed / "batches", tmp_path / "batches")
    return tmp_path / "batches"


def tables(folder):
    return [
        shard.batch(number)
        for shards in list_packings(folder)
        for shard in shards
        for number in range(shard.num_batches)
    ]


def test_a_labelled_file_becomes_batches(packed, labeled):
    counts = read_manifest(packed / "batches").counts
    rows = [json.loads(line) for line in labeled.read_text().splitlines()]
    assert counts["rows_in"] == len(rows) == 10_007
    assert counts["rows_kept"] + sum(counts["rows_dropped"].values()) == counts["rows_in"]
    assert counts["rows_dropped"] == {
        "empty_text": 1,
        "no_label": 1,
        "repeated_row": 4,
        "text_under_several_labels": 2,
        "only_text_of_its_label": 1,
    }
    assert counts["labels"] == 77
    assert counts["rows_packed"] + sum(counts["rows_left_out"].values()) == counts["rows_kept"]
    # As many as 4 texts a label allow for, less at most one.
    assert counts["batches_bound"] - 1 <= counts["batches"] == 36
    truth = {row["text"]: row["label"] for row in rows}
    names = pq.read_table(packed / "batches/labels.parquet")["name"].to_pylist()
    for table in tables(packed / "batches"):
        assert table.column_names == ["text", "label", "text_id"]
        found = table.to_pylist()
        assert len(found) == len({row["text"] for row in found}) == 256
        assert [names[row["label"]] for row in found] == [truth[row["text"]] for row in found]
        assert set(Counter(row["label"] for row in found).values()) <= {2, 3, 4}


def test_packings_differ_and_take_up_what_was_left_out(packed):
    counts = read_manifest(packed / "batches").counts
    found = tables(packed / "batches")
    half = len(found) // 2
    one, two = (
        {row for table in part for row in table["text_id"].to_pylist()}
        for part in (found[:half], found[half:])
    )
    assert len(one) == len(two) == counts["rows_packed"]
    assert len(one | two) == counts["rows_kept"]
    assert found[0]["text"].to_pylist() != found[half]["text"].to_pylist()


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_the_format_of_the_file_does_not_matter(packed, labeled, tmp_path, suffix):
    rows = [json.loads(line) for line in labeled.read_text().splitlines()]
    numbers = {label: n for n, label in enumerate(dict.fromkeys(row["label"] for row in rows))}
    path = tmp_path / f"other.{suffix}"
    texts = [row["text"] for row in rows]
    ids = [None if row["label"] is None else numbers[row["label"]] for row in rows]
    if suffix == "parquet":
        pq.write_table(pa.table({"intent": ids, "utterance": texts}), path)
    else:
        # TSV has no quotes.
        quoting = {"quoting": csv.QUOTE_NONE, "quotechar": None} if suffix == "tsv" else {}
        with path.open("w", newline="") as handle:
            writer = csv.writer(handle, delimiter="\t" if suffix == "tsv" else ",", **quoting)
            writer.writerows([["intent", "utterance"], *zip(ids, texts, strict=True)])
    run_pack(
        PackConfig(
            layout="labels",
            labeled=str(path),
            text_column="utterance",
            label_column="intent",
            batch_size=256,
            run_dir=str(tmp_path / "run"),
        )
    )
    for one, two in zip(tables(packed / "batches"), tables(tmp_path / "run/batches"), strict=True):
        assert one.to_pylist() == two.to_pylist()


def test_a_file_of_labels_is_packed_and_verified(shared_data, tmp_path, monkeypatch, cli_here: Cli):
    monkeypatch.chdir(tmp_path)
    with Path("train.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([("text", "label"), *banking(shared_data)])
    args = ("--layout", "labels", "--labeled", "train.csv", "--batch-size", "256")
    done = cli_here("pack", *args)
    assert done.code == 0, done
    assert "36 batches of 256 rows in each of 2 packings" in done.stdout
    assert cli_here("verify").code == 0


def test_a_contradiction_is_named(labeled, tmp_path, cli_here: Cli):
    args = ("pack", "--layout", "labels", "--labeled", labeled, "--batch-size", 256)
    for state in ("done in", "done before, skipped"):
        done = cli_here(*args, run_dir=tmp_path / "run")
        assert done.code == 0, done
        assert state in done.stdout
        assert "1 texts stand under several labels" in done.stderr
        assert (
            "'I am still waiting on my card?' under 'intent of q0', 'intent of q40'" in done.stderr
        )
        assert "text_under_several_labels 2" in done.stdout


def test_another_content_is_refused_and_a_moved_file_is_not(packed, labeled, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(packed, run)
    moved = tmp_path / "moved.jsonl"
    shutil.copy(labeled, moved)
    config = PackConfig(layout="labels", labeled=str(moved), batch_size=256, run_dir=str(run))
    assert run_pack(config).skipped
    with moved.open("a") as handle:
        handle.write('{"text": "more", "label": "x"}\n')
    with pytest.raises(ArtifactError, match=r"labeled was .* and is .* now"):
        run_pack(config)


def test_a_dry_run_writes_nothing(labeled, packed, tmp_path):
    config = PackConfig(
        layout="labels", labeled=str(labeled), batch_size=256, run_dir=str(tmp_path), dry_run=True
    )
    report = run_pack(config)
    assert report.counts == read_manifest(packed / "batches").counts
    assert not (tmp_path / "batches").exists()


def test_pairs_become_labels_without_embeddings(shared_data, tmp_path):
    """Banking: all queries of an intent know all its passages, so that an intent is a label."""
    run = tmp_path / "run"
    run_ingest(IngestConfig(pairs=str(shared_data / "banking77"), run_dir=str(run)))
    counts = run_pack(PackConfig(layout="labels", batch_size=256, run_dir=str(run))).counts
    assert counts["labels"] == 77
    assert counts["rows_kept"] == counts["texts"]
    assert run_verify(VerifyConfig(run_dir=str(run))).counts["rows"] == 256 * counts["steps"]
    positives = pq.read_table(run / "batches/positives.parquet").to_pylist()
    known = {row["anchor_id"]: set(row["positive_ids"]) for row in positives}
    for table in tables(run / "batches"):
        label_of = dict(zip(table["text_id"].to_pylist(), table["label"].to_pylist(), strict=True))
        for text, label in label_of.items():
            inside = known.get(text, set()) & label_of.keys()
            assert all(label_of[one] == label for one in inside)


@pytest.fixture(scope="module")
def commands(shared_data, tmp_path_factory) -> Path:
    """Pairs of tasks and shell commands, of which many answer several tasks, as labels."""
    run = tmp_path_factory.mktemp("commands") / "run"
    run_ingest(IngestConfig(pairs=str(shared_data / "nl2bash"), run_dir=str(run)))
    run_pack(PackConfig(layout="labels", batch_size=256, run_dir=str(run)))
    return run


def test_most_rows_of_real_pairs_are_packed(commands):
    counts = read_manifest(commands / "batches").counts
    assert counts["labels"] == 9_746
    assert counts["texts"] < counts["rows_kept"]
    assert counts["rows_packed"] > 0.99 * counts["rows_kept"]
    run_verify(VerifyConfig(run_dir=str(commands)))


def test_batches_that_labels_keep_from_filling_are_said(tmp_path):
    """Labels that share the passage `hub` cannot meet: 30 of them, and 10 others."""
    rows = [(f"query {i}", f"passage {i}") for i in range(40)]
    rows += [(f"query {i}", "hub") for i in range(30)]
    pairs, run = tmp_path / "pairs.jsonl", str(tmp_path / "run")
    pairs.write_text("".join(json.dumps({"query": q, "passage": p}) + "\n" for q, p in rows))
    run_ingest(IngestConfig(pairs=str(pairs), run_dir=run))
    report = run_pack(PackConfig(layout="labels", batch_size=4, texts_per_label=2, run_dir=run))
    assert report.counts["batches"] <= 10 < report.counts["batches_bound"]
    assert any("batches could not be filled" in one for one in report.warnings)


# --- what verify finds ---


def rewrite(folder, change, name="epoch-000/train-00000-of-00001.parquet"):
    path = folder / name
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    manifest = json.loads((folder / MANIFEST).read_text())
    for one in manifest["files"]:
        if one["file"] == name:
            one |= {"bytes": path.stat().st_size, "xxh3_128": checksum(path)}
    (folder / MANIFEST).write_text(json.dumps(sealed(manifest)))


def violation(folder) -> str:
    with pytest.raises(ViolationError) as caught:
        run_verify(VerifyConfig(directory=str(folder)))
    return str(caught.value)


def test_verify_needs_the_batches_alone(batches):
    assert run_verify(VerifyConfig(directory=str(batches))).counts["batches"] == 72


def test_verify_finds_a_changed_label(batches):
    def change(rows):
        rows[3]["label"] = rows[200]["label"]

    rewrite(batches, change)
    said = violation(batches)
    assert "epoch-000/train-00000-of-00001.parquet batch 0 row 3: the text is none of label" in said


def test_verify_finds_a_label_that_stands_alone_or_too_often(batches):
    def change(rows):
        alone, often = rows[0]["label"], rows[255]["label"]
        for row in rows[1:4]:
            row["label"] = often if row["label"] == alone else row["label"]

    rewrite(batches, change)
    said = violation(batches)
    counts = [line for line in said.splitlines() if "texts in the batch, not 2 to 4" in line]
    assert len(counts) == 2
    assert sum("has 1 texts" in line for line in counts) == 1


def test_verify_finds_a_batch_of_one_label(tmp_path, cli_here: Cli):
    """As earlier versions packed where a label filled a batch: loss 0, gradient 0."""
    rows = [{"text": f"{label} {n}", "label": label} for label in "abcd" for n in range(4)]
    pack_rows(tmp_path, rows, batch_size=8, packings=1)
    folder = tmp_path / "run/batches"
    path = folder / "epoch-000/train-00000-of-00001.parquet"
    table = pq.read_table(path).sort_by("label")
    footer = json.loads(table.schema.metadata[b"stx_mine"])
    for size in (8, 4):
        footer["batch_size"] = size
        changed = table.replace_schema_metadata({b"stx_mine": json.dumps(footer).encode()})
        pq.write_table(changed, path)
        (folder / MANIFEST).unlink(missing_ok=True)
        done = cli_here("verify", folder)
        assert done.code == (0 if size == 8 else 1), done
    assert done.stderr.count("is the only one in the batch") == 4


def test_verify_finds_a_text_twice_in_a_batch_and_in_a_packing(batches):
    def change(rows):
        rows[1] = dict(rows[0])

    rewrite(batches, change)
    said = violation(batches)
    assert "batch 0 row 0: a text stands twice in the batch (rows 0, 1)" in said
    assert "is in the packing more than once" in said


def test_verify_finds_a_text_under_the_id_of_another(batches):
    def change(rows):
        rows[0]["text"], rows[1]["text"] = rows[5]["text"], ""

    rewrite(batches, change)
    said = violation(batches)
    assert "a text stands under two ids" in said
    assert "the text is empty" in said


def test_verify_finds_an_unknown_label(batches):
    def change(rows):
        rows[0]["label"] = 99

    rewrite(batches, change)
    assert "label 99 is not in the table of labels" in violation(batches)


def test_verify_finds_labels_that_share_a_text_or_that_a_pair_joins(commands, tmp_path):
    folder = tmp_path / "batches"
    shutil.copytree(commands / "batches", folder)
    one, two = (
        dict.fromkeys(tables(folder)[0]["label"].to_pylist()[:20]).keys()
        and list(dict.fromkeys(tables(folder)[0]["label"].to_pylist()))[:2]
    )
    members = pq.read_table(folder / "labels.parquet")["text_ids"].to_pylist()

    def share(rows):
        rows[one]["text_ids"] = sorted({*rows[one]["text_ids"], members[two][0]})

    rewrite(folder, share, "labels.parquet")
    assert f"labels {min(one, two)} and {max(one, two)} share a text" in violation(folder)

    shutil.rmtree(folder)
    shutil.copytree(commands / "batches", folder)

    def join(rows):
        asking = next(row for row in rows if row["anchor_id"] in members[one])
        asking["positive_ids"] = sorted({*asking["positive_ids"], members[two][0]})

    rewrite(folder, join, "positives.parquet")
    assert f"labels {one} and {two} are joined by a known pair" in violation(folder)


# --- the losses ---


@pytest.mark.parametrize(
    "loss",
    [
        "BatchAllTripletLoss",
        "BatchHardTripletLoss",
        "BatchHardSoftMarginTripletLoss",
        "BatchSemiHardTripletLoss",
    ],
)
def test_the_losses_train_on_whole_batches(loss, tmp_path, tiny_transformer):
    rows = [(f"{word} number {n}", word) for word in "abcdefgh" for n in range(9)]
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as handle:
        csv.writer(handle).writerows([["text", "label"], *rows])
    run = tmp_path / "run"
    run_pack(
        PackConfig(layout="labels", labeled=str(path), batch_size=16, packings=1, run_dir=str(run))
    )
    dataset = load_dataset(str(run / "batches"), split="train", cache_dir=str(tmp_path / "cache"))
    assert dataset.column_names == ["text", "label"]
    packed = [table["label"].to_pylist() for table in tables(run / "batches")]
    seen = []
    model = SentenceTransformer(str(tiny_transformer), device="cpu")
    kind = getattr(losses, loss)

    class Recording(kind):
        def forward(self, sentence_features, labels):
            (features,) = sentence_features
            assert len(features["input_ids"]) == 16
            seen.append(labels.tolist())
            value = super().forward([features], labels)
            assert value.isfinite()
            return value

    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path / "out"),
        num_train_epochs=1,
        per_device_train_batch_size=16,
        batch_sampler=PackedBatchSampler,
        report_to="none",
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
    )
    SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=dataset, loss=Recording(model)
    ).train()
    assert seen == packed
    assert len(seen) == 4


def test_the_card_names_the_losses_and_the_names_of_labels_load(packed, tmp_path):
    folder = str(packed / "batches")
    card = (packed / "batches/README.md").read_text()
    for loss in ("BatchAllTripletLoss", "BatchHardTripletLoss", "BatchSemiHardTripletLoss"):
        assert loss in card
        assert hasattr(losses, loss)
    names = load_dataset(folder, "labels", split="train", cache_dir=str(tmp_path / "cache"))
    assert names.column_names == ["label", "name", "text_ids"]
    assert names["label"][:3] == [0, 1, 2]
    full = load_dataset(folder, "full", split="train", cache_dir=str(tmp_path / "cache"))
    assert len(full) == read_manifest(packed / "batches").counts["steps"] * 256


# --- what is refused ---


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"layout": "labels", "policy": "strict"}, "--policy strict needs --layout inline or ids"),
        ({"layout": "labels", "k": 0}, "--k 0 needs --layout inline or ids, found --layout labels"),
        ({"layout": "labels", "rotate": True}, "--rotate needs"),
        ({"layout": "labels", "cluster": 0.0}, "--cluster 0.0 needs"),
        ({"layout": "labels", "order": "easy-to-hard"}, "--order easy-to-hard needs"),
        ({"layout": "labels", "near_positive_margin": 0.0}, "--near-positive-margin 0.0 needs"),
        ({"labeled": "rows.csv"}, "--labeled rows.csv needs --layout labels"),
        ({"texts_per_label": 8}, "--texts-per-label 8 needs --layout labels"),
        ({"layout": "labels", "text_column": "t"}, "--text-column t needs --labeled"),
        ({"layout": "labels", "batch_size": 30}, "multiple of --texts-per-label 4, .* 28 or 32"),
        ({"layout": "labels", "batch_size": 4}, "at least twice .* 8 or --texts-per-label 2$"),
        ({"layout": "labels", "batch_size": 2, "texts_per_label": 2}, "give --batch-size 4$"),
        ({"layout": "labels", "texts_per_label": 1}, "--texts-per-label must be at least 2"),
    ],
)
def test_options_that_the_layout_does_not_heed_are_refused(fields, said):
    with pytest.raises(ConfigError, match=said):
        PackConfig(**fields)


def pack_rows(tmp_path, rows, **fields):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = {"layout": "labels", "labeled": str(path), "run_dir": str(tmp_path / "run"), **fields}
    return run_pack(PackConfig(**fields))


ROWS = [{"text": f"{label} {n}", "label": label} for label in "abc" for n in range(20)]


@pytest.mark.parametrize(
    ("rows", "fields", "error", "said"),
    [
        (ROWS, {"batch_size": 2_048}, ConfigError, "larger than the 60 labelled rows there are"),
        (
            ROWS,
            {"batch_size": 32},
            ConfigError,
            "needs 8 labels with so many, there are 3 labels; give --batch-size 12, or "
            "--texts-per-label 16",
        ),
        (
            [{"text": str(n), "label": n // 2} for n in range(60)],
            {"batch_size": 9, "texts_per_label": 3},
            ConfigError,
            "no batch of 9 rows can be filled: .* give --batch-size 6",
        ),
        ([{"text": "a", "label": "x"}], {}, InputError, "only_text_of_its_label 1"),
        (ROWS[:20], {"batch_size": 8}, InputError, "at least two labels .*, found 1 in .* other"),
        (
            [{"text": str(n), "label": n // 2} for n in range(4)],
            {"batch_size": 8},
            ConfigError,
            "larger than the 4 labelled rows there are; give --batch-size 4 --texts-per-label 2",
        ),
        ([{"text": "a", "label": {"b": 1}}], {}, InputError, "expected text in column 'label'"),
        ([{"text": "a"}], {}, InputError, "which column of .* holds the labels"),
        (ROWS, {"label_column": "text"}, InputError, "found 'text' for both"),
        (ROWS, {"text_column": "Text"}, InputError, "--text-column 'Text' is not a column"),
    ],
)
def test_what_cannot_be_packed_is_said(tmp_path, rows, fields, error, said):
    with pytest.raises(error, match=said):
        pack_rows(tmp_path, rows, **fields)
    assert not (tmp_path / "run/batches").exists()


def test_advice_on_the_batch_size_can_be_followed(tmp_path):
    for size in (12, 16):
        fields = {"batch_size": size, "texts_per_label": 4 if size == 12 else 8}
        assert pack_rows(tmp_path, ROWS, **fields, overwrite=True).counts["batches"] > 0
    few = [{"text": str(n), "label": n // 2} for n in range(4)]
    fields = {"batch_size": 4, "texts_per_label": 2}
    assert pack_rows(tmp_path, few, **fields, overwrite=True).counts["batches"] == 1


def test_pairs_of_one_label_are_refused(tmp_path):
    pairs, run = tmp_path / "pairs.jsonl", str(tmp_path / "run")
    rows = [{"query": f"query {n}", "passage": "the only one"} for n in range(40)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_ingest(IngestConfig(pairs=str(pairs), run_dir=run))
    with pytest.raises(InputError, match="pairs of at least two labels, found 1"):
        run_pack(PackConfig(layout="labels", batch_size=8, run_dir=run))


def test_the_narrowest_batches_of_one_large_label_hold_two(tmp_path):
    sizes = {"a": 200, "b": 9, "c": 8, "d": 3}
    rows = [{"text": f"{a} {n}", "label": a} for a, size in sizes.items() for n in range(size)]
    pack_rows(tmp_path, rows, batch_size=8, packings=3)
    batches = tables(tmp_path / "run/batches")
    assert batches
    assert all(len(set(table["label"].to_pylist())) >= 2 for table in batches)


def test_train_names_the_pack_that_it_needs(packed):
    with pytest.raises(ConfigError, match="needs rows of pairs, found") as e:
        run_train(TrainConfig(run_dir=str(packed)))
    assert f"run `stx-mine pack --run-dir {packed} --overwrite --batch-size" in str(e.value)


def test_other_commands_do_not_mind(run_copy):
    run_pack(PackConfig(run_dir=str(run_copy), layout="labels", batch_size=64))
    run_verify(VerifyConfig(run_dir=str(run_copy)))
    assert run_export(ExportConfig(run_dir=str(run_copy))).counts["lines"] > 0
    with pytest.raises(ArtifactError, match="layout was 'labels' and is 'inline' now"):
        run_pack(PackConfig(run_dir=str(run_copy), batch_size=64))
    run_pack(PackConfig(run_dir=str(run_copy), batch_size=64, overwrite=True))
    run_verify(VerifyConfig(run_dir=str(run_copy)))
