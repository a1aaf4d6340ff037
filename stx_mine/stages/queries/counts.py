"""Counts of `queries`: rows and passages in, queries made, passages without any by reason."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from stx_mine.store.artifact import Manifest
from stx_mine.store.counts import Counts


@dataclass(frozen=True)
class MethodCounts:
    """What one method made of its passages.

    Attributes:
        passages_in: Passages that the method read.
        passages_kept: Passages with at least one query.
        dropped: Reason -> passages without a query.
        queries: Queries made.
        passages_with_fewer: Kept passages with fewer queries than `per_passage`.
    """

    passages_in: int
    passages_kept: int
    dropped: dict[str, int]
    queries: int
    passages_with_fewer: int

    def __post_init__(self) -> None:
        """Check that every passage is kept or dropped for one reason."""
        assert self.passages_in == self.passages_kept + sum(self.dropped.values()), self

    def __add__(self, other: "MethodCounts") -> "MethodCounts":
        dropped = dict(self.dropped)
        for reason, number in other.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + number
        return MethodCounts(
            self.passages_in + other.passages_in,
            self.passages_kept + other.passages_kept,
            dropped,
            self.queries + other.queries,
            self.passages_with_fewer + other.passages_with_fewer,
        )


@dataclass(frozen=True)
class TitleCounts:
    """Titles that `--cut-titles` looked for in their passages.

    Attributes:
        titles: Passages that have a title.
        prefix: Titles at the beginning of their passage, cut out of it.
        inside: Titles inside of their passage, cut out of it.
        absent: Titles that their passage does not hold.
    """

    titles: int = 0
    prefix: int = 0
    inside: int = 0
    absent: int = 0

    def __post_init__(self) -> None:
        """Check that every title is in one place, or absent."""
        assert self.titles == self.prefix + self.inside + self.absent, self

    def __add__(self, other: "TitleCounts") -> "TitleCounts":
        return TitleCounts(
            self.titles + other.titles,
            self.prefix + other.prefix,
            self.inside + other.inside,
            self.absent + other.absent,
        )


@dataclass(frozen=True)
class CropCounts:
    """Passages that sentences were cropped from.

    Attributes:
        cropped: Distinct passages with a crop.
        removed: Those that lost the cropped sentences.
        too_short_without: Those that would be too short without, and keep them.
    """

    cropped: int = 0
    removed: int = 0
    too_short_without: int = 0

    def __add__(self, other: "CropCounts") -> "CropCounts":
        return CropCounts(
            self.cropped + other.cropped,
            self.removed + other.removed,
            self.too_short_without + other.too_short_without,
        )


@dataclass(frozen=True)
class WrittenCounts:
    """What a server was asked for queries, and what became of its answers.

    Attributes:
        questions: Questions about a passage, or about a window of chunks.
        beyond_budget: Questions that `--max-calls` left out.
        answers: Answers that came, those to questions that were asked again too.
        retried: Questions that were asked again, as the first answer was unusable.
        failures: Reason -> questions without a usable answer.
        lines: Queries in usable answers.
        dropped: Reason -> those that are no query of their passage.
        made: Kind -> those that are left.
        cut: Passages that were cut for the prompt, counted per question.
        tokens_read: Tokens of the questions, as the server counts.
        tokens_written: Tokens of its answers.
    """

    questions: int = 0
    beyond_budget: int = 0
    answers: int = 0
    retried: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    lines: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)
    cut: int = 0
    tokens_read: int = 0
    tokens_written: int = 0

    def __post_init__(self) -> None:
        """Check that every query of an answer is kept, or dropped for one reason."""
        assert self.lines == sum(self.made.values()) + sum(self.dropped.values()), self

    def __add__(self, other: "WrittenCounts") -> "WrittenCounts":
        totals = {name: _both(value, getattr(other, name)) for name, value in vars(self).items()}
        return WrittenCounts(**totals)


def _both(one: Any, other: Any) -> Any:
    """The sum of two numbers, or of two counts by reason."""
    if isinstance(one, dict):
        return {key: one.get(key, 0) + other.get(key, 0) for key in sorted({*one, *other})}
    return one + other


@dataclass(frozen=True)
class BlockCounts:
    """What was made of the passages of a block, or of several.

    Attributes:
        methods: The counts of each method, by its name.
        cut: None without `--cut-titles`.
        crops: None without the method crop.
        written: None without a server that writes queries.
    """

    methods: dict[str, MethodCounts]
    cut: TitleCounts | None = None
    crops: CropCounts | None = None
    written: WrittenCounts | None = None

    def __add__(self, other: "BlockCounts") -> "BlockCounts":
        """The counts of both, which are of the same methods."""
        return BlockCounts(
            {method: counts + other.methods[method] for method, counts in self.methods.items()},
            self.cut + other.cut if self.cut and other.cut else None,
            self.crops + other.crops if self.crops and other.crops else None,
            self.written + other.written if self.written and other.written else None,
        )

    def to_json(self) -> dict[str, Any]:
        """As the metadata of a block holds them: without what is None."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "BlockCounts":
        """The counts that `to_json` made."""
        cut, crops, written = (content.get(name) for name in ("cut", "crops", "written"))
        return cls(
            {method: MethodCounts(**counts) for method, counts in content["methods"].items()},
            None if cut is None else TitleCounts(**cut),
            None if crops is None else CropCounts(**crops),
            None if written is None else WrittenCounts(**written),
        )


@dataclass(frozen=True)
class FilterCounts:
    """What filters left of the pairs that were made.

    Attributes:
        pairs_in: Pairs that were made.
        pairs_kept: Pairs that are left.
        dropped: Reason -> pairs: `near_duplicate` of an earlier query, `not_in_top` of what its
            query finds, `not_answered` as the judge says, `not_judged` where it says nothing.
        pairs_judged: Pairs that the judge was asked about.
    """

    pairs_in: int
    pairs_kept: int
    dropped: dict[str, int]
    pairs_judged: int = 0

    def __post_init__(self) -> None:
        """Check that every pair is kept or dropped for one reason."""
        assert self.pairs_in == self.pairs_kept + sum(self.dropped.values()), self


@dataclass(frozen=True)
class QueriesCounts(Counts):
    """Counts of `queries/`; in its manifest the fields of `made` stand beside the others.

    Attributes:
        rows_in: Rows of the input.
        passages: Distinct passages.
        rows_dropped: `empty`, `repeated` -> rows.
        pairs: (query, passage) written.
        made: What was made of the passages.
        filtered: What filters dropped; None where there was none.
        documents_cut: Documents that were cut into chunks.
    """

    rows_in: int
    passages: int
    rows_dropped: dict[str, int]
    pairs: int
    made: BlockCounts = BlockCounts({})
    filtered: FilterCounts | None = None
    documents_cut: int = 0

    def __post_init__(self) -> None:
        """Check that every row is a passage or dropped for one reason."""
        assert self.rows_in == self.passages + sum(self.rows_dropped.values()), self

    def to_json(self) -> dict[str, Any]:
        """As the manifest holds them, flat."""
        counts = super().to_json()
        del counts["made"]
        if self.filtered is None:
            del counts["filtered"]
        return counts | self.made.to_json()

    @classmethod
    def read(cls, manifest: Manifest) -> Self:
        """The counts of finished `queries/`.

        Raises:
            ArtifactError: The manifest lacks a count.
        """
        filtered = manifest.counts.get("filtered")
        return replace(
            super().read(manifest),
            made=BlockCounts.from_json(manifest.counts),
            filtered=None if filtered is None else FilterCounts(**filtered),
        )
