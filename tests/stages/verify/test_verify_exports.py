"""`verify` reads every layout that `export` writes, and finds what is planted in each."""

import json
import shutil
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import reseal

from stx_mine.errors import InputError, ViolationError
from stx_mine.inputs import json_document, run_file
from stx_mine.stages.export.config import ExportConfig
from stx_mine.stages.export.layouts import LAYOUTS
from stx_mine.stages.export.stage import run_export
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.verify.config import VerifyConfig
from stx_mine.stages.verify.pair_rows import open_rows
from stx_mine.stages.verify.stage import run_verify
from stx_mine.store.artifact import require
from stx_mine.store.files import read_table, write_table
from stx_mine.store.negatives import pool_files
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

K = 4
WITH_ROWS = [to for to, layout in LAYOUTS.items() if layout.lines]
# Each negative is a line of its own: twice in a row is the same line twice.
BY_NEGATIVE = ("triplet", "labeled-pair", "ms-marco")
FALSE_NEGATIVE = "a negative is a known positive of its anchor"


@pytest.fixture(scope="module")
def clean(small_run, tmp_path_factory):
    """A run of pools with exactly K negatives."""
    run = tmp_path_factory.mktemp("clean") / "run"
    shutil.copytree(small_run, run)
    run_mine(MineConfig(k=K, short_rows="drop", device="cpu", run_dir=str(run)))
    return run


@pytest.fixture(scope="module")
def planted(clean, tmp_path_factory):
    """That run with one false negative and one repeated negative in its pools, and their texts."""
    run = tmp_path_factory.mktemp("planted") / "run"
    shutil.copytree(clean, run, ignore=shutil.ignore_patterns("exports"))
    negatives = require(RunDir(run), "negatives")
    store = TextStore.open(require(RunDir(run), "texts"))
    [name] = pool_files(negatives)
    table = read_table(negatives.folder / name)
    pools = table.column("passage_ids").to_pylist()
    full = [row for row, pool in enumerate(pools) if len(pool) >= K]
    false, twice = full[10], full[20]
    queries = table.column("query_id").to_pylist()
    positive = store.pair_passage_ids[store.pair_query_ids == queries[false]][0]
    pools[false][1] = int(positive)
    pools[twice][2] = pools[twice][0]
    place = table.schema.get_field_index("passage_ids")
    changed = pa.array(pools, table.schema.field(place).type)
    write_table(negatives.folder / name, table.set_column(place, "passage_ids", changed))
    reseal(negatives.folder)
    texts = store.passages.column("text")
    return run, str(texts[int(positive)]), str(texts[pools[twice][0]])


def export(run, to, **fields):
    run_export(ExportConfig(to=to, run_dir=str(run), **fields))
    return run / "exports" / to


def verify(path, **options):
    return run_verify(VerifyConfig(directory=str(path), **options))


def violation(path, **options):
    with pytest.raises(ViolationError) as caught:
        verify(path, **options)
    return str(caught.value)


@pytest.mark.parametrize("to", list(LAYOUTS))
def test_an_export_is_clean_and_its_checksums_match(to, clean):
    folder = export(clean, to)
    report = verify(folder)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert report.lines[0].startswith("0 (0.0%) of ")
    assert report.lines[-1] == f"{len(files)} checksums match"
    assert report.counts["rows"] > 400
    assert report.counts["batches"] == 0


@pytest.mark.parametrize("to", WITH_ROWS)
def test_a_planted_false_negative_and_a_repeated_one_are_found(to, planted):
    run, positive, repeated = planted
    found = violation(export(run, to))
    again = "the row stands in the data before" if to in BY_NEGATIVE else "twice in its row"
    for words, text, times in ((FALSE_NEGATIVE, positive, 1), (again, repeated, 2)):
        counted, named = (line for line in found.splitlines() if words in line)
        assert f"{words}: 1 (" in counted
        if words == FALSE_NEGATIVE or to not in BY_NEGATIVE:
            assert named.count(repr(text[:60])) == times
    assert "checksum" not in found


