"""A run that is repeated is equal to the last bit, or the first difference is named."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from small_runs import CONFIG, dataset, squares

from mnistjax import Dataset, TrainedModel, fit, load_run
from mnistjax.errors import RunError
from mnistjax.runs import describe_environment_change, repeat


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fit(CONFIG, dataset(), workdir=tmp_path_factory.mktemp("run"))


def test_a_run_is_repeated_to_the_last_bit(run):
    assert repeat(load_run(run.workdir), dataset()) is None


def test_a_run_on_several_devices_is_repeated_on_as_many():
    assert repeat(fit(CONFIG, dataset(), devices=3).trained, dataset()) is None


def test_a_run_of_several_processes_cannot_be_repeated_in_one(run):
    trained = load_run(run.workdir)
    together = dataclasses.replace(trained, result={**trained.result, "process_count": 2})
    with pytest.raises(RunError, match="a run of one process to repeat, found one of 2"):
        repeat(together, dataset())


def test_the_first_difference_is_named(run):
    trained = load_run(run.workdir)
    history = [dict(row) for row in trained.history]
    history[1]["train_loss"] += 1e-9
    other = dataclasses.replace(trained, history=tuple(history))
    assert repeat(other, dataset()).startswith("epoch 2: train_loss was ")
    assert repeat(dataclasses.replace(trained, history=tuple(history[:1])), dataset()).startswith(
        "number of epochs: 1 then and 3 now"
    )


def test_a_bit_of_the_weights_is_a_difference(run):
    def flip(leaf):
        return jax.lax.bitcast_convert_type(
            jax.lax.bitcast_convert_type(leaf, jnp.uint32).at[0].set(1), jnp.float32
        )

    trained = load_run(run.workdir)
    params = {**trained.variables["params"]}
    params["Dense_1"] = {**params["Dense_1"], "bias": flip(params["Dense_1"]["bias"])}
    other = dataclasses.replace(trained, variables={**trained.variables, "params": params})
    assert repeat(other, dataset()) == "weights: 1 of 4 numbers of params/Dense_1/bias"


def test_other_data_and_an_unfinished_run_are_refused(run):
    trained = load_run(run.workdir)
    changed = Dataset(squares(203, 9), dataset().test, dataset().info)
    with pytest.raises(RunError, match="expected the data set that the run was trained on"):
        repeat(trained, changed)
    with pytest.raises(RunError, match="expected a finished run to repeat"):
        repeat(TrainedModel(trained.model, trained.variables, trained.info), dataset())


def test_versions_that_changed_are_named(run):
    trained = load_run(run.workdir)
    assert describe_environment_change(trained) == ""
    result = {**trained.result, "versions": {**trained.result["versions"], "jax": "0.1"}}
    found = describe_environment_change(dataclasses.replace(trained, result=result))
    assert found.startswith("jax 0.1 then and ")
