"""Answers of a server, a line each, written as they come: none is asked for twice."""

import json
import os
from pathlib import Path
from threading import Lock
from typing import Any

from stx_mine.store.places import beside

# What a server wrote, and what a judge said of it.
ANSWERS, JUDGED = "answers.jsonl", "judged.jsonl"


class AnswerLog:
    """Answers by what was asked; several threads may use one.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, earlier: dict[str, list[Any]]) -> None:
        """Open a file, which may hold answers.

        Args:
            path: The file.
            earlier: Answers from elsewhere, by what was asked; copied where they are wanted.
        """
        self.path, self._earlier, self._lock = path, earlier, Lock()
        whole, self._found = stored_answers(path)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        # A line that was cut by a kill is no answer.
        os.ftruncate(self._file, whole)

    def __getitem__(self, asked: str) -> list[Any]:
        """The answers to a question so far, in order; they are in the file from now on."""
        with self._lock:
            if asked not in self._found:
                for one in self._earlier.get(asked, ()):
                    self._append(asked, one)
            return list(self._found.get(asked, ()))

    def add(self, asked: str, answer: Any) -> None:
        """Store an answer, JSON-ready."""
        with self._lock:
            self._append(asked, answer)

    def _append(self, asked: str, answer: Any) -> None:
        line = json.dumps({"id": asked, "answer": answer}).encode() + b"\n"
        while line:
            line = line[os.write(self._file, line) :]
        self._found.setdefault(asked, []).append(answer)

    def close(self) -> None:
        """Make sure that the answers are on the disk."""
        os.fsync(self._file)
        os.close(self._file)


def stored_answers(path: Path) -> tuple[int, dict[str, list[Any]]]:
    """What a file of answers holds.

    A line that is none of ours is left where it is, and out of what is found.

    Returns:
        Bytes of its whole lines, and the answers by what was asked, in order; nothing where there
        is no file.
    """
    found = dict[str, list[Any]]()
    size = 0
    if path.is_file():
        with path.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    size += len(line)
                    if one := _answer_in(line):
                        found.setdefault(one[0], []).append(one[1])
    return size, found


def _answer_in(line: bytes) -> tuple[str, Any] | None:
    """What was asked, and the answer; None where there are none."""
    try:
        content = json.loads(line)
        asked, answer = content["id"], content["answer"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return (asked, answer) if isinstance(asked, str) else None


def earlier_answers(target: Path, name: str) -> dict[str, list[Any]]:
    """Answers that lie in an artifact, finished or begun, and in what was begun beside it.

    Args:
        target: The place of the artifact.
        name: The file.
    """
    return {
        asked: answers
        for folder in (target, beside(target))
        for asked, answers in stored_answers(folder / name)[1].items()
    }
