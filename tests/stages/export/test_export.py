"""Exports: each layout against an oracle, the library's own output, and trainers that read it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import Cli
from datasets import Dataset, load_dataset
from export_oracle import K, Row, assert_equal_lines, by_query, load, make, oracle
from export_readers import READERS
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import (
    ContrastiveLoss,
    CosineSimilarityLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.util import mine_hard_negatives

from stx_mine.core.ragged import Ragged
from stx_mine.errors import ConfigError, InputError
from stx_mine.models.load import load_model
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.export import row_source
from stx_mine.stages.export import stage as export
from stx_mine.stages.export.config import ExportConfig
from stx_mine.stages.export.layouts import LAYOUTS, beir, layout
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.store.artifact import read_manifest, require
from stx_mine.store.files import checksum, read_table
from stx_mine.store.negatives import pool_files
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

SCORED = ["triplet", "n-tuple", "labeled-pair", "labeled-list", "tevatron", "colbert"]
OF_SENTENCE_TRANSFORMERS = ["triplet", "n-tuple", "labeled-pair", "labeled-list"]


@pytest.fixture(scope="module")
def embedded(small_input: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which every tenth query has a second positive, far from its first one."""
    folder = tmp_path_factory.mktemp("export")
    pairs = pq.read_table(small_input / "pairs.parquet").select([0, 1]).to_pandas()
    more = pairs.iloc[::10].copy()
    more.iloc[:, 1] = pairs.iloc[5::10, 1].to_numpy()
    with_more = [
        *pairs.itertuples(index=False, name=None),
        *more.itertuples(index=False, name=None),
    ]
    queries, passages = zip(*with_more, strict=True)
    Dataset.from_dict({"query": queries, "passage": passages}).to_parquet(folder / "pairs.parquet")
    run_embed(
        EmbedConfig(
            pairs=str(folder / "pairs.parquet"),
            corpus=str(small_input / "corpus.parquet"),
            device="cpu",
            run_dir=str(folder / "run"),
        )
    )
    return folder / "run"


@pytest.fixture(scope="module", params=["lowest", "pair"])
def run(embedded: Path, tmp_path_factory: pytest.TempPathFactory, request: Any) -> Path:
    """That run, mined in blocks of 64 queries, with a pool a query or a pool a pair."""
    run_dir = tmp_path_factory.mktemp("mined") / "run"
    shutil.copytree(embedded, run_dir)
    run_mine(
        MineConfig(
            k=K, positive_score=request.param, query_block=64, device="cpu", run_dir=str(run_dir)
        )
    )
    return run_dir


def expected_triplet(rows: list[Row]) -> list[dict[str, Any]]:
    return [
        {
            "anchor": row.query,
            "positive": row.positive,
            "negative": negative,
            "scores": [row.positive_score, score],
        }
        for row in rows
        for negative, score in zip(row.negatives, row.negative_scores, strict=True)
    ]


def expected_n_tuple(rows: list[Row]) -> list[dict[str, Any]]:
    return [
        {
            "anchor": row.query,
            "positive": row.positive,
            **{f"negative_{slot}": text for slot, text in enumerate(row.negatives, 1)},
            "scores": [row.positive_score, *row.negative_scores],
        }
        for row in rows
        if len(row.negatives) == K
    ]


def expected_labeled_pair(rows: list[Row]) -> list[dict[str, Any]]:
    lines = []
    for group, shared in by_query(rows):
        for row in group:
            texts = {"anchor": row.query, "positive": row.positive}
            lines.append({**texts, "label": 1, "score": row.positive_score})
        for text, score in zip(shared.negatives, shared.negative_scores, strict=True):
            lines.append({"anchor": shared.query, "positive": text, "label": 0, "score": score})
    return lines


