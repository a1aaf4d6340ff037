"""The kinds of artifacts: what a run directory may hold, and who makes it."""

from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of artifact.

    Attributes:
        schema: Version of its files; another one makes artifacts of earlier versions stale.
        maker: The command that makes or renews it.
        shared_by_rounds: Whether later rounds read that of the run that they belong to.
    """

    schema: int
    maker: str
    shared_by_rounds: bool = False


KINDS = {
    "queries": Kind(1, "stx-mine queries PAIRS"),
    "split": Kind(1, "stx-mine split PAIRS"),
    "texts": Kind(2, "stx-mine embed PAIRS", shared_by_rounds=True),
    "groups": Kind(1, "stx-mine embed PAIRS", shared_by_rounds=True),
    "embeddings": Kind(2, "stx-mine embed"),
    "index": Kind(1, "stx-mine index"),
    "hits": Kind(2, "stx-mine mine"),
    "negatives": Kind(5, "stx-mine mine"),
    "batches": Kind(4, "stx-mine pack"),
    "model": Kind(2, "stx-mine train"),
    "evaluations": Kind(3, "stx-mine evaluate"),
    "estimates": Kind(1, "stx-mine estimate"),
    "exports": Kind(2, "stx-mine export"),
}
