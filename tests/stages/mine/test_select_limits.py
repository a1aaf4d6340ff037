"""What lies exactly on a limit of the selection, and the smallest inputs."""

import numpy as np
import pytest

from stx_mine.core.ragged import Ragged, ragged_sets
from stx_mine.core.verdicts import Verdict
from stx_mine.stages.mine.core.opinions import Opinion
from stx_mine.stages.mine.core.select import HitMarks, Rules, UseLimits, select_negatives
from stx_mine.stages.mine.core.uses import UseCounter

POOLED = Verdict.POOLED
ABOVE = np.nextafter(np.float32(0.25), np.float32(1))
BELOW = np.nextafter(np.float32(0.25), np.float32(0))


def select(scores, rules, unit=0, positive=0.5, **options):
    """One query whose hits are the passages 0, 1, ...; none of them is forbidden."""
    count = len(scores)
    return select_negatives(
        np.array([unit]),
        np.array([0]),
        np.array([positive], np.float32),
        Ragged(np.array([0, count]), np.arange(count)),
        np.array(scores, np.float32),
        query_groups=np.array([count]),
        passage_groups=np.arange(count),
        forbidden=ragged_sets(np.array([0]), np.array([count]), 1),
        rules=rules,
        **options,
    )


def verdicts(*arguments, **options):
    return [Verdict(code) for code in select(*arguments, **options).verdicts_H]


@pytest.mark.parametrize(
    ("rule", "score", "verdict"),
    [
        ({"min_score": 0.25}, BELOW, Verdict.SCORE_WINDOW),
        ({"min_score": 0.25}, 0.25, POOLED),
        ({"max_score": 0.25}, ABOVE, Verdict.SCORE_WINDOW),
        ({"max_score": 0.25}, 0.25, POOLED),
        ({"absolute_margin": 0.25}, ABOVE, Verdict.ABSOLUTE_MARGIN),
        ({"absolute_margin": 0.25}, 0.25, POOLED),
        ({"relative_margin": 0.5}, ABOVE, Verdict.RELATIVE_MARGIN),
        ({"relative_margin": 0.5}, 0.25, POOLED),
        ({"upper_margin": 0.25}, BELOW, Verdict.UPPER_MARGIN),
        ({"upper_margin": 0.25}, 0.25, POOLED),
        ({"absolute_margin": 0.0}, 0.5, POOLED),
        ({"relative_margin": 0.0}, 0.5, POOLED),
        ({"upper_margin": 0.0}, 0.5, POOLED),
    ],
)
def test_a_score_exactly_on_a_threshold_is_allowed(rule, score, verdict):
    assert verdicts([score], Rules(pool=1, **rule)) == [verdict]


def test_the_first_rank_is_allowed_and_the_end_is_not():
    rules = Rules(pool=9, range_min=1, range_max=3)
    outside = Verdict.RANK_WINDOW
    expected = [outside, POOLED, POOLED, outside, outside]
    assert verdicts([0.4, 0.3, 0.2, 0.1, 0.0], rules) == expected


@pytest.mark.parametrize(
    ("score", "unit", "verdict"),
    [
        (0.25, 4, POOLED),
        (0.25, 5, POOLED),
        (0.25, 6, Verdict.MAX_USES),
        (ABOVE, 6, POOLED),
        (BELOW, 4, Verdict.MAX_USES),
    ],
)
def test_the_last_use_of_a_passage_is_kept_and_the_next_is_not(score, unit, verdict):
    uses = UseLimits(np.array([0.25], np.float32), np.array([5]))
    assert verdicts([score], Rules(pool=1), unit=unit, uses=uses) == [verdict]


def test_a_single_hit_is_judged_by_its_flags():
    rules, flag = Rules(pool=1), np.array([True])
    assert verdicts([0.3], rules, marks=HitMarks(wrong_language=flag)) == [Verdict.LANGUAGE]
    close = HitMarks(too_close=flag)
    assert verdicts([0.3], rules, marks=close) == [Verdict.CLOSE_TO_POSITIVE]
    # A known negative stays, whatever the rules about scores and texts say.
    strict = Rules(pool=1, max_score=0.0)
    known = HitMarks(known=flag, wrong_language=flag)
    assert verdicts([0.3], strict, marks=known) == [POOLED]


