"""Selection against a plain Python oracle, and what it must never do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stx_mine.core.forbidden import forbidden_groups
from stx_mine.core.ragged import Ragged, ragged_sets
from stx_mine.core.verdicts import Verdict
from stx_mine.stages.mine.core.opinions import Opinion
from stx_mine.stages.mine.core.select import HitMarks, Rules, UseLimits, select_negatives
from stx_mine.stages.mine.core.uses import UseCounter


def oracle(unit, case, rules):  # noqa: C901  (one rule after the other)
    """Verdicts, eligible hits in the order of the pool, and known hits of one unit."""
    query = case["unit_queries"][unit]
    forbidden = set(case["forbidden"].row(query))
    positive, seen, rank = case["positive_scores"][unit], set(), 0
    verdicts, eligible = [], []
    start = case["hits"].offsets[unit]
    row = case["hits"].row(unit)
    known = case["known"][start : start + len(row)]
    groups_of_known = set(case["passage_groups"][row[known]])
    for place, passage in enumerate(row):
        group, score = case["passage_groups"][passage], case["hit_scores"][start + place]
        if group == case["query_groups"][query]:
            verdicts.append(Verdict.OWN_TEXT)
            continue
        if group in forbidden:
            verdicts.append(Verdict.KNOWN_POSITIVE)
            continue
        if group in seen or (group in groups_of_known and not known[place]):
            verdicts.append(Verdict.DUPLICATE_GROUP)
            continue
        if case["unlabelled"][passage] and not known[place]:
            verdicts.append(Verdict.UNLABELLED)
            continue
        seen.add(group)
        cleared = case["opinions"][start + place] == Opinion.WORSE
        low = -np.inf if rules.min_score is None else np.float32(rules.min_score)
        high = np.inf if rules.max_score is None else np.float32(rules.max_score)
        if known[place]:
            verdict = Verdict.POOLED
        elif case["opinions"][start + place] == Opinion.BETTER:
            verdict = Verdict.JUDGED_POSITIVE
        elif case["opinions"][start + place] == Opinion.CLOSE:
            verdict = Verdict.JUDGED_CLOSE
        elif case["wrong_language"][start + place]:
            verdict = Verdict.LANGUAGE
        elif rank < rules.range_min or (rules.range_max is not None and rank >= rules.range_max):
            verdict = Verdict.RANK_WINDOW
        elif not low <= score <= high:
            verdict = Verdict.SCORE_WINDOW
        elif (
            not cleared
            and rules.absolute_margin is not None
            and score > positive - np.float32(rules.absolute_margin)
        ):
            verdict = Verdict.ABSOLUTE_MARGIN
        elif (
            not cleared
            and rules.relative_margin is not None
            and score > positive - abs(positive) * np.float32(rules.relative_margin)
        ):
            verdict = Verdict.RELATIVE_MARGIN
        elif rules.upper_margin is not None and score < positive - np.float32(rules.upper_margin):
            verdict = Verdict.UPPER_MARGIN
        elif not cleared and case["too_close"][start + place]:
            verdict = Verdict.CLOSE_TO_POSITIVE
        elif passage in case["uses"] and (-score, unit) > case["uses"][passage]:
            verdict = Verdict.MAX_USES
        else:
            verdict = Verdict.POOLED
        if verdict == Verdict.POOLED:
            eligible.append((passage, rank, score))
        verdicts.append(verdict)
        rank += 1
    first = {int(passage) for passage in row[known]}
    eligible.sort(key=lambda one: int(one[0]) not in first)
    return verdicts, eligible, first


# Shares of hits that nobody judged, that are worse, close and better.
shares = st.sampled_from([(1, 0, 0, 0), (0.4, 0.2, 0.2, 0.2), (0.1, 0.7, 0.1, 0.1)])


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 100_000)))
    num_passages, num_queries = draw(st.integers(2, 25)), draw(st.integers(1, 6))
    passage_groups = np.sort(rng.integers(0, num_passages, num_passages)).astype(np.int64)
    own = num_passages + np.arange(num_queries)
    query_groups = np.where(rng.random(num_queries) < 0.3, passage_groups[0], own)
    num_pairs = draw(st.integers(1, 12))
    pairs = rng.integers(0, num_queries, num_pairs), rng.integers(0, num_passages, num_pairs)
    lengths = rng.integers(0, num_passages + 1, num_queries)
    rows = [rng.permutation(num_passages)[:length] for length in lengths]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    scores = [np.sort(rng.choice(np.linspace(-1, 1, 9), n))[::-1] for n in lengths]
    capped = rng.choice(num_passages, num_passages // 2, replace=False)
    uses = {
        int(one): (-np.float32(rng.choice(np.linspace(-1, 1, 9))), int(rng.integers(num_queries)))
        for one in capped
    }
    return {
        "unlabelled": rng.random(num_passages) < draw(st.sampled_from([0, 0.4])),
        "uses": uses,
        "known": rng.random(lengths.sum()) < draw(st.sampled_from([0, 0.3])),
        "wrong_language": rng.random(lengths.sum()) < draw(st.sampled_from([0, 0.4])),
        "opinions": rng.choice(4, lengths.sum(), p=draw(shares)).astype(np.uint8),
        "too_close": rng.random(lengths.sum()) < draw(st.sampled_from([0, 0.3])),
        "unit_queries": np.arange(num_queries),
        "positive_scores": rng.uniform(-1, 1, num_queries).astype(np.float32),
        "hits": Ragged(offsets, np.concatenate(rows).astype(np.int64)),
        "hit_scores": np.concatenate(scores).astype(np.float32),
        "query_groups": query_groups.astype(np.int64),
        "passage_groups": passage_groups,
        "forbidden": forbidden_groups(*pairs, query_groups, passage_groups),
    }


maybe = st.one_of(st.none(), st.floats(0, 0.5))
rules_strategy = st.builds(
    Rules,
    pool=st.integers(1, 10),
    range_min=st.integers(0, 3),
    range_max=st.one_of(st.none(), st.integers(4, 20)),
    min_score=st.one_of(st.none(), st.floats(-1, 0)),
    max_score=st.one_of(st.none(), st.floats(0, 1)),
    absolute_margin=maybe,
    relative_margin=maybe,
    upper_margin=st.one_of(st.none(), st.floats(0.2, 1.5)),
    sampling=st.sampled_from(["top", "random", "weighted"]),
    seed=st.integers(0, 5),
)


def run(case, rules, units=slice(None)):
    num_passages = len(case["passage_groups"])
    uses = UseLimits(np.full(num_passages, -np.inf, np.float32), np.full(num_passages, 1 << 40))
    for passage, (negative_score, unit) in case["uses"].items():
        uses.scores_P[passage], uses.units_P[passage] = -negative_score, unit
    return select_negatives(
        case["unit_queries"][units],
        case["unit_queries"][units],
        case["positive_scores"][units],
        case["hits"],
        case["hit_scores"],
        query_groups=case["query_groups"],
        passage_groups=case["passage_groups"],
        forbidden=case["forbidden"],
        rules=rules,
        excluded=np.where(case["unlabelled"], Verdict.UNLABELLED, 0).astype(np.uint8),
        marks=HitMarks(
            known=case["known"] if case["known"].any() else None,
            wrong_language=case["wrong_language"],
            too_close=case["too_close"],
            opinions=case["opinions"] if case["opinions"].any() else None,
        ),
        uses=uses,
    )


@settings(deadline=None, max_examples=150)
@given(cases(), rules_strategy)
def test_selection_equals_the_oracle(case, rules):
    chosen = run(case, rules)
    for unit in range(len(case["unit_queries"])):
        verdicts, eligible, known = oracle(unit, case, rules)
        first, last = case["hits"].offsets[unit : unit + 2]
        got = [Verdict(code) for code in chosen.verdicts_H[first:last]]
        size = min(rules.pool, len(eligible))
        pool = [int(one) for one in chosen.ids_US[unit] if one >= 0]
        assert len(pool) == size
        # Every hit has one verdict; only the pool separates the last two.
        assert [v if v != Verdict.BEYOND_POOL else Verdict.POOLED for v in got] == verdicts
        assert got.count(Verdict.POOLED) == size
        by_id = {int(passage): (rank, score) for passage, rank, score in eligible}
        assert set(pool) <= set(by_id)
        # What is known is drawn among itself, and before the rest.
        num_known = sum(int(passage) in known for passage, _, _ in eligible)
        assert all((one in known) == (slot < num_known) for slot, one in enumerate(pool))
        if rules.sampling == "top":
            assert pool == [int(passage) for passage, _, _ in eligible[:size]]
        for slot, passage in enumerate(pool):
            assert chosen.ranks_US[unit, slot] == by_id[passage][0]
            assert chosen.scores_US[unit, slot] == by_id[passage][1]


def test_random_pools_follow_the_seed_and_the_query_only():
    hits = Ragged(np.array([0, 20, 40]), np.tile(np.arange(20), 2))
    scores = np.tile(np.linspace(0.9, 0, 20, dtype=np.float32), 2)
    common = {
        "query_groups": np.array([20, 21]),
        "passage_groups": np.arange(20),
        "forbidden": ragged_sets(np.array([0, 1]), np.array([20, 21]), 2),
    }

    def pools(seed, queries):
        count = len(queries)
        rules = Rules(pool=5, sampling="random", seed=seed)
        part = Ragged(hits.offsets[: count + 1], hits.values[: count * 20])
        positive = np.ones(count, np.float32)
        queries = np.array(queries)
        chosen = select_negatives(
            queries, queries, positive, part, scores[: count * 20], rules=rules, **common
        )
        return dict(zip(queries.tolist(), chosen.ids_US.tolist(), strict=True))

    both = pools(1, [0, 1])
    assert both[0] != both[1]
    # Alone or in another order, a query draws the same pool.
    assert pools(1, [1])[1] == both[1]
    assert pools(1, [1, 0]) == both
    assert pools(2, [0, 1]) != both


def test_every_passage_is_drawn_about_equally_often():
    num_queries, num_passages, pool = 4_000, 10, 3
    hits = Ragged(
        np.arange(num_queries + 1) * num_passages, np.tile(np.arange(num_passages), num_queries)
    )
    queries = np.arange(num_queries)
    groups = num_passages + queries
    chosen = select_negatives(
        queries,
        queries,
        np.ones(num_queries, np.float32),
        hits,
        np.zeros(num_queries * num_passages, np.float32),
        query_groups=groups,
        passage_groups=np.arange(num_passages),
        forbidden=ragged_sets(queries, groups, num_queries),
        rules=Rules(pool=pool, sampling="random"),
    )
    for slot in range(pool):
        counts = np.bincount(chosen.ids_US[:, slot], minlength=num_passages)
        assert abs(counts - num_queries / num_passages).max() < 100


def test_the_margin_is_right_for_negative_positive_scores():
    hits = Ragged(np.array([0, 3]), np.array([0, 1, 2]))
    chosen = select_negatives(
        np.array([0]),
        np.array([0]),
        np.array([-1.0], np.float32),
        hits,
        np.array([-1.04, -1.06, -2.0], np.float32),
        query_groups=np.array([9]),
        passage_groups=np.arange(3),
        forbidden=ragged_sets(np.array([0]), np.array([9]), 1),
        rules=Rules(pool=3, relative_margin=0.05),
    )
    assert chosen.ids_US.tolist() == [[1, 2, -1]]


def test_weighted_sampling_draws_by_the_weight_of_the_score():
    """The first of the pool is passage i with probability exp(score_i / t) / sum."""
    num_queries, temperature = 20_000, 0.1
    scores = np.array([0.5, 0.4, 0.3, 0.1], np.float32)
    queries = np.arange(num_queries)
    groups = len(scores) + queries
    chosen = select_negatives(
        queries,
        queries,
        np.ones(num_queries, np.float32),
        Ragged(np.arange(num_queries + 1) * 4, np.tile(np.arange(4), num_queries)),
        np.tile(scores, num_queries),
        query_groups=groups,
        passage_groups=np.arange(4),
        forbidden=ragged_sets(queries, groups, num_queries),
        rules=Rules(pool=2, sampling="weighted", sampling_temperature=temperature),
    )
    weights = np.exp(scores / temperature)
    shares = np.bincount(chosen.ids_US[:, 0], minlength=4) / num_queries
    np.testing.assert_allclose(shares, weights / weights.sum(), atol=0.012)
    # Without replacement: the second is drawn from what is left.
    second = chosen.ids_US[chosen.ids_US[:, 0] == 0, 1]
    rest = weights[1:] / weights[1:].sum()
    np.testing.assert_allclose(np.bincount(second, minlength=4)[1:] / len(second), rest, atol=0.015)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 30)),
        unique=True,
        max_size=80,
    ),
    st.integers(1, 7),
    st.integers(1, 30),
)
def test_each_passage_keeps_its_best_uses(uses, max_uses, block):
    counter = UseCounter(5, max_uses)
    # A unit uses a passage once.
    uses = list({(passage, unit): (passage, score, unit) for passage, score, unit in uses}.values())
    for start in range(0, len(uses), block):
        passages, scores, units = zip(*uses[start : start + block], strict=True)
        counter.add(
            np.array(passages, np.int64), np.array(scores, np.float32), np.array(units, np.int64)
        )
    limits = counter.limits()
    for passage in range(5):
        own = sorted((-score, unit) for one, score, unit in uses if one == passage)
        last = (-limits.scores_P[passage], limits.units_P[passage])
        assert [use for use in own if use <= last] == own[:max_uses]


@pytest.mark.parametrize("max_uses", range(1, 11))
def test_the_last_use_that_a_passage_keeps_is_right_after_each_use(max_uses):
    rng = np.random.default_rng(max_uses)
    counter, own = UseCounter(2, max_uses), []
    for unit, score in enumerate(rng.permutation(60) // 2):
        counter.add(np.array([1]), np.array([score], np.float32), np.array([60 - unit]))
        own.append((-int(score), 60 - unit))
        limits = counter.limits()
        last = (-limits.scores_P[1], limits.units_P[1])
        kept = sorted(own)[:max_uses]
        assert last == (kept[-1] if len(kept) == max_uses else (np.inf, np.iinfo(np.int64).max))
        assert limits.scores_P[0] == -np.inf


@pytest.mark.parametrize("sampling", ["random", "weighted"])
def test_a_draw_is_in_the_order_of_its_gumbel_keys(sampling):
    """The keys are made anew with integers of Python, so that a seed means the same for ever."""

    def mixed(seed, *counters):
        state, full = seed, 2**64 - 1
        for counter in counters:
            state = (state + 0x9E3779B97F4A7C15 + counter * 0xD1342543DE82EF95) & full
            state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & full
            state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & full
            state ^= state >> 31
        return state

    scores = np.array([0.9, 0.5, 0.45, 0.4, 0.2], np.float32)
    for unit in range(40):
        chosen = select_negatives(
            np.array([unit]),
            np.array([0]),
            np.ones(1, np.float32),
            Ragged(np.array([0, 5]), np.arange(5)),
            scores,
            query_groups=np.array([9]),
            passage_groups=np.arange(5),
            forbidden=ragged_sets(np.array([0]), np.array([9]), 1),
            rules=Rules(pool=5, sampling=sampling, sampling_temperature=0.3, seed=7),
        )
        uniform = [((mixed(7, unit, hit) >> 11) + 0.5) * 2.0**-53 for hit in range(5)]
        keys = np.log(-np.log(uniform))
        if sampling == "weighted":
            keys -= scores.astype(float) / 0.3
        assert chosen.ids_US[0].tolist() == np.argsort(keys).tolist()
