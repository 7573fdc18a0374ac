"""Runs side by side: statistics over seeds, tests of pairs, and what cannot be compared."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil

import numpy as np
import pytest

import mnistjax
from mnistjax.errors import MnistjaxError, RunError
from mnistjax.evaluation import adjust_p_values, compare_runs, mcnemar, welch
from mnistjax.runs import TrainedModel, read_result

DIGITS = mnistjax.load_dataset("digits")
MODEL = mnistjax.create_model("softmax")


def write_run(path, recipe, seed, accuracy, *, info=DIGITS.info, **settings):
    """Writes the files of a run that are compared; its network is drawn at random."""
    config = mnistjax.get_recipe("softmax").replace(recipe=recipe, seed=seed, **settings)
    kernel = np.random.default_rng(seed + len(recipe)).normal(size=(784, 10)).astype(np.float32)
    layer = {"kernel": kernel, "bias": np.zeros(10, np.float32)}
    variables = {"params": {"Dense_0": layer}, "batch_stats": {}}
    path.mkdir()
    trained = TrainedModel(MODEL, variables, info, config)
    mnistjax.save_weights(path / "weights.safetensors", trained)
    result = {"test_accuracy": accuracy, "test_count": 360, "parameters": 7850}
    result |= {"train_seconds": 1.0 + seed, "images_per_second": 1000.0 / (1 + seed)}
    (path / "result.json").write_text(json.dumps(result))
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs by name: three recipes with several seeds, two with one seed."""
    folder = tmp_path_factory.mktemp("runs")
    accuracies = {"good": (0.96, 0.97, 0.98), "fair": (0.93, 0.95), "same": (0.9, 0.9)}
    accuracies |= {"level": (0.9, 0.9, 0.9), "one": (0.94,), "single": (0.91,)}
    return {
        f"{recipe}-{seed}": write_run(folder / f"{recipe}-{seed}", recipe, seed, accuracy)
        for recipe, values in accuracies.items()
        for seed, accuracy in enumerate(values)
    }


def named(runs, *recipes):
    return [path for name, path in runs.items() if name.partition("-")[0] in recipes]


def test_runs_of_one_recipe_are_one_row(runs):
    comparison = compare_runs(named(runs, "fair", "one"))
    assert (comparison.dataset, comparison.count) == ("digits", 360)
    fair, one = comparison.rows
    assert (fair.name, one.name) == ("fair", "one")
    assert fair.accuracies == (0.93, 0.95)
    assert fair.mean == pytest.approx(0.94)
    assert fair.sd == pytest.approx(0.02 / math.sqrt(2))
    assert math.isnan(one.sd)
    assert (fair.parameters, one.parameters) == (7850, 7850)
    assert (fair.train_seconds, one.train_seconds) == (1.5, 1.0)
    assert (fair.images_per_second, one.images_per_second) == (750.0, 1000.0)


def test_a_run_of_fit_can_be_compared(digits_run):
    (row,) = compare_runs([digits_run]).rows
    result = read_result(digits_run)
    assert row.name == "mlp"
    assert row.accuracies == (result["test_accuracy"],)
    assert row.parameters == result["parameters"]


def test_recipes_with_several_seeds_are_tested_by_their_means(runs):
    comparison = compare_runs(named(runs, "good", "fair"))
    (pair,) = comparison.pairs
    expected = welch(*(row.accuracies for row in comparison.rows))
    assert (pair.first, pair.second) == ("good", "fair")
    assert pair.difference == pytest.approx(0.03)
    assert (pair.interval, pair.p_value) == (expected.interval, expected.p_value)
    assert pair.adjusted_p_value == pair.p_value
    assert pair.mcnemar is None
    assert not pair.reason


def test_welchs_test_needs_no_data_set(runs, monkeypatch):
    def absent(*args, **options):
        raise AssertionError("the data set was loaded")

    monkeypatch.setattr("mnistjax.evaluation.comparison.load_dataset", absent)
    assert compare_runs(named(runs, "good", "fair", "one")).pairs[0].interval


def test_with_one_run_each_the_two_networks_are_tested(runs):
    (pair,) = compare_runs(named(runs, "one", "single")).pairs
    right = [
        mnistjax.predict_logits(mnistjax.load_weights(run), DIGITS.test.images).argmax(-1)
        == DIGITS.test.labels
        for run in named(runs, "one", "single")
    ]
    assert pair.mcnemar == mcnemar(*right)
    assert pair.p_value == pair.adjusted_p_value == pair.mcnemar.p_value
    assert pair.interval is None
    assert pair.difference == pytest.approx(0.03)