def test_a_judge_is_heard_before_margins_and_beside_windows():
    rules, hit = Rules(pool=1, relative_margin=0.5, absolute_margin=0.3), [0.3]

    def judged(opinion, rules=rules, **marks):
        return verdicts(hit, rules, marks=HitMarks(opinions=np.array([opinion], np.uint8), **marks))

    assert judged(Opinion.NONE) == [Verdict.ABSOLUTE_MARGIN]
    assert judged(Opinion.WORSE) == [POOLED]
    assert judged(Opinion.WORSE, too_close=np.array([True])) == [POOLED]
    assert judged(Opinion.CLOSE) == [Verdict.JUDGED_CLOSE]
    assert judged(Opinion.BETTER, wrong_language=np.array([True])) == [Verdict.JUDGED_POSITIVE]
    assert judged(Opinion.BETTER, Rules(pool=1, max_score=0.1)) == [Verdict.JUDGED_POSITIVE]
    assert judged(Opinion.WORSE, Rules(pool=1, max_score=0.1)) == [Verdict.SCORE_WINDOW]
    assert judged(Opinion.WORSE, Rules(pool=1, upper_margin=0.1)) == [Verdict.UPPER_MARGIN]
    assert judged(Opinion.BETTER, known=np.array([True])) == [POOLED]


def test_a_hit_beyond_the_pool_is_dropped_and_the_last_place_is_filled():
    chosen = select([0.3, 0.2, 0.1], Rules(pool=2))
    assert chosen.ids_US.tolist() == [[0, 1]]
    assert [Verdict(code) for code in chosen.verdicts_H] == [POOLED, POOLED, Verdict.BEYOND_POOL]


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_pool_counts_its_negatives_also_the_passage_with_the_lowest_id(count):
    chosen = select([0.3, 0.2, 0.1][:count], Rules(pool=4))
    assert chosen.sizes().tolist() == [count]
    assert chosen.ids_US.tolist() == [[*range(count), *[-1] * (4 - count)]]


def test_a_known_negative_takes_the_place_of_its_group_in_its_own_unit_only():
    """Two queries; passages 0 and 1 are of one group, and 1 is known to the first query."""
    chosen = select_negatives(
        np.array([0, 1]),
        np.array([0, 1]),
        np.ones(2, np.float32),
        Ragged(np.array([0, 2, 4]), np.array([0, 1, 0, 1])),
        np.array([0.4, 0.3, 0.4, 0.3], np.float32),
        query_groups=np.array([2, 3]),
        passage_groups=np.array([0, 0]),
        forbidden=ragged_sets(np.array([0, 1]), np.array([2, 3]), 2),
        rules=Rules(pool=2),
        marks=HitMarks(known=np.array([False, True, False, False])),
    )
    assert chosen.ids_US.tolist() == [[1, -1], [0, -1]]
    same_group = Verdict.DUPLICATE_GROUP
    expected = [same_group, POOLED, POOLED, same_group]
    assert [Verdict(code) for code in chosen.verdicts_H] == expected


def test_uses_up_to_the_limit_leave_a_passage_open_to_all():
    counter = UseCounter(1, 2)
    open_to_all = (-np.inf, np.iinfo(np.int64).max)
    for score, unit, last in (
        (0.5, 3, open_to_all),
        (0.25, 7, (0.25, 7)),
        (0.25, 6, (0.25, 6)),
        (0.25, 8, (0.25, 6)),
        (0.75, 9, (0.5, 3)),
    ):
        counter.add(np.array([0]), np.array([score], np.float32), np.array([unit]))
        limits = counter.limits()
        assert (limits.scores_P[0], limits.units_P[0]) == last
