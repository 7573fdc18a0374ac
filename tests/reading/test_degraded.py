"""How well a short training reads photographs made from real test digits."""

from __future__ import annotations

import numpy as np
import pytest
from degraded import degraded_digits, degraded_rows

import mnistjax


@pytest.fixture(scope="module")
def dataset(mnist_dir):
    return mnistjax.load_dataset("mnist", data_dir=mnist_dir)


@pytest.fixture(scope="module")
def trained(dataset):
    config = mnistjax.TrainConfig(
        model="cnn",
        epochs=2,
        learning_rate=4e-3,
        schedule="one-cycle",
        shift=2,
        rotate=10,
        scale=0.1,
    )
    return mnistjax.fit(config, dataset).trained


@pytest.mark.mnist
def test_photographed_digits_are_recognized(trained, dataset):
    pictures = degraded_digits(dataset.test.images[:200], 1)
    predictions = mnistjax.predict(trained, pictures)
    assert np.mean(predictions.labels == dataset.test.labels[:200]) > 0.95
    doubted = [bool(warnings) for warnings in predictions.warnings]
    assert np.mean(doubted) < 0.15


@pytest.mark.mnist
def test_photographed_codes_are_read(trained, dataset):
    rows = degraded_rows(dataset.test.images[:150], dataset.test.labels[:150], 1)
    right = [mnistjax.read_digits(trained, picture).text == text for picture, text in rows]
    assert np.mean(right) > 0.8


@pytest.mark.mnist
def test_images_of_mnist_stay_as_they_are(dataset):
    images = dataset.test.images[:300]
    kept = [
        np.array_equal(mnistjax.reading.prepare_digit(image[..., 0]).image, image)
        for image in images
    ]
    assert np.mean(kept) > 0.9


@pytest.mark.mnist
def test_prepared_again_from_dark_on_light_they_are_nearly_the_same(dataset):
    for image in dataset.test.images[:50]:
        other = mnistjax.reading.prepare_digit(255 - image[..., 0]).image.astype(float)
        apart = np.abs(other - image).sum() / (other + image).sum()
        assert apart < 0.45
