"""The plot of a sweep shows every network, the means and their intervals."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import mnistjax
from mnistjax import plots
from mnistjax.errors import UnknownNameError
from mnistjax.runs import Member, Population

CONFIG = mnistjax.TrainConfig()


def member(settings, validation, test=0.5, **measured):
    result = {"validation_accuracy": validation, "test_accuracy": test, **measured}
    network = mnistjax.TrainedModel(
        mnistjax.create_model("softmax"), {}, mnistjax.DatasetInfo("x", 10), CONFIG, result
    )
    return Member(settings, 0, network)


def population(*names_and_values):
    rng = np.random.default_rng(0)
    return Population(
        CONFIG,
        tuple(
            member({**settings, "seed": seed}, rng.uniform(0.8, 0.9))
            for settings in names_and_values
            for seed in range(3)
        ),
    )


def assert_renders(figure):
    assert isinstance(figure, Figure)
    image = np.asarray(Image.open(io.BytesIO(plots.render_png(figure))).convert("L"))
    assert image.shape[1] >= 800
    assert image.min() < 100


def test_every_network_every_mean_and_every_interval_is_drawn():
    rates = (1e-3, 1e-2, 1e-1)
    found = population(
        *({"optimizer": name, "learning_rate": rate} for name in ("adam", "sgd") for rate in rates)
    )
    figure = plots.sweep(found, "learning_rate")
    assert_renders(figure)
    (axes,) = figure.axes
    dots, adam, more_dots, sgd = (
        line for line in axes.lines if line.get_marker() not in ("_", "|", "None")
    )
    assert len(dots.get_ydata()) == len(more_dots.get_ydata()) == 9
    for line, name in ((adam, "adam"), (sgd, "sgd")):
        means = [
            100 * row["validation_accuracy_mean"]
            for row in found.summary()
            if row["optimizer"] == name
        ]
        np.testing.assert_allclose(line.get_ydata(), means)
        np.testing.assert_allclose(line.get_xdata(), [-3, -2, -1])
    assert [text.get_text() for text in axes.get_legend().texts] == ["adam", "sgd"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.001", "0.01", "0.1"]
    (low, high) = (found.summary()[0][f"validation_accuracy_{side}"] for side in ("low", "high"))
    (segment, *_) = axes.collections[0].get_segments()
    np.testing.assert_allclose(segment[:, 1], [100 * low, 100 * high])


def test_words_are_beside_each_other_and_need_no_legend():
    figure = plots.sweep(population({"model": "cnn"}, {"model": "mlp"}), "model", split="test")
    assert_renders(figure)
    (axes,) = figure.axes
    assert axes.get_legend() is None
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cnn", "mlp"]
    assert axes.get_ylabel() == "test accuracy in %"


def test_networks_that_failed_are_left_out():
    found = population({"shift": 0}, {"shift": 2})
    lost = Member({"shift": 9, "seed": 0}, 0, None, "the loss became nan")
    figure = plots.sweep(Population(CONFIG, (*found.members, lost)), "shift")
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0", "2"]
    other = Member({"shift": 8, "seed": 0}, 0, None, "the loss became nan")
    alone = plots.sweep(Population(CONFIG, (lost, other)), "shift")
    assert alone.axes[0].texts[0].get_text() == "No network has a validation accuracy"


def test_networks_that_a_search_ended_early_are_hollow():
    found = population({"shift": 0, "rotate": 0.0}, {"shift": 2, "rotate": 5.0})
    history = ({"epoch": 1, "step": 9, "train_seconds": 0.1, "validation_accuracy": 0.7},)
    ended = Member({"shift": 2, "rotate": 5.0, "seed": 3}, 0, None, history=history)
    (axes,) = plots.sweep(Population(CONFIG, (*found.members, ended)), "shift").axes
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
    np.testing.assert_allclose(np.concatenate([line.get_ydata() for line in hollow]), [70])
    filled = [line for line in axes.lines if line.get_alpha() == 0.35 and line not in hollow]
    assert [len(line.get_ydata()) for line in filled] == [3, 3]
    assert "ended early" in [text.get_text() for text in axes.get_legend().texts]


@pytest.mark.parametrize("count", [2, 12])
def test_hollow_markers_are_explained_where_nothing_else_is(count):
    settings = [{"shift": i, "rotate": float(i % 12)} for i in range(count)]
    found = population(*(settings if count > 2 else ({"shift": 0}, {"shift": 2})))
    history = ({"epoch": 1, "step": 9, "train_seconds": 0.1, "validation_accuracy": 0.7},)
    ended = Member({**found.members[-1].settings, "seed": 3}, 0, None, history=history)
    (axes,) = plots.sweep(Population(CONFIG, (*found.members, ended)), "shift").axes
    assert [text.get_text() for text in axes.get_legend().texts] == ["ended early"]


def test_numbers_of_epochs_are_those_of_the_settings():
    # As early stopping leaves them: the best epoch is an earlier one.
    found = Population(CONFIG, tuple(member({"epochs": n}, 0.8, epochs=2.0) for n in (3, 5)))
    (axes,) = plots.sweep(found, "epochs").axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["3", "5"]


def test_of_many_combinations_every_network_is_drawn():
    found = population(*({"learning_rate": 1e-3 * (i + 1), "momentum": i / 20} for i in range(12)))
    figure = plots.sweep(found, "learning_rate")
    assert_renders(figure)
    (dots,) = figure.axes[0].lines
    assert len(dots.get_ydata()) == 36
    assert figure.axes[0].get_legend() is None


def test_what_does_not_vary_is_refused():
    found = population({"shift": 0}, {"shift": 2})
    for name in ("seed", "model"):
        with pytest.raises(UnknownNameError, match="setting that varies"):
            plots.sweep(found, name)
    with pytest.raises(UnknownNameError, match="split"):
        plots.sweep(found, "shift", split="train")
