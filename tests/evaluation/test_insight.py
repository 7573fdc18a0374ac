"""Filters, saliency, hidden features and their layout in the plane."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mnistjax

DIGITS = mnistjax.load_dataset("digits")
IMAGES = DIGITS.test.images[:12]


def network(name):
    model = mnistjax.create_model(name)
    return model, jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))


def logits_of(model, variables, images):
    return np.asarray(model.apply(variables, mnistjax.scale_pixels(jnp.asarray(images)))[0])


class Pooled(nn.Module):
    """A network without a dense layer."""

    @nn.compact
    def __call__(self, images, *, train, mask, axis_name):
        return nn.Conv(10, (3, 3))(images).mean((1, 2))


def test_filters_of_a_convolution_are_its_kernels():
    model, variables = network("cnn-bn")
    filters = mnistjax.first_layer_filters(model, variables)
    kernel = np.asarray(variables["params"]["Stage_0"]["kernel"])
    assert filters.shape == (32, 3, 3)
    np.testing.assert_array_equal(filters[5], kernel[:, :, 0, 5])


@pytest.mark.parametrize(("name", "count"), [("softmax", 10), ("mlp-50-50", 50)])
def test_filters_of_a_dense_layer_are_images(name, count):
    model, variables = network(name)
    filters = mnistjax.first_layer_filters(model, variables)
    matrix = np.asarray(variables["params"]["Dense_0"]["kernel"])
    assert filters.shape == (count, 28, 28)
    np.testing.assert_array_equal(filters[3].reshape(-1), matrix[:, 3])


def test_a_filter_answers_as_the_layer_does():
    """The logit of softmax regression is the sum of image times filter, and a bias."""
    model, variables = network("softmax")
    filters = mnistjax.first_layer_filters(model, variables)
    pixels = IMAGES[..., 0] / 255
    bias = np.asarray(variables["params"]["Dense_0"]["bias"])
    expected = np.einsum("nhw,khw->nk", pixels, filters) + bias
    np.testing.assert_allclose(logits_of(model, variables, IMAGES), expected, atol=1e-4)


def test_filters_of_coloured_images_are_averaged_over_the_channels():
    model = mnistjax.create_model("cnn")
    variables = model.init(jax.random.key(0), jnp.zeros((1, 14, 14, 3)))
    filters = mnistjax.first_layer_filters(model, variables, image_shape=(14, 14, 3))
    kernel = np.asarray(variables["params"]["Stage_0"]["kernel"])
    np.testing.assert_allclose(filters, kernel.mean(2).transpose(2, 0, 1), atol=1e-7)


def test_a_network_without_such_weights_is_an_error():
    model, variables = network("mlp")
    with pytest.raises(mnistjax.ConfigError, match=r"\(14, 14, 1\) in model 'mlp'.*\(784, 100\)"):
        mnistjax.first_layer_filters(model, variables, image_shape=(14, 14, 1))


@pytest.mark.parametrize("name", ["mlp", "cnn", "tiny"])
def test_saliency_predicts_what_a_small_change_does_to_the_logit(name):
    model, variables = network(name)
    classes = np.arange(12) % 10
    # Noise: on an even background pooling has ties, where no derivative exists.
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0.1, 0.9, IMAGES.shape).astype(np.float32)
    direction = rng.normal(size=IMAGES.shape).astype(np.float32)
    found = mnistjax.saliency(model, variables, pixels, classes, batch_size=5)
    assert found.shape == (12, 28, 28)
    assert found.dtype == np.float32
    step = 1e-4
    above, below = (
        logits_of(model, variables, pixels + sign * step * direction)[np.arange(12), classes]
        for sign in (1, -1)
    )
    expected = (found * direction[..., 0]).sum((1, 2))
    # What is left is float32, and the few ReLUs that have their kink within the step.
    errors = np.abs((above - below) / (2 * step) - expected)
    assert np.median(errors) < 0.02
    assert errors.max() < 0.1
    assert np.median(np.abs(expected)) > 0.1


def test_saliency_of_softmax_regression_is_the_filter_of_the_class():
    model, variables = network("softmax")
    filters = mnistjax.first_layer_filters(model, variables)
    classes = np.arange(12) % 10
    found = mnistjax.saliency(model, variables, IMAGES, classes)
    np.testing.assert_allclose(found, filters[classes], atol=1e-6)


def test_saliency_of_no_image_is_empty():
    assert mnistjax.saliency(*network("mlp"), IMAGES[:0], np.zeros(0, int)).shape == (0, 28, 28)


@pytest.mark.parametrize("name", ["softmax", "mlp-50-50", "cnn-dropout", "tiny"])
def test_the_last_layer_makes_the_logits_of_the_features(name):
    model, variables = network(name)
    features = mnistjax.hidden_features(model, variables, IMAGES, batch_size=5)
    params = variables["params"]
    last = params[max(layer for layer in params if layer.startswith("Dense"))]
    assert features.shape == (12, last["kernel"].shape[0])
    assert features.dtype == np.float32
    expected = features @ np.asarray(last["kernel"]) + np.asarray(last["bias"])
    np.testing.assert_allclose(logits_of(model, variables, IMAGES), expected, atol=1e-4)


def test_a_model_may_keep_its_features_to_itself():
    model, variables = network("mlp")
    bare = dataclasses.replace(model, features=None)
    assert mnistjax.Model(model.init, model.apply).features is None
    with pytest.raises(mnistjax.ConfigError, match="expected a model with a function `features`"):
        mnistjax.hidden_features(bare, variables, IMAGES)
    np.testing.assert_array_equal(
        mnistjax.predict_probabilities(bare, variables, IMAGES),
        mnistjax.predict_probabilities(model, variables, IMAGES),
    )


def test_a_module_without_a_dense_layer_has_no_features():
    model = mnistjax.from_linen(Pooled())
    variables = model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    with pytest.raises(ValueError, match=r"expected a module with an nn\.Dense, found Pooled"):
        mnistjax.hidden_features(model, variables, IMAGES)


def blobs(count=30, columns=60):
    """Two groups of points that lie far apart in one direction."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2 * count, columns))
    features[count:, 3] += 50
    return features.astype(np.float32)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_an_embedding_keeps_groups_apart_and_the_seed_decides(method):
    points = mnistjax.embed(blobs(), method=method, seed=1)
    assert points.shape == (60, 2)
    first, second = points[:30], points[30:]
    gap = np.linalg.norm(first.mean(0) - second.mean(0))
    assert gap > 2 * max(first.std(0).max(), second.std(0).max())
    np.testing.assert_array_equal(points, mnistjax.embed(blobs(), method=method, seed=1))


def test_pca_keeps_as_much_variance_as_two_directions_can():
    points = mnistjax.embed(blobs())
    centred = blobs() - blobs().mean(0)
    largest = np.linalg.svd(centred, compute_uv=False)[:2] ** 2
    np.testing.assert_allclose((points**2).sum(0), largest, rtol=1e-3)
    assert abs((points[:, 0] * points[:, 1]).sum()) < 1e-2 * largest[1]


@pytest.mark.parametrize(("method", "least"), [("pca", 2), ("tsne", 4)])
def test_few_rows_are_laid_out_and_fewer_are_an_error(method, least):
    features = blobs()[:: 60 // least][:least]
    assert mnistjax.embed(features, method=method).shape == (least, 2)
    with pytest.raises(mnistjax.ConfigError, match=f"at least {least} images and 2 columns"):
        mnistjax.embed(features[1:], method=method)
    with pytest.raises(mnistjax.ConfigError, match=r"found \[60, 1\]"):
        mnistjax.embed(blobs()[:, :1], method=method)


def test_an_unknown_embedding_is_an_error():
    with pytest.raises(mnistjax.UnknownNameError, match="unknown embedding 'umap'"):
        mnistjax.embed(blobs(), method="umap")
