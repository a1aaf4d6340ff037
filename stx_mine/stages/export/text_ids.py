"""The ids by which an export names texts: those of the source, made ones, or numbers."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.core.role import Role
from stx_mine.store.digests import text_numbers
from stx_mine.store.made_ids import made_ids
from stx_mine.store.texts import TextStore, take_texts

IdKind = Literal["none", "original", "number"]
_IDS_AT_ONCE = 65_536
# White space parts the columns of a run, and a quote opens a field where a table is read as CSV.
_UNUSABLE = r'[\s\p{Z}"]'


@dataclass(frozen=True)
class TextIds:
    """Names of the texts of one role.

    Attributes:
        role: What the texts are.
        kind: `original` for those of the source, or where it has none for made ones; `number`.
        originals: The id of each text in its source; None where that is not what it goes by.
        reason: Why not, where the source has ids.
    """

    role: Role
    kind: IdKind
    originals: pa.ChunkedArray | None = None
    reason: str = ""

    @classmethod
    def of(cls, role: Role, originals: pa.ChunkedArray) -> "TextIds":
        """Take the ids of the source if each text has one of its own, without white space.

        Two ids whose digests are the same count as equal: made ones are right too.
        """
        missing = originals.null_count
        if missing:
            some = f"{missing:,} texts have none" if missing < len(originals) else ""
            return cls(role, "original", reason=some)
        numbers, unusable = [np.empty(0, np.int64)], 0
        for chunk in originals.chunks:
            for start in range(0, len(chunk), _IDS_AT_ONCE):
                block = chunk.slice(start, _IDS_AT_ONCE)
                found = text_numbers(block)
                wrong = pc.match_substring_regex(block, _UNUSABLE).to_numpy(zero_copy_only=False)
                unusable += int((wrong | (found < 0)).sum())
                numbers.append(found)
        if unusable:
            said = f"{unusable:,} of them are empty or hold white space or quotes"
            return cls(role, "original", reason=said)
        shared = len(originals) - len(np.unique(np.concatenate(numbers)))
        if shared:
            said = f"{shared:,} texts share theirs with another text"
            return cls(role, "original", reason=said)
        return cls(role, "original", originals)

    def take(self, ids: NDArray[np.int64]) -> pa.Array:
        """The names of texts, as strings.

        Args:
            ids: int64 (N,), in any order, also repeated.
        """
        if self.originals is not None:
            return take_texts(self.originals, ids)
        if self.kind == "number":
            return pa.array(ids, pa.int64()).cast(pa.large_string())
        return made_ids(self.role, ids)

    def explained(self) -> str:
        """Which ids these are, in words."""
        if self.originals is not None:
            return "those of the source"
        if self.kind == "number":
            return "numbers"
        first = made_ids(self.role, np.zeros(1, np.int64))[0].as_py()
        return f"made, as in {first}" + (f", because {self.reason}" if self.reason else "")


@dataclass(frozen=True)
class NamedTexts:
    """The texts of a run, and the ids by which a layout names them.

    Attributes:
        store: Texts and pairs.
        id_kind: `original` where the ids of the source are wanted, else `number` or `none`.
    """

    store: TextStore
    id_kind: IdKind = "none"

    @cached_property
    def query_ids(self) -> TextIds:
        """Names of the queries."""
        return self._ids("query", self.store.queries)

    @cached_property
    def passage_ids(self) -> TextIds:
        """Names of the passages."""
        return self._ids("passage", self.store.passages)

    def _ids(self, role: Role, texts: pa.Table) -> TextIds:
        if self.id_kind == "original":
            return TextIds.of(role, texts.column("original_id"))
        return TextIds(role, self.id_kind)

    def queries(self, ids: NDArray[np.int64]) -> pa.DictionaryArray:
        """The texts of queries."""
        return take_texts(self.store.queries.column("text"), ids)

    def passages(self, ids: NDArray[np.int64]) -> pa.DictionaryArray:
        """The texts of passages."""
        return take_texts(self.store.passages.column("text"), ids)

    def explained(self) -> dict[str, str]:
        """Role -> which ids stand in the files, in words; empty where there are none."""
        if self.id_kind == "none":
            return {}
        ids = {"queries": self.query_ids, "passages": self.passage_ids}
        return {role: one.explained() for role, one in ids.items()}