def expected_labeled_list(rows: list[Row]) -> list[dict[str, Any]]:
    return [
        {
            "anchor": row.query,
            "positive": [row.positive, *row.negatives],
            "labels": [1] + [0] * len(row.negatives),
            "scores": [row.positive_score, *row.negative_scores],
        }
        for row in rows
        if row.negatives
    ]


def expected_flagembedding(rows: list[Row]) -> list[dict[str, Any]]:
    return [
        {
            "query": shared.query,
            "pos": [row.positive for row in group],
            "neg": shared.negatives,
            "pos_scores": [row.positive_score for row in group],
            "neg_scores": shared.negative_scores,
        }
        for group, shared in by_query(rows)
        if shared.negatives
    ]


EXPECTED: dict[str, Callable[[list[Row]], list[dict[str, Any]]]] = {
    "triplet": expected_triplet,
    "n-tuple": expected_n_tuple,
    "labeled-pair": expected_labeled_pair,
    "labeled-list": expected_labeled_list,
    "flagembedding": expected_flagembedding,
}
FEWEST = {"n-tuple": K, "labeled-pair": 0, "ms-swift": 0, "dpr": 0}


# --- layouts ---


@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize("to", OF_SENTENCE_TRANSFORMERS)
def test_parquet_layouts_hold_what_the_negatives_say(
    to: str, scores: bool, run: Path, tmp_path: Path
) -> None:
    make(run, to, scores=scores)
    left_out = {"label", "labels"} if scores else {"score", "scores"}
    wanted = [
        {name: value for name, value in line.items() if name not in left_out}
        for line in EXPECTED[to](oracle(run))
    ]
    assert len(wanted) > 100
    assert_equal_lines(load(run, to, tmp_path).to_list(), wanted)


def test_flagembedding_holds_what_the_negatives_say(run: Path, tmp_path: Path) -> None:
    make(run, "flagembedding")
    wanted = EXPECTED["flagembedding"](oracle(run))
    assert max(len(line["pos"]) for line in wanted) == 2
    [path] = (run / "exports/flagembedding/data").iterdir()
    assert_equal_lines([json.loads(line) for line in path.open(encoding="utf-8")], wanted)
    # As FlagEmbedding opens it: it takes any .json or .jsonl of the folder that it is given.
    theirs = load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path))
    assert_equal_lines(theirs.to_list(), wanted)
    assert_equal_lines(load(run, "flagembedding", tmp_path).to_list(), wanted)


def test_three_tables_join_to_what_the_negatives_say(run: Path, tmp_path: Path) -> None:
    make(run, "three-table")
    tables = {
        name: load(run, "three-table", tmp_path, name)
        for name in ("queries", "documents", "scores")
    }
    columns = {name: table.column_names for name, table in tables.items()}
    assert columns == {
        "queries": ["query_id", "text"],
        "documents": ["document_id", "text"],
        "scores": ["query_id", "document_ids", "scores"],
    }
    queries = {row["query_id"]: row["text"] for row in tables["queries"]}
    documents = {row["document_id"]: row["text"] for row in tables["documents"]}
    joined = [
        {
            "anchor": queries[row["query_id"]],
            "positive": [documents[one] for one in row["document_ids"]],
            "scores": row["scores"],
        }
        for row in tables["scores"]
    ]
    wanted = EXPECTED["labeled-list"](oracle(run))
    for line in wanted:
        del line["labels"]
    assert_equal_lines(joined, wanted)
    store = TextStore.open(require(RunDir(run), "texts"))
    assert list(documents.values()) == store.passages.column("text").to_pylist()
    assert list(queries.values()) == store.queries.column("text").to_pylist()


