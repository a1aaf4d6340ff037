"""The closing sentences of `mine`."""

from stx_mine.core.verdicts import RULES, Verdict
from stx_mine.stages.index.counts import IndexCounts
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.counts import NO_POOL, CandidateCounts, MineCounts
from stx_mine.stages.mine.depths import DEEPER, AllHits
from stx_mine.stages.mine.judges import MOST_RANDOM, JudgeControl
from stx_mine.stages.mine.selector import SUSPECT_PERCENTILE
from stx_mine.store.artifact import Artifact
from stx_mine.store.audits import read_audits
from stx_mine.store.hits import HitSource
from stx_mine.store.stage_report import StageReport, listed, make_report, percent, rounded

# From this share of the pairs on, those that judges make should be looked at.
_MANY = 0.5


def mine_report(
    artifact: Artifact, config: MineConfig, hits: AllHits, skipped: bool = False
) -> StageReport:
    """The report of finished negatives.

    Args:
        artifact: `negatives/`.
        config: The config.
        hits: Where they come from.
        skipped: Whether they were finished before.
    """
    counts = MineCounts.read(artifact.result)
    if not config.mines:
        line = (
            f"k=0: nothing is searched, and all {counts.rows:,} rows have no negatives of their "
            "own; those of a batch are the positives of other rows"
        )
        return make_report(artifact, [line], skipped=skipped)
    searched = hits.dense.how if hits.dense else "nothing is searched"
    lines = [
        f"{searched}; {counts.hits_in:,} hits in, by the first rule that dropped them:",
        *_waterfall(counts),
        *_labelled_lines(artifact.result.extra.get("labelled")),
        *_known_lines(counts, config),
        *_candidate_lines(hits, config),
        *_judged_lines(counts, config, artifact.result.extra.get("judged")),
        _rows(counts, config.k),
    ]
    if hits.dense and config.max_depth is None and counts.queries_to_deepen:
        lines.append(
            f"--max-depth {DEEPER * config.depth} would search deeper for "
            f"{counts.queries_to_deepen:,} queries that lack negatives"
        )
    if counts.queries_deepened:
        lines.append(
            f"{counts.queries_deepened:,} queries with fewer than {config.k} negatives were "
            f"searched deeper, up to {config.max_depth}"
        )
    if counts.unknown_languages and config.negative_language != "any":
        unknown = counts.unknown_languages
        lines.append(
            f"the language of {unknown['queries']:,} queries and {unknown['passages']:,} passages "
            "is unknown: no hit with one of them is dropped because of it"
        )
    if counts.pairs_suspect and (config.min_positive_percentile or 0) < SUSPECT_PERCENTILE:
        lines.append(
            f"the positive of {percent(counts.pairs_suspect, counts.pairs_in)} pairs scores "
            "below most random passages: mislabelled, or foreign to the model; --min-positive-"
            f"percentile {SUSPECT_PERCENTILE:g} drops them"
        )
    audits, unread = read_audits(artifact.run)
    lines += [f"audits/{one.name}: {one.sentence}" for one in audits]
    warnings = _warnings(counts, config, hits)
    if skipped:
        # Else it is among what is stale now.
        warnings += [f"audits/{name} is not shown: {why}" for name, why in unread.items()]
    return make_report(artifact, lines, warnings, skipped=skipped)


def _warnings(counts: MineCounts, config: MineConfig, hits: AllHits) -> list[str]:
    """What deserves attention."""
    warnings = [
        f"{percent(number, counts.pairs_in)} pairs dropped: {reason}"
        for reason, number in counts.pairs_dropped.items()
        if number
    ]
    if counts.pairs_made > _MANY * counts.pairs_in:
        warnings.append(
            f"judges make {counts.pairs_made:,} pairs beside the {counts.pairs_in:,} of the input: "
            "is the judge a good one? --judged mask leaves them out of the loss instead"
        )
    warnings += _unknown_candidates(hits, config)
    if hits.dense and hits.dense.index:
        found = IndexCounts.read(hits.dense.index)
        if found.is_low:
            warnings.append(
                f"the index misses {1 - found.recall:.1%} of the nearest passages: `stx-mine index "
                "--overwrite` with a larger --nprobe or --refine-factor finds more, `stx-mine mine "
                "--search exact --overwrite` finds all"
            )
    return warnings


def _waterfall(counts: MineCounts) -> list[str]:
    """A line per verdict that a hit has: how many, its name, and what it means."""
    hits = {**counts.dropped, "pooled": counts.pooled}
    width = len(f"{counts.hits_in:,}")
    longest = max(len(name) for name in hits)
    return [
        f"  {number:>{width},}  {name:<{longest}}  {RULES[Verdict[name.upper()]].meaning}"
        for name, number in hits.items()
        if number or name == "pooled"
    ]


