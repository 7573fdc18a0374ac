"""The scripts of the page to draw on compute the logits and the saliency that JAX computes."""

from __future__ import annotations

import numpy as np
import pytest
from drawing_pages import scripted_logits, scripted_saliency
from random_networks import make_network

import mnistjax
from mnistjax.evaluation import draw_sample, saliency
from mnistjax.models import MODELS
from mnistjax.report import packing, round_weights, write_draw_page

# Sides that differ, strides, crops and poolings that leave rows out, and both kinds of padding.
OTHERS = {
    "tall": ("tiny", {"image_shape": (15, 11, 1), "num_classes": 3}),
    "cropped": ("speed", {"image_shape": (20, 28, 1)}),
    "strided": (
        "cnn",
        {"padding": "SAME", "first_stride": 2, "kernel_sizes": (4, 2), "pools": (1, 3)},
    ),
}


@pytest.fixture
def open_network(open_page, tmp_path):
    """Opens the page of a network."""

    def get(network, dtype="float32"):
        return open_page(write_draw_page(network, tmp_path / "draw.html", dtype=dtype))

    return get


@pytest.mark.parametrize("name", [*MODELS, *OTHERS])
def test_a_page_computes_the_logits_and_the_saliency_of_its_network(name, open_network):
    model, settings = OTHERS.get(name, (name, {}))
    network = make_network(model, **settings)
    page = open_network(network)
    # Half black: flat parts are where windows of the pooling have several maxima.
    rng = np.random.default_rng(1)
    images = rng.integers(-255, 256, (4, *network.info.image_shape)).clip(0).astype(np.uint8)
    expected = mnistjax.predict_logits(network, images)
    np.testing.assert_allclose(scripted_logits(page, images), expected, rtol=1e-4, atol=1e-4)
    labels = np.arange(len(images)) % network.info.num_classes
    gradients = saliency(network, images, labels)
    for image, label, gradient in zip(images, labels, gradients, strict=True):
        found = scripted_saliency(page, image, label)
        np.testing.assert_allclose(found, gradient, rtol=1e-3, atol=1e-4 * np.abs(gradient).max())
    assert page.complaints == []


@pytest.mark.parametrize("dtype", packing.DTYPES)
def test_a_page_computes_the_logits_of_the_rounded_network(dtype, open_network):
    network = make_network("cnn-dropout", seed=3)
    images = mnistjax.load_dataset("digits").test.images[:20]
    expected = mnistjax.predict_logits(round_weights(network, dtype), images)
    found = scripted_logits(open_network(network, dtype), images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.mnist
def test_on_1000_test_digits_the_page_and_jax_agree(mnist_dir, open_network):
    dataset = mnistjax.load_dataset("mnist", data_dir=mnist_dir)
    config = mnistjax.get_recipe("cnn").replace(epochs=None, steps=300, validation_fraction=0.0)
    trained = mnistjax.fit(config, dataset).trained
    sample = draw_sample(dataset.test, 1000, seed=0)
    page = open_network(trained)
    expected = mnistjax.predict_logits(trained, sample.images)
    np.testing.assert_allclose(scripted_logits(page, sample.images), expected, rtol=0, atol=1e-4)
    assert np.mean(expected.argmax(1) == sample.labels) > 0.9
    images, labels = sample.images[:50], expected.argmax(1)[:50]
    gradients = saliency(trained, images, labels)
    found = [scripted_saliency(page, *one) for one in zip(images, labels, strict=True)]
    off = np.abs(found - gradients) / np.abs(gradients).max((1, 2), keepdims=True)
    # Where all pixels are white, the numbers of a window differ by rounding alone, and the order of
    # sums decides which one gets the gradient: in some images, and there in a few pixels.
    assert np.mean(off.max((1, 2)) < 1e-4) > 0.7
    assert np.mean(off < 1e-4) > 0.99