@pytest.mark.parametrize("to", ["labeled-list", "flagembedding", "colbert", "nemo", "n-tuple"])
def test_batches_of_every_layout_are_judged_alike(to, planted):
    """All of them hold the same rows: no query of this run has two."""
    expected = violation(export(planted[0], "n-tuple"), batch_size=64).splitlines()
    found = violation(export(planted[0], to), batch_size=64).splitlines()
    rules = [line for line in expected if " of the rows, in " in line]
    assert len(rules) >= 2
    assert found[0].split(": ", 1)[1] == expected[0].split(": ", 1)[1]
    assert [line for line in found if " of the rows, in " in line] == rules


def test_a_labeled_list_per_query_and_one_with_scores_are_read(clean, planted):
    report = verify(export(clean, "labeled-list", include_positives=True))
    assert report.lines[1].endswith("passage from positive, label from labels")
    assert report.lines[2] == "labels: 1 is a positive, 0 is a known negative"
    report = verify(export(clean, "labeled-list", scores=True))
    assert "the first of 'positive' is the positive, the others are negatives" in report.lines[2]
    run = planted[0]
    for fields in ({"include_positives": True}, {"scores": True}):
        assert FALSE_NEGATIVE in violation(export(run, "labeled-list", **fields))


def test_scores_of_tevatron_and_colbert_are_read_over(planted):
    for to in ("tevatron", "colbert"):
        assert FALSE_NEGATIVE in violation(export(planted[0], to, scores=True))


def test_a_judgement_and_a_hit_that_stand_twice_are_found(clean, tmp_path):
    beir = shutil.copytree(export(clean, "beir"), tmp_path / "beir")
    qrels = beir / "qrels/train.tsv"
    lines = qrels.read_text().splitlines()
    qrels.write_text("\n".join([*lines, lines[7]]) + "\n")
    found = violation(beir)
    assert "qrels/train.tsv: its bytes have changed since it was written (checksum)" in found
    assert "the row stands in the data before: 1 (" in found
    assert "train.tsv row 6 query-id" in found
    # A judgement of grade 0 is a negative.
    qrels.write_text("\n".join([*lines, lines[7][:-1] + "0"]) + "\n")
    assert FALSE_NEGATIVE in violation(beir)
    run = shutil.copytree(export(clean, "trec-run"), tmp_path / "trec-run") / "run.trec"
    hits = run.read_text().splitlines()
    run.write_text("\n".join([*hits[:3], hits[1], *hits[3:]]) + "\n")
    assert "a text stands twice in its row: 1 (" in violation(run)


def test_an_id_without_a_text_is_a_missing_text(clean, tmp_path):
    folder = shutil.copytree(export(clean, "ms-marco"), tmp_path / "ms-marco")
    with (folder / "triples.tsv").open("a") as handle:
        handle.write("query-0\tpassage-999999\tpassage-1\n")
    found = violation(folder)
    assert "a text is missing or empty: 1 (" in found
    assert "positive ''" in found


@pytest.mark.parametrize("to", ["triplet", "tevatron", "dpr", "nemo", "colbert"])
def test_a_file_of_an_export_is_read_as_its_folder_is(to, planted):
    folder = export(planted[0], to)
    [path] = folder.glob(LAYOUTS[to].path)
    one, other = violation(folder).splitlines(), violation(path).splitlines()
    assert one[1:] == other[1:]


def test_of_another_artifact_the_files_are_checked(clean, cli_here):
    done = cli_here("verify", clean / "negatives")
    assert done.code == 0
    assert "negatives: 2 files of" in done.stdout
    error = cli_here("verify", clean / "negatives", "--batch-size", "8").error
    assert "holds artifacts of a run; leave it out" in error


# --- files of others ---


def rows_read(path, **options):
    """[anchor, positives, negatives] as `verify` reads them."""
    reader = open_rows(str(path), VerifyConfig(**options))
    found = []
    for _, block in reader.read(True):
        for row in range(len(block)):
            found.append([[slot.text for slot in role] for role in block.slots(row)])
    return [[anchor[0], *roles] for anchor, *roles in found]


