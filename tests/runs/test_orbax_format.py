"""Exchange with Orbax, which is another reader and writer of the same arrays."""

from __future__ import annotations

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from small_runs import CONFIG, dataset

from mnistjax import fit
from mnistjax.errors import RunError, RunNotFoundError
from mnistjax.runs import export_orbax, import_orbax


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    trained = fit(CONFIG.replace(model="tiny", steps=3), dataset()).trained
    return trained, export_orbax(trained, tmp_path_factory.mktemp("orbax") / "new" / "run")


def test_a_run_comes_back_as_it_was(exported):
    trained, folder = exported
    back = import_orbax(folder)
    jax.tree.map(np.testing.assert_array_equal, back.variables, trained.variables)
    assert back.config == trained.config
    assert back.info == trained.info
    assert back.result == trained.result
    assert back.history == trained.history


def test_orbax_reads_it_without_this_package(exported):
    trained, folder = exported
    with ocp.StandardCheckpointer() as reader:
        found = reader.restore(folder / "variables")
    jax.tree.map(np.testing.assert_array_equal, found, trained.variables)


def test_an_existing_folder_is_left_alone(exported, tmp_path):
    (tmp_path / "mine").write_text("text")
    with pytest.raises(RunError, match="expected a folder to create"):
        export_orbax(exported[0], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("make", ["nothing", "empty", "file"])
def test_what_is_no_checkpoint_is_refused(tmp_path, make):
    place = tmp_path / "place"
    if make == "empty":
        place.mkdir()
    if make == "file":
        place.write_text("text")
    error = RunError if make == "empty" else RunNotFoundError
    with pytest.raises(error, match="expected an Orbax checkpoint"):
        import_orbax(place)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda leaf: leaf[..., :-1], "expected .* as float32"),
        (lambda leaf: leaf.astype(np.float16), "found float16"),
        (lambda leaf: leaf * np.nan, "NaN or infinity"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(exported, tmp_path, change, message):
    trained, folder = exported
    items = {
        "variables": ocp.args.StandardSave(jax.tree.map(change, trained.variables)),
        "description": ocp.args.JsonSave(
            ocp.JsonCheckpointHandler().restore(folder / "description")
        ),
    }
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        checkpointer.save(tmp_path / "other", args=ocp.args.Composite(**items))
    with pytest.raises(RunError, match=message):
        import_orbax(tmp_path / "other")
