"""Probabilities of a split, and every figure that follows from them."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mnistjax
from mnistjax.evaluation.analysis import calibrate, wilson_interval
from mnistjax.evaluation.inference import _jitted_probabilities, in_batches

INFO = mnistjax.DatasetInfo("three", 3, ("ant", "bee", "cat"))
DIGITS = mnistjax.load_dataset("digits")


@pytest.fixture(scope="module")
def network():
    model = mnistjax.create_model("tiny")
    return model, model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))


def random_probabilities(seed, count=200, classes=3):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(classes), count).astype(np.float32)
    labels = rng.integers(0, classes, count, dtype=np.int32)
    return probabilities, labels


# Inference


@pytest.mark.parametrize("count", [0, 1, 7, 12])
def test_probabilities_are_the_softmax_of_the_logits_at_any_batch_size(network, count):
    model, variables = network
    images = DIGITS.test.images[:12]
    logits, _ = model.apply(variables, mnistjax.scale_pixels(jnp.asarray(images)))
    for batch_size in (1, 5, 100):
        found = mnistjax.predict_probabilities(
            model, variables, images[:count], batch_size=batch_size
        )
        assert found.shape == (count, 10)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, jax.nn.softmax(logits)[:count], atol=1e-6)


def test_images_may_be_floats_already(network):
    images = DIGITS.test.images[:9]
    np.testing.assert_allclose(
        mnistjax.predict_probabilities(*network, images),
        mnistjax.predict_probabilities(*network, images.astype(np.float32) / 255),
        atol=1e-6,
    )


def test_a_model_is_compiled_once_for_splits_of_any_length():
    model = mnistjax.create_model("softmax")
    variables = model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    for count in (0, 3, 100, 250):
        mnistjax.predict_probabilities(model, variables, DIGITS.test.images[:count])
    assert _jitted_probabilities(model)._cache_size() == 1


def test_batches_must_hold_an_image(network):
    with pytest.raises(mnistjax.ConfigError, match="batch_size must be at least 1, found 0"):
        mnistjax.predict_probabilities(*network, DIGITS.test.images, batch_size=0)


@given(st.integers(0, 20), st.integers(1, 8))
def test_a_function_of_rows_gives_the_same_in_batches(count, batch_size):
    rows, others = np.arange(2.0 * count).reshape(count, 2), np.arange(count)
    shapes = []

    def function(row, other):
        shapes.append(row.shape)
        return row.sum(1) * other

    found = in_batches(function, rows, others, batch_size=batch_size)
    np.testing.assert_array_equal(found, rows.sum(1) * others)
    assert set(shapes) == {(batch_size, 2)}


# Accuracy, loss, interval


def test_accuracy_and_loss_are_those_of_evaluate(network):
    figures = mnistjax.evaluate(*network, DIGITS.test).compute()
    probabilities = mnistjax.predict_probabilities(*network, DIGITS.test.images)
    analysis = mnistjax.analyse(probabilities, DIGITS.test.labels, DIGITS.info)
    assert analysis.accuracy == pytest.approx(float(figures["accuracy"]))
    assert analysis.loss == pytest.approx(float(figures["loss"]), rel=1e-5)


def test_the_loss_of_a_probability_of_zero_is_large_and_finite():
    probabilities = np.array([[0, 1, 0]], np.float32)
    assert 80 < mnistjax.analyse(probabilities, np.array([0]), INFO).loss < 100
    assert mnistjax.analyse(probabilities, np.array([1]), INFO).loss == 0


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_wilsons(counts):
    correct, count = counts
    z, share = 1.959963984540054, correct / count
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    low, high = wilson_interval(correct, count)
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=1e-9)
    assert 0 <= low <= share <= high <= 1


@pytest.mark.parametrize(
    ("probabilities", "labels"),
    [
        (np.ones((0, 3)), np.ones(0, int)),
        (np.ones((2, 4)), np.ones(2, int)),
        (np.ones((2, 3)), np.ones(3, int)),
        (np.ones((2, 3)), np.ones((2, 1), int)),
        (np.ones((2, 3)), np.array([0, 3])),
        (np.ones((2, 3)), np.array([-1, 0])),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(probabilities, labels):
    with pytest.raises(mnistjax.DataFormatError, match=r"expected labels .*, found "):
        mnistjax.analyse(probabilities, labels, INFO)


# Classes and confusions


@given(st.integers(0, 1000))
def test_the_confusion_matrix_and_the_class_figures_agree_with_their_definition(seed):
    probabilities, labels = random_probabilities(seed, count=30)
    analysis = mnistjax.analyse(probabilities, labels, INFO)
    expected = np.zeros((3, 3), int)
    np.add.at(expected, (labels, analysis.predictions), 1)
    np.testing.assert_array_equal(analysis.confusion, expected)
    for index, figures in enumerate(analysis.classes):
        assert figures.name == INFO.class_names[index]
        right, support = expected[index, index], expected[index].sum()
        assert figures.support == support
        assert figures.recall == pytest.approx(right / max(support, 1))
        assert figures.precision == pytest.approx(right / max(expected[:, index].sum(), 1))
        total = figures.precision + figures.recall
        harmonic = 2 * figures.precision * figures.recall / total if total else 0
        assert figures.f1 == pytest.approx(harmonic)


def test_a_class_without_an_image_or_a_prediction_is_no_error():
    analysis = mnistjax.analyse(np.array([[1, 0, 0]], np.float32), np.array([0]), INFO)
    assert analysis.classes[2] == type(analysis.classes[2])("cat", 0, 0, 0, 0)
    assert analysis.confusion.shape == (3, 3)


@given(st.integers(0, 1000), st.integers(2, 6))
def test_the_most_confused_pairs_are_the_largest_errors(seed, classes):
    probabilities, labels = random_probabilities(seed, count=40, classes=classes)
    analysis = mnistjax.analyse(probabilities, labels, mnistjax.DatasetInfo("any", classes))
    errors = analysis.confusion - np.diag(np.diag(analysis.confusion))
    counts = [pair.count for pair in analysis.most_confused]
    assert counts == sorted(errors[errors > 0].tolist(), reverse=True)[:10]
    for pair in analysis.most_confused:
        assert pair.true != pair.predicted
        assert errors[pair.true, pair.predicted] == pair.count


def test_mistakes_are_all_wrong_predictions_the_most_confident_first():
    probabilities, labels = random_probabilities(0)
    analysis = mnistjax.analyse(probabilities, labels, INFO)
    mistakes = analysis.mistakes
    assert set(mistakes) == set(np.flatnonzero(analysis.predictions != labels))
    assert (np.diff(analysis.confidences[mistakes]) <= 0).all()
    np.testing.assert_array_equal(analysis.confidences, probabilities.max(1))


# Calibration


def test_what_is_right_as_often_as_it_says_is_calibrated():
    confidences = np.repeat([0.5, 0.75, 1.0], 8)
    correct = np.concatenate([np.arange(8) < right for right in (4, 6, 8)])
    assert calibrate(confidences, correct).ece == pytest.approx(0)


@pytest.mark.parametrize("right", [0, 3, 10])
def test_the_error_of_blind_confidence_is_the_share_of_mistakes(right):
    calibration = calibrate(np.ones(10), np.arange(10) < right)
    assert calibration.ece == pytest.approx(1 - right / 10)
    assert calibration.counts[-1] == 10


@given(st.integers(0, 1000), st.integers(1, 20))
def test_the_bins_hold_every_image_once_and_explain_the_error(seed, bins):
    rng = np.random.default_rng(seed)
    confidences, correct = rng.uniform(0, 1, 50), rng.random(50) < 0.5
    found = calibrate(confidences, correct, bins=bins)
    assert len(found.edges) == bins + 1
    assert found.counts.sum() == 50
    error = 0.0
    for index, (low, high) in enumerate(zip(found.edges[:-1], found.edges[1:], strict=True)):
        inside = (confidences > low) & (confidences <= high)
        assert found.counts[index] == inside.sum()
        if inside.any():
            assert found.confidence[index] == pytest.approx(confidences[inside].mean())
            assert found.accuracy[index] == pytest.approx(correct[inside].mean())
            error += inside.mean() * abs(correct[inside].mean() - confidences[inside].mean())
        else:
            assert np.isnan(found.confidence[index])
            assert np.isnan(found.accuracy[index])
    assert found.ece == pytest.approx(error)


# Labels that are known to be wrong


def test_accuracy_without_the_known_wrong_labels():
    probabilities = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    labels = np.array([0, 1, 1, 1])
    analysis = mnistjax.analyse(probabilities, labels, INFO, known_wrong=(2,))
    assert analysis.accuracy == 0.5
    assert analysis.clean_accuracy == pytest.approx(2 / 3)
    assert analysis.clean_count == 3
    without = mnistjax.analyse(probabilities, labels, INFO)
    assert (without.clean_accuracy, without.clean_count) == (None, None)


def test_no_label_of_another_data_set_is_known_to_be_wrong():
    assert mnistjax.known_wrong_labels(DIGITS) == ()


@pytest.mark.mnist
def test_the_known_wrong_labels_of_mnist_are_found_in_any_order(mnist_dir):
    mnist = mnistjax.load_dataset("mnist", data_dir=mnist_dir)
    published = (947, 1621, 1901, 2130, 2462, 2597, 2654, 3520, 3558, 5937, 6651, 6783)
    published += (8527, 9679, 9729)
    assert mnistjax.known_wrong_labels(mnist) == published

    def with_test(images, labels):
        return mnistjax.Dataset(mnist.train, mnistjax.Split(images, labels), mnist.info)

    order = np.random.default_rng(0).permutation(len(mnist.test))
    images, labels = mnist.test.images, mnist.test.labels
    shuffled = mnistjax.known_wrong_labels(with_test(images[order], labels[order]))
    assert sorted(order[list(shuffled)]) == list(published)
    mended = np.where(np.isin(np.arange(len(labels)), published), (labels + 1) % 10, labels)
    assert mnistjax.known_wrong_labels(with_test(images, mended.astype(np.int32))) == ()
