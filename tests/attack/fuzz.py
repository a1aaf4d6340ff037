"""Coverage-guided fuzzing of what reads files of others: `python tests/attack/fuzz.py --help`.

Needs atheris (`pip install atheris`). Each target runs in a process of its own, since what is found
ends it; what was found is written to `--found` as a file per input, for `hostile/*.yaml`.
"""

import argparse
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Fuzz the targets, one after the other; how many found something."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="per target")
    parser.add_argument("--target", action="append", help="default: all")
    parser.add_argument("--found", type=Path, default=Path("fuzz-found"))
    parser.add_argument("--here", help="run one target in this process")
    options = parser.parse_args()
    if options.here:
        fuzz(options.here, options.seconds, options.found)
    from fuzz_targets import TARGETS

    failed = 0
    for target in options.target or TARGETS:
        words = [__file__, "--here", target, "--seconds", str(options.seconds)]
        code = subprocess.run([sys.executable, *words, "--found", str(options.found)]).returncode
        print(f"{target}: {'nothing found' if code == 0 else f'ended with {code}'}", flush=True)
        failed += code != 0
    return failed


def fuzz(target: str, seconds: int, found: Path) -> None:
    """Fuzz one target; does not return."""
    import atheris

    with atheris.instrument_imports(include=["stx_mine", "yaml", "json"]):
        from fuzz_targets import FOLDER, TARGETS, seeds_of

    corpus = FOLDER / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds_of(target)):
        (corpus / f"seed-{number}").write_bytes(seed)
    found.mkdir(parents=True, exist_ok=True)
    settings = [
        f"-max_total_time={seconds}",
        f"-artifact_prefix={found}/{target}-",
        "-max_len=4096",
        "-timeout=120",
        "-rss_limit_mb=4096",
        "-print_final_stats=1",
        "-verbosity=0",
        "-close_fd_mask=1",
    ]
    atheris.Setup([sys.argv[0], str(corpus), *settings], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
