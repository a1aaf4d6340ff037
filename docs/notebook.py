"""Run `docs/tour.ipynb` and keep what it shows; see `make notebook`.

The notebook runs in a folder of its own that has the repository's `data/`.
"""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "docs" / "tour.ipynb"


def executed(folder: Path) -> NotebookNode:
    """The notebook with what its cells show when they run in a folder.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell raises.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (folder / "data").symlink_to(ROOT / "data")
    # The kernel finds what this process finds.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.getenv("PYTHONPATH")]))
    # Those of other libraries name paths of the machine.
    os.environ["PYTHONWARNINGS"] = "ignore"
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
    client.execute()
    for cell in notebook.cells:
        cell.metadata = {}
    return notebook


def main() -> None:
    """Renew what the notebook shows."""
    with TemporaryDirectory() as folder:
        nbformat.write(executed(Path(folder)), NOTEBOOK)


if __name__ == "__main__":
    main()
