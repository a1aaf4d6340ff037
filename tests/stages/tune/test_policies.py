"""What is tried: the first policies, refinements of the leader, and what helped together."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.core.learning_rate import default_learning_rate
from stx_mine.stages.tune.core.policies import (
    AS_GIVEN,
    Ground,
    TunedPolicy,
    combinations,
    first_policies,
    longer_as_given,
    merged,
    other_rates,
    refinements,
    varied,
)

CONFIGS = {"mine": MineConfig, "pack": PackConfig, "train": TrainConfig}
BASE = {"embed": {"pairs": "p.csv"}, "mine": {"k": 4}, "pack": {"batch_size": 256}, "train": {}}


def ground(settings=BASE, k=4, batch_size=256, num_rows=20_000):
    return Ground(settings, k, batch_size, num_rows, passes=2)


def values():
    fields = st.dictionaries(st.sampled_from("abc"), st.integers(0, 3), max_size=3)
    return st.dictionaries(st.sampled_from(["mine", "pack", "train"]), fields, max_size=3)


def refuse_nothing(policy, base):
    for stage, fields in policy.settings(base).items():
        if stage in CONFIGS:
            CONFIGS[stage](**fields)


@given(values(), values())
def test_changes_count_and_leave_the_rest(base, changes):
    found = merged(base, changes)
    for stage in {*base, *changes}:
        for field in {*base.get(stage, {}), *changes.get(stage, {})}:
            new = changes.get(stage, {})
            assert found[stage][field] == (new[field] if field in new else base[stage][field])
    assert TunedPolicy({}).settings(base) == base


@given(values(), values())
def test_what_a_policy_changes_beside_another_makes_it_of_that_other(one, other):
    first, second = TunedPolicy(one), TunedPolicy(other)
    whole = second.changed(first.beside(second))
    for stage, fields in one.items():
        for name, value in fields.items():
            assert whole.changes[stage][name] == value
    assert first.beside(first) == {}


@pytest.mark.parametrize(
    ("batch_size", "num_rows", "sizes"),
    [
        (256, 20_000, {64, 256, 1_024}),
        (256, 5_000, {64, 256}),
        (32, 20_000, {32, 128}),
        (32, 400, {32}),
    ],
)
def test_first_come_the_file_then_negatives_and_batch_sizes(batch_size, num_rows, sizes):
    base = {**BASE, "pack": {"batch_size": batch_size}}
    one = ground(base, batch_size=batch_size, num_rows=num_rows)
    policies = first_policies(one)
    assert policies[0].name == AS_GIVEN
    assert {one.batch_size_of(policy) for policy in policies} == sizes
    for size in sizes:
        ks = [one.k_of(policy) for policy in policies if one.batch_size_of(policy) == size]
        assert sorted(ks) == [0, 1, 4]
    assert len({policy.name for policy in policies}) == len(policies)
    for policy in policies:
        refuse_nothing(policy, base)


def test_a_file_that_packs_fewer_negatives_than_it_mines_is_changed_in_both():
    base = {**BASE, "pack": {"batch_size": 256, "k": 2}}
    one = ground(base, k=2)
    for policy in first_policies(one):
        settings = policy.settings(base)
        assert settings["pack"]["k"] <= settings["mine"]["k"]
        assert one.k_of(policy) in (0, 1, 2)


def test_a_file_without_negatives_is_compared_with_mined_ones():
    base = {**BASE, "mine": {"k": 0}}
    assert {ground(base, k=0).k_of(one) for one in first_policies(ground(base, k=0))} == {0, 1, 8}


def test_refinements_change_one_thing_and_are_valid():
    one, leader = ground(), TunedPolicy({"pack": {"batch_size": 1_024}})
    found = refinements(one, leader, 0.07)
    assert {"train": {"learning_rate": 0.14}} in found
    assert {"train": {"temperature": 0.1}} in found
    assert found[:2] == [
        {"pack": {"packings": passes}, "train": {"epochs": passes}} for passes in (4, 10)
    ]
    # Of two rules that decide about the same candidates one stands.
    assert {"mine": {"closeness": 0.7, "relative_margin": None}} in found
    for change in found:
        pairs = ("closeness" in change.get("mine", {})) + ("packings" in change.get("pack", {}))
        assert sum(map(len, change.values())) == 1 + pairs
        refuse_nothing(leader.changed(change), BASE)
    assert {"mine": {"k": 2}} in found
    # The margin of the file is no change.
    assert {"mine": {"relative_margin": 0.05}} not in found
    without = refinements(one, TunedPolicy({"mine": {"k": 0}}), 0.07)
    assert all("mine" not in change for change in without)


def test_more_passes_are_tried_in_batches_of_the_file_too():
    probed = replace(ground(), learning_rate=0.1)
    found = longer_as_given(probed, TunedPolicy(probed.rows(64)))
    assert [one.changes for one in found] == [
        {"pack": {"packings": passes}, "train": {"learning_rate": 0.1, "epochs": passes}}
        for passes in (4, 10)
    ]
    for policy in found:
        refuse_nothing(policy, BASE)
    # The refinements of a leader have them.
    assert longer_as_given(probed, TunedPolicy({"mine": {"k": 0}})) == []
    steps = {**BASE, "train": {"steps": 100}}
    assert longer_as_given(ground(steps), TunedPolicy({"pack": {"batch_size": 64}})) == []


@pytest.mark.parametrize(("static", "power"), [(False, 1 / 2), (True, 1 / 4)])
def test_a_rate_follows_the_size_of_a_batch(static, power):
    """As `--learning-rate auto` does."""
    sizes = (64, 256) if static else (16, 64)
    auto = [default_learning_rate(size, 64_000 // size, 10_000, static)[0] for size in sizes]
    assert auto[1] / auto[0] == pytest.approx(4**power)
    probed = replace(ground(), learning_rate=0.1, static=static)
    for policy in first_policies(probed)[1:]:
        factor = (probed.batch_size_of(policy) / 256) ** power
        rate = policy.changes["train"]["learning_rate"]
        assert rate == pytest.approx(0.1 * factor, rel=0.01)
    # A number that the file names holds for its own size, and no change is needed there.
    base = {**BASE, "train": {"learning_rate": 0.1}}
    given = replace(ground(base), learning_rate=0.1)
    for policy in first_policies(given):
        assert ("train" in policy.changes) == (given.batch_size_of(policy) != 256)
    assert [one.changes["train"]["learning_rate"] for one in other_rates(0.07)] == [0.14, 0.035]


def test_judges_that_are_there_are_tried_and_those_of_the_file_left_out():
    one = replace(ground(), judges=("strict", "fast"))
    found = refinements(one, TunedPolicy({}), 0.07)
    assert [c["mine"]["judges"] for c in found if "judges" in c.get("mine", {})] == [
        ("strict",),
        ("fast",),
    ]
    base = {**BASE, "mine": {"k": 4, "judges": ("strict",), "judged": "mask"}}
    unjudged = {"judges": (), "judged": "auto"}
    asks = replace(ground(base), judges=("strict",), unjudged=unjudged)
    assert asks.asks(TunedPolicy({}))
    assert {"mine": unjudged} in refinements(asks, TunedPolicy({}), 0.07)
    for policy in first_policies(asks):
        # There is nothing to ask about where nothing is mined.
        assert asks.asks(policy) == bool(asks.k_of(policy))
        refuse_nothing(policy, base)
        assert TunedPolicy(json.loads(json.dumps(policy.changes))).name == policy.name


def test_what_a_person_varies_is_changed_one_at_a_time():
    axes = {("mine", "k"): [0, 4, 8], ("train", "temperature"): [0.02]}
    names = [one.name for one in varied(ground(), axes)]
    assert names == [AS_GIVEN, "k 0", "k 8", "temperature 0.02"]
    assert varied(ground(), axes)[1].overrides == ["mine.k=0"]


def test_of_what_helped_one_field_has_one_value():
    helpful = [
        {"train": {"temperature": 0.1}},
        {"train": {"temperature": 0.02}},
        {"mine": {"range_min": 10}},
        {"train": {"mask_above": 0.1}},
    ]
    found = combinations(TunedPolicy({"mine": {"k": 1}}), helpful)
    assert [one.name for one in found] == [
        "k 1, range min 10, temperature 0.1",
        "k 1, range min 10, temperature 0.1, mask above 0.1",
    ]
    assert combinations(TunedPolicy({}), helpful[:1]) == []
