"""The program: it listens to signals before anything is imported that takes long."""

from stx_mine.interrupts import Interrupted, watched


def program() -> None:
    """Run the command line."""
    before = "interrupted by {} before it began; nothing was changed, run the same command again"
    with watched(before.format) as watch:
        try:
            from stx_mine.cli import main

            main()
        except (Interrupted, SystemExit):
            if watch.number:
                watch.leave()
            raise


if __name__ == "__main__":
    program()