def _labelled_lines(labelled: dict[str, int] | None) -> list[str]:
    """Which passages may be negatives, where some are a positive of no row."""
    if labelled is None or labelled["passages"] == labelled["of"]:
        return []
    share = percent(labelled["passages"], labelled["of"])
    if labelled["alone"]:
        return [
            f"negatives are taken from the {share} passages that are a positive of some row: "
            "others would only ever be pushed away; --negatives-from corpus takes all"
        ]
    return [
        f"{share} passages are a positive of some row; negatives are taken from all: "
        "--negatives-from positives takes only those, and `stx-mine tune` tells which is better"
    ]


def _known_lines(counts: MineCounts, config: MineConfig) -> list[str]:
    """What became of the known negatives of the input."""
    if not counts.known_in:
        return []
    per_pair = ", once a pair of their query" if config.positive_score == "pair" else ""
    lines = [
        f"{counts.known_in:,} known negatives in{per_pair}: "
        f"{percent(counts.known_pooled, counts.known_in)} in a pool; dropped: "
        f"{listed(counts.known_dropped) or 'none'}"
    ]
    if config.known_negatives == "filter":
        lines.append(
            "the rules apply to them as to all hits; --known-negatives keep puts them first"
        )
    else:
        above = counts.known_above_positive
        lines.append(
            "they come first in their pools, whatever their score"
            + (f" ({above:,} score above the positive)" if above else "")
            + "; --known-negatives filter applies the rules to them"
        )
    if counts.known_dropped[NO_POOL]:
        lines.append(
            f"{NO_POOL}: no pair of their query is kept, so that there is no row for "
            f"{counts.known_dropped[NO_POOL]:,} of them"
        )
    return lines


def _candidate_lines(hits: AllHits, config: MineConfig) -> list[str]:
    """What a file of candidates gave."""
    manifest = hits.others.get(HitSource.CANDIDATES)
    if manifest is None:
        return []
    counts = CandidateCounts.read(manifest)
    return [
        f"{config.candidates}: {counts.lines:,} lines, {counts.candidates:,} distinct candidates "
        f"of {percent(counts.queries_named, counts.queries)} queries"
    ]


def _judged_lines(counts: MineCounts, config: MineConfig, judged: str | None) -> list[str]:
    """What judges decided, and what is done about it."""
    if judged is None:
        return []
    better, close = (counts.dropped[one] for one in ("judged_positive", "judged_close"))
    number = "the last" if config.combine == "last" else str(config.votes_needed)
    who = f"{number} of {len(config.judges)} judges ({', '.join(config.judges)})"
    done = {
        "relabel": f"{counts.pairs_made:,} pairs more are trained on, the others are left out of "
        "the loss of their query",
        "mask": "both are left out of the loss of their query",
        "drop": "both are no negatives, and others may meet them in a batch",
    }
    return [
        f"{who} find {better:,} hits as relevant as the positive and {close:,} nearly so: "
        f"{done[judged]}",
        _control_line(counts, config, judged),
    ]


def _control_line(counts: MineCounts, config: MineConfig, judged: str) -> str:
    """How far judges are believed, and why."""
    control = JudgeControl(counts.random_judged, counts.random_judged_positive)
    if control.random:
        line = (
            f"of {control.random:,} random passages, which answer nothing, they find "
            f"{percent(control.above, control.random)} as relevant as the positive "
            f"(at most {rounded(control.most)}, where {MOST_RANDOM:.0%} may be)"
        )
    else:
        line = "no random passage was judged beside a positive, which would tell how good they are"
    if config.judged != "auto":
        return line
    if judged == "relabel":
        return f"{line}: few enough to train on what they take for positives (--judged relabel)"
    if control.is_trusted:
        return f"{line}; --positive-score pair makes no pairs (--judged mask)"
    return f"{line}: no pair is made or dropped by their word (--judged relabel would)"


def _unknown_candidates(hits: AllHits, config: MineConfig) -> list[str]:
    """Which lines of a file of candidates were of no use."""
    manifest = hits.others.get(HitSource.CANDIDATES)
    if manifest is None:
        return []
    counts = CandidateCounts.read(manifest)
    parts = [
        f"{number:,} name a {role} that this run does not have (such as "
        f"{', '.join(map(repr, manifest.extra['unknown'][role])) or 'an empty one'})"
        for role, number in (
            ("query", counts.unknown_queries),
            ("passage", counts.unknown_passages),
        )
        if number
    ]
    share = percent(counts.lines_unknown, counts.lines)
    return (
        [f"{share} lines of {config.candidates} are ignored: {'; '.join(parts)}"] if parts else []
    )


def _rows(counts: MineCounts, k: int) -> str:
    """How many rows have how many negatives."""
    dropped = sum(counts.pairs_dropped.values())
    return (
        f"rows with k={k} negatives: {percent(counts.rows_full, counts.rows)} full, "
        f"{percent(counts.rows_ragged, counts.rows)} ragged, "
        f"{percent(counts.rows_empty, counts.rows)} without any; "
        f"{'all are kept' if not dropped else f'{dropped:,} pairs are dropped'}"
    )
