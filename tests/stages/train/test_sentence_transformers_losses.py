"""The library's losses on packed batches, what they are equal to, and what is refused."""

import json
import shutil
from collections import defaultdict
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import load_dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    BatchAllTripletLoss,
    BatchHardSoftMarginTripletLoss,
    BatchHardTripletLoss,
    BatchHardTripletLossDistanceFunction,
    BatchSemiHardTripletLoss,
    CachedGISTEmbedLoss,
    CachedMultipleNegativesRankingLoss,
    GISTEmbedLoss,
)
from test_loss import ANCHORS, NEGATIVES, POSITIVES, TEXTS, gradients, packed

from stx_mine.errors import ConfigError, ViolationError
from stx_mine.models.load import load_model
from stx_mine.models.tokenise import Tokeniser
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train.choice import check_model, make_collator, make_loss
from stx_mine.stages.train.collator import PackedCollator
from stx_mine.stages.train.config import LOSSES, TrainConfig
from stx_mine.stages.train.losses.embedding import MiniBatches
from stx_mine.stages.train.losses.guide import Guide, OwnScores
from stx_mine.stages.train.losses.mnr import PackedMNRLoss
from stx_mine.stages.train.stage import run_train
from stx_mine.stages.verify.config import VerifyConfig
from stx_mine.stages.verify.stage import run_verify
from stx_mine.store.batches import list_packings, ragged_column, ragged_scores

BATCH_TRIPLET = {
    "batch-all": BatchAllTripletLoss,
    "batch-hard": BatchHardTripletLoss,
    "batch-semi-hard": BatchSemiHardTripletLoss,
    "batch-hard-soft-margin": BatchHardSoftMarginTripletLoss,
}


# --- the table of losses ---


def test_every_loss_is_in_the_table_and_every_option_is_a_field():
    names = get_args(get_type_hints(TrainConfig)["loss"])
    assert set(names) == set(LOSSES)
    declared = {one.name for one in fields(TrainConfig)}
    for kind in LOSSES.values():
        assert set(kind.options) <= declared


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss": "triplet", "temperature": 0.1}, "--temperature 0.1 needs --loss mnr"),
        ({"loss": "triplet", "guide": "m"}, "--guide m needs --loss mnr or gist, found"),
        ({"metric": "euclidean"}, "--metric euclidean needs --loss triplet, batch-all"),
        ({"loss": "batch-hard-soft-margin", "triplet_margin": 1.0}, "--triplet-margin 1.0 needs"),
        ({"loss": "kl", "symmetric": True}, "--symmetric needs --loss mnr, found"),
        ({"loss": "cached-mnr", "matryoshka_dims": (8,)}, "--matryoshka-dims 8 needs"),
        ({"guide_margin": 0.1}, "--guide-margin 0.1 needs --guide, found none"),
        ({"loss": "gist"}, "--loss gist needs --guide MODEL, found none"),
    ],
)
def test_options_that_the_loss_does_not_read_are_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        TrainConfig(**options)


def test_the_margin_follows_the_distance():
    assert TrainConfig(loss="triplet").margin == 0.3
    assert TrainConfig(loss="batch-all", metric="euclidean").margin == 5
    assert TrainConfig(loss="triplet", metric="euclidean", triplet_margin=0.0).margin == 0


# --- batches that a loss cannot read ---


@pytest.fixture(scope="module")
def run(small_run, tmp_path_factory) -> Path:
    """`small_run` with batches that have no scores."""
    run = tmp_path_factory.mktemp("losses") / "run"
    shutil.copytree(small_run, run)
    run_pack(PackConfig(run_dir=str(run), batch_size=62))
    return run


