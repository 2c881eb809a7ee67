"""Every notebook runs from top to bottom, in a process of its own."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.compiled import HARDLY_OPTIMIZED

NOTEBOOKS = sorted((Path(__file__).parents[1] / "colabs").glob("*.ipynb"))
# As far as the student alone, and less of that: `tests/test_main.py` has the rest of the line.
ALL = 'f"--workdir={workdir}"]'
LESS = [f"stages.{name}.steps=60" for name in ("pretrain", "teacher", "student")]
LESS += ["stages.pretrain.encoder.widths=[16,32,64,128]", "stages.cache.views=4"]
SHORT = {
    "quickstart": {
        ALL: f'{ALL[:-1]}, "--stages=student", *{[f"--config.{item}" for item in LESS]}]',
    },
}
# What they do is tested by itself, in `tests/compress` and `tests/export`.
LONG = {"compress_your_model", "deploy"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Jupyter's own machinery; kdjax runs in another process
@pytest.mark.parametrize(
    ("path", "changes"),
    [
        pytest.param(path, changes, marks=marks, id=f"{path.stem}{'-short' if changes else ''}")
        for path in NOTEBOOKS
        for changes, marks in (
            [(SHORT[path.stem], ()), ({}, pytest.mark.thorough)]
            if path.stem in SHORT
            else [({}, pytest.mark.thorough if path.stem in LONG else ())]
        )
    ],
)
def test_runs(path, changes, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.delenv("MPLBACKEND", raising=False)  # pictures go into the notebook
    monkeypatch.setenv("PYTHONPATH", os.fspath(path.parents[1]))
    for name, value in (HARDLY_OPTIMIZED if changes else {}).items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "strip the outputs: nbstripout"
    for before, after in changes.items():
        assert any(before in cell.source for cell in notebook.cells)
        for cell in notebook.cells:
            cell.source = cell.source.replace(before, after)
    client = NotebookClient(notebook, timeout=900, resources={"metadata": {"path": path.parent}})
    client.execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in shown)
