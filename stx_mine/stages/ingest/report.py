"""The closing report of `ingest`: what was read, dropped, cut and found twice."""

import pyarrow as pa

from stx_mine.core.reach import MOST_CHARACTERS
from stx_mine.inputs.pairs import PairSource
from stx_mine.stages.ingest.config import IngestConfig
from stx_mine.stages.ingest.counts import (
    ChunkCounts,
    IngestCounts,
    LanguageCounts,
    PairCounts,
    SourceCounts,
    TextCounts,
)
from stx_mine.store.artifact import Artifact
from stx_mine.store.stage_report import StageReport, listed, make_report, percent
from stx_mine.store.texts import TextStore

_SHOWN_CHARACTERS = 60
# Shares of texts and pairs above which something may be wrong with them.
_MUCH_MARKUP, _MANY_LISTS, _MANY_NUMBERS, _OFTEN = 0.05, 0.05, 0.95, 0.01
_FEWEST_OFTEN = 10


def ingest_report(
    artifact: Artifact,
    config: IngestConfig,
    opened: list[PairSource],
    skipped: bool,
    lost_grouping: str,
) -> StageReport:
    """The report of a finished `texts/`.

    Args:
        artifact: The texts.
        config: The config.
        opened: What was read.
        skipped: Whether it was finished before.
        lost_grouping: The command that made groups of earlier texts, which are replaced; or empty.
    """
    counts = IngestCounts.read(artifact.result)
    chunks, languages, sources = counts.of_chunks, counts.of_languages, counts.of_sources
    passages = chunks.documents if chunks else counts.passages
    store = TextStore.open(artifact.result)
    lines = [line for source in opened for line in source.description()]
    lines += artifact.result.extra.get("decided", [])
    lines += [
        f"pairs: {counts.pairs_in:,} read, {percent(counts.pairs_kept, counts.pairs_in)} "
        f"kept, dropped: {named_reasons(counts)}",
        f"texts: {counts.queries:,} distinct queries, {passages:,} distinct passages "
        f"({counts.passages_only_in_pairs:,} of them only in pairs)",
    ]
    if counts.corpus_empty:
        lines.append(
            f"corpus: {counts.corpus_rows:,} rows read, dropped: empty {counts.corpus_empty:,}"
        )
    lines += _pair_lines(sources) if sources else []
    lines += _language_lines(languages) if languages else []
    lines += _chunk_lines(chunks, counts, config) if chunks else []
    lines += _prompt_lines(sources) if sources else []
    if counts.known_negatives:
        lines.append(f"{counts.known_negatives:,} known negatives")
    if counts.reverse_positives:
        lines.append(
            f"{counts.reverse_positives:,} reverse pairs are known positives, no pairs to train on"
        )
    lines += _example_lines(store)
    symmetric = any(source.symmetric for source in opened)
    warnings = _warnings(counts.of_texts, counts, store, symmetric) if counts.of_texts else []
    if lost_grouping:
        warnings.append(
            f"groups/ were made of other texts, and hold equal texts only now; `{lost_grouping}` "
            "joins near-duplicates again"
        )
    return make_report(artifact, lines, warnings, skipped=skipped)


def named_reasons(counts: PairCounts) -> str:
    """Why pairs were dropped, in words."""
    return listed(counts.pairs_dropped) or "none"


def _example_lines(store: TextStore) -> list[str]:
    """Three pairs: the first, one from the middle, the last."""
    rows = dict.fromkeys([0, store.num_pairs // 2, store.num_pairs - 1])
    texts = [
        [
            _shortened(column.slice(int(ids[row]), 1))
            for column, ids in (
                (store.queries.column("text"), store.pair_query_ids),
                (store.passages.column("text"), store.pair_passage_ids),
            )
        ]
        for row in rows
    ]
    return [f"pair {row + 1:,}: {' -> '.join(both)}" for row, both in zip(rows, texts, strict=True)]


def _shortened(text: pa.ChunkedArray) -> str:
    words = " ".join(str(text[0].as_py()).split())
    cut = words[: _SHOWN_CHARACTERS - 3] + "..." if len(words) > _SHOWN_CHARACTERS else words
    return repr(cut)


def _warnings(
    texts: TextCounts, counts: IngestCounts, store: TextStore, symmetric: bool
) -> list[str]:
    """What looks wrong with the texts, and what to do if it is."""
    found = _role_warnings(texts)
    if texts.pairs_of_nothing:
        found.append(
            f"the positive of {texts.pairs_of_nothing:,} pairs is a word for a missing value "
            "(null, nan, n/a ...); remove those rows if it is no text"
        )
    if texts.negatives_of_nothing:
        found.append(
            f"{texts.negatives_of_nothing:,} known negatives are a word for a missing value (null, "
            "nan, n/a ...); leave those cells empty if it is no text"
        )
    often = texts.pairs_of_most_frequent
    if often >= _FEWEST_OFTEN and often > _OFTEN * counts.pairs_kept:
        text = _shortened(store.passages.column("text").slice(texts.most_frequent_positive, 1))
        found.append(
            f"one passage is the positive of {percent(often, counts.pairs_kept)} of the pairs: "
            f"{text}; remove those rows if it answers nothing"
        )
    if texts.texts_not_unicode:
        found.append(
            f"{texts.texts_not_unicode:,} values are no Unicode (a lone surrogate) and count as "
            "empty; write the file again as UTF-8"
        )
    if texts.texts_in_both_roles and not symmetric:
        found.append(
            f"{percent(texts.texts_in_both_roles, counts.queries)} of the queries are passages "
            "too; if the pairs hold both ways, as duplicate questions do, give --symmetric, or a "
            "text is mined as a negative of the one that it was paired with"
        )
    return found


def _role_warnings(texts: TextCounts) -> list[str]:
    """What looks wrong with the queries, the passages, and the known negatives among them."""
    found = []
    options = (
        ("queries", "--query-column", "--query-prompt"),
        ("passages", "--passage-column", "--passage-prompt"),
        ("negatives", "--negative-column", "--passage-prompt"),
    )
    for role, option, prompt in options:
        if role not in texts.texts_looked_at:
            continue
        looked_at = texts.texts_looked_at[role]
        numbers, markup = texts.texts_of_a_number[role], texts.texts_with_markup[role]
        if numbers > _MANY_NUMBERS * looked_at:
            found.append(
                f"{percent(numbers, looked_at)} of the {role} are numbers; if that is a column of "
                f"ids, name that of the texts with {option}"
            )
        prompts = texts.texts_with_prompt.get(role, 0)
        if prompts > _MANY_NUMBERS * looked_at:
            found.append(
                f"{percent(prompts, looked_at)} of the {role} begin with a prompt ('query: ', "
                f"'passage: ' ...); remove it, or embed with {prompt} '' so that it stands once"
            )
        if beyond := texts.texts_beyond_reach.get(role, 0):
            found.append(
                f"{beyond:,} of the {role} have more than {MOST_CHARACTERS:,} characters, and "
                "models are given no more than that of each; cut long passages with --chunk"
            )
        lists = texts.texts_of_a_list.get(role, 0)
        if lists > _MANY_LISTS * looked_at:
            found.append(
                f"{percent(lists, looked_at)} of the {role} are lists written as one text "
                "(['...', '...']); if each is several texts, write them as lists, in JSON lines "
                "or Parquet"
            )
        if markup > _MUCH_MARKUP * looked_at:
            found.append(
                f"{percent(markup, looked_at)} of the {role} hold HTML tags; remove them if the "
                "model is to read plain text"
            )
    return found


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
