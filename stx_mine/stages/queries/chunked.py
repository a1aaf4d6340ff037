"""Passages cut into chunks before queries are made of them."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from stx_mine.inputs.documents import document_heading
from stx_mine.inputs.names import OF_DOCUMENT
from stx_mine.stages.ingest.chunker import Chunker, in_blocks
from stx_mine.stages.queries.config import QueriesConfig
from stx_mine.stages.queries.passages import PASSAGE_SCHEMA, PassageSource

_BLOCK_CHARACTERS = 1 << 20


@dataclass
class ChunkedSource:
    """The passages of a source, the long ones as chunks, each with the name of its document.

    Attributes:
        source: What is read.
        chunker: Cuts; None where every passage stays whole.
        num_cut: Documents that were cut, the last time all were read.
    """

    source: PassageSource
    chunker: Chunker | None
    num_cut: int = field(default=0)

    @classmethod
    def open(cls, config: QueriesConfig) -> "ChunkedSource":
        """Recognise what is named, and load the tokenizer.

        Raises:
            ConfigError: Nothing is named, or an option does not fit.
            InputError: A file or column is missing, or it cannot be told what one is.
            ModelError: There is no such tokenizer.
        """
        source = PassageSource.open(config)
        if not config.chunk:
            return cls(source, None)
        tokens, overlap = config.chunk
        return cls(source, Chunker.load(config.chunk_model, tokens, overlap))

    def fingerprint(self) -> dict[str, str]:
        """What decides the passages beside the config: checksums of files, and the tokenizer."""
        found = self.source.fingerprint()
        if self.chunker is not None:
            found["tokenizer"] = self.chunker.digest()
        return found

    def blocks(self, block_size: int) -> Iterator[pa.Table]:
        """Stream tables of `PASSAGE_SCHEMA`, each of so many documents; the last may have fewer."""
        self.num_cut = 0
        for block in self.source.blocks(block_size):
            yield block if self.chunker is None else self._cut(block, self.chunker)

    def _cut(self, block: pa.Table, chunker: Chunker) -> pa.Table:
        """The chunks of the documents of a block, in order."""
        rows = block.to_pylist()
        texts = [row["passage"] or "" for row in rows]
        prefixes = [_prefix(row, text) for row, text in zip(rows, texts, strict=True)]
        cut, place = list[dict[str, object]](), 0
        for some, before in in_blocks(texts, prefixes, _BLOCK_CHARACTERS):
            for chunks in chunker.cut(some, before).chunks:
                cut += _rows_of(rows[place], chunks)
                self.num_cut += len(chunks) > 1
                place += 1
        return pa.Table.from_pylist(cut, PASSAGE_SCHEMA)


def _rows_of(row: dict[str, object], chunks: list[str]) -> Iterator[dict[str, object]]:
    """The rows of the chunks of a document."""
    place = f"{row['source']}:{row['source_row']}"
    name = row["passage_id"] or place
    for number, chunk in enumerate(chunks):
        own = name if len(chunks) == 1 else f"{name}#{number}"
        yield {**row, "passage": chunk, "passage_id": own, OF_DOCUMENT: name}


def _prefix(row: dict[str, object], text: str) -> str:
    """What of a text stands before each of its chunks: its title, or its first heading."""
    title = str(row["title"] or "")
    if not title:
        return ""
    _, beginning = document_heading(str(row["passage_id"] or ""), text)
    beginning = beginning or f"{title} "
    return beginning if text.startswith(beginning) else ""
