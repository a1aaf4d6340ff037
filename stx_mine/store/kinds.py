"""The kinds of artifacts: what a run directory may hold, and who makes it."""

from typing import Any, NamedTuple


class Kind(NamedTuple):
    """A kind of artifact.

    Attributes:
        schema: Version of its files; another one makes artifacts of earlier versions stale.
        maker: The command that makes or renews it.
        is_view: Whether it is cheap: one of another key is replaced without being asked.
        resumes: Whether one that was begun is continued; any other is made anew, and always
            beside, so that whoever reads its files by their path finds all of them or none.
        several: Whether a run holds several, each in a folder of its own.
        shared_by_rounds: Whether later rounds read that of the run that they belong to.
        read_with: Kinds of its inputs whose files its readers open too.
        grows: Whether files may be added to a finished one.
        scratch: Patterns of what its tasks need until it is finished, and nobody afterwards.
    """

    schema: int
    maker: str
    is_view: bool = False
    resumes: bool = True
    several: bool = False
    shared_by_rounds: bool = False
    read_with: tuple[str, ...] = ()
    grows: bool = False
    scratch: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The word that stands for its maker after `stx-mine`."""
        return self.maker.split()[1]


_EMBED = "stx-mine embed PAIRS"
_REMADE: dict[str, Any] = {"is_view": True, "resumes": False}
KINDS = {
    "queries": Kind(1, "stx-mine queries PAIRS", scratch=("blocks",)),
    "split": Kind(1, "stx-mine split PAIRS", resumes=False),
    "texts": Kind(2, _EMBED, shared_by_rounds=True),
    "embeddings": Kind(2, "stx-mine embed", scratch=("*.counts.json", "rows-*.npy")),
    "duplicates": Kind(1, "stx-mine dedup", several=True, shared_by_rounds=True),
    "groups": Kind(1, _EMBED, **_REMADE, shared_by_rounds=True),
    "index": Kind(1, "stx-mine index"),
    "hits": Kind(2, "stx-mine mine", several=True, grows=True),
    "judgements": Kind(
        1,
        "stx-mine judge",
        several=True,
        scratch=("asked.arrow", "known.arrow", "scores-*.arrow"),
    ),
    "negatives": Kind(7, "stx-mine mine", **_REMADE, read_with=("hits",)),
    "audits": Kind(1, "stx-mine audit", **_REMADE, several=True),
    "batches": Kind(4, "stx-mine pack", scratch=("assignment-*.npy",)),
    "model": Kind(2, "stx-mine train", scratch=("checkpoints", "saving")),
    "merged": Kind(1, "stx-mine merge", resumes=False),
    "evaluations": Kind(3, "stx-mine evaluate", **_REMADE, several=True),
    "report": Kind(1, "stx-mine report", **_REMADE),
    "estimates": Kind(1, "stx-mine estimate", **_REMADE),
    "tuning": Kind(1, "stx-mine tune PIPELINE", scratch=("run", "trials", "prepared.json")),
    "exports": Kind(2, "stx-mine export", **_REMADE, several=True),
}