@pytest.mark.parametrize(
    ("options", "said", "command"),
    [
        (
            {"loss": "batch-hard"},
            r"needs \(text, label\) batches, found rows of pairs",
            "--batch-size 60 --layout labels --overwrite",
        ),
        (
            {"loss": "margin-mse"},
            "needs scores of the model that mined, found none",
            "--batch-size 62 --scores --overwrite",
        ),
        (
            {"loss": "cached-mnr"},
            "needs batches of policy strict, found policy merge",
            "--batch-size 62 --policy strict --overwrite",
        ),
    ],
)
def test_a_wrong_packing_is_named_with_the_command_that_mends_it(
    run, tmp_path, cli_here, options, said, command
):
    """The command, as it is written, packs what the loss can read."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    config = TrainConfig(run_dir=str(copy), device="cpu", **options)
    with pytest.raises(ConfigError, match=said) as caught:
        run_train(config)
    written = str(caught.value).split("run `")[1].rstrip("`").split()
    assert written[:2] == ["stx-mine", "pack"]
    assert sorted(written[2:]) == sorted([*command.split(), "--run-dir", str(copy)])
    assert cli_here(*written[1:]).code == 0
    if options["loss"] == "cached-mnr":
        with pytest.raises(ConfigError, match="found a static model; give --loss mnr, which"):
            run_train(config)
    else:
        assert run_train(config).counts["steps"] > 0


def test_rows_without_negatives_are_refused_where_they_teach_nothing(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    run_pack(PackConfig(run_dir=str(copy), batch_size=64, k=0, overwrite=True))
    with pytest.raises(ConfigError, match="needs negatives in the rows, found none") as caught:
        run_train(TrainConfig(run_dir=str(copy), device="cpu", loss="triplet"))
    assert "--k" not in str(caught.value)


# --- scores in shards ---


@pytest.fixture(scope="module")
def scored(small_run, tmp_path_factory) -> Path:
    """`small_run` with batches that have scores; most rows are ragged."""
    run = tmp_path_factory.mktemp("scored") / "run"
    shutil.copytree(small_run, run)
    run_pack(PackConfig(run_dir=str(run), batch_size=64, scores=True))
    return run


@pytest.mark.parametrize(
    ("policy", "layout"), [("merge", "inline"), ("merge", "ids"), ("strict", "inline")]
)
def test_scores_are_those_of_the_texts_beside_them(run_copy, policy, layout):
    k = 2 if policy == "strict" else 4
    how = {"policy": policy, "layout": layout, "k": k, "scores": True}
    run_pack(PackConfig(run_dir=str(run_copy), batch_size=32, **how))
    model = load_model("package:wordllama", "cpu")
    table = list_packings(run_copy / "batches")[0][0].batch(1)
    offsets, scores = ragged_scores(table)
    lengths = ragged_column(table, "negative_ids").lengths()
    np.testing.assert_array_equal(np.diff(offsets), 1 + lengths)
    if policy == "merge":
        assert len(set(lengths.tolist())) > 1
    else:
        assert sum(table.column("num_random_negatives").to_pylist()) > 0
    for row, columns in enumerate(table.to_pylist()):
        texts = [columns["positive"], *(columns[f"negative_{j + 1}"] for j in range(lengths[row]))]
        anchor = model.encode_query(columns["anchor"], normalize_embeddings=True)
        passages = model.encode_document(texts, normalize_embeddings=True)
        found = scores[offsets[row] : offsets[row + 1]]
        np.testing.assert_allclose(found, passages @ anchor, atol=2e-6)


def test_scores_of_strict_batches_are_what_the_library_distils(run_copy, tmp_path):
    config = PackConfig(
        run_dir=str(run_copy), batch_size=32, k=2, policy="strict", scores=True, packings=1
    )
    run_pack(config)
    folder = str(run_copy / "batches")
    dataset = load_dataset(folder, split="train", cache_dir=str(tmp_path / "cache"))
    assert dataset.column_names == ["anchor", "positive", "negative_1", "negative_2", "scores"]
    assert {len(one) for one in dataset["scores"]} == {3}
    run_verify(VerifyConfig(run_dir=str(run_copy)))


def test_ragged_scores_are_in_the_full_dataset_only(scored, tmp_path):
    card = (scored / "batches/README.md").read_text()
    assert "- scores" not in card
    assert "`scores` holds the scores of each row" in card
    run_verify(VerifyConfig(run_dir=str(scored)))


def test_verify_sees_a_score_that_is_missing(scored, tmp_path):
    folder = tmp_path / "batches"
    shutil.copytree(scored / "batches", folder)
    path = next(folder.glob("epoch-000/*.parquet"))
    table = pq.read_table(path)
    place = table.column_names.index("scores")
    values = table.column("scores").to_pylist()
    values[70] = values[70][:-1]
    broken = table.set_column(place, "scores", [values])
    pq.write_table(broken.replace_schema_metadata(table.schema.metadata), path)
    manifest = json.loads((folder / "manifest.json").read_text())
    for one in manifest["files"]:
        one.pop("xxh3_128")
    with pytest.raises(ViolationError):
        run_verify(VerifyConfig(directory=str(folder), run_dir=str(tmp_path)))


def test_the_collator_pads_scores_like_negatives(scored):
    shards = [one for packing in list_packings(scored / "batches") for one in packing]
    collator = PackedCollator(shards, lambda texts, role, prompt: {}, scores=True)
    label = collator.collate(collator.read(0))["label"]
    assert label["scores"].shape == (64, 5)
    assert torch.equal(label["scores"][:, 1:] != 0, label["negatives"] >= 0)
    assert label["num_scored_rows"] == (label["negatives"] >= 0).any(1).sum()
    halves = [collator.collate(collator.read(0), share, 2)["label"]["scores"] for share in (0, 1)]
    assert torch.equal(torch.cat(halves), label["scores"])


@pytest.mark.parametrize(
    "loss",
    ["margin-mse", *(pytest.param(one, marks=pytest.mark.slow) for one in ("kl", "triplet"))],
)
def test_training_on_scores_lowers_the_loss(scored, tmp_path, loss, tiny_transformer):
    """A student of another model comes nearer to the scores of the one that mined."""
    copy = tmp_path / "run"
    shutil.copytree(scored, copy)
    student = {} if loss == "triplet" else {"model": str(tiny_transformer), "learning_rate": 5e-3}
    config = TrainConfig(run_dir=str(copy), device="cpu", loss=loss, max_length=24, **student)
    counts = run_train(config).counts
    assert counts["last_loss"] < 0.8 * counts["first_loss"]


# --- a guide ---


@pytest.fixture(scope="module")
def guide(tiny_transformer):
    """Another BERT with the tokeniser of the student."""
    model = load_model(str(tiny_transformer), "cpu").to(torch.float64)
    torch.manual_seed(3)
    for one in model.parameters():
        torch.nn.init.normal_(one, std=0.5)
    return model


@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_a_guide_masks_as_gist_does(tiny_transformer, guide, margin):
    """GISTEmbedLoss without anchors and positives among the candidates."""
    model = load_model(str(tiny_transformer), "cpu").to(torch.float64)
    features, labels = packed(model, ANCHORS, TEXTS)
    features += packed(guide, ANCHORS, TEXTS)[0]
    guiding = Guide(model=guide, margin=margin, mini_batches=MiniBatches(10_000))
    found = PackedMNRLoss(model, 0.05, 2, MiniBatches(10_000), guide=guiding)(features, labels)
    ours = gradients(model, found)
    unguided = PackedMNRLoss(model, 0.05, 2, MiniBatches(10_000))(features[:2], labels)
    theirs = GISTEmbedLoss(
        model, guide, 0.05, margin=margin, contrast_anchors=False, contrast_positives=False
    )([model.preprocess(one) for one in (ANCHORS, POSITIVES, NEGATIVES)], None)
    torch.testing.assert_close(found, theirs, atol=1e-9, rtol=1e-9)
    for one, other in zip(ours, gradients(model, theirs), strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)
    assert not torch.isclose(found, unguided)
    assert 0 < guiding.share_masked < 1
    assert all(one.grad is None for one in guide.parameters())


def test_training_with_a_guide_says_what_it_masked(run, tmp_path, tiny_transformer):
    """A guide of random weights masks much; the model that mined nothing that is far off."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    shares = {}
    for name in ("package:wordllama", str(tiny_transformer)):
        config = TrainConfig(run_dir=str(copy), device="cpu", guide=name, epochs=1, overwrite=True)
        report = run_train(config)
        shares[name] = report.counts["masked_by_guide"]
        assert any(line.startswith("the guide masked") for line in report.lines)
    assert 0 < shares["package:wordllama"] < 0.2 < shares[str(tiny_transformer)]


