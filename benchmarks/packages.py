"""The set with many repeats that packing is measured on: the descriptions of Debian's packages.

    python -m benchmarks.packages      # build it and print its counts

Three pairs a package, all with its long description as passage: the synopsis, the first sentence
of the long description, and "name: synopsis". Packages of one source share descriptions, and
synopses repeat, so that texts repeat in both roles.
"""

import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks.datasets import canonical_pairs, read_pairs, write_pairs
from benchmarks.wheels import CACHE, Pair

PATH = CACHE / "debian-descriptions.parquet"
_TIMEOUT_S = 300


def load() -> list[Pair]:
    """Read the set from the cache, or on first use fetch it with apt.

    Raises:
        subprocess.SubprocessError: apt is missing or reaches no mirror.
    """
    if not PATH.is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = PATH.with_suffix(".tmp")
        write_pairs(canonical_pairs(package_pairs(fetch())), partial)
        partial.replace(PATH)
    return read_pairs(PATH)


def fetch() -> str:
    """All translations of the configured mirrors, as apt keeps them."""
    with tempfile.TemporaryDirectory() as folder:
        lists = Path(folder)
        (lists / "partial").mkdir()
        lists.chmod(0o755)
        options = ["-o", "Acquire::Languages=en", "-o", f"Dir::State::Lists={lists}"]
        subprocess.run(
            ["apt-get", *options, "update"], check=True, timeout=_TIMEOUT_S, capture_output=True
        )
        files = sorted(map(str, lists.glob("*_Translation-en*")))
        command = ["/usr/lib/apt/apt-helper", "cat-file", *files]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def package_pairs(translations: str) -> Iterator[Pair]:
    """Yield the pairs of each package, by the order of the file."""
    for entry in translations.split("\n\n"):
        name, synopsis, lines = "", "", []
        for line in entry.splitlines():
            if line.startswith("Package: "):
                name = line.removeprefix("Package: ")
            elif line.startswith("Description-en: "):
                synopsis = line.removeprefix("Description-en: ")
            elif line.startswith(" "):
                lines.append("" if line == " ." else line.strip())
        long = " ".join(" ".join(lines).split())
        for query in (synopsis, long.split(". ")[0], f"{name}: {synopsis}"):
            yield query, long


def main() -> None:
    """Print the counts."""
    pairs = load()
    queries, passages = zip(*pairs, strict=True)
    most = Counter(passages).most_common(1)[0][1]
    print(f"{len(pairs):,} pairs, {len(set(queries)):,} queries, {len(set(passages)):,} passages")
    print(f"one passage {most:,} times")


if __name__ == "__main__":
    main()