ROWS = [
    {"question": f"q{number}", "positive_ctxs": [{"title": "T", "text": f"p{number} \u2028 ["}],
     "negative_ctxs": [], "hard_negative_ctxs": [{"title": "", "text": "n]}," * number}]}
    for number in range(40)
]  # fmt: skip


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 4])
def test_documents_are_read_in_pieces_of_any_size(size, indent, tmp_path, monkeypatch):
    monkeypatch.setattr(json_document, "_BLOCK_BYTES", size)
    path = tmp_path / "train.json"
    path.write_text(json.dumps(ROWS, indent=indent, ensure_ascii=False), "utf-8")
    assert rows_read(path) == [
        [row["question"], [f"T {row['positive_ctxs'][0]['text']}"],
         [one["text"] for one in row["hard_negative_ctxs"]]]
        for row in ROWS
    ]  # fmt: skip
    # Its fields in another order, ids as they are, a corpus that it names.
    ids = {"question_id": "7", "corpus_id": "c"}
    data = [{**ids, "question": "q", "pos_doc": ["1"], "neg_doc": [2, 3]}]
    document = {"note": [1, {"data": 2}], "data": data, "corpus": {"path": "texts"}}
    path.write_text(json.dumps(document, indent=indent), "utf-8")
    (tmp_path / "texts").mkdir()
    corpus = pa.table({"id": ["1", "2", "3"], "text": list("abc")})
    pq.write_table(corpus, tmp_path / "texts/t.parquet")
    assert rows_read(path) == [["q", ["1"], ["2", "3"]]]
    reader = open_rows(str(path), VerifyConfig())
    [(_, found)] = reader.blocks()
    assert (found.negatives.values >= 0).all()
    assert reader.shown([0])[0] == [
        ("question", "q"), ("pos_doc[0]", "a"), ("neg_doc[0]", "b"), ("neg_doc[1]", "c"),
    ]  # fmt: skip


def test_lists_of_any_kind_of_column_are_read(tmp_path):
    lists = {
        "query": ["a", "b", "c"],
        "pos": [["p"], [], ["q", None]],
        "neg": [["n"], None, ["m", "o"]],
        "pos_scores": [[1.0], [], [2.0]],
    }
    wanted = [["a", ["p"], ["n"]], ["b", [], []], ["c", ["q", None], ["m", "o"]]]
    pq.write_table(pa.table(lists), tmp_path / "rows.parquet")
    assert rows_read(tmp_path / "rows.parquet") == wanted
    rows = [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert rows_read(tmp_path / "rows.jsonl") == wanted
    found = violation(tmp_path / "rows.jsonl")
    assert "a text is missing or empty: 1 (33.3%) of the rows" in found
    assert "rows.jsonl row 2 pos[1] ''" in found


def test_labels_of_pairs_are_heeded_where_they_are_zero_and_one(tmp_path):
    pairs = {"anchor": ["a", "a", "b"], "positive": ["p", "n", "p"], "label": [1, 0, 1]}
    pq.write_table(pa.table(pairs), tmp_path / "pairs.parquet")
    assert rows_read(tmp_path / "pairs.parquet") == [
        ["a", ["p"], []], ["a", [], ["n"]], ["b", ["p"], []],
    ]  # fmt: skip
    pairs["label"] = [0.7, 0.1, 0.2]
    pq.write_table(pa.table(pairs), tmp_path / "pairs.parquet")
    with pytest.raises(InputError, match=r"'label'.*numbers from 0.1 to 0.7.*--label-column none"):
        verify(tmp_path / "pairs.parquet")
    assert rows_read(tmp_path / "pairs.parquet", label_column="none")[1] == ["a", ["n"], []]
    assert rows_read(tmp_path / "pairs.parquet", min_grade=0.5)[1] == ["a", [], []]
    report = verify(tmp_path / "pairs.parquet", label_column="none")
    assert report.lines[1].endswith("; not read: label")


@pytest.mark.parametrize("block", [16, 1 << 20])
def test_a_query_of_a_run_may_cross_the_blocks_that_are_read(block, tmp_path, monkeypatch):
    monkeypatch.setattr(run_file, "_BLOCK_BYTES", max(block, 200))
    rng, lines, wanted = np.random.default_rng(0), [], []
    for query in range(30):
        hits = [f"d{one}" for one in rng.permutation(50)[: 1 + query % 9]]
        wanted.append([f"query q{query}", [], hits])
        lines += [f"q{query} Q0 {hit} {rank} {-rank} tag" for rank, hit in enumerate(hits, 1)]
    for separator in " \t":
        path = tmp_path / "any.trec"
        path.write_text("".join(line.replace(" ", separator) + "\n" for line in lines))
        assert rows_read(path) == wanted
    assert all(one != other for one, other in pairwise(wanted))
