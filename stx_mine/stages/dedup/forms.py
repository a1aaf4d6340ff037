"""The form of a text that decides whether it is equal to another, and its numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from stx_mine.stages.dedup.core.shingles import number_hashes
from stx_mine.store.artifact import Artifact, Manifest
from stx_mine.store.counts import Counts
from stx_mine.store.digests import normalise
from stx_mine.store.files import write_array
from stx_mine.store.texts import TextStore

FORMS, NUMBERS = "forms.npy", "numbers.npy"
_ROWS = 65_536
# What stands around words and is none of them. `/`, `-`, `#` and the like make other words.
_PUNCTUATION = (
    r"""\.,;:!\?\x{2026}\x{00A1}\x{00BF}"'\x{2018}-\x{201F}\x{00AB}\x{00BB}\(\)"""
    r"\x{3001}\x{3002}\x{300C}-\x{300F}\x{FF01}\x{FF0C}\x{FF1A}\x{FF1B}\x{FF1F}\x{061F}\x{060C}"
    r"\x{0964}"
)
# `.5` is a number.
_BEFORE = rf"(^| )[{_PUNCTUATION}]+($|[^\p{{Nd}}{_PUNCTUATION}])"
_AFTER = rf"[{_PUNCTUATION}]+( |$)"
# Accents of Latin, Greek and Cyrillic; marks of other scripts are vowels.
_ACCENTS = r"[\x{0300}-\x{036F}]"


def comparable(texts: pa.Array, ignored: Sequence[str]) -> pa.Array:
    """The form in which equal texts count as one.

    Args:
        texts: Strings.
        ignored: Some of case, punctuation, accents.

    Returns:
        Large strings of the same length; normalised as `ingest` does beforehand.
    """
    forms = normalise(texts)
    if "case" in ignored:
        forms = pc.utf8_lower(forms)
    if "accents" in ignored:
        bare = pc.replace_substring_regex(
            pc.utf8_normalize(forms, form="NFD"), pattern=_ACCENTS, replacement=""
        )
        forms = pc.utf8_normalize(bare, form="NFC")
    if "punctuation" in ignored:
        forms = pc.replace_substring_regex(forms, pattern=_BEFORE, replacement=r"\1\2")
        forms = pc.replace_substring_regex(forms, pattern=_AFTER, replacement=r"\1")
        forms = normalise(forms)
    return forms


def all_texts(
    store: TextStore, ignored: Sequence[str]
) -> Iterator[tuple[NDArray[np.int64], pa.Array]]:
    """Ids and comparable forms of every distinct text, in blocks; by rising id."""
    own = np.asarray(store.query_texts) >= store.num_passages
    for table, first, kept in (
        (store.passages, 0, None),
        (store.queries, store.num_passages, own),
    ):
        start = 0
        for batch in table.select(["text"]).to_batches(max_chunksize=_ROWS):
            rows = np.arange(start, start + batch.num_rows)
            start += batch.num_rows
            texts = batch.column("text")
            if kept is not None:
                texts = texts.filter(pa.array(kept[rows]))
                rows = np.asarray(store.query_texts)[rows[kept[rows]]]
            else:
                rows = first + rows
            yield rows, comparable(texts, ignored)


def buffers_of(texts: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The UTF-8 of large strings, and where each begins."""
    whole = texts if not texts.offset else pa.concat_arrays([texts])
    _, offsets, data = whole.buffers()
    ends = np.frombuffer(offsets, np.int64, len(whole) + 1) if len(whole) else np.zeros(1, np.int64)
    return np.frombuffer(data or b"", np.uint8), ends


@dataclass(frozen=True)
class FormCounts(Counts):
    """Counts of `duplicates/exact/`.

    Attributes:
        texts: Distinct texts of both roles.
        forms: Distinct forms of them.
    """

    texts: int
    forms: int


def write_forms(artifact: Artifact, store: TextStore, ignored: Sequence[str]) -> Manifest:
    """Write the smallest text of equal form, and the numbers, of every text.

    A form without a letter or digit, as of `?!`, is that of its own text only.
    """
    artifact.begin([FORMS, NUMBERS])
    num_texts = 0
    numbers = np.zeros(store.num_texts, np.uint64)
    digests = np.zeros((store.num_texts, 2), np.uint64)
    digests[:, 0] = np.arange(store.num_texts)
    for ids, forms in all_texts(store, ignored):
        raw = forms.cast(pa.large_binary()).to_pylist()
        joined = b"".join([xxhash.xxh3_128_digest(text) for text in raw])
        found = np.frombuffer(joined, np.uint64).reshape(-1, 2)
        filled = pc.not_equal(pc.utf8_length(forms), 0).to_numpy(zero_copy_only=False)
        digests[ids[filled]] = found[filled]
        numbers[ids] = number_hashes(*buffers_of(forms))
        num_texts += len(ids)
    firsts = _first_of_equal(digests)
    write_array(artifact.folder / FORMS, firsts)
    write_array(artifact.folder / NUMBERS, numbers)
    num_equal = int((firsts != np.arange(len(firsts))).sum())
    counts = FormCounts(num_texts, num_texts - num_equal)
    return artifact.finish([FORMS, NUMBERS], counts=counts)


def _first_of_equal(digests: NDArray[np.uint64]) -> NDArray[np.int64]:
    """int64 (T,): the smallest row that is equal to each of uint64 (T, 2)."""
    order = np.lexsort([digests[:, 1], digests[:, 0]])
    same = np.r_[False, (digests[order][1:] == digests[order][:-1]).all(1)]
    starts = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    firsts = np.empty(len(order), np.int64)
    # `lexsort` is stable: the first of a run is its smallest row.
    firsts[order] = order[starts]
    return firsts
