"""What `show` prints: tables on a terminal, plain where it is piped, JSON for programs."""

import os
from collections.abc import Iterable, Sequence
from io import StringIO

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from stx_mine.masking import escaped
from stx_mine.stages.show.config import ShowConfig
from stx_mine.stages.show.views import (
    BatchView,
    CandidateView,
    PassageView,
    PositiveView,
    QueryView,
    Shown,
    SuspectView,
    TextView,
)
from stx_mine.store.stage_report import StageReport

_PIPED_WIDTH = 120
_NUMBERS, _WIDEST = ("rank", "slot", "score"), 24


def show_report(shown: Shown, config: ShowConfig, document: str) -> StageReport:
    """The report.

    Args:
        shown: What is shown.
        config: The config.
        document: JSON, where that is asked for.
    """
    counts = {
        "queries": len(shown.queries),
        "passages": len(shown.passages),
        "suspects": len(shown.suspects),
        "batches": len(shown.batches),
    }
    return StageReport("show", counts, document=document or _Page(config.full).render(shown))


class _Page:
    """Writes views one after the other."""

    def __init__(self, full: bool) -> None:
        self._full, self._out = full, StringIO()
        outer = Console()
        speaks = outer.is_terminal
        self._console = Console(
            file=self._out,
            width=outer.width if speaks else _PIPED_WIDTH,
            force_terminal=speaks,
            no_color="NO_COLOR" in os.environ,
            highlight=False,
            markup=False,
            emoji=False,
        )

    def render(self, shown: Shown) -> str:
        """All of it, as text."""
        for note in shown.notes:
            self._line(note, "yellow")
        for query in shown.queries:
            self._query(query)
        for passage in shown.passages:
            self._passage(passage)
        if shown.suspects:
            self._suspects(shown.suspects)
        for batch in shown.batches:
            self._batch(batch)
        if not any((shown.queries, shown.passages, shown.suspects, shown.batches)):
            self._line("there is nothing of that kind")
        if shown.num_more:
            self._line(f"{shown.num_more:,} more; --limit shows more of them", "dim")
        return "\n".join(line.rstrip() for line in self._out.getvalue().splitlines()).strip("\n")

    def _line(self, words: str, style: str = "") -> None:
        self._console.print(Text(escaped(words), style))

    def _head(self, kind: str, one: TextView) -> None:
        self._console.print()
        self._line(f"{kind} {_named(one)}", "bold")
        self._line(self._cut(one.text))

    def _cut(self, text: str) -> str:
        """A text, all of it or so much that it stands on two lines."""
        line, room = " ".join(text.split()), 2 * self._console.width - _WIDEST
        return text if self._full or len(line) <= room else f"{line[: room - 1]}…"

    def _table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """A table whose last column is a text."""
        shown = [[escaped(one) for one in row] for row in rows]
        table = Table(box=box.SIMPLE, pad_edge=False, show_edge=False, expand=True)
        for place, name in enumerate(columns[:-1]):
            widest = max(map(len, (name, *(row[place] for row in shown))))
            is_number = name in _NUMBERS or name.startswith("judge ")
            justify: JustifyMethod = "right" if is_number else "left"
            table.add_column(name, justify=justify, no_wrap=True, min_width=min(widest, _WIDEST))
        table.add_column(columns[-1], no_wrap=not self._full, overflow="ellipsis", ratio=1)
        for *others, text in shown:
            last = text if self._full else " ".join(text.split())
            table.add_row(*map(Text, others), Text(last))
        self._console.print(table)

    def _query(self, one: QueryView) -> None:
        self._head("query", one)
        self._positives(one.positives)
        if not one.num_hits:
            self._line("no hits: the pair is no row to train on, or nothing was found", "yellow")
            return
        told = ", ".join(f"{number:,} {verdict}" for verdict, number in one.verdicts.items())
        self._line(f"{one.num_hits:,} hits: {told}; margins count from {one.limit_score:.3f}")
        self._candidates(one.candidates)

    def _positives(self, positives: Sequence[PositiveView]) -> None:
        judges = sorted({name for one in positives for name in one.judged})
        columns = ["score", *(f"judge {name}" for name in judges), "id", "note", "positive"]
        rows = [
            [
                "" if one.score is None else f"{one.score:.3f}",
                *(_number(one.judged.get(name)) for name in judges),
                _id_of(one),
                "; ".join(_notes(one)),
                one.text,
            ]
            for one in positives
        ]
        if not any(row[-2] for row in rows):
            columns.remove("note")
            rows = [[*row[:-2], row[-1]] for row in rows]
        self._table(columns, rows)

    def _candidates(self, candidates: Sequence[CandidateView]) -> None:
        judges = sorted({name for one in candidates for name in one.judged})
        has_sources = any(one.sources != ("dense",) for one in candidates)
        columns = ["rank", "slot", "score"]
        columns += ["found by"] if has_sources else []
        columns += [*(f"judge {name}" for name in judges), "verdict", "id", "candidate"]
        rows = []
        for one in candidates:
            row = [_place(one.rank), _place(one.slot), f"{one.score:.3f}"]
            row += ["+".join(one.sources)] if has_sources else []
            row += [_number(one.judged.get(name)) for name in judges]
            rows.append([*row, one.verdict, _id_of(one), one.text])
        self._table(columns, rows)

    def _passage(self, one: PassageView) -> None:
        self._head("passage", one)
        if one.positive_of:
            self._table(
                ["id", "positive of"], [[_id_of(query), query.text] for query in one.positive_of]
            )
        self._line(f"a negative of {one.num_uses:,} queries")
        if one.negative_of:
            rows = [
                [str(use.slot), f"{use.score:.3f}", _id_of(use), use.text]
                for use in one.negative_of
            ]
            self._table(["slot", "score", "id", "negative of"], rows)

    def _suspects(self, suspects: Sequence[SuspectView]) -> None:
        for one in suspects:
            self._console.print()
            self._line(
                f"{one.percentile:.0f}% of random passages score below this positive "
                f"({_number(one.positive.score)})",
                "bold",
            )
            self._line(f"query {_named(one.query)}: {self._cut(one.query.text)}")
            self._line(f"positive {_named(one.positive)}: {self._cut(one.positive.text)}")

    def _batch(self, one: BatchView) -> None:
        self._line(f"batch {one.batch} of epoch {one.epoch}: {one.num_rows:,} rows", "bold")
        self._line(
            f"{one.num_slots:,} places hold {one.num_texts:,} distinct texts; "
            f"{one.num_random:,} negatives were drawn at random; {one.num_ignored:,} texts are "
            "left out of the loss of a row"
        )
        for number, row in enumerate(one.rows):
            self._console.print()
            ignored = f", {row.num_ignored} texts left out" if row.num_ignored else ""
            self._line(f"row {number}{ignored}", "bold")
            negatives = [[f"negative {n}", text] for n, text in enumerate(row.negatives, 1)]
            rows = [["anchor", row.anchor], ["positive", row.positive], *negatives]
            self._table(["place", "text"], rows)


def _named(one: TextView) -> str:
    """Ids of a text: that of the input first."""
    return f"{one.id}" if one.original_id is None else f"{one.original_id} (number {one.id})"


def _id_of(one: TextView) -> str:
    return str(one.id) if one.original_id is None else one.original_id


def _number(score: float | None) -> str:
    return "" if score is None else f"{score:.3f}"


def _place(number: int | None) -> str:
    return "" if number is None else str(number)


def _notes(one: PositiveView) -> list[str]:
    notes = ["made by judges"] if one.source == "judges" else []
    return notes if one.is_row else [*notes, "no row to train on"]
