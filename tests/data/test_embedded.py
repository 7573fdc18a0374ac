from __future__ import annotations

import numpy as np
from data_files import assert_holds

from mnistjax.data.load import load_dataset


def test_digits_look_like_mnist():
    dataset = load_dataset("digits")
    assert (len(dataset.train), len(dataset.test)) == (1437, 360)
    assert dataset.source == "scikit-learn digits, embedded"
    images = np.concatenate([dataset.train.images, dataset.test.images])
    assert images.shape[1:] == dataset.info.image_shape == (28, 28, 1)
    box = images[:, 4:24, 4:24]
    assert images.sum(dtype=np.int64) == box.sum(dtype=np.int64) > 0
    assert (images.min(), images.max()) == (0, 255)
    for split in (dataset.train, dataset.test):
        shares = np.bincount(split.labels) / len(split)
        np.testing.assert_allclose(shares, 0.1, atol=0.01)


def test_digits_are_the_drawings_of_scikit_learn():
    from sklearn.datasets import load_digits

    dataset, digits = load_dataset("digits"), load_digits()
    drawn = np.concatenate([dataset.train.images, dataset.test.images])[:, 4:24, 4:24, 0]
    labels = np.concatenate([dataset.train.labels, dataset.test.labels])
    for label in range(10):
        found = drawn[labels == label].mean(axis=0).reshape(4, 5, 4, 5).mean(axis=(1, 3))
        expected = digits.images[digits.target == label].mean(axis=0) * 255 / 16
        expected = expected.reshape(4, 2, 4, 2).mean(axis=(1, 3))
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.98


def test_digits_are_always_the_same():
    first, second = load_dataset("digits"), load_dataset("digits")
    assert_holds(first, *((s.images, s.labels) for s in (second.train, second.test)))
