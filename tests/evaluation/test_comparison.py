"""Runs side by side: statistics over seeds, McNemar's test, and what cannot be compared."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mnistjax
from mnistjax import compare_runs, mcnemar

DIGITS = mnistjax.load_dataset("digits")
RUNS = {"softmax-0": 0, "softmax-1": 1, "mlp-0": 0}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, seed in RUNS.items():
        recipe = mnistjax.get_recipe(name.partition("-")[0])
        config = recipe.replace(steps=30, seed=seed, validation_fraction=0.0)
        mnistjax.fit(config, DIGITS, workdir=folder / name, report=False)
    return folder


def predictions(run):
    trained = mnistjax.load_weights(run)
    found = mnistjax.predict_probabilities(trained.model, trained.variables, DIGITS.test.images)
    return found.argmax(-1)


def outcome(only_first, only_second, both=5, neither=3):
    """What two classifiers get right, with this many images in each of the four cells."""
    first = [True] * (only_first + both) + [False] * (only_second + neither)
    second = [False] * only_first + [True] * (both + only_second) + [False] * neither
    return np.array(first), np.array(second)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p_value"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (10, 2, 2 * (1 + 12 + 66) / 2**12),
        (0, 6, 2 / 2**6),
        (30, 12, math.erfc(math.sqrt(17**2 / 42 / 2))),
        (20, 20, 1.0),
        (12, 13, 1.0),
    ],
)
def test_mcnemar_agrees_with_the_hand(only_first, only_second, p_value):
    test = mcnemar(*outcome(only_first, only_second))
    assert (test.only_first, test.only_second) == (only_first, only_second)
    assert test.p_value == pytest.approx(p_value)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 9))
def test_mcnemar_is_symmetric_and_looks_at_discordant_images_alone(first, second, both):
    test = mcnemar(*outcome(first, second, both=both))
    swapped = mcnemar(*outcome(second, first, both=0))
    assert 0 <= test.p_value <= 1
    assert test.p_value == pytest.approx(swapped.p_value)
    assert (swapped.only_first, swapped.only_second) == (second, first)
    more_uneven = mcnemar(*outcome(first + 30, second)) if first >= second else test
    assert more_uneven.p_value <= test.p_value + 1e-12


def test_mcnemar_needs_the_same_images():
    with pytest.raises(ValueError, match=r"expected the same images, got \(3,\) and \(4,\)"):
        mcnemar(np.ones(3, bool), np.ones(4, bool))


def test_runs_of_one_recipe_are_one_row(runs):
    comparison = compare_runs([runs / name for name in RUNS])
    assert (comparison.dataset, comparison.count) == ("digits", 360)
    softmax, mlp = comparison.rows
    results = {name: mnistjax.read_result(runs / name) for name in RUNS}
    accuracies = [results[name]["test_accuracy"] for name in ("softmax-0", "softmax-1")]
    assert (softmax.name, mlp.name) == ("softmax", "mlp")
    assert softmax.accuracies == tuple(accuracies)
    assert softmax.mean == pytest.approx(sum(accuracies) / 2)
    assert softmax.sd == pytest.approx(abs(accuracies[0] - accuracies[1]) / math.sqrt(2))
    assert math.isnan(mlp.sd)
    assert (softmax.parameters, mlp.parameters) == (7850, 79510)
    assert mlp.train_seconds == results["mlp-0"]["train_seconds"]
    assert mlp.images_per_second == results["mlp-0"]["images_per_second"]


def test_two_recipes_are_tested_by_their_first_runs(runs):
    for order in (["softmax-0", "softmax-1", "mlp-0"], ["softmax-1", "mlp-0", "softmax-0"]):
        (pair,) = compare_runs([runs / name for name in order]).pairs
        assert (pair.first, pair.second) == ("softmax", "mlp")
        right = [predictions(runs / name) == DIGITS.test.labels for name in (order[0], "mlp-0")]
        assert pair.test == mcnemar(*right)


def test_one_run_is_a_table_of_one_row(runs):
    comparison = compare_runs([runs / "mlp-0"])
    assert len(comparison.rows) == 1
    assert comparison.pairs == ()


def test_namesakes_are_told_apart_by_what_differs(runs, tmp_path):
    config = mnistjax.get_recipe("softmax").replace(steps=10, validation_fraction=0.0)
    mnistjax.fit(config, DIGITS, workdir=tmp_path / "short", report=False)
    paths = [runs / "softmax-0", tmp_path / "short", runs / "softmax-1", runs / "mlp-0"]
    comparison = compare_runs(paths)
    names = ["softmax (steps 30)", "softmax (steps 10)", "mlp"]
    assert [row.name for row in comparison.rows] == names
    assert [len(row.accuracies) for row in comparison.rows] == [2, 1, 1]
    assert len(comparison.pairs) == 3


def test_settings_without_a_recipe_are_named_by_their_model(tmp_path):
    config = mnistjax.TrainConfig(model="tiny", steps=2, dataset="digits")
    mnistjax.fit(config, DIGITS, workdir=tmp_path, report=False)
    assert compare_runs([tmp_path]).rows[0].name == "tiny"


def change_result(run, **changes):
    result = {**mnistjax.read_result(run), **changes}
    (run / "result.json").write_text(json.dumps(result))


def other_data_set(run, _):
    info = mnistjax.DatasetInfo("mine", 10)
    mine = mnistjax.Dataset(DIGITS.train, DIGITS.test, info)
    config = mnistjax.TrainConfig(model="softmax", steps=2)
    mnistjax.fit(config, mine, workdir=run, overwrite=True, report=False)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run, _: shutil.rmtree(run), "expected a finished run, found no result.json in"),
        (lambda run, _: (run / "result.json").unlink(), "expected a finished run, found no"),
        (lambda run, _: (run / "result.json").write_text("{"), "expected a JSON object in"),
        (lambda run, _: (run / "weights.safetensors").unlink(), "found no file"),
        (lambda run, _: change_result(run, parameters=None), "expected a number 'parameters' in"),
        (lambda run, _: change_result(run, test_accuracy="x"), "'test_accuracy' in result.json"),
        (lambda run, _: change_result(run, test_count=359), "359 test images of shape"),
        (other_data_set, "found 'mine' in .* and 'digits' in"),
    ],
)
def test_a_run_that_cannot_be_compared_is_an_error(damage, message, runs, tmp_path):
    run, good = tmp_path / "run", runs / "mlp-0"
    shutil.copytree(runs / "softmax-0", run)
    damage(run, good)
    with pytest.raises(mnistjax.MnistjaxError, match=message) as caught:
        compare_runs([run, good])
    assert str(run) in str(caught.value)


def test_paths_that_are_no_different_runs_are_errors(runs, tmp_path):
    with pytest.raises(mnistjax.RunError, match="expected the directory of a run, found the file"):
        compare_runs([runs / "mlp-0" / "weights.safetensors"])
    with pytest.raises(mnistjax.RunError, match=r"expected different runs, found .*mlp-0 twice"):
        compare_runs([runs / "mlp-0", runs / "softmax-0", runs / "softmax-0" / ".." / "mlp-0"])
    with pytest.raises(mnistjax.RunError, match="expected run directories to compare, found none"):
        compare_runs([])
