"""`calibrate`: what it says of settings is what mine gives, and what it recommends follows."""

import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli
from hypothesis import given
from hypothesis import strategies as st

from stx_mine.core.intervals import EstimatedRate
from stx_mine.errors import ArtifactError, ConfigError
from stx_mine.stages.audit.config import AuditConfig
from stx_mine.stages.audit.outcomes import FalseNegatives, Outcome
from stx_mine.stages.audit.stage import run_audit
from stx_mine.stages.calibrate.config import CalibrateConfig
from stx_mine.stages.calibrate.core.choice import AS_GOOD, RuleTrials, recommend, unbeaten
from stx_mine.stages.calibrate.grid import RuleTrial, teller_of, try_all
from stx_mine.stages.calibrate.sampled import SampledQueries
from stx_mine.stages.calibrate.stage import run_calibrate
from stx_mine.stages.judge.config import JudgeConfig
from stx_mine.stages.judge.stage import run_judge
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.store.artifact import require
from stx_mine.store.groups import TextGroups
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

JUDGE = """
import numpy as np, zlib
def judge(pairs):
    return np.array([zlib.crc32((q + '|' + p).encode()) % 1000 / 1000 for q, p in pairs])
"""


def calibrated(run: Path, **fields):
    config = {"k": 4, "depth": 60, "device": "cpu", **fields}
    return run_calibrate(CalibrateConfig(run_dir=str(run), **config))


def trials_of(run: Path, **fields) -> list[RuleTrial]:
    config = CalibrateConfig(run_dir=str(run), device="cpu", **fields)
    with RunDir(run).lock():
        store = TextStore.open(require(RunDir(run), "texts"))
        groups = TextGroups.open(require(RunDir(run), "groups"))
        embeddings = require(RunDir(run), "embeddings")
        return list(try_all(SampledQueries.search(config, store, groups, embeddings, None)))


WANTED = (
    {"relative_margin": 0.05},
    {"relative_margin": None, "closeness": 0.7},
    {"relative_margin": 0.0, "range_min": 10, "range_max": 50},
)


def test_a_setting_gives_what_mine_and_audit_say_of_all_queries(
    several_run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(several_run, tmp_path / "run"))
    # Nothing was mined: there are no hits.
    assert not (run / "hits").exists()
    trials = trials_of(run, k=4, depth=60, queries=10_000)
    assert not (run / "hits").exists()
    for wanted in WANTED:
        settings = {"closeness": None, "range_min": 0, "range_max": None, **wanted}
        [found] = [
            one.outcome
            for one in trials
            if all(getattr(one.config, name) == value for name, value in settings.items())
        ]
        config = MineConfig(run_dir=str(run), k=4, depth=60, device="cpu", **wanted)
        mined = run_mine(config).counts
        rows = (found.rows_full, found.rows_ragged, found.rows_empty)
        assert rows == tuple(mined[f"rows_{name}"] for name in ("full", "ragged", "empty"))
        audit = run_audit(AuditConfig(run_dir=str(run), device="cpu", queries=10_000)).counts
        false = found.false["hidden"]
        assert (false.known, false.false, false.distinct) == (
            audit["audited"],
            audit["false"],
            audit["returned"],
        )


def test_the_table_fits_and_the_line_can_be_pasted(
    several_run: Path, tmp_path: Path, cli_here: Cli
) -> None:
    run = Path(shutil.copytree(several_run, tmp_path / "run"))
    before = sorted(run.rglob("*"))
    report = calibrated(run, queries=100)
    assert sorted(run.rglob("*")) == before
    first, last = report.lines.index(next(x for x in report.lines if "margin  " in x)), -2
    table = report.lines[first : first + 3]
    assert len(table) == 3
    rows = [line for line in report.lines if re.match(r"[> ] +\d+-\d* ", line)]
    assert 3 <= len(rows) <= 22
    assert sum(row.startswith(">") for row in rows) == 1
    # The command line shows them after two spaces.
    assert max(map(len, [table[0], *rows])) <= 78
    assert report.lines[last].startswith("recommended: of those that fill 90% of the rows")
    assert re.search(r"\d+% \(mean score .* and \d+% \(.*% of .*% hidden\):", report.lines[last])
    words = shlex.split(report.lines[-1].strip())
    assert words[:2] == ["stx-mine", "mine"]
    assert cli_here(*words[1:], "--device", "cpu").code == 0
    again = calibrated(run, queries=100)
    assert again.lines == report.lines
    assert report.counts["queries"] == 100
    assert report.counts["hidden"] >= report.counts["queries_several"] > 50


def test_nothing_is_said_of_false_negatives_where_nobody_can_tell(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(small_run, tmp_path / "run"))
    monkeypatch.setattr(
        "stx_mine.stages.audit.hidden.choose_hidden",
        lambda queries, *_: np.zeros(len(queries), np.bool_),
    )
    report = calibrated(run)
    assert report.counts["hidden"] == 0
    assert "false negatives cannot be told" in report.warnings[0]
    assert "the most cautious" in report.lines[-2]
    assert not any("hidden" in line for line in report.lines)


def test_a_judge_tells_where_no_positives_can_be_hidden(
    several_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli_here: Cli
) -> None:
    run = Path(shutil.copytree(several_run, tmp_path / "run"))
    (tmp_path / "judging_by_hash.py").write_text(JUDGE)
    monkeypatch.chdir(tmp_path)
    run_mine(MineConfig(run_dir=str(run), k=4, device="cpu", relative_margin=None))
    run_judge(JudgeConfig(run_dir=str(run), cross_encoder="judging_by_hash:judge", name="hash"))
    report = calibrated(run, queries=100)
    assert report.counts["judged"] > 50
    assert "the judge hash, who knows" in report.lines[0]
    rows = [line for line in report.lines if re.match(r"[> ] +\d+-\d* ", line)]
    assert max(map(len, rows)) <= 78
    assert len(re.findall(r"%-\d", rows[0])) == 2
    missing = cli_here("calibrate", "--judge", "nobody", run_dir=run).error
    assert "judgements/nobody/ is missing" in missing


