"""`train --interactions`: the joint softmax, and what is no negative in it."""

import shutil
from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from cores import ragged
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.losses import (
    GISTEmbedLoss,
    MultipleNegativesRankingLoss,
)
from test_loss import ANCHORS, NEGATIVES, POSITIVES, TEXTS, gradients, guidance_of, packed

from stx_mine.errors import ConfigError, InputError
from stx_mine.models.load import load_model
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train.collator import PackedCollator
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.core.hidden_texts import (
    BatchRoles,
    hidden_anchors,
    hidden_passages,
    other_right_anchors,
    sharing,
)
from stx_mine.stages.train.losses.cross_entropy import Compared, joint_cross_entropy
from stx_mine.stages.train.losses.embedding import MiniBatches
from stx_mine.stages.train.losses.guide import Guide
from stx_mine.stages.train.losses.mnr import PackedMNRLoss
from stx_mine.stages.train.stage import run_train
from stx_mine.store.batches import list_packings, ragged_column, slot_text_ids

DIRECTIONS = {
    "query-query": "query_to_query",
    "passage-query": "doc_to_query",
    "passage-passage": "doc_to_doc",
}
INTERACTIONS = tuple(DIRECTIONS)
SUBSETS = [some for size in (1, 2, 3) for some in combinations(INTERACTIONS, size)]


# --- the value ---


@pytest.fixture(scope="module")
def model(tiny_transformer):
    """A BERT to which texts are not all alike, in float64."""
    model = load_model(str(tiny_transformer), "cpu").to(torch.float64)
    torch.manual_seed(5)
    for one in model.parameters():
        torch.nn.init.normal_(one, std=0.5)
    return model


def own_texts(num_rows, num_negatives):
    """Labels of rows that share nothing: a row has its anchor, its positive and its negatives."""
    rows = torch.arange(num_rows)
    none = torch.empty((2, 0), dtype=torch.int64)
    own = torch.stack([rows + slot * num_rows for slot in range(1 + num_negatives)], 1)
    pairs = torch.stack([rows.repeat_interleave(1 + num_negatives), own.flatten()])
    hidden = {"hidden_anchors": torch.stack([rows, rows]), "hidden_passages": pairs}
    return {**hidden, "ignored_anchors": none, "negatives": own[:, 1:]}


@pytest.mark.parametrize(
    ("interactions", "hardness"), [*((one, 0.0) for one in SUBSETS), (INTERACTIONS, 5.0)]
)
def test_without_repeats_it_is_the_librarys_joint_loss(model, interactions, hardness):
    features, labels = packed(model, ANCHORS, TEXTS, **own_texts(3, 1))
    ours = PackedMNRLoss(
        model, 0.05, 2, MiniBatches(64), interactions=interactions, hardness=hardness
    )
    found = ours(features, labels)
    found_gradients = gradients(model, found)
    directions = ("query_to_doc", *(DIRECTIONS[one] for one in interactions))
    harder = {"hardness_mode": "all_negatives", "hardness_strength": hardness} if hardness else {}
    theirs = MultipleNegativesRankingLoss(model, 20.0, directions=directions, **harder)
    columns = [model.preprocess(one) for one in (ANCHORS, POSITIVES, NEGATIVES)]
    expected = theirs(columns, None)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
    for one, other in zip(found_gradients, gradients(model, expected), strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)
    plain = PackedMNRLoss(model, 0.05, 2, MiniBatches(64), hardness=hardness)(features, labels)
    assert found > plain + 1e-3


@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_a_guide_masks_what_is_compared_with_as_gist_does(model, tiny_transformer, margin):
    """GISTEmbedLoss compares anchors with anchors and positives with positives.

    So it has no negatives here: these it does not compare positives with.
    """
    torch.manual_seed(3)
    guide = load_model(str(tiny_transformer), "cpu").to(torch.float64)
    for one in guide.parameters():
        torch.nn.init.normal_(one, std=0.5)
    features, labels = packed(model, ANCHORS, POSITIVES, **own_texts(3, 0))
    features += packed(guide, ANCHORS, POSITIVES)[0]
    guiding = Guide(model=guide, margin=margin, mini_batches=MiniBatches(10_000))
    same_kind = ("query-query", "passage-passage")
    ours = PackedMNRLoss(model, 0.05, 2, MiniBatches(64), guide=guiding, interactions=same_kind)
    found = ours(features, labels)
    found_gradients = gradients(model, found)
    expected = GISTEmbedLoss(model, guide, 0.05, margin=margin)(
        [model.preprocess(one) for one in (ANCHORS, POSITIVES)], None
    )
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
    for one, other in zip(found_gradients, gradients(model, expected), strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)
    unguided = PackedMNRLoss(model, 0.05, 2, MiniBatches(64), interactions=same_kind)(
        features[:2], labels
    )
    assert not torch.isclose(found, unguided)


