"""The layouts of other trainers: what they hold, by which ids, and what they say of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import load_dataset
from export_oracle import K, Row, by_query, make, oracle
from export_readers import READERS, Line, json_lines, tabbed
from sentence_transformers import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator
from sentence_transformers.cross_encoder.losses import LambdaLoss
from transformers import AutoConfig, BertForSequenceClassification

from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.export.layouts import LAYOUTS
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.store.artifact import require
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore
from stx_mine.store.vectors import Vectors

# Texts that lines of tab-separated values cannot hold as they are.
BROKEN = {"p3": "a tab\there", "p4": "two\r\nlines", "p5": '"quoted" and\na break', "q7": "a\tb"}
FEWEST = {"n-tuple": K, "labeled-pair": 0, "ms-swift": 0, "dpr": 0}


def write_beir(folder: Path, small_input: Path, **renamed: str) -> Path:
    """A BEIR folder of 300 queries; every tenth has two positives. `renamed`: id -> another id."""
    pairs = pq.read_table(small_input / "pairs.parquet").slice(0, 300)
    queries, passages = (pairs.column(name).to_pylist() for name in ("query", "passage"))
    corpus = [*passages, *pq.read_table(small_input / "corpus.parquet").column(0).to_pylist()]
    (folder / "qrels").mkdir(parents=True)

    def line(prefix: str, number: int, text: str) -> str:
        name = f"{prefix}{number}"
        found = {"_id": renamed.get(name, name), "text": BROKEN.get(name, text)}
        return json.dumps(found, ensure_ascii=False) + "\n"

    for name, prefix, texts in (("queries", "q", queries), ("corpus", "p", corpus)):
        lines = [line(prefix, number, text) for number, text in enumerate(texts)]
        (folder / f"{name}.jsonl").write_text("".join(lines), "utf-8")
    judged = [(number, number) for number in range(300)]
    judged += [(number, number + 5) for number in range(0, 290, 10)]
    rows = [
        f"{renamed.get(f'q{query}', f'q{query}')}\t{renamed.get(f'p{passage}', f'p{passage}')}\t1\n"
        for query, passage in judged
    ]
    (folder / "qrels/train.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows))
    return folder


def mined(folder: Path, run_dir: Path, **options: Any) -> Path:
    run_embed(EmbedConfig(pairs=str(folder), device="cpu", run_dir=str(run_dir)))
    run_mine(MineConfig(k=K, query_block=64, device="cpu", run_dir=str(run_dir), **options))
    return run_dir


@pytest.fixture(scope="module")
def run(small_input: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose texts all have ids of their own."""
    folder = tmp_path_factory.mktemp("layouts")
    beir = write_beir(folder / "beir", small_input)
    return mined(beir, folder / "run", relative_margin=0.2)


def wanted_lines(to: str, rows: list[Row]) -> list[Line]:
    """What a layout holds of these rows, where each line is about one row or one query."""
    fewest = FEWEST.get(to, 1)
    if LAYOUTS[to].per_query:
        found = [
            (shared.query, [row.positive for row in group], shared.negatives)
            for group, shared in by_query(rows)
        ]
    else:
        found = [(row.query, [row.positive], row.negatives) for row in rows]
    return [line for line in found if len(line[2]) >= fewest]


def one_line(line: Line) -> Line:
    query, *roles = line
    texts = [[" ".join(text.split()) for text in role] for role in ([query], *roles)]
    return texts[0][0], texts[1], texts[2]


# --- what they hold ---


@pytest.mark.parametrize("to", sorted(set(LAYOUTS) - {"triplet", "beir", "trec-run"}))
def test_a_layout_read_by_its_schema_is_what_mine_chose(to: str, run: Path) -> None:
    make(run, to)
    found, wanted = READERS[to](run / "exports" / to), wanted_lines(to, oracle(run))
    if LAYOUTS[to].one_line:
        wanted = list(map(one_line, wanted))
        found = list(map(one_line, found))
    assert len(wanted) > 100
    assert found == wanted


def test_a_beir_folder_holds_all_pairs_also_those_that_mine_dropped(
    run: Path, tmp_path: Path
) -> None:
    pairs = [(row.query, [row.positive], []) for row in oracle(run)]
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    options = {"query_block": 64, "device": "cpu", "run_dir": str(copied)}
    run_mine(MineConfig(k=K, short_rows="drop", **options))  # type: ignore[arg-type]
    for run_dir in (run, copied):
        report = make(run_dir, "beir")
        found = READERS["beir"](run_dir / "exports/beir")
        assert sorted(found) == sorted(pairs)
        assert report.counts["lines"] == len(pairs) == 329
    assert report.counts["rows_in"] < len(pairs)