def test_hostile_calibrations_end_in_one_line(several_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="expected a run directory at"):
        calibrated(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="--depth must be at least k=4, found 2; give --depth 4"):
        calibrated(several_run, depth=2)
    with pytest.raises(ConfigError, match="needs more than 5000 passages"):
        calibrated(several_run, k=5_000, depth=5_000)
    with pytest.raises(ConfigError, match="--min-full must be at most 1"):
        calibrated(several_run, min_full=1.5)
    # A depth that few windows fit.
    assert calibrated(several_run, k=4, depth=5).counts["settings"] > 4


TRIALS = st.lists(
    st.tuples(
        st.sampled_from([0.2, 0.5, 0.89, 0.9, 1.0]),
        st.sampled_from([0.1, 0.3, 0.5, 0.52]),
        st.sampled_from([0.0, 0.02, 0.1, None]),
        st.integers(1, 3),
        st.booleans(),
    ),
    max_size=9,
)
# Full, score, false, options and window of no rule.
NO_RULE = st.sampled_from([(1.0, 0.6, 0.2, 0, False), (1.0, 0.6, 0.0, 0, False)])


def trials_from(rows: list[tuple[float, float, float | None, int, bool]]) -> RuleTrials:
    full, score, rate, options, windowed = zip(*rows, strict=True)
    return RuleTrials(
        full_S=np.array(full),
        score_S=np.array(score),
        rate_S=np.array([np.nan if one is None else one for one in rate], np.float64),
        options_S=np.array(options),
        is_windowed_S=np.array(windowed),
        random_score=0.1,
    )


def worth(row: tuple[float, float, float | None, int, bool], base: float) -> float:
    """What is kept of the hardness of no rule, times what is avoided of its false negatives."""
    avoided = 1 - row[2] / base if base else 1
    return (row[1] - 0.1) / 0.5 * avoided


@given(NO_RULE, TRIALS)
def test_what_is_recommended_keeps_its_word(no_rule, others) -> None:
    rows = [no_rule, *others]
    choice = recommend(trials_from(rows), 0.9)
    assert choice.fills
    assert choice.is_told
    known = [row for row in rows if row[0] >= 0.9 and row[2] is not None]
    best = max(worth(row, no_rule[2]) for row in known)
    good = [
        row for row in known if worth(row, no_rule[2]) >= best - (1 - AS_GOOD) * abs(best) - 1e-12
    ]
    chosen = rows[choice.number]
    assert chosen in good
    assert chosen[3] == min(row[3] for row in good)


@given(TRIALS, st.sampled_from([0.9, 1.1]))
def test_the_most_cautious_is_recommended_where_nobody_can_tell(others, min_full: float) -> None:
    rows = [(*row[:2], None, *row[3:]) for row in [(0.95, 0.6, None, 0, False), *others]]
    choice = recommend(trials_from(rows), min_full)
    assert not choice.is_told
    assert choice.fills == any(row[0] >= min_full for row in rows)
    least = min_full if choice.fills else max(row[0] for row in rows)
    filled = [row for row in rows if row[0] >= least]
    plain = [row for row in filled if not row[4]] or filled
    assert rows[choice.number][1] == min(row[1] for row in plain)


@given(NO_RULE, TRIALS)
def test_unbeaten_settings_beat_all_others(no_rule, others) -> None:
    rows = [no_rule, *others]
    kept = unbeaten(trials_from(rows))
    merits = [(row[0], row[1], -np.inf if row[2] is None else -row[2]) for row in rows]
    for number, own in enumerate(merits):
        beaten = any(
            other != own and all(one >= two for one, two in zip(other, own, strict=True))
            for other in merits
        )
        if kept[number]:
            assert not beaten
            same = [row[3] for row, other in zip(rows, merits, strict=True) if other == own]
            assert rows[number][3] == min(same)
        elif not beaten:
            # Its equal stands in for it.
            assert any(kept[place] for place, other in enumerate(merits) if other == own)
    assert len({merits[number] for number in np.flatnonzero(kept)}) == kept.sum()


def test_a_trial_knows_its_options() -> None:
    config = MineConfig(relative_margin=None)
    assert RuleTrial(config, None).num_options == 0
    changed = replace(config, closeness=0.7, range_min=5, range_max=50)
    assert (RuleTrial(changed, None).num_options, RuleTrial(changed, None).is_windowed) == (3, True)


def told(known: int, false: int) -> FalseNegatives:
    return FalseNegatives(known, false, false, EstimatedRate(false / max(known, 1), 0.0, 1.0))


@pytest.mark.parametrize(
    ("hidden", "judged", "teller"),
    [
        ((800, 30), (300, 200), "hidden"),
        ((800, 19), (300, 200), "judged"),
        ((800, 19), (300, 12), "hidden"),
        ((800, 3), None, "hidden"),
        ((0, 0), (300, 12), "judged"),
        (None, (0, 0), None),
        (None, None, None),
    ],
)
def test_one_teller_decides_for_all_settings(hidden, judged, teller: str | None) -> None:
    found = {"hidden": hidden, "judged": judged}
    false = {name: told(*one) for name, one in found.items() if one is not None}
    outcome = Outcome(10, 0, 0, 80, 0.5, 3.0, false)
    assert teller_of(RuleTrial(MineConfig(relative_margin=None), outcome)) == teller