@pytest.mark.parametrize("options", [{}, {"symmetric": True}, {"hard_only": True}])
def test_a_model_masks_by_its_own_scores_as_a_frozen_copy_would(tiny_transformer, options):
    model = load_model(str(tiny_transformer), "cpu").to(torch.float64)
    torch.manual_seed(5)
    for one in model.parameters():
        # As it comes, all texts are nearly the same to it.
        torch.nn.init.normal_(one, std=0.5)
    copy = deepcopy(model)
    features, labels = packed(model, ANCHORS, TEXTS)
    none = torch.empty((2, 0), dtype=torch.int64)
    labels |= {"shared": none[0], "ignored_anchors": none}
    guiding = Guide(model=copy, margin=0.3, mini_batches=MiniBatches(10_000))
    guided = PackedMNRLoss(model, 0.05, 2, MiniBatches(10_000), guide=guiding, **options)(
        [*features, *packed(copy, ANCHORS, TEXTS)[0]], labels
    )
    theirs = gradients(model, guided)
    own = OwnScores(margin=0.3)
    found = PackedMNRLoss(model, 0.05, 2, MiniBatches(10_000), own_scores=own, **options)(
        features, labels
    )
    torch.testing.assert_close(found, guided, atol=1e-9, rtol=1e-9)
    for one, other in zip(gradients(model, found), theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)
    assert own.share_masked == guiding.share_masked
    assert own.share_masked > 0 or "hard_only" in options