def naive_joint(compared, scale):
    """Loops over rows, kinds and texts."""
    losses = []
    for row in range(len(compared[0].rows_BD)):
        logits = []
        for number, one in enumerate(compared):
            own = int(one.own_B[row])
            hidden = set(one.hidden[1][one.hidden[0] == row].tolist())
            if one.guidance is not None:
                cosines = one.guidance.candidates_MD @ one.guidance.rows_BD[row]
                limit = one.guidance.positives_B
                limit = (cosines[own] if limit is None else limit[row]) - one.guidance.margin
                hidden |= set((cosines > limit).nonzero().flatten().tolist()) - {own}
            for text in set(range(len(one.texts_MD))) - hidden:
                score = one.rows_BD[row] @ one.texts_MD[text]
                if number == 0 and text == own:
                    target = scale * score
                harder = one.hardness * score.detach() * (text != own)
                weight = 0 if one.log_weights_M is None else one.log_weights_M[text]
                logits.append(scale * score + harder + weight)
        losses.append(torch.stack(logits).logsumexp(0) - target)
    return torch.stack(losses).mean()


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 10_000),
    st.integers(1, 7),
    st.lists(st.integers(1, 8), min_size=1, max_size=4),
    st.integers(1, 9),
    st.booleans(),
    st.sampled_from([None, 0.0, 0.5]),
)
def test_the_joint_softmax_is_the_naive_one_in_value_and_gradient(
    seed, num_rows, sizes, chunk_rows, weighted, margin
):
    generator = torch.Generator().manual_seed(seed)
    double = {"dtype": torch.float64, "generator": generator}
    compared, leaves = [], []
    for number, size in enumerate(sizes):
        rows, texts = (torch.randn(n, 5, **double).requires_grad_() for n in (num_rows, size))
        own = torch.randint(size, (num_rows,), generator=generator)
        mask = torch.rand(num_rows, size, generator=generator) < 0.3
        if number == 0:
            mask[torch.arange(num_rows), own] = False
        guidance = guidance_of(generator, num_rows, size, margin)
        if guidance is not None and number:
            guidance = guidance._replace(positives_B=torch.randn(num_rows, **double))
        weights = torch.randn(size, **double) if weighted else None
        hidden = mask.nonzero().T
        compared.append(Compared(rows, texts, own, hidden, weights, 2.0 * (number == 0), guidance))
        leaves += [rows, texts]
    fast, slow = joint_cross_entropy(compared, 3.0, chunk_rows), naive_joint(compared, 3.0)
    torch.testing.assert_close(fast, slow, atol=1e-9, rtol=1e-9)
    found = torch.autograd.grad(2 * fast, leaves)
    expected = torch.autograd.grad(2 * slow, leaves, allow_unused=True)
    for one, other in zip(found, expected, strict=True):
        other = torch.zeros_like(one) if other is None else other
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


# --- what is hidden ---


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(0, 8)), min_size=1, max_size=9))
def test_rows_that_share_a_value(sets):
    found = sharing(ragged([sorted(one) for one in sets]))
    for number, one in enumerate(sets):
        expected = [other for other, two in enumerate(sets) if one & two]
        assert sorted(found.row(number).tolist()) == expected


small = st.integers(0, 6)


