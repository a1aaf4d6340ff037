"""Counts of `ingest`: rows in, kept and dropped by reason, and the texts that they hold."""

from dataclasses import dataclass, field, replace
from typing import Any, Self

from stx_mine.store.artifact import Manifest
from stx_mine.store.counts import Counts


@dataclass(frozen=True)
class PairCounts(Counts):
    """Pairs of the input, or of one source of it.

    Attributes:
        pairs_in: Pairs read.
        pairs_kept: Pairs kept.
        pairs_dropped: Reason -> pairs dropped for it.
    """

    pairs_in: int
    pairs_kept: int
    pairs_dropped: dict[str, int]

    def __post_init__(self) -> None:
        """Check that every pair is kept or dropped for one reason."""
        assert self.pairs_in == self.pairs_kept + sum(self.pairs_dropped.values()), self

    def less(self, lost: dict[str, int]) -> Self:
        """The counts once more of the kept pairs are dropped.

        Args:
            lost: Reason -> pairs, above 0.
        """
        dropped = dict(self.pairs_dropped)
        for reason, number in lost.items():
            dropped[reason] = dropped.get(reason, 0) + number
        kept = self.pairs_kept - sum(lost.values())
        return replace(self, pairs_kept=kept, pairs_dropped=dropped)

    @classmethod
    def total(cls, parts: "list[PairCounts]") -> "PairCounts":
        """The counts of several sources together, the reasons in order of first appearance."""
        reasons = dict.fromkeys(reason for part in parts for reason in part.pairs_dropped)
        return PairCounts(
            sum(part.pairs_in for part in parts),
            sum(part.pairs_kept for part in parts),
            {r: sum(part.pairs_dropped.get(r, 0) for part in parts) for r in reasons},
        )


@dataclass(frozen=True)
class CutCounts(Counts):
    """Documents that were cut into chunks.

    Attributes:
        documents: Distinct documents.
        documents_cut: Documents of more than one chunk.
        chunks: Distinct chunks of the documents that were cut.
        document_tokens: Tokens of all documents, without prompt and special tokens.
        documents_truncated_otherwise: Documents that the model would not have read to their end.
        tokens_lost_otherwise: Tokens that it would not have read.
    """

    documents: int
    documents_cut: int
    chunks: int
    document_tokens: int
    documents_truncated_otherwise: int
    tokens_lost_otherwise: int


@dataclass(frozen=True)
class ChunkCounts(CutCounts):
    """What `--chunk` did to a run.

    Attributes:
        pair_rows: Rows to train on: one per pair and positive chunk.
        positives_by_words: Pairs whose chunk was chosen by the words of the query.
        positives_without_words: Pairs whose query shares no word with any chunk: the first is used.
    """

    pair_rows: int
    positives_by_words: int
    positives_without_words: int

    def to_json(self) -> dict[str, Any]:
        """As the manifest holds them: `pair_rows` first."""
        return {"pair_rows": self.pair_rows} | super().to_json()


@dataclass(frozen=True)
class LanguageCounts(Counts):
    """Languages of an input that names them.

    Attributes:
        languages: `queries`, `passages` -> texts of each language, and of none as `unknown`.
        texts_with_two_languages: Texts that stand under several languages; the first counts.
    """

    languages: dict[str, dict[str, int]]
    texts_with_two_languages: int


@dataclass(frozen=True)
class SourceCounts(Counts):
    """What `--sources` holds.

    Attributes:
        sources: Pairs of each source, by its name.
        texts_with_two_prompts: `query`, `passage` -> texts in sources of different prompts.
    """

    sources: dict[str, PairCounts]
    texts_with_two_prompts: dict[str, int]

    @classmethod
    def read(cls, manifest: Manifest) -> Self:
        """The counts of a finished `texts/`."""
        counts = super().read(manifest)
        sources: dict[str, Any] = manifest.counts["sources"]
        return replace(counts, sources={name: PairCounts(**one) for name, one in sources.items()})


@dataclass(frozen=True)
class TextCounts(Counts):
    """What may be wrong with the texts of an input.

    Attributes:
        texts_looked_at: `queries`, `passages`, `negatives` -> texts that the next two, and
            the last two, were counted among.
        texts_of_a_number: The same -> texts that are a number.
        texts_with_markup: The same -> texts with tags of HTML.
        pairs_of_nothing: Pairs whose positive is a word for a missing value.
        most_frequent_positive: The passage that is the positive of most pairs.
        pairs_of_most_frequent: How many those are.
        texts_in_both_roles: Queries whose text is a passage too.
        texts_not_unicode: Values with a lone surrogate, which count as empty.
        negatives_of_nothing: Known negatives that are a word for a missing value.
        texts_with_prompt: `queries`, `passages`, `negatives` -> texts that begin with the prompt
            of a model.
        texts_of_a_list: `queries`, `passages`, `negatives` -> texts that are a list written as one.
        texts_beyond_reach: `queries`, `passages` -> texts of more characters than models are given.
    """

    texts_looked_at: dict[str, int]
    texts_of_a_number: dict[str, int]
    texts_with_markup: dict[str, int]
    pairs_of_nothing: int
    most_frequent_positive: int
    pairs_of_most_frequent: int
    texts_in_both_roles: int
    texts_not_unicode: int
    negatives_of_nothing: int = 0
    texts_with_prompt: dict[str, int] = field(default_factory=dict)
    texts_of_a_list: dict[str, int] = field(default_factory=dict)
    texts_beyond_reach: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class IngestCounts(PairCounts):
    """Counts of `texts/`; in its manifest the fields of the parts stand beside the others.

    Attributes:
        queries: Distinct queries.
        passages: Distinct passages; with `--chunk` distinct chunks.
        corpus_rows: Rows of the corpus.
        corpus_empty: Rows of the corpus without text.
        known_negatives: Distinct (query, negative) of the negative columns, and of labels.
        passages_only_in_pairs: Distinct passages that no row of the corpus holds.
        reverse_positives: (query, passage) that are the reverse of a pair and no pair.
        of_texts: None where they were not looked at.
        of_chunks: None without `--chunk`.
        of_languages: None where the input names no language.
        of_sources: None without `--sources`.
    """

    queries: int
    passages: int
    corpus_rows: int
    corpus_empty: int
    known_negatives: int
    passages_only_in_pairs: int
    reverse_positives: int = 0
    of_texts: TextCounts | None = None
    of_chunks: ChunkCounts | None = None
    of_languages: LanguageCounts | None = None
    of_sources: SourceCounts | None = None

    def to_json(self) -> dict[str, Any]:
        """As the manifest holds them: without parts that there are not, and flat."""
        counts = super().to_json()
        for name in ("of_texts", "of_chunks", "of_languages", "of_sources"):
            del counts[name]
        for part in (self.of_texts, self.of_chunks, self.of_languages, self.of_sources):
            counts |= part.to_json() if part else {}
        return counts

    @classmethod
    def read(cls, manifest: Manifest) -> Self:
        """The counts of a finished `texts/`.

        Raises:
            ArtifactError: The manifest lacks a count.
        """
        names = manifest.counts
        return replace(
            super().read(manifest),
            of_texts=TextCounts.read(manifest) if "texts_looked_at" in names else None,
            of_chunks=ChunkCounts.read(manifest) if "documents" in names else None,
            of_languages=LanguageCounts.read(manifest) if "languages" in names else None,
            of_sources=SourceCounts.read(manifest) if "sources" in names else None,
        )
