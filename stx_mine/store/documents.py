"""Documents that were cut into chunks: their own ids and texts' digests, and which chunks."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.core.ragged import Ragged
from stx_mine.store.columns import find_rows
from stx_mine.store.files import write_table
from stx_mine.store.manifest import Manifest

DOCUMENTS = "documents.arrow"


@dataclass(frozen=True)
class Documents:
    """The documents of a run that were cut.

    Attributes:
        original_ids: Id of each in its source; null where it has none.
        digests: Digest of each as a whole.
        passage_ids: The chunks of each, in their order.
    """

    original_ids: pa.Array
    digests: pa.Array
    passage_ids: Ragged

    @classmethod
    def open(cls, texts: Manifest, num_passages: int) -> "Documents | None":
        """Map what `write_documents` wrote into `texts/`; None where nothing was to be cut.

        Raises:
            ArtifactError: The file is damaged.
        """
        if not texts.has(DOCUMENTS):
            return None
        table = texts.table(DOCUMENTS).combine_chunks()
        ids, digests, lists = (
            column.chunk(0) if column.num_chunks else pa.array([], column.type)
            for column in table.columns
        )
        offsets, values = lists.offsets.to_numpy().astype(np.int64), lists.values.to_numpy()
        texts.refuse_beyond(DOCUMENTS, values, num_passages)
        return cls(ids, digests, Ragged(offsets, values))

    def chunks_named(
        self, wanted: pa.Array, by_digest: bool
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The chunks of documents that are named as a whole.

        Args:
            wanted: Original ids or digests; null for none.
            by_digest: Which of them.

        Returns:
            int64 (M,) row of `wanted`, rising, and int64 (M,) passage ids.
        """
        keys = self.digests if by_digest else self.original_ids
        numbers = find_rows(wanted, keys)
        rows = np.flatnonzero(numbers >= 0)
        chunks, _ = self.passage_ids.take(numbers[rows])
        return np.repeat(rows, chunks.lengths()), chunks.values


def write_documents(
    folder: Path, original_ids: pa.Array, digests: pa.Array, passage_ids: Ragged
) -> None:
    """Write the documents that were cut, one row each."""
    lists = pa.LargeListArray.from_arrays(
        pa.array(passage_ids.offsets, pa.int64()), pa.array(passage_ids.values, pa.int64())
    )
    names = ["original_id", "digest", "passage_ids"]
    write_table(folder / DOCUMENTS, pa.table([original_ids, digests, lists], names=names))