@st.composite
def batches(draw):
    """Rows of a batch with what is known of their texts; a passage may be of an anchor's group."""
    num_anchors = draw(st.integers(1, 5))
    groups = draw(st.lists(small, min_size=num_anchors, max_size=num_anchors))
    known = [draw(st.sets(small, max_size=3)) for _ in groups]
    near = [draw(st.sets(small, max_size=2)) for _ in groups]
    passages = draw(st.lists(small, min_size=7, max_size=7))
    rows = []
    for _ in range(draw(st.integers(1, 6))):
        anchor = draw(st.integers(0, num_anchors - 1))
        slots = draw(st.lists(st.integers(-1, 6), min_size=3, max_size=3))
        positive = draw(st.integers(0, 6))
        known[anchor].add(passages[positive])
        rows.append((anchor, [positive, *slots]))
    avoided = [{groups[a], *known[a], *near[a]} for a in range(num_anchors)]
    rows = [
        (a, [s[0], *(-1 if passages[one] in avoided[a] else one for one in s[1:])]) for a, s in rows
    ]
    own = draw(st.integers(0, len(rows) - 1))
    return groups, known, near, passages, rows, avoided, slice(own, len(rows))


def roles_of(groups, passages, rows, avoided):
    there = sorted({one for _, slots in rows for one in slots} - {-1})
    number = {one: place for place, one in enumerate(there)} | {-1: -1}
    slots = np.array([[number[one] for one in some] for _, some in rows]).T
    ignored = [
        (row, number[one])
        for row, (anchor, some) in enumerate(rows)
        for one in there
        if passages[one] in avoided[anchor] and one != some[0]
    ]
    anchors = np.array([anchor for anchor, _ in rows])
    pairs = np.array(ignored, np.int64).reshape(-1, 2).T
    return BatchRoles(anchors, slots, pairs, np.array(groups)), there


def as_sets(pairs, num_rows):
    """What each row has; the pairs are by row."""
    assert (np.diff(pairs[0]) >= 0).all()
    return [set(pairs[1][pairs[0] == row].tolist()) for row in range(num_rows)]


@settings(deadline=None)
@given(batches())
def test_what_is_hidden_is_what_is_known_not_to_be_a_negative(batch):
    groups, known, near, passages, rows, avoided, own = batch
    roles, there = roles_of(groups, passages, rows, avoided)
    some, anchors = rows[own], range(len(groups))
    lists = [ragged([sorted(one) for one in sets]) for sets in (known, near)]
    found = as_sets(hidden_anchors(roles, own, *lists), len(some))
    assert found == [
        {
            other
            for other in anchors
            if groups[other] in avoided[anchor]
            or groups[anchor] in avoided[other]
            or known[anchor] & known[other]
        }
        for anchor, _ in some
    ]
    right = [[place for place, one in enumerate(there) if passages[one] in k] for k in known]
    found = as_sets(hidden_passages(roles, own, ragged(right)), len(some))
    assert found == [
        {
            place
            for place, one in enumerate(there)
            if passages[one] in avoided[anchor]
            or one in slots
            or any({passages[one], passages[slots[0]]} <= set(known[other]) for other in anchors)
        }
        for anchor, slots in some
    ]
    # An anchor that stands in the batch is right for a passage if any of its group is.
    present = {anchor for anchor, _ in rows}
    found = as_sets(other_right_anchors(roles, own), len(some))
    assert found == [
        {
            other
            for other in anchors
            if other != anchor
            and any(
                passages[slots[0]] in avoided[one]
                for one in present
                if groups[one] == groups[other]
            )
        }
        for anchor, slots in some
    ]


# --- batches of a run ---


@pytest.fixture(scope="module")
def shards(small_run, tmp_path_factory):
    """Batches some of whose queries count as one text, and some of whose passages do."""
    run = tmp_path_factory.mktemp("interactions") / "run"
    shutil.copytree(small_run, run)
    run_pack(PackConfig(run_dir=str(run), batch_size=64, near_positive_margin=0.0))
    found = [one for packing in list_packings(run / "batches") for one in packing]
    anchors = found[0].batch(0).column("anchor_id").to_numpy()
    first, second = sorted(anchors[:2].tolist())
    path = run / "batches" / "groups.parquet"
    table = pa.table({"text_id": [second], "group": [first]})
    assert pq.read_table(path).num_rows == 0
    pq.write_table(table, path)
    return found, first, second


