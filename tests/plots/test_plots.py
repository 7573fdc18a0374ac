"""Every plot shows the numbers it was given, at the edges of what it may be given."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

import mnistjax
from mnistjax import Dataset, DatasetInfo, Split, plots
from mnistjax.evaluation import ComparisonRow, Robustness, analyze_logits
from mnistjax.plots.style import shorten
from mnistjax.runs import build_augment

LONG = ("T-shirt/top", "an extraordinarily long name of two lines", "$x^", r"\frac$", "<b>&amp;")
# Name, classes, images, image shape, class names, share of wrong predictions.
CASES = {
    "digits": (10, 300, (28, 28, 1), (), 0.1),
    "two classes, three images": (2, 3, (5, 9, 1), (), 0.0),
    "sixty-two classes": (62, 400, (8, 8, 1), (), 0.3),
    "thirteen classes of tall color images": (13, 60, (40, 12, 3), (), 0.5),
    "names": (5, 80, (12, 12, 1), LONG, 0.4),
    "all right": (10, 50, (28, 28, 1), (), 0.0),
    "all wrong": (10, 50, (12, 12, 1), (), 1.0),
    "an image": (10, 1, (12, 12, 1), (), 0.0),
}


def make_case(name):
    """Returns info, split and analysis of predictions that are wrong as often as the case says."""
    classes, count, shape, names, wrong = CASES[name]
    rng = np.random.default_rng(0)
    info = DatasetInfo(f"{name} $", classes, names, image_shape=shape)
    labels = rng.integers(0, classes, count, dtype=np.int32)
    images = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
    probabilities = rng.dirichlet(np.ones(classes), count).astype(np.float32)
    peak = (labels + (rng.random(count) < wrong)) % classes
    probabilities[np.arange(count), peak] += rng.uniform(1.1, 3, count)
    probabilities /= probabilities.sum(1, keepdims=True)
    return info, Split(images, labels), analyze_logits(np.log(probabilities), labels, info)


@pytest.fixture(params=CASES)
def case(request):
    return make_case(request.param)


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def pictures(figure):
    return [np.asarray(image.get_array()) for image in figure.axes[0].images]


def assert_renders(figure):
    """It becomes a PNG, wide enough to be read and not blank."""
    assert isinstance(figure, Figure)
    image = np.asarray(Image.open(io.BytesIO(plots.render_png(figure))).convert("L"))
    assert image.shape[1] >= 800
    assert image.min() < 100
    assert image.max() > 250


def test_samples_are_the_first_images_of_each_class(case):
    info, split, _ = case
    figure = plots.samples(split, info)
    assert_renders(figure)
    wanted = 10 if info.num_classes <= 12 else 1
    expected = np.concatenate(
        [split.images[split.labels == label][:wanted] for label in range(info.num_classes)]
    )
    np.testing.assert_allclose(np.stack(pictures(figure)), expected.mean(-1) / 255)
    if info.num_classes <= 12:
        assert {shorten(name, 14) for name in info.class_names} <= set(texts(figure))


def test_the_bars_of_the_class_distribution_are_the_counts(case):
    info, split, _ = case
    half = Split(split.images[: -(-len(split) // 2)], split.labels[: -(-len(split) // 2)])
    figure = plots.class_distribution(Dataset(split, half, info))
    assert_renders(figure)
    bars = figure.axes[0].containers
    assert [bar.get_label() for bar in bars] == [
        f"training ({len(split):,})",
        f"test ({len(half):,})",
    ]
    for bar, of in zip(bars, (split, half), strict=True):
        counts = np.bincount(of.labels, minlength=info.num_classes)
        np.testing.assert_array_equal(bar.datavalues, counts)
    assert bars[1].patches[0].get_hatch()


def test_augmentation_shows_each_image_and_then_its_variants(case):
    info, split, _ = case

    def darken(images, *, key):
        return jnp.where((images >= 0) & (images <= 1), images / 2, jnp.nan)

    figure = plots.augmentation(split, darken, seed=0, images=3, variants=4)
    assert_renders(figure)
    shown = min(3, len(split))
    rows = np.stack(pictures(figure)).reshape(shown, 5, *info.image_shape[:2])
    original = split.images[:shown].mean(-1) / 255
    np.testing.assert_allclose(rows[:, 0], original)
    np.testing.assert_allclose(rows[:, 1:], np.repeat(original[:, None], 4, 1) / 2, atol=1e-6)


def test_augmentation_is_drawn_by_the_seed():
    _, split, _ = make_case("digits")
    augment = build_augment(mnistjax.TrainConfig(shift=2))
    same, again, other = (
        np.stack(pictures(plots.augmentation(split, augment, seed=seed))) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(same, again)
    assert (same != other).any()


def history(epochs, *, validation, smallest=0.01):
    return [
        {
            "epoch": float(epoch),
            "train_loss": max(1 / epoch**2, smallest),
            "train_accuracy": 1 - 0.5 / epoch,
            "validation_loss": 0.9 / epoch if validation else None,
            "validation_accuracy": 1 - 0.4 / epoch if validation else None,
        }
        for epoch in range(1, epochs + 1)
    ]


@pytest.mark.parametrize("epochs", [1, 2, 40])
@pytest.mark.parametrize("validation", [True, False])
def test_learning_curves_run_through_the_rows(epochs, validation):
    rows = history(epochs, validation=validation)
    figure = plots.learning_curves(rows)
    assert_renders(figure)
    for axes, what, factor in zip(figure.axes, ("loss", "accuracy"), (1, 100), strict=True):
        lines = {line.get_label(): line for line in axes.lines}
        assert set(lines) == ({"training", "validation"} if validation else {"training"})
        for label, line in lines.items():
            split = label.removesuffix("ing")
            assert list(line.get_xdata()) == [row["epoch"] for row in rows]
            assert list(line.get_ydata()) == [factor * row[f"{split}_{what}"] for row in rows]
        assert len({line.get_linestyle() for line in axes.lines}) == len(lines)
    assert figure.axes[0].get_yscale() == ("log" if epochs == 40 else "linear")


def test_a_loss_of_zero_has_a_place_on_the_scale():
    rows = [*history(5, validation=False), {**history(1, validation=False)[0], "train_loss": 0.0}]
    figure = plots.learning_curves(rows)
    assert figure.axes[0].get_yscale() == "linear"
    assert_renders(figure)


def test_the_confusion_matrix_shows_its_counts_and_shades_mistakes_alone(case):
    info, _, analysis = case
    figure = plots.confusion(analysis)
    assert_renders(figure)
    (shades,) = pictures(figure)
    np.testing.assert_array_equal(np.diagonal(shades), 0)
    off_diagonal = ~np.eye(info.num_classes, dtype=bool)
    np.testing.assert_array_equal(shades[off_diagonal], analysis.confusion[off_diagonal])
    if info.num_classes <= 30:
        counts = [int(text.get_text()) for text in figure.axes[0].texts]
        assert counts == [count for count in analysis.confusion.ravel() if count]
    assert (len(figure.axes) == 2) == bool(len(analysis.mistakes))


def test_mistakes_are_the_most_confident_with_their_captions(case):
    _, split, analysis = case
    figure = plots.mistakes(analysis, split.images, max_images=7)
    wrong = analysis.mistakes[:7]
    if not len(wrong):
        assert texts(figure) == [f"No mistake among {len(split):,} images"]
        assert not pictures(figure)
        return
    assert_renders(figure)
    np.testing.assert_allclose(np.stack(pictures(figure)), split.images[wrong].mean(-1) / 255)
    captions = [text.split("\n")[-1] for text in texts(figure) if "\n" in text]
    assert captions == [f"{confidence:.0%}" for confidence in analysis.confidences[wrong]]


def test_reliability_shows_the_filled_bins(case):
    _, _, analysis = case
    figure = plots.reliability(analysis)
    assert_renders(figure)
    curve, counts = figure.axes
    filled = analysis.calibration.counts > 0
    line = next(line for line in curve.lines if line.get_marker() == "o")
    np.testing.assert_allclose(line.get_xdata(), 100 * analysis.calibration.confidence[filled])
    np.testing.assert_allclose(line.get_ydata(), 100 * analysis.calibration.accuracy[filled])
    np.testing.assert_array_equal(counts.containers[0].datavalues, analysis.calibration.counts)
    assert f"{analysis.calibration.ece:.2%}" in curve.get_title(loc="left")


@pytest.mark.parametrize("kinds", [1, 2, 8])
def test_robustness_has_a_panel_per_corruption(kinds):
    rows = [Robustness("none", 0.0, "", 0.99, 100)]
    rows += [
        Robustness(f"kind {kind}", strength, "pixels", 1 / (1 + kind + strength), 100)
        for kind in range(kinds)
        for strength in (1.0, 2.0, 4.0)
    ]
    for given in (rows, rows[1:]):
        figure = plots.robustness(given)
        assert_renders(figure)
        panels = [axes for axes in figure.axes if axes.lines]
        assert [axes.get_title(loc="left") for axes in panels] == [
            f"kind {i}" for i in range(kinds)
        ]
        for kind, axes in enumerate(panels):
            line = next(line for line in axes.lines if line.get_marker() == "o")
            expected = [100 / (1 + kind + strength) for strength in (1.0, 2.0, 4.0)]
            assert list(line.get_ydata())[-3:] == pytest.approx(expected)
            assert len(line.get_ydata()) == 3 + (given is rows)


def test_robustness_without_a_corruption_says_so():
    figure = plots.robustness([Robustness("none", 0.0, "", 0.99, 100)])
    assert texts(figure) == ["No corruption was measured"]


def test_the_bars_of_a_comparison_are_errors_with_every_seed():
    accuracies = [(0.92, 0.93, 0.94), (0.991,), (1.0, 1.0)]
    rows = [
        ComparisonRow(
            name, values, float(np.mean(values)),
            float(np.std(values, ddof=1)) if len(values) > 1 else float("nan"), 10, 1.0, 1.0,
        )
        for name, values in zip(("softmax", "a" * 60, "perfect"), accuracies, strict=True)
    ]  # fmt: skip
    figure = plots.comparison(rows)
    assert_renders(figure)
    axes = figure.axes[0]
    assert axes.containers[0].datavalues == pytest.approx([7.0, 0.9, 0.0])
    assert {"7.00 ± 1.00", "0.90", "0.00 ± 0.00"} <= set(texts(figure))
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [len(line.get_xdata()) for line in dots] == [3, 1, 2]
    assert dots[0].get_xdata() == pytest.approx([8.0, 7.0, 6.0])
    assert texts(plots.comparison([])) == ["No run was compared"]


@pytest.mark.parametrize("shape", [(1, 3, 3), (10, 28, 28), (32, 5, 5), (100, 3, 4)])
def test_filters_are_drawn_on_one_scale_around_zero(shape):
    filters = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    figure = plots.filters(filters)
    assert_renders(figure)
    np.testing.assert_array_equal(np.stack(pictures(figure)), filters[:64])
    low, high = figure.axes[0].images[0].get_clim()
    assert -low == high == np.abs(filters[:64]).max()
    assert_renders(plots.filters(np.zeros(shape, np.float32)))


def test_saliency_is_dark_where_a_pixel_lowers_the_score_and_light_where_it_raises_it(case):
    info, split, _ = case
    images = split.images[:6]
    gradients = np.zeros((len(images), *info.image_shape[:2]), np.float32)
    gradients[:, 0, 0], gradients[:, -1, -1] = -3, 3
    labels = [info.class_names[label] for label in split.labels[:6]]
    figure = plots.saliency(images, gradients, labels)
    assert_renders(figure)
    height = info.image_shape[0]
    for image, drawn in zip(images, pictures(figure), strict=True):
        assert drawn.shape[:2] == (2 * height, info.image_shape[1])
        above, below = drawn[:height, :, :3].mean(-1), drawn[height:, :, :3].mean(-1)
        assert np.corrcoef(above.ravel(), image.mean(-1).ravel())[0, 1] < -0.9
        assert below[0, 0] < below[0, 1] < below[-1, -1]


def test_a_projection_draws_every_point_and_names_every_class(case):
    info, split, _ = case
    points = np.random.default_rng(1).normal(size=(len(split), 2))
    figure = plots.projection(points, split.labels, info)
    assert_renders(figure)
    axes = figure.axes[0]
    present = np.unique(split.labels)
    drawn = np.concatenate([np.asarray(cloud.get_offsets()) for cloud in axes.collections])
    np.testing.assert_allclose(drawn, points[np.argsort(split.labels, kind="stable")])
    names = [shorten(info.class_names[label], 14) for label in present]
    assert [text.get_text() for text in axes.texts] == names


def test_a_class_name_that_the_font_lacks_is_no_warning():
    _, split, _ = make_case("names")
    names = ("\N{HIRAGANA LETTER A}", "b", "c", "d", "e")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        info = DatasetInfo("kana", 5, names, image_shape=(12, 12, 1))
        assert_renders(plots.samples(split, info))


def test_shorten_keeps_one_line_of_the_length():
    for name in LONG:
        for length in (3, 8, 30):
            short = shorten(name, length)
            assert len(short) <= length
            assert "\n" not in short
            assert short == " ".join(name.split()) or short.endswith("…")


def test_plots_leave_the_settings_of_matplotlib_alone_and_do_not_follow_them(monkeypatch):
    rows = history(3, validation=True)
    usual = plots.render_png(plots.learning_curves(rows))
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 30.0)
    monkeypatch.setitem(matplotlib.rcParams, "axes.facecolor", "red")
    before = dict(matplotlib.rcParams)
    assert plots.render_png(plots.learning_curves(rows)) == usual
    assert dict(matplotlib.rcParams) == before


def test_plots_need_no_pyplot():
    code = (
        "import sys, mnistjax;"
        "row = dict(epoch=1.0, train_loss=1.0, train_accuracy=0.5);"
        "mnistjax.plots.render_png(mnistjax.plots.learning_curves([row]));"
        "assert 'matplotlib.figure' in sys.modules;"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
