"""The report of `init`: what was read, what it is like, what is proposed, what to run."""

from collections.abc import Sequence
from shlex import quote

from stx_mine.stages.init.config import InitConfig
from stx_mine.stages.init.peek import PairPeek, PassagePeek
from stx_mine.stages.init.proposals import Proposal
from stx_mine.store.stage_report import StageReport, listed, percent

_SHOWN_CHARACTERS = 60


def init_report(
    peek: PairPeek | PassagePeek, proposal: Proposal, config: InitConfig, problems: Sequence[str]
) -> StageReport:
    """The report.

    Args:
        peek: What was read.
        proposal: What was written.
        config: The config.
        problems: What is wrong with the data.
    """
    recipe, sections = proposal.recipe, proposal.sections
    is_made = sections[0].stage == "queries"
    lines = _pair_lines(peek, is_made) if isinstance(peek, PairPeek) else _passage_lines(peek)
    lines += [
        f"words (median, 95%): {_lengths(peek)}",
        *_examples(peek),
        f"held out: {proposal.held_out}",
        f"recipe: {recipe.model}, {recipe.k} negatives per row, batches of {recipe.batch_size:,}",
        f"wrote {config.file}, which has the reasons; run `stx-mine run {quote(config.file)}`",
    ]
    counts = {"stages": len(sections), "problems": len(problems)}
    return StageReport("init", counts, tuple(lines), tuple(problems))


def _pair_lines(peek: PairPeek, is_titled: bool) -> list[str]:
    counts, titles = peek.found.counts, peek.titles
    return [
        *peek.source.description(),
        *peek.found.notes,
        f"pairs: {counts.pairs_in:,} read, {percent(counts.pairs_kept, counts.pairs_in)} kept, "
        f"dropped: {listed(counts.pairs_dropped) or 'none'}",
        f"texts: {counts.queries:,} distinct queries, {counts.passages:,} distinct passages",
        f"titles: {titles.contained:.0%} of the queries stand word by word in their passage, as "
        f"titles do; {'other queries will be made' if is_titled else 'all are taken as queries'}",
    ]


def _passage_lines(peek: PassagePeek) -> list[str]:
    column = peek.column
    repeated = peek.num_rows - peek.num_distinct - peek.num_empty
    return [
        f"read {column.file.name}: passages from {column.column}, no queries",
        *column.file.notes,
        f"passages: {peek.num_rows:,} read, {peek.num_distinct:,} distinct; "
        f"repeated {repeated:,}, empty {peek.num_empty:,}",
    ]


def _lengths(peek: PairPeek | PassagePeek) -> str:
    return "; ".join(f"{role} {one.median:,}, {one.most:,}" for role, one in peek.lengths.items())


def _examples(peek: PairPeek | PassagePeek) -> list[str]:
    if isinstance(peek, PairPeek):
        return [f"pair: {_short(one)} -> {_short(other)}" for one, other in peek.sample[:3]]
    return [f"passage: {_short(one)}" for one in peek.sample[:3]]


def _short(text: str) -> str:
    words = " ".join(text.split())
    cut = words[: _SHOWN_CHARACTERS - 3] + "..." if len(words) > _SHOWN_CHARACTERS else words
    return repr(cut)