def test_a_batch_hides_what_its_tables_say(shards):
    packs, first, second = shards
    collator = PackedCollator(packs, lambda *_: {}, interactions=INTERACTIONS)
    table = collator.read(0)
    label = collator.collate(table)["label"]
    anchor_ids = np.unique(table.column("anchor_id").to_numpy())
    slots = slot_text_ids(table, packs[0].num_negatives)
    passage_ids = np.unique(slots[slots >= 0])
    beside = pq.read_table(packs[0].path.parent.parent / "positives.parquet").to_pylist()
    known = {row["anchor_id"]: set(row["positive_ids"]) for row in beside}
    avoided = {
        row["anchor_id"]: {row["anchor_id"], *row["positive_ids"], *row["near_ids"]}
        for row in beside
    }
    group = {second: first}
    hidden, beside_positive, ignored = (
        as_sets(label[name].numpy(), table.num_rows)
        for name in ("hidden_anchors", "hidden_passages", "ignored_anchors")
    )
    lists = ragged_column(table, "ignore_ids")
    for row, anchor in enumerate(table.column("anchor_id").to_pylist()):
        mine = avoided[anchor] | {group.get(anchor, anchor)}
        assert {int(anchor_ids[one]) for one in hidden[row]} == {
            one
            for one in anchor_ids.tolist()
            if group.get(one, one) in mine
            or group.get(anchor, anchor) in avoided[one]
            or known[one] & known[anchor]
        }
        positive = int(slots[0, row])
        expected = set(lists.row(row).tolist()) | (set(slots[:, row].tolist()) - {-1})
        for one in anchor_ids.tolist():
            if positive in known[one]:
                expected |= known[one] & set(passage_ids.tolist())
        assert {int(passage_ids[one]) for one in beside_positive[row]} == expected
        if anchor in (first, second):
            other = {first, second} - {anchor}
            assert other <= {int(anchor_ids[one]) for one in ignored[row]}
    halves = [collator.collate(table, share, 2)["label"] for share in (0, 1)]
    for name in ("hidden_anchors", "hidden_passages", "ignored_anchors"):
        parts = [one[name] + torch.tensor([[32 * n], [0]]) for n, one in enumerate(halves)]
        assert torch.equal(torch.cat(parts, 1), label[name])


def test_batches_without_their_tables_are_refused(shards, tmp_path):
    folder = tmp_path / "batches"
    shutil.copytree(shards[0][0].path.parent.parent, folder)
    (folder / "positives.parquet").unlink()
    (folder / "manifest.json").unlink()
    packs = [one for packing in list_packings(folder) for one in packing]
    PackedCollator(packs, lambda *_: {})
    with pytest.raises(InputError, match=r"expected positives\.parquet in .*; pack again"):
        PackedCollator(packs, lambda *_: {}, interactions=("query-query",))


def test_training_with_interactions_masks_by_its_own_scores_too(run_copy):
    run_pack(PackConfig(run_dir=str(run_copy), batch_size=64, packings=1))
    plain, all_three = (
        run_train(
            TrainConfig(
                run_dir=str(run_copy),
                device="cpu",
                epochs=1,
                overwrite=True,
                mask_above=0.0,
                interactions=interactions,
            )
        )
        for interactions in ((), INTERACTIONS)
    )
    for report, what in ((plain, "(row, passage)"), (all_three, "(row, text)")):
        assert any(f"of all {what} of the batches" in line for line in report.lines)
    plain, all_three = plain.counts, all_three.counts
    assert all_three["first_loss"] > plain["first_loss"]
    assert all_three["last_loss"] < all_three["first_loss"]
    assert all_three["masked_by_own_scores"] != plain["masked_by_own_scores"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "triplet"}, "--interactions query-query needs --loss mnr, found --loss triplet"),
        ({"symmetric": True}, "does not fit --symmetric, which compares otherwise"),
        ({"negatives": "hard"}, "does not fit --negatives hard"),
        ({"interactions": ("query-query",) * 2}, "--interactions must differ, found query-query"),
        ({"interactions": ("query",)}, "--interactions must be query-query, passage-passage or"),
    ],
)
def test_what_interactions_do_not_fit_is_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        TrainConfig(**{"interactions": ("query-query",), **options})