def test_where_the_spread_is_not_known_nothing_is_claimed(runs):
    pairs = compare_runs(named(runs, "good", "same", "level", "one")).pairs
    found = {(pair.first, pair.second): pair for pair in pairs}
    assert len(found) == 6
    for other in ("good", "same", "level"):
        pair = found[other, "one"]
        assert pair.reason == "one has one run only, so its spread over seeds is not known"
        assert (pair.interval, pair.p_value, pair.adjusted_p_value, pair.mcnemar) == (None,) * 4
    constant = found["same", "level"]
    assert constant.reason == "all runs of each are equally accurate"
    assert (constant.p_value, constant.difference) == (None, 0)
    assert found["good", "same"].interval


def test_p_values_are_adjusted_over_all_pairs_that_were_tested(runs):
    pairs = compare_runs(list(runs.values())).pairs
    assert len(pairs) == 15
    tested = [pair for pair in pairs if pair.p_value is not None]
    adjusted = adjust_p_values([pair.p_value for pair in tested])
    assert tuple(pair.adjusted_p_value for pair in tested) == adjusted
    assert max(adjusted) > max(pair.p_value for pair in tested if pair.interval)
    assert all(pair.reason for pair in pairs if pair.p_value is None)


def test_one_run_is_a_table_of_one_row(runs):
    comparison = compare_runs([runs["one-0"]])
    assert len(comparison.rows) == 1
    assert comparison.pairs == ()


def test_namesakes_are_told_apart_by_what_differs(runs, tmp_path):
    short = write_run(tmp_path / "short", "good", 0, 0.9, steps=10)
    default = mnistjax.get_recipe("softmax")
    comparison = compare_runs([runs["good-0"], short, runs["good-1"], runs["one-0"]])
    names = [
        f"good (epochs {default.epochs}, steps {default.steps})",
        "good (epochs None, steps 10)",
        "one",
    ]
    assert [row.name for row in comparison.rows] == names
    assert [len(row.accuracies) for row in comparison.rows] == [2, 1, 1]
    assert len(comparison.pairs) == 3


def test_networks_with_different_teachers_are_no_runs_of_one_recipe(runs, tmp_path):
    paths = [runs["good-0"]]
    for number, digest in enumerate(["a" * 64, "a" * 64, "b" * 64]):
        paths.append(tmp_path / str(number))
        shutil.copytree(runs["good-0"], paths[-1])
        change_result(paths[-1], teacher="cnn", teacher_sha256=digest)
    rows = compare_runs(paths).rows
    assert [row.name for row in rows] == [
        f"good (teacher {teacher})" for teacher in (None, "cnn aaaaaaaa", "cnn bbbbbbbb")
    ]
    assert [len(row.accuracies) for row in rows] == [1, 2, 1]


def change_result(run, **changes):
    result = {**read_result(run), **changes}
    (run / "result.json").write_text(json.dumps(result))


def other_data_set(run):
    shutil.rmtree(run)
    info = dataclasses.replace(DIGITS.info, name="mine")
    write_run(run, "mine", 0, 0.9, info=info)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "expected a finished run, found no result.json in"),
        (lambda run: (run / "result.json").unlink(), "expected a finished run, found no"),
        (lambda run: (run / "result.json").write_text("{"), "expected a JSON object in"),
        (lambda run: (run / "weights.safetensors").unlink(), "found no file"),
        (lambda run: change_result(run, parameters=None), "expected a number 'parameters' in"),
        (
            lambda run: change_result(run, test_accuracy="x"),
            "expected a number as 'test_accuracy' in",
        ),
        (lambda run: change_result(run, test_count=359), "expected runs on the same test images"),
        (other_data_set, "found 'mine' in .* and 'digits' in"),
    ],
)
def test_a_run_that_cannot_be_compared_is_an_error(damage, message, runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs["single-0"], run)
    damage(run)
    with pytest.raises(MnistjaxError, match=message) as caught:
        compare_runs([run, runs["one-0"]])
    assert str(run) in str(caught.value)


def test_networks_are_not_tested_on_another_data_set_than_theirs(runs, tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    for path, name in zip(paths, ("one-0", "single-0"), strict=True):
        shutil.copytree(runs[name], path)
        change_result(path, test_count=359)
    with pytest.raises(RunError, match=r"shape \[359, 28, 28, 1\], found them of shape \[360,"):
        compare_runs(paths)


def test_paths_that_are_no_different_runs_are_errors(runs):
    one, good = runs["one-0"], runs["good-0"]
    with pytest.raises(RunError, match="expected the directory of a run, found the file"):
        compare_runs([one / "weights.safetensors"])
    with pytest.raises(RunError, match=r"expected different runs, found .*one-0 twice"):
        compare_runs([one, good, good / ".." / "one-0"])
    with pytest.raises(RunError, match="expected run directories to compare, found none"):
        compare_runs([])