def test_training_by_own_scores_says_what_it_masked(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    shares = []
    for margin in (0.0, 0.3):
        config = TrainConfig(
            run_dir=str(copy), device="cpu", mask_above=margin, epochs=1, overwrite=True
        )
        report = run_train(config)
        assert any(line.startswith("the model itself masked") for line in report.lines)
        shares.append(report.counts["masked_by_own_scores"])
    assert shares[0] > shares[1] >= 0
    with pytest.raises(ConfigError, match="--guide"):
        TrainConfig(mask_above=0.1, guide="other")


# --- the library's losses over rows ---


@pytest.fixture(scope="module")
def strict(small_run, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("strict") / "run"
    shutil.copytree(small_run, run)
    config = PackConfig(run_dir=str(run), batch_size=32, k=2, policy="strict", packings=2)
    run_pack(config)
    return run


@pytest.mark.parametrize("name", ["cached-mnr", "gist"])
def test_losses_over_rows_are_the_librarys(strict, tiny_transformer, guide, name):
    model = load_model(str(tiny_transformer), "cpu").to(torch.float64)
    options = {"guide": "other", "guide_margin": 0.1} if name == "gist" else {}
    config = TrainConfig(loss=name, temperature=0.1, batch_tokens=200, **options)
    guide = guide if name == "gist" else None
    collator = make_collator(config, model, list_packings(strict / "batches"), guide)
    batch = collator([{"row": row} for row in range(32, 64)])
    names = ["anchor", "positive", "negative_1", "negative_2"]
    columns = [
        {key.removeprefix(f"{name}_"): batch[key] for key in batch if key.startswith(f"{name}_")}
        for name in names
    ]
    found = make_loss(config, model, guide)(columns, None)
    ours = gradients(model, found)
    table = collator.read(1)
    theirs = [model.preprocess(table.column(one).to_pylist()) for one in names]
    if name == "gist":
        loss = CachedGISTEmbedLoss(model, guide, temperature=0.1, margin=0.1)
    else:
        loss = CachedMultipleNegativesRankingLoss(model, scale=10.0)
    expected = loss(theirs, None)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
    for one, other in zip(ours, gradients(model, expected), strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", ["cached-mnr", "gist"])
def test_losses_over_rows_train(strict, tmp_path, tiny_transformer, name):
    copy = tmp_path / "run"
    shutil.copytree(strict, copy)
    options = {"guide": str(tiny_transformer)} if name == "gist" else {}
    config = TrainConfig(
        run_dir=str(copy),
        device="cpu",
        loss=name,
        model=str(tiny_transformer),
        max_length=24,
        learning_rate=5e-3,
        **options,
    )
    counts = run_train(config).counts
    assert counts["last_loss"] < counts["first_loss"] - 0.1


def test_losses_over_rows_are_of_one_process(tiny_transformer):
    model = load_model(str(tiny_transformer), "cpu")
    gist = TrainConfig(loss="gist", guide="other")
    check_model(gist, model, 1)
    with pytest.raises(ConfigError, match="--loss gist works in one process, found 2; give --loss"):
        check_model(gist, model, 2)
    check_model(TrainConfig(loss="batch-all"), model, 2)


# --- losses over labels ---


def label_rows(shared_data: Path, num_labels: int, train: bool) -> list[tuple[str, int]]:
    """Texts of the first intents of banking77: those that train, or those held out."""
    folder = shared_data / "banking77"
    texts = {}
    for file in ("corpus", "queries"):
        for line in (folder / f"{file}.jsonl").read_text("utf-8").splitlines():
            one = json.loads(line)
            texts[one["_id"]] = one["text"]
    answers = defaultdict(set)
    for line in (folder / "qrels/test.tsv").read_text("utf-8").splitlines()[1:]:
        query, passage, _ = line.split("\t")
        answers[query].add(passage)
    labels = {frozenset(one): None for one in answers.values()}
    found = []
    for label, passages in enumerate(list(labels)[:num_labels]):
        if train:
            found += [(texts[one], label) for one in sorted(passages)]
        else:
            found += [(texts[one], label) for one in answers if answers[one] == passages]
    return found


@pytest.fixture(scope="module")
def banking(shared_data, tmp_path_factory) -> tuple[Path, Path]:
    """A run with batches of 20 intents of banking77, and its held-out rows."""
    folder = tmp_path_factory.mktemp("banking")
    for name, train in (("train", True), ("test", False)):
        lines = [
            json.dumps({"text": text, "label": label})
            for text, label in label_rows(shared_data, 20, train)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    config = PackConfig(
        run_dir=str(folder / "run"),
        layout="labels",
        labeled=str(folder / "train.jsonl"),
        batch_size=64,
        packings=1,
    )
    run_pack(config)
    return folder / "run", folder / "test.jsonl"


def separation(model: SentenceTransformer, path: Path) -> float:
    """Share of texts whose nearest other text has their label."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    labels = np.array([one["label"] for one in rows])
    vectors = model.encode([one["text"] for one in rows], normalize_embeddings=True)
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return float((labels[scores.argmax(1)] == labels).mean())


@pytest.mark.parametrize("metric", ["cosine", pytest.param("euclidean", marks=pytest.mark.slow)])
@pytest.mark.parametrize("loss", BATCH_TRIPLET)
def test_a_loss_over_labels_ends_with_a_better_model(banking, tmp_path, loss, metric):
    run, test = banking
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    run_train(
        TrainConfig(
            run_dir=str(copy),
            device="cpu",
            loss=loss,
            metric=metric,
            model="package:wordllama",
            epochs=2,
            learning_rate=0.01,
        )
    )
    before = separation(load_model("package:wordllama", "cpu"), test)
    after = separation(SentenceTransformer(str(copy / "model"), device="cpu"), test)
    assert after > before + 0.01


@pytest.mark.parametrize("name", BATCH_TRIPLET)
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_losses_over_labels_are_the_librarys(banking, tiny_transformer, name, metric):
    model = load_model(str(tiny_transformer), "cpu").to(torch.float64)
    config = TrainConfig(loss=name, metric=metric, batch_tokens=200)
    collator = make_collator(config, model, list_packings(banking[0] / "batches"))
    batch = collator([{"row": row} for row in range(64, 128)])
    features = [{key[5:]: value for key, value in batch.items() if key.startswith("text_")}]
    found = make_loss(config, model)(features, batch["label"])
    ours = gradients(model, found)
    distance = getattr(BatchHardTripletLossDistanceFunction, f"{metric}_distance")
    margins = {} if "soft" in name else {"margin": 0.3 if metric == "cosine" else 5}
    table = collator.read(1)
    expected = BATCH_TRIPLET[name](model, distance, **margins)(
        [model.preprocess(table.column("text").to_pylist())],
        torch.tensor(table.column("label").to_numpy()),
    )
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
    for one, other in zip(ours, gradients(model, expected), strict=True):
        torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-7)


def test_batches_of_a_file_alone_need_a_model(banking):
    with pytest.raises(ConfigError, match="expected --model, found none"):
        run_train(TrainConfig(run_dir=str(banking[0]), device="cpu", loss="batch-all"))


def test_texts_under_labels_take_the_prompt_of_encode(tiny_transformer):
    model = load_model(str(tiny_transformer), "cpu")
    model.prompts = {"query": "ask: ", "document": "text: ", "topic": "about: "}
    for default in (None, "topic"):
        model.default_prompt_name = default
        with torch.no_grad():
            found = model(Tokeniser(model)(["the cat sat"], "text"))["sentence_embedding"][0]
        np.testing.assert_allclose(found.numpy(), model.encode("the cat sat"), atol=1e-6)
