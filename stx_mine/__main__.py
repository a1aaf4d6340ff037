"""The program: it listens to signals before anything is imported that takes long."""

from stx_mine.interrupts import watched


def main() -> None:
    """Run the command line."""
    with watched(lambda name: f"interrupted by {name} before it began; nothing was changed"):
        from stx_mine.cli import main as run

        run()


if __name__ == "__main__":
    main()
