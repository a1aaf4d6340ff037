"""Ways to damage a file of an artifact, and which command reads what."""

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from stx_mine.store.artifact import MANIFEST, read_manifest
from stx_mine.store.training_log import TRAINING_LOG

MANIFEST_DAMAGE = ("manifest deleted", "manifest garbled", "manifest flipped")


def _flip(path: Path, _: Path | None, bits: int = 0xFF) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= bits
    path.write_bytes(content)


def _truncate(path: Path, _: Path | None) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def _swap(path: Path, other: Path | None) -> None:
    """Exchange two files; where there is no other of the kind, the same bytes in reverse."""
    own = path.read_bytes()
    theirs = other.read_bytes() if other else own[::-1]
    path.write_bytes(theirs)
    if other:
        other.write_bytes(own)


DAMAGES: dict[str, Callable[[Path, Path | None], None]] = {
    "flipped": _flip,
    "truncated": _truncate,
    "emptied": lambda path, _: path.write_bytes(b"") and None,
    "deleted": lambda path, _: path.unlink(),
    "swapped": _swap,
}


class Case(NamedTuple):
    """One damage of one artifact.

    Attributes:
        artifact: Its path below the run.
        file: The file, below that.
        how: A name of `DAMAGES` or `MANIFEST_DAMAGE`.
    """

    artifact: str
    file: str
    how: str

    def do(self, run: Path) -> None:
        """Damage it."""
        path = run / self.artifact / self.file
        if self.how == "manifest deleted":
            path.unlink()
        elif self.how == "manifest garbled":
            path.write_bytes(b"\x00\xffgarbage")
        elif self.how == "manifest flipped":
            # A letter becomes another one, so that it stays JSON.
            _flip(path, None, bits=0x04)
        else:
            DAMAGES[self.how](path, self._other(run))

    def _other(self, run: Path) -> Path | None:
        """Another file of the same kind and other bytes of the artifact; None if there is none."""
        path, manifest = run / self.artifact / self.file, read_manifest(run / self.artifact)
        others = (manifest.file(name) for name in manifest.names() if name.endswith(path.suffix))
        return next((one for one in others if one.read_bytes() != path.read_bytes()), None)


# Artifact -> the command that reads it. `{run}` is the run, `{other}` a run that is not there yet.
READERS = {
    "queries": "embed {run}/queries/pairs.parquet --device cpu --run-dir {other}",
    "split": "embed {run}/split --device cpu --run-dir {other}",
    "texts": "mine --k 2 --device cpu --query-block 80 --run-dir {run}",
    **dict.fromkeys(
        ("duplicates/exact", "duplicates/jaccard", "duplicates/cosine"),
        "dedup --jaccard 0.8 --cosine 0.95 --run-dir {run}",
    ),
    "duplicates/leaks": "dedup --jaccard 0.8 --cosine 0.95 --against {input}/dev.parquet "
    "--run-dir {run}",
    "groups": "mine --k 2 --device cpu --query-block 80 --run-dir {run}",
    "embeddings": "index --factory IVF4,Flat --run-dir {run}",
    "index": "mine --k 2 --device cpu --query-block 80 --run-dir {run}",
    "hits/dense": "export --to trec-run --run-dir {run}",
    "judgements/letters": "mine --k 2 --judges letters --device cpu --query-block 80 "
    "--run-dir {run}",
    "audits/judged-letters": "audit --judge letters --sample 60 --run-dir {run}",
    "negatives": "pack --batch-size 32 --packings 2 --shard-rows 64 --run-dir {run}",
    "batches": "train --device cpu --overwrite --run-dir {run}",
    "model": "evaluate {input}/dev.parquet --device cpu --run-dir {run}",
    "evaluations/dev": "evaluate {input}/dev.parquet --device cpu --run-dir {run}",
    "estimates": "estimate --device cpu --run-dir {run}",
    "report": "report --run-dir {run}",
    "exports/triplet": "export --to triplet --run-dir {run}",
}
# Cheap ones, which the command that makes them makes anew without being asked.
REMADE = (
    *("audits/judged-letters", "evaluations/dev", "estimates", "exports/triplet"),
    *("duplicates/leaks", "report"),
)
# What only the command that makes it reads: without a manifest it is begun, and is finished.
READ_BY_MAKER = ("duplicates/exact", "duplicates/jaccard", "duplicates/cosine")


def reader_of(artifact: str, run: Path, input_folder: Path) -> list[str]:
    """What stands after `stx-mine`, to read an artifact."""
    words = READERS[artifact].format(run=run, other=run.parent / "other", input=input_folder)
    return shlex.split(words)


def cases(run: Path, artifacts: list[str] | None = None) -> Iterator[Case]:
    """Every damage of one file of each kind of file of each artifact, and of its manifest."""
    for artifact in artifacts or READERS:
        kinds: dict[str, str] = {}
        for name in read_manifest(run / artifact).names():
            kinds.setdefault(name.split("-0")[0], name)
        for name in kinds.values():
            yield from (Case(artifact, name, how) for how in DAMAGES)
        yield from (Case(artifact, MANIFEST, how) for how in MANIFEST_DAMAGE)


def digests(run: Path) -> dict[str, object]:
    """Artifact -> names and checksums of its files, of a whole run.

    But for the log of the training, in which each step has its seconds.
    """
    return {
        artifact: [
            (name, one["xxh3_128"])
            for name, one in read_manifest(run / artifact).entries.items()
            if name != TRAINING_LOG
        ]
        for artifact in READERS
    }


def advice(error: str) -> list[str]:
    """What stands after `stx-mine` in the last command that an error names."""
    command = error.split("`")[-2]
    words = shlex.split(command)
    assert words[0] == "stx-mine", error
    return words[1:]