def test_a_beir_folder_is_read_back_as_the_same_run(run: Path, tmp_path: Path) -> None:
    make(run, "beir")
    again = tmp_path / "again"
    run_embed(EmbedConfig(pairs=str(run / "exports/beir"), device="cpu", run_dir=str(again)))
    stores = [TextStore.open(require(RunDir(one), "texts")) for one in (run, again)]
    for role in ("queries", "passages"):
        one, other = (getattr(store, role) for store in stores)
        assert one.equals(other)
    pairs = [set(zip(*store.known_positives, strict=True)) for store in stores]
    assert pairs[0] == pairs[1]


def test_a_run_holds_the_nearest_passages_by_brute_force(run: Path) -> None:
    make(run, "trec-run")
    embeddings = require(RunDir(run), "embeddings")
    vectors = {role: Vectors.open(embeddings, role) for role in ("queries", "passages")}
    matrices = {role: one.rows(0, len(one)).astype(np.float64) for role, one in vectors.items()}
    scores_QP = matrices["queries"] @ matrices["passages"].T
    found = READERS["trec-run"](run / "exports/trec-run")
    store = TextStore.open(require(RunDir(run), "texts"))
    names, passages = (
        table.column("original_id").to_pylist() for table in (store.queries, store.passages)
    )
    place = {name: number for number, name in enumerate(passages)}
    assert [qid for qid, _, _ in found] == names
    for query, (_, _, hits) in enumerate(found):
        scores = scores_QP[query][[place[hit] for hit in hits]]
        assert len(hits) == len(set(hits)) >= 100
        assert (np.diff(scores) <= 1e-6).all()
        others = np.delete(scores_QP[query], [place[hit] for hit in hits])
        assert others.max() <= scores.min() + 1e-6
    lines = (run / "exports/trec-run/run.trec").read_text().splitlines()
    assert float(lines[0].split()[4]) == pytest.approx(scores_QP[0].max(), abs=1e-6)
    judged = (run / "exports/trec-run/qrels.trec").read_text().splitlines()
    assert len(judged) == 329
    assert judged[0].split(" ")[1::2] == ["0", "1"]


def test_tevatron_and_colbert_take_scores_where_asked(run: Path) -> None:
    make(run, "tevatron", scores=True)
    make(run, "colbert", scores=True)
    examples = (run / "exports/colbert/triples.jsonl").read_text().splitlines()
    rows = [row for row in oracle(run) if row.negatives]
    for line, row in zip(map(json.loads, examples), rows, strict=True):
        assert [score for _, score in line[1:]] == pytest.approx(
            [row.positive_score, *row.negative_scores], abs=1e-6
        )
    groups = [(group, shared) for group, shared in by_query(rows) if shared.negatives]
    lines = json_lines(run / "exports/tevatron")
    for line, (group, shared) in zip(lines, groups, strict=True):
        assert [one["score"] for one in line["positive_passages"]] == pytest.approx(
            [row.positive_score for row in group], abs=1e-6
        )
        assert [one["score"] for one in line["negative_passages"]] == pytest.approx(
            shared.negative_scores, abs=1e-6
        )


# --- lists with the positives in them ---


def test_a_list_per_query_has_all_its_positives_in_the_order_of_scores(run: Path) -> None:
    make(run, "labeled-list", include_positives=True)
    lines = pq.read_table(run / "exports/labeled-list/data").to_pylist()
    groups = [(group, shared) for group, shared in by_query(oracle(run)) if shared.negatives]
    assert len(lines) == len(groups) > 100
    for line, (group, shared) in zip(lines, groups, strict=True):
        scored = [(row.positive_score, row.positive, 1) for row in group]
        scored += [
            (score, text, 0)
            for score, text in zip(shared.negative_scores, shared.negatives, strict=True)
        ]
        assert line["anchor"] == shared.query
        in_order = sorted(scored, key=lambda one: -one[0])
        assert list(zip(line["positive"], line["labels"], strict=True)) == [
            (text, label) for _, text, label in in_order
        ]
    assert max(sum(line["labels"]) for line in lines) == 2


@pytest.fixture
def reranker(tiny_transformer: Path, tmp_path: Path) -> CrossEncoder:
    """A real cross-encoder of random weights."""
    bert = tiny_transformer.parent / "bert"
    shutil.copytree(bert, tmp_path / "bert")
    config = AutoConfig.from_pretrained(bert)
    config.num_labels = 1
    BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    return CrossEncoder(str(tmp_path / "bert"), device="cpu")


def test_a_reranker_trains_and_is_judged_on_the_lists(
    run: Path, reranker: CrossEncoder, tmp_path: Path
) -> None:
    make(run, "labeled-list", include_positives=True)
    lists = load_dataset(
        str(run / "exports/labeled-list"), split="train", cache_dir=str(tmp_path / "cache")
    )
    result = CrossEncoderTrainer(
        model=reranker,
        train_dataset=lists,
        loss=LambdaLoss(reranker),
        args=CrossEncoderTrainingArguments(
            output_dir=str(tmp_path / "out"),
            per_device_train_batch_size=4,
            max_steps=2,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        ),
    ).train()
    assert np.isfinite(result.training_loss)
    samples = [
        {
            "query": line["anchor"],
            "positive": [
                text for text, label in zip(line["positive"], line["labels"], strict=True) if label
            ],
            "documents": line["positive"],
        }
        for line in lists.select(range(8))
    ]
    judged = CrossEncoderRerankingEvaluator(samples, name="lists")(reranker)
    # The list is in the order of the miner, which the evaluator takes for the base.
    assert 0 < judged["lists_base_map"] <= 1


