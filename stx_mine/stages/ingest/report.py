"""The closing report of `ingest`: what was read, dropped, cut and found twice."""

from stx_mine.stages.ingest.config import IngestConfig
from stx_mine.stages.ingest.counts import (
    ChunkCounts,
    IngestCounts,
    LanguageCounts,
    PairCounts,
    SourceCounts,
)
from stx_mine.store.artifact import Artifact
from stx_mine.store.stage_report import StageReport, listed, make_report, percent


def ingest_report(artifact: Artifact, config: IngestConfig, skipped: bool) -> StageReport:
    """The report of a finished `texts/`."""
    counts = IngestCounts.read(artifact.result)
    chunks, languages, sources = counts.of_chunks, counts.of_languages, counts.of_sources
    passages = chunks.documents if chunks else counts.passages
    lines = [
        f"pairs: {counts.pairs_in:,} read, {percent(counts.pairs_kept, counts.pairs_in)} "
        f"kept, dropped: {named_reasons(counts)}",
        f"texts: {counts.queries:,} distinct queries, {passages:,} distinct passages "
        f"({counts.passages_only_in_pairs:,} of them only in pairs)",
    ]
    lines += _pair_lines(sources) if sources else []
    lines += _language_lines(languages) if languages else []
    lines += _chunk_lines(chunks, counts, config) if chunks else []
    lines += _prompt_lines(sources) if sources else []
    if counts.known_negatives:
        lines.append(f"{counts.known_negatives:,} known negatives, candidates of their queries")
    return make_report(artifact, lines, skipped=skipped)


def named_reasons(counts: PairCounts) -> str:
    """Why pairs were dropped, in words."""
    return listed(counts.pairs_dropped) or "none"


def _pair_lines(counts: SourceCounts) -> list[str]:
    return [
        f"source {name}: {source.pairs_in:,} pairs read, {source.pairs_kept:,} kept, dropped: "
        f"{named_reasons(source)}"
        for name, source in counts.sources.items()
    ]


def _language_lines(counts: LanguageCounts) -> list[str]:
    lines = []
    for role, of_role in counts.languages.items():
        by_size = dict(sorted(of_role.items(), key=lambda language: -language[1]))
        lines.append(f"languages of {role}: {listed(by_size)}")
    if counts.texts_with_two_languages:
        lines.append(
            f"{counts.texts_with_two_languages:,} texts stand under several languages, "
            "the first of which counts"
        )
    return lines


def _chunk_lines(chunks: ChunkCounts, counts: IngestCounts, config: IngestConfig) -> list[str]:
    """What was cut, what would have been lost, and which chunks are positives."""
    lines = [
        f"chunks of at most {config.chunk[0]:,} tokens: "
        f"{percent(chunks.documents_cut, chunks.documents)} of these passages cut into "
        f"{chunks.chunks:,}, {counts.passages:,} in all; the model would not have read "
        f"{percent(chunks.tokens_lost_otherwise, chunks.document_tokens)} of "
        f"{chunks.document_tokens:,} tokens, of {chunks.documents_truncated_otherwise:,} passages"
    ]
    if chunks.positives_by_words or chunks.positives_without_words:
        lines.append(
            f"positives of several chunks: {chunks.positives_by_words:,} are the chunk that "
            f"shares most with their query by words, {chunks.positives_without_words:,} share "
            "no word with it and are the first chunk"
        )
    if chunks.pair_rows > counts.pairs_kept:
        lines.append(f"{chunks.pair_rows:,} pairs to train on, one a chunk of each positive")
    return lines


def _prompt_lines(counts: SourceCounts) -> list[str]:
    return [
        f"{number:,} {role} texts stand in sources of different {role} prompts: they are "
        "embedded with that of the first, and train with that of each batch"
        for role, number in counts.texts_with_two_prompts.items()
        if number
    ]
