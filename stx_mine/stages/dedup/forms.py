"""The form of a text that decides whether it is equal to another, and its numbers."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.stages.dedup.core.shingles import number_hashes
from stx_mine.store.artifact import Artifact, Manifest
from stx_mine.store.columns import number_values
from stx_mine.store.counts import Counts
from stx_mine.store.digests import DIGEST, form_digests, normalise
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


# Ids of texts, and the texts.
TextBlocks = Iterable[tuple[NDArray[np.int64], pa.Array]]


def stored_texts(store: TextStore) -> Iterator[tuple[NDArray[np.int64], pa.Array]]:
    """Ids and every distinct text of a run, in blocks; by rising id."""
    passages, queries = np.arange(store.num_passages), np.asarray(store.query_texts)
    for table, ids, kept in (
        (store.passages, passages, np.ones(len(passages), bool)),
        # The text of any other query is a passage.
        (store.queries, queries, queries >= store.num_passages),
    ):
        start = 0
        for batch in table.select(["text"]).to_batches(max_chunksize=_ROWS):
            rows = slice(start, start + batch.num_rows)
            start += batch.num_rows
            yield ids[rows][kept[rows]], batch.column("text").filter(pa.array(kept[rows]))


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


@dataclass(frozen=True)
class Forms:
    """The form of each text, and its numbers.

    Attributes:
        ids: int64 (D,) ids of the texts that were read.
        firsts: int64 (T,) by id: the smallest text of equal form; of an id without a text, itself.
        numbers: uint64 (T,) by id: the numbers of the text, hashed; 0 for none.
    """

    ids: NDArray[np.int64]
    firsts: NDArray[np.int64]
    numbers: NDArray[np.uint64]

    @classmethod
    def of(cls, blocks: TextBlocks, num_ids: int, ignored: Sequence[str]) -> "Forms":
        """Read texts.

        A form without a letter or digit, as of `?!`, is that of its own text only.

        Args:
            blocks: The texts.
            num_ids: One more than the largest id may be.
            ignored: As of `comparable`.
        """
        numbers = np.zeros(num_ids, np.uint64)
        ids, digests = [np.empty(0, np.int64)], [pa.array([], DIGEST)]
        for block, texts in blocks:
            forms = comparable(texts, ignored)
            ids.append(block)
            digests.append(form_digests(forms))
            numbers[block] = number_hashes(*buffers_of(forms))
        all_ids = np.concatenate(ids)
        return cls(all_ids, _first_of_equal(all_ids, pa.concat_arrays(digests), num_ids), numbers)

    @property
    def is_first(self) -> NDArray[np.bool_]:
        """Bool (T,): which ids are the smallest of equal form."""
        is_first: NDArray[np.bool_] = self.firsts == np.arange(len(self.firsts))
        return is_first

    @property
    def num_equal(self) -> int:
        """Texts that are equal to a smaller one."""
        return int((~self.is_first).sum())


def write_forms(artifact: Artifact, store: TextStore, ignored: Sequence[str]) -> Manifest:
    """Write the smallest text of equal form, and the numbers, of every text."""
    artifact.begin([FORMS, NUMBERS])
    forms = Forms.of(stored_texts(store), store.num_texts, ignored)
    write_array(artifact.folder / FORMS, forms.firsts)
    write_array(artifact.folder / NUMBERS, forms.numbers)
    counts = FormCounts(len(forms.ids), len(forms.ids) - forms.num_equal)
    return artifact.finish([FORMS, NUMBERS], counts=counts)


def _first_of_equal(ids: NDArray[np.int64], digests: pa.Array, num_texts: int) -> NDArray[np.int64]:
    """int64 (num texts,): the smallest text of equal digest; of a text without any, itself."""
    forms, distinct = number_values(digests)
    filled = forms >= 0
    ids, forms = ids[filled], forms[filled]
    smallest = np.full(len(distinct), num_texts)
    np.minimum.at(smallest, forms, ids)
    firsts = np.arange(num_texts)
    firsts[ids] = smallest[forms]
    return firsts
