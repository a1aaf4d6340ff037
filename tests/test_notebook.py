"""The notebook of the docs runs, and shows what it shows."""

import importlib.util
import signal
from pathlib import Path

import nbformat
import pytest


@pytest.fixture
def notebook_maker(repo_root: Path, monkeypatch: pytest.MonkeyPatch):
    """The module that runs the notebook."""
    # It sets both for its kernel.
    monkeypatch.setenv("PYTHONPATH", str(repo_root))
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    spec = importlib.util.spec_from_file_location("notebook", repo_root / "docs" / "notebook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # Whoever runs the tests in the background ignores this signal, which asyncio does not restore.
    before = signal.getsignal(signal.SIGINT)
    yield module
    signal.signal(signal.SIGINT, before)


def kinds(notebook: nbformat.NotebookNode) -> list[list[list[str]]]:
    """Of each cell, what kinds of output it has."""
    return [
        [sorted(one.get("data", {one.get("name", "error"): ""})) for one in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_the_notebook_runs_and_shows_what_stands_in_it(tmp_path: Path, notebook_maker) -> None:
    stored = nbformat.read(notebook_maker.NOTEBOOK, as_version=4)
    found = notebook_maker.executed(tmp_path)
    assert kinds(found) == kinds(stored)
    shown = [kind for cell in kinds(found) for output in cell for kind in output]
    assert shown.count("image/svg+xml") >= 4
    assert "stderr" not in shown
    assert (tmp_path / "tour/model/modules.json").exists()
    for cell in stored.cells:
        assert "/home/" not in str(cell)
        assert ".venv" not in str(cell)
