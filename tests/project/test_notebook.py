"""The notebook tells its story on any machine, and shows what its cells gave."""

from __future__ import annotations

import ast
import json
import re
from operator import attrgetter
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

import mnistjax

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "mnist_tour.ipynb"
MOST_BYTES = 2_000_000
LOAD = "mnistjax.load_dataset()"


def read() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def execute(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Runs every cell in turn, in an empty folder; raises at the first that fails."""
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, kernel_name="python3", resources=resources).execute()


def shown(cell: nbformat.NotebookNode) -> set[str]:
    """What a cell shows: "stdout", "stderr", "error", and the kinds of its rich outputs."""
    return {
        kind
        for output in cell.outputs
        for kind in (output.get("data") or [output.get("name") or output.output_type])
    }


def check_run(stored: nbformat.NotebookNode, run: nbformat.NotebookNode) -> None:
    """Nothing but what the stored cells show was shown: no warning, no picture less."""
    for before, after in zip(code_cells(stored), code_cells(run), strict=True):
        assert "stderr" not in shown(after), after.outputs
        assert shown(after) == shown(before), after.source


@pytest.fixture
def folder(tmp_path, monkeypatch):
    # The kernel of a reader has the devices of the machine, not those of the tests.
    monkeypatch.delenv("XLA_FLAGS")
    return tmp_path


@pytest.mark.mnist
@pytest.mark.full  # It trains for as long as a reader's does: minutes on a slow machine.
def test_it_runs_on_the_real_images(folder, mnist_dir, monkeypatch):
    monkeypatch.setenv("MNISTJAX_DATA_DIR", str(mnist_dir))
    notebook = read()
    execute(notebook, folder)
    check_run(read(), notebook)
    assert "data set: mnist" in json.dumps(notebook)


def test_it_runs_on_the_embedded_digits(folder, monkeypatch):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    notebook = read()
    for old, new in ((LOAD, 'mnistjax.load_dataset("digits")'), ("epochs=6", "epochs=1")):
        (cell,) = [cell for cell in code_cells(notebook) if old in cell.source]
        cell.source = cell.source.replace(old, new)
    execute(notebook, folder)
    check_run(read(), notebook)
    assert "data set: digits" in json.dumps(notebook)


def test_a_cell_that_fails_or_warns_is_found(folder):
    stored = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")])
    sources = ("import warnings; warnings.warn('old'); 1 + 1", "1 / 0")
    run = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in sources])
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        execute(run, folder)
    del run.cells[1:]
    assert "text/plain" in shown(run.cells[0])
    with pytest.raises(AssertionError, match="old"):
        check_run(stored, run)


def displays(source: str) -> bool:
    """Whether a cell prints, or ends in an expression whose value is shown."""
    lines = [line for line in source.splitlines() if not line.lstrip().startswith("%")]
    tree = ast.parse("\n".join(lines))
    last = tree.body[-1]
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    prints = any(isinstance(call, ast.Name) and call.id == "print" for call in calls)
    return prints or isinstance(last, ast.Expr)


def names_of_the_package(source: str) -> set[str]:
    """The dotted names below mnistjax that a cell uses, for example "plots.samples"."""
    return set(re.findall(r"\bmnistjax\.([a-z_0-9.]*[A-Za-z_0-9]+)", source))


def test_it_uses_names_that_exist():
    names = {name for cell in code_cells(read()) for name in names_of_the_package(cell.source)}
    assert len(names) > 20
    for name in names:
        attrgetter(name)(mnistjax)


def test_it_was_stored_as_it_ran_from_top_to_bottom():
    notebook = read()
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert not shown(cell) & {"error", "stderr"}
        assert bool(shown(cell)) == displays(cell.source), cell.source
    assert sum("image/png" in shown(cell) for cell in cells) >= 14
    assert "data set: mnist" in json.dumps(notebook)


def test_it_names_no_path_of_a_machine_and_is_small():
    text = NOTEBOOK.read_text(encoding="utf-8")
    # Base64 has slashes too; words of a path it has not.
    assert not re.findall(r"/(?:home|root|Users|tmp|usr|var|mnt|work|content)/[\w.]+", text)
    assert len(text.encode()) < MOST_BYTES