# --- ids ---


def test_ids_are_those_of_the_source_where_each_text_has_its_own(run: Path) -> None:
    report = make(run, "tevatron-ids")
    assert "ids of queries: those of the source" in report.lines
    [path] = (run / "exports/tevatron-ids/data").iterdir()
    line = pq.read_table(path).to_pylist()[0]
    assert line["query_id"].startswith("q")
    assert all(docid.startswith("p") for docid in line["negative_document_ids"])
    assert "Ids of passages: those of the source." in (
        run / "exports/tevatron-ids/README.md"
    ).read_text("utf-8")
    # ColBERT counts lines.
    assert "ids of passages: numbers" in make(run, "colbert").lines


@pytest.mark.parametrize(
    ("renamed", "role", "said"),
    [
        ({"p9": "with space"}, "passages", "1 of them are empty or hold white space or quotes"),
        ({"q9": 'a"b'}, "queries", "1 of them are empty or hold white space or quotes"),
        ({"p9": "a\u2003b", "p8": "\u00a0"}, "passages", "2 of them are empty or hold"),
    ],
)
def test_ids_that_lines_cannot_hold_are_replaced_and_that_is_said(
    renamed: dict[str, str], role: str, said: str, small_input: Path, tmp_path: Path
) -> None:
    run = mined(write_beir(tmp_path / "beir", small_input, **renamed), tmp_path / "run")
    lines = make(run, "trec-run").lines
    [line] = [one for one in lines if role in one]
    made = {"queries": "query-0", "passages": "passage-0"}[role]
    assert line.startswith(f"ids of {role}: made, as in {made}, because {said}")
    [other] = [one for one in lines if one.startswith("ids of") and role not in one]
    assert other.endswith("those of the source")


def test_texts_without_ids_get_made_ones_without_a_reason(small_run: Path, tmp_path: Path) -> None:
    shutil.copytree(small_run, tmp_path / "run")
    report = make(tmp_path / "run", "ms-marco")
    made = ("ids of queries: made, as in query-0", "ids of passages: made, as in passage-0")
    assert report.lines[-2:] == made


def test_no_query_has_the_id_of_a_passage(small_run: Path, tmp_path: Path) -> None:
    """BEIR leaves out the passage that has the id of its query."""
    shutil.copytree(small_run, tmp_path / "run")
    make(tmp_path / "run", "beir")
    ids = [
        {json.loads(line)["_id"] for line in (tmp_path / "run/exports/beir" / name).open()}
        for name in ("queries.jsonl", "corpus.jsonl")
    ]
    assert all(ids) and not ids[0] & ids[1]


def test_tabs_and_line_breaks_are_spaces_and_are_counted(run: Path) -> None:
    report = make(run, "ms-marco")
    assert report.counts["texts_joined"] == len(BROKEN)
    assert "4 texts had tabs or line breaks, which are spaces now" in report.lines
    texts = dict(tabbed(run / "exports/ms-marco/collection.tsv"))
    assert texts["p3"] == "a tab here"
    assert texts["p4"] == "two lines"
    assert texts["p5"] == '"quoted" and a break'


# --- what they say ---


@pytest.mark.parametrize("to", ["three-table", "colbert"])
def test_who_fails_on_rows_of_different_lengths_is_named(to: str, run: Path) -> None:
    report = make(run, to)
    ragged = report.counts["rows_ragged"]
    [warning] = report.warnings
    assert ragged > 0
    assert "fails on rows of different lengths" in warning
    assert f"{ragged} (" in warning
    assert "--short-rows drop" in warning
    assert make(run, to, short_rows="drop").warnings == ()
    lengths = {len(negatives) for _, _, negatives in READERS[to](run / "exports" / to)}
    assert lengths == {K}


@pytest.mark.parametrize("to", list(LAYOUTS))
def test_a_card_says_how_to_load_it_and_every_config_names_its_content(to: str, run: Path) -> None:
    make(run, to)
    folder = run / "exports" / to
    _, header, text = (folder / "README.md").read_text("utf-8").split("---\n", 2)
    assert "DIR" in text or "MS MARCO" in text
    configs = yaml.safe_load(header).get("configs", [])
    assert [one["config_name"] for one in configs] == list(LAYOUTS[to].configs)
    for one in configs:
        assert one["description"].startswith("content ")
        [files] = one["data_files"]
        assert list(folder.glob(files["path"]))
