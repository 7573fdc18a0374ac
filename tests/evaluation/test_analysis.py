"""Logits of a split, and every metric that follows from them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mnistjax
from mnistjax.errors import ConfigError, DataFormatError
from mnistjax.evaluation import ClassMetrics, analyze_logits, find_label_errors
from mnistjax.evaluation.analysis import calibrate, wilson_interval

INFO = mnistjax.DatasetInfo("three", 3, ("ant", "bee", "cat"))
DIGITS = mnistjax.load_dataset("digits")


def random_logits(seed, count=200, classes=3):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, classes)).astype(np.float32)
    labels = rng.integers(0, classes, count, dtype=np.int32)
    return logits, labels


# Accuracy, loss, interval


def test_a_network_is_analyzed_exactly_as_it_is_evaluated(digits_network):
    metrics = mnistjax.evaluate(digits_network, DIGITS.test)
    analysis = mnistjax.analyze(digits_network, DIGITS)
    assert {"accuracy": analysis.accuracy, "loss": analysis.loss} == metrics.summary()
    np.testing.assert_array_equal(analysis.confusion, metrics.confusion)
    logits = mnistjax.predict_logits(digits_network, DIGITS.test.images).astype(np.float64)
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    np.testing.assert_allclose(analysis.probabilities, shares, rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(analysis.predictions, logits.argmax(1))


def test_a_data_set_of_another_kind_is_refused(digits_network):
    info = mnistjax.DatasetInfo("eleven", 11)
    eleven = mnistjax.Dataset(DIGITS.train, DIGITS.test, info)
    with pytest.raises(ConfigError, match="expected a data set of num_classes 10"):
        mnistjax.analyze(digits_network, eleven)


def test_the_loss_of_a_confident_mistake_is_not_cut_off():
    logits = np.array([[0, 200, 0]], np.float32)
    assert analyze_logits(logits, np.array([0]), INFO).loss == pytest.approx(200)
    assert analyze_logits(logits, np.array([1]), INFO).loss == pytest.approx(0, abs=1e-6)


def test_there_is_one_prediction_where_the_probabilities_are_equal():
    """Both probabilities round to the same float32; the logits do not."""
    small = np.float32(1e-3)
    logits = np.array([[small, np.nextafter(small, np.float32(1)), -9]], np.float32)
    analysis = analyze_logits(logits, np.array([1]), INFO)
    assert analysis.probabilities[0, 0] == analysis.probabilities[0, 1]
    assert analysis.predictions.tolist() == [1]
    assert analysis.accuracy == 1
    assert not len(analysis.mistakes)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_wilsons(counts):
    correct, count = counts
    z, share = 1.959963984540054, correct / count
    center = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    low, high = wilson_interval(correct, count)
    assert (low, high) == pytest.approx((center - half, center + half), abs=1e-9)
    assert 0 <= low <= share <= high <= 1


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (np.ones((0, 3)), np.ones(0, int)),
        (np.ones((2, 4)), np.ones(2, int)),
        (np.ones((2, 3)), np.ones(3, int)),
        (np.ones((2, 3)), np.ones((2, 1), int)),
        (np.ones((2, 3)), np.array([0, 3])),
        (np.ones((2, 3)), np.array([-1, 0])),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(logits, labels):
    with pytest.raises(DataFormatError, match=r"expected labels .*, found "):
        analyze_logits(logits, labels, INFO)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(value):
    logits = np.zeros((4, 3), np.float32)
    logits[2, 1] = value
    with pytest.raises(DataFormatError, match=r"expected finite logits, found .* at index 2"):
        analyze_logits(logits, np.zeros(4, int), INFO)


# Classes and confusions


@given(st.integers(0, 1000))
def test_the_confusion_matrix_and_the_class_metrics_agree_with_their_definition(seed):
    logits, labels = random_logits(seed, count=30)
    analysis = analyze_logits(logits, labels, INFO)
    expected = np.zeros((3, 3), int)
    np.add.at(expected, (labels, logits.argmax(1)), 1)
    np.testing.assert_array_equal(analysis.confusion, expected)
    for index, metrics in enumerate(analysis.classes):
        assert metrics.name == INFO.class_names[index]
        right, support = expected[index, index], expected[index].sum()
        assert metrics.support == support
        assert metrics.recall == pytest.approx(right / max(support, 1))
        assert metrics.precision == pytest.approx(right / max(expected[:, index].sum(), 1))
        total = metrics.precision + metrics.recall
        harmonic = 2 * metrics.precision * metrics.recall / total if total else 0
        assert metrics.f1 == pytest.approx(harmonic)


def test_a_class_without_an_image_or_a_prediction_is_no_error():
    analysis = analyze_logits(np.array([[1, 0, 0]], np.float32), np.array([0]), INFO)
    assert analysis.classes[2] == ClassMetrics("cat", 0, 0, 0, 0)
    assert analysis.confusion.shape == (3, 3)


@given(st.integers(0, 1000), st.sampled_from([3, 6]))
def test_the_top_confusions_are_the_largest_errors(seed, classes):
    logits, labels = random_logits(seed, count=40, classes=classes)
    analysis = analyze_logits(logits, labels, mnistjax.DatasetInfo("any", classes))
    errors = analysis.confusion - np.diag(np.diag(analysis.confusion))
    counts = [pair.count for pair in analysis.top_confusions]
    assert counts == sorted(errors[errors > 0].tolist(), reverse=True)[:10]
    for pair in analysis.top_confusions:
        assert pair.true != pair.predicted
        assert errors[pair.true, pair.predicted] == pair.count


def test_mistakes_are_all_wrong_predictions_the_most_confident_first():
    logits, labels = random_logits(0)
    analysis = analyze_logits(logits, labels, INFO)
    mistakes = analysis.mistakes
    assert set(mistakes) == set(np.flatnonzero(logits.argmax(1) != labels))
    assert (np.diff(analysis.confidences[mistakes]) <= 0).all()
    np.testing.assert_array_equal(analysis.confidences, analysis.probabilities.max(1))


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


# Label errors


def test_accuracy_without_the_label_errors():
    logits = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    labels = np.array([0, 1, 1, 1])
    analysis = analyze_logits(logits, labels, INFO, label_errors=(2,))
    assert analysis.accuracy == 0.5
    assert analysis.accuracy_without_label_errors == pytest.approx(2 / 3)
    assert analysis.count_without_label_errors == 3
    for label_errors in ((), (0, 1, 2, 3)):
        without = analyze_logits(logits, labels, INFO, label_errors=label_errors)
        assert without.accuracy_without_label_errors is None
        assert without.count_without_label_errors is None


def test_no_label_error_is_known_in_another_data_set():
    assert find_label_errors(DIGITS) == ()


@pytest.mark.mnist
def test_the_label_errors_of_mnist_are_found_in_any_order(mnist_dir):
    mnist = mnistjax.load_dataset("mnist", data_dir=mnist_dir)
    published = (947, 1621, 1901, 2130, 2462, 2597, 2654, 3520, 3558, 5937, 6651, 6783)
    published += (8527, 9679, 9729)
    assert find_label_errors(mnist) == published

    def with_test(images, labels):
        return mnistjax.Dataset(mnist.train, mnistjax.Split(images, labels), mnist.info)

    order = np.random.default_rng(0).permutation(len(mnist.test))
    images, labels = mnist.test.images, mnist.test.labels
    shuffled = find_label_errors(with_test(images[order], labels[order]))
    assert sorted(order[list(shuffled)]) == list(published)
    mended = np.where(np.isin(np.arange(len(labels)), published), (labels + 1) % 10, labels)
    assert find_label_errors(with_test(images, mended.astype(np.int32))) == ()
