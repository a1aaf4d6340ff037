"""What is said of evaluation data: how it counts, and how much of it is in training."""

from stx_mine.stages.evaluate.core.shares import SeenShares, Share
from stx_mine.stages.evaluate.counts import EvaluationCounts
from stx_mine.store.stage_report import listed, percent

# Above this share of the queries or positives a mean says little of what is new.
_MUCH = 0.1


def data_lines(counts: EvaluationCounts) -> list[str]:
    """How the data counts; only what is not as in any file of pairs."""
    lines = [*_grade_line(counts), *_dropped_line(counts)]
    if counts.queries_without_positive:
        lines.append(
            f"{percent(counts.queries_without_positive, counts.queries)} queries are judged "
            "without a positive: they score 0 and count in every mean, as in trec_eval"
        )
    if counts.pairs_not_in_corpus:
        lines.append(
            f"{percent(counts.pairs_not_in_corpus, counts.pairs_kept)} judged passages are missing "
            "from the corpus or empty: they count as not found, as in trec_eval"
        )
    return [*lines, *_own_lines(counts), *_copy_line(counts)]


def _grade_line(counts: EvaluationCounts) -> list[str]:
    graded = (counts.lowest_gain, counts.highest_gain) != (1.0, 1.0)
    if not graded and counts.min_grade is None:
        return []
    relevant = "above 0" if counts.min_grade is None else f"of {counts.min_grade:g} or more"
    return [
        f"grades from {counts.lowest_gain:g} to {counts.highest_gain:g} are the gains of nDCG; "
        f"those {relevant} are relevant to MRR and Recall"
    ]


def _dropped_line(counts: EvaluationCounts) -> list[str]:
    """Pairs that were dropped, but for judgements that say no, as they should."""
    lost = {name: n for name, n in counts.pairs_dropped.items() if name != "not_relevant"}
    if not any(lost.values()):
        return []
    return [f"{counts.pairs_in:,} pairs read, dropped: {listed(lost)}"]


def _own_lines(counts: EvaluationCounts) -> list[str]:
    lines = []
    if counts.own_left_out:
        lines.append(
            f"{counts.own_left_out:,} passages are not ranked for their own query (its text or id)"
        )
    if counts.own_positives:
        lines.append(
            f"{counts.own_positives:,} passages with the text or id of their query are ranked, as "
            "they are judged for it"
        )
    if counts.ids_of_other_texts:
        lines.append(
            f"{counts.ids_of_other_texts:,} queries have the id of a passage of another text, "
            "which is ranked: ids of queries and passages seem to be counted apart (to leave them "
            "out: --own-passages ids)"
        )
    return lines


def _copy_line(counts: EvaluationCounts) -> list[str]:
    if not counts.copies:
        return []
    return [
        f"{counts.copies:,} passages are copies of others and ranked as they are; "
        f"{counts.copies_of_positives:,} copies of positives are not judged and count as not "
        "relevant, as in trec_eval"
    ]


def seen_lines(seen: SeenShares | None, where: str = "") -> list[str]:
    """How much is in training, a line each way to tell.

    Args:
        seen: How much; None if nobody can tell.
        where: Name of the data, where there may be several.
    """
    start = f"{where}: " if where else ""
    if seen is None:
        return [
            f"{start}seen and unseen in training are not told apart: the run has no finished texts/"
        ]
    return [
        f"{start}in training by text: {_share(seen.by_text)} queries have the text of a training "
        "query",
        f"{start}in training by positive: {_share(seen.by_positive)} positives are positives in "
        "training",
        f"{start}in training by group: {_share(seen.by_group)} queries are of a group of training "
        "queries, or have a positive of a group of training positives",
    ]


def seen_warnings(seen: SeenShares | None, where: str = "") -> list[str]:
    """A warning where much is in training."""
    if seen is None:
        return []
    named = {
        "queries by text": seen.by_text,
        "positives": seen.by_positive,
        "queries by group": seen.by_group,
    }
    much = [f"{share.value:.0%} of the {name}" for name, share in named.items() if _is_much(share)]
    if not much:
        return []
    start = f"{where}: " if where else ""
    advice = "judge by the unseen queries"
    if seen.by_group.seen == seen.by_group.of:
        advice = "hold other data out"
    return [
        f"{start}{', '.join(much)} are in training, so that the means of all queries say little of "
        f"new ones; {advice}"
    ]


def _is_much(share: Share) -> bool:
    return share.value > _MUCH


def _share(share: Share) -> str:
    return f"{share.seen:,} of {share.of:,} ({share.value:.1%})"