@pytest.fixture(scope="module")
def library_run(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run, mined with the window that the library is given."""
    run_dir = tmp_path_factory.mktemp("library") / "run"
    shutil.copytree(small_run, run_dir)
    run_mine(MineConfig(k=K, range_max=60, device="cpu", run_dir=str(run_dir)))
    return run_dir


@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize("to", OF_SENTENCE_TRANSFORMERS)
def test_an_export_is_the_dataset_that_the_library_returns(
    to: str, scores: bool, library_run: Path, tmp_path: Path
) -> None:
    store = TextStore.open(require(RunDir(library_run), "texts"))
    queries = store.queries.column("text").to_pylist()
    passages = store.passages.column("text").to_pylist()
    theirs = mine_hard_negatives(
        Dataset.from_dict(
            {
                "anchor": [queries[one] for one in store.pair_query_ids],
                "positive": [passages[one] for one in store.pair_passage_ids],
            }
        ),
        load_model("package:wordllama", device="cpu"),
        corpus=passages,
        range_min=0,
        range_max=60,
        num_negatives=K,
        relative_margin=0.05,
        sampling_strategy="top",
        output_format=to,
        output_scores=scores,
        verbose=False,
    )
    make(library_run, to, scores=scores)
    ours = load(library_run, to, tmp_path)
    assert ours.features == theirs.features
    assert len(ours) > 100
    assert_equal_lines(ours.to_list(), theirs.to_list())


# --- trainers ---


@pytest.mark.parametrize(
    ("to", "scores", "loss"),
    [
        ("triplet", False, MultipleNegativesRankingLoss),
        ("n-tuple", False, MultipleNegativesRankingLoss),
        ("labeled-pair", False, ContrastiveLoss),
        ("labeled-pair", True, CosineSimilarityLoss),
    ],
)
def test_a_plain_trainer_takes_a_step(
    to: str, scores: bool, loss: Any, library_run: Path, tmp_path: Path
) -> None:
    make(library_run, to, scores=scores)
    model = load_model("package:wordllama", device="cpu")
    assert isinstance(model, SentenceTransformer)
    before = [weights.detach().clone() for weights in model.parameters()]
    SentenceTransformerTrainer(
        model=model,
        train_dataset=load(library_run, to, tmp_path),
        loss=loss(model),
        args=SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path / "out"),
            per_device_train_batch_size=16,
            max_steps=1,
            learning_rate=0.1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        ),
    ).train()
    after = list(model.parameters())
    assert any(not torch.equal(one, two) for one, two in zip(before, after, strict=True))
    assert all(bool(torch.isfinite(weights).all()) for weights in after)


# --- counts and files ---


WITH_ROWS = [to for to, layout in LAYOUTS.items() if layout.lines]


def num_lines(to: str, rows: list[Row]) -> int:
    """Lines of a layout of these rows, which have the negatives that it gives them."""
    kept = [row for row in rows if len(row.negatives) >= FEWEST.get(to, 1)]
    if to == "labeled-pair":
        return len(kept) + sum(len(shared.negatives) for _, shared in by_query(kept))
    if to in ("triplet", "ms-marco"):
        return sum(len(row.negatives) for row in kept)
    return len(by_query(kept)) if LAYOUTS[to].per_query else len(kept)


@pytest.mark.parametrize("short_rows", ["keep", "drop"])
@pytest.mark.parametrize("to", WITH_ROWS)
def test_rows_in_are_rows_kept_plus_counted_drops(to: str, short_rows: str, run: Path) -> None:
    rows = oracle(run)
    if LAYOUTS[to].per_query:
        rows = [
            row._replace(negatives=one.negatives) for group, one in by_query(rows) for row in group
        ]
    lengths = [len(row.negatives) for row in rows]
    fewest = K if short_rows == "drop" else FEWEST.get(to, 1)
    report = make(run, to, short_rows=short_rows)
    counts = report.counts
    assert counts["rows_in"] == len(rows)
    assert counts["rows_kept"] == sum(one >= fewest for one in lengths)
    assert counts["rows_dropped"] == {
        "no_negative": sum(one == 0 for one in lengths) if fewest else 0,
        "fewer_than_k": sum(0 < one < fewest for one in lengths),
    }
    assert counts["rows_in"] == counts["rows_kept"] + sum(counts["rows_dropped"].values())
    assert counts["rows_ragged"] == sum(fewest <= one < K for one in lengths)
    kept = [row for row in rows if len(row.negatives) >= fewest]
    assert counts["lines"] == num_lines(to, kept)
    assert len(kept) < len(rows) or fewest == 0
    if short_rows == "drop":
        dropped = counts["rows_dropped"]["fewer_than_k"]
        assert f"{dropped:,} " in " ".join(report.lines)
        assert report.warnings == ()


def test_rows_that_an_n_tuple_cannot_hold_are_named_with_the_way_out(run: Path) -> None:
    report = make(run, "n-tuple")
    dropped = report.counts["rows_dropped"]["fewer_than_k"]
    assert dropped > 0
    [warning] = report.warnings
    assert f"{dropped:,} (" in warning
    held = sum(report.counts["rows_by_negatives"][K // 2 :])
    assert f"--k {K // 2} would hold {held:,} rows" in warning
    assert make(run, "n-tuple", k=K // 2).counts["rows_kept"] == held


@pytest.mark.parametrize("to", list(LAYOUTS))
def test_the_sizes_of_blocks_and_shards_change_no_line(
    to: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, path = run / "exports" / to, LAYOUTS[to].path
    make(run, to, overwrite=True)
    whole = READERS[to](folder)
    monkeypatch.setattr(row_source, "_QUERIES_AT_ONCE", 7)
    monkeypatch.setattr(row_source, "_SEARCHED_AT_ONCE", 7)
    monkeypatch.setattr(layout, "_TEXTS_AT_ONCE", 50)
    monkeypatch.setattr(beir, "_PAIRS_AT_ONCE", 50)
    monkeypatch.setattr(export, "_ROWS_AT_ONCE", 50)
    monkeypatch.setattr(export, "_BLOCKS_A_SHARD", 3)
    make(run, to, overwrite=True)
    assert len(list(folder.glob(path))) == (4 if "*" in path else 1)
    assert READERS[to](folder) == whole
    assert len(whole) > 100


@pytest.mark.parametrize("to", list(LAYOUTS))
def test_a_finished_export_is_skipped_and_made_again_with_the_same_bytes(
    to: str, run: Path
) -> None:
    make(run, to, overwrite=True)
    folder = run / "exports" / to
    before = {one["file"]: one["xxh3_128"] for one in read_manifest(folder).content["files"]}
    assert make(run, to).skipped
    assert not make(run, to, overwrite=True).skipped
    assert {name: checksum(folder / name) for name in before} == before
    inside = {str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file()}
    assert inside == {*before, "plan.json", "manifest.json"}


def test_another_setting_is_another_view_and_other_layouts_stay(run: Path) -> None:
    make(run, "triplet")
    make(run, "n-tuple")
    assert make(run, "triplet", k=1).counts["lines"] < sum(
        len(row.negatives) for row in oracle(run)
    )
    assert make(run, "n-tuple").skipped


@pytest.mark.parametrize("blocks_a_shard", [1, 32])
def test_a_query_without_a_pair_leaves_an_empty_block(
    blocks_a_shard: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_BLOCKS_A_SHARD", blocks_a_shard)
    monkeypatch.setattr(export, "_ROWS_AT_ONCE", 1)
    lines = [("same", "same"), ("red wine", "a drink"), ("green tea", "a leaf")]
    text = "query,passage\n" + "".join(f"{one},{two}\n" for one, two in lines)
    (tmp_path / "pairs.csv").write_text(text)
    run_dir = tmp_path / "run"
    where = {"run_dir": str(run_dir), "device": "cpu"}
    run_embed(EmbedConfig(pairs=str(tmp_path / "pairs.csv"), **where))  # type: ignore[arg-type]
    loose = {"k": 1, "relative_margin": None, "query_block": 1}
    run_mine(MineConfig(**loose, **where))  # type: ignore[arg-type]
    negatives = read_manifest(run_dir / "negatives")
    blocks = [read_table(negatives.folder / name) for name in pool_files(negatives)]
    assert [block.num_rows for block in blocks] == [0, 1, 1]
    for to in LAYOUTS:
        assert make(run_dir, to).counts["rows_in"] == 2
        assert len(READERS[to](run_dir / "exports" / to)) == 2


@given(
    st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=6),
    st.lists(st.integers(0, 5), max_size=9),
    st.none() | st.integers(0, 5),
)
def test_ragged_rows_are_taken_like_lists(
    lists: list[list[int]], chosen: list[int], limit: int | None
) -> None:
    chosen = [one for one in chosen if one < len(lists)]
    values = np.array([value for one in lists for value in one], np.int64)
    offsets = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    taken, places = Ragged(offsets, values).take(np.array(chosen, np.int64), limit)
    found = [taken.row(number).tolist() for number in range(len(taken))]
    assert found == [lists[one][:limit] for one in chosen]
    assert values[places].tolist() == taken.values.tolist()


# --- bad input ---


def test_more_negatives_than_the_pools_hold(run: Path, cli_here: Cli) -> None:
    error = cli_here("export", "--k", "31", run_dir=run).error
    assert "--k 31" in error
    assert "mine kept 30" in error
    assert "stx-mine mine --k 31" in error


def test_missing_negatives_name_their_command(
    embedded: Path, tmp_path: Path, cli_here: Cli
) -> None:
    error = cli_here("export", "--to", "n-tuple", run_dir=embedded).error
    assert "negatives/ is missing" in error
    assert "`stx-mine mine`" in error
    assert not (embedded / "exports").exists()
    (tmp_path / "none").mkdir()
    assert "texts/ is missing" in cli_here("export", run_dir=tmp_path / "none").error


def test_an_unknown_layout_lists_those_there_are(run: Path, cli_here: Cli) -> None:
    done = cli_here("export", "--to", "ntuple", run_dir=run)
    assert done.code == 2
    assert "Traceback" not in done.stderr
    for to in ("ntuple", "triplet", "n-tuple", "three-table"):
        assert to in done.stderr


@pytest.mark.parametrize("to", sorted(set(LAYOUTS) - set(SCORED)))
def test_scores_are_no_choice_where_a_layout_always_or_never_has_them(to: str) -> None:
    with pytest.raises(ConfigError, match=f"--to {to}, which has them always or never"):
        ExportConfig(to=to, scores=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("to", ["beir", "trec-run"])
@pytest.mark.parametrize("options", [{"k": 2}, {"short_rows": "drop"}])
def test_options_of_negatives_are_refused_where_there_are_none(
    to: str, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=f"--to {to}, which holds no negatives"):
        ExportConfig(to=to, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"to": "triplet"}, {"to": "labeled-list", "scores": True}])
def test_positives_in_the_list_need_a_list_with_labels(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="--include-positives"):
        ExportConfig(include_positives=True, **options)


def test_an_n_tuple_that_no_row_fills(embedded: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(embedded, run_dir)
    run_mine(MineConfig(k=1, range_max=2, device="cpu", run_dir=str(run_dir)))
    with pytest.raises(
        InputError, match=r"needs 5 negatives per row, no row has more than 2; .*--k 2"
    ):
        make(run_dir, "n-tuple", k=5)
    assert make(run_dir, "n-tuple", k=2).counts["rows_kept"] > 0


def test_an_export_of_older_negatives_is_made_anew(embedded: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(embedded, run_dir)
    run_mine(MineConfig(k=1, range_max=1, device="cpu", run_dir=str(run_dir)))
    first = make(run_dir, "triplet").counts
    run_mine(MineConfig(k=1, range_min=1, range_max=2, device="cpu", run_dir=str(run_dir)))
    second = make(run_dir, "triplet")
    assert not second.skipped
    assert second.counts != first
