"""Filters, saliency, hidden features and their layout in the plane."""

from __future__ import annotations

import dataclasses
import functools
import math
import subprocess
import sys

import flax.linen as nn
import jax
import numpy as np
import pytest

import mnistjax
from mnistjax.errors import ConfigError, UnknownNameError
from mnistjax.evaluation import first_layer_filters, hidden_features, project_2d, saliency
from mnistjax.runs import TrainedModel

DIGITS = mnistjax.load_dataset("digits")
IMAGES = DIGITS.test.images[:12]


def draw_network(model, image_shape=(28, 28, 1)):
    """A network whose weights NumPy draws: what initializes a model is costly to compile."""
    rng = np.random.default_rng(0)

    def draw(leaf):
        return rng.normal(0, math.prod(leaf.shape[:-1]) ** -0.5, leaf.shape).astype(np.float32)

    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, *image_shape), np.float32))
    params = jax.tree.map(draw, shapes["params"])
    stats = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes["batch_stats"])
    info = dataclasses.replace(DIGITS.info, image_shape=image_shape)
    return TrainedModel(model, {"params": params, "batch_stats": stats}, info)


@functools.cache
def network(name):
    return draw_network(mnistjax.create_model(name))


class Pooled(nn.Module):
    """A network without a dense layer."""

    @nn.compact
    def __call__(self, images, *, train, mask, axis_name):
        return nn.Conv(10, (3, 3))(images).mean((1, 2))


def test_filters_of_a_convolution_are_its_kernels():
    trained = network("cnn-bn")
    filters = first_layer_filters(trained)
    kernel = np.asarray(trained.variables["params"]["Stage_0"]["kernel"])
    assert filters.shape == (32, 3, 3)
    np.testing.assert_array_equal(filters[5], kernel[:, :, 0, 5])


@pytest.mark.parametrize(("name", "count"), [("softmax", 10), ("mlp-50-50", 50)])
def test_filters_of_a_dense_layer_are_images(name, count):
    trained = network(name)
    filters = first_layer_filters(trained)
    matrix = np.asarray(trained.variables["params"]["Dense_0"]["kernel"])
    assert filters.shape == (count, 28, 28)
    np.testing.assert_array_equal(filters[3].reshape(-1), matrix[:, 3])


def test_a_filter_answers_as_the_layer_does():
    """The logit of softmax regression is the sum of image times filter, and a bias."""
    trained = network("softmax")
    pixels = IMAGES[..., 0] / 255
    bias = np.asarray(trained.variables["params"]["Dense_0"]["bias"])
    expected = np.einsum("nhw,khw->nk", pixels, first_layer_filters(trained)) + bias
    np.testing.assert_allclose(mnistjax.predict_logits(trained, IMAGES), expected, atol=1e-4)


def test_filters_of_color_images_are_averaged_over_the_channels():
    trained = draw_network(mnistjax.create_model("cnn"), image_shape=(14, 14, 3))
    filters = first_layer_filters(trained)
    kernel = trained.variables["params"]["Stage_0"]["kernel"]
    np.testing.assert_allclose(filters, kernel.mean(2).transpose(2, 0, 1), atol=1e-7)


def test_a_network_without_such_weights_is_an_error():
    info = dataclasses.replace(DIGITS.info, image_shape=(14, 14, 1))
    with pytest.raises(ConfigError, match=r"\(14, 14, 1\) in model 'mlp'.*\(784, 100\)"):
        first_layer_filters(dataclasses.replace(network("mlp"), info=info))


@pytest.mark.parametrize("name", ["mlp", pytest.param("cnn", marks=pytest.mark.full), "tiny"])
def test_saliency_predicts_what_a_small_change_does_to_the_logit(name):
    trained = network(name)
    classes = np.arange(12) % 10
    # Noise: on an even background pooling has ties, where no derivative exists.
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0.1, 0.9, IMAGES.shape).astype(np.float32)
    direction = rng.normal(size=IMAGES.shape).astype(np.float32)
    found = saliency(trained, pixels, classes, batch_size=5)
    assert found.shape == (12, 28, 28)
    assert found.dtype == np.float32
    step = 1e-4
    above, below = (
        mnistjax.predict_logits(trained, pixels + sign * step * direction)[np.arange(12), classes]
        for sign in (1, -1)
    )
    expected = (found * direction[..., 0]).sum((1, 2))
    # What is left is float32, and the few ReLUs that have their kink within the step.
    errors = np.abs((above - below) / (2 * step) - expected)
    assert np.median(errors) < 0.02
    assert errors.max() < 0.1
    assert np.median(np.abs(expected)) > 0.1


def test_saliency_of_softmax_regression_is_the_filter_of_the_class():
    classes = np.arange(12) % 10
    found = saliency(network("softmax"), IMAGES, classes)
    filters = first_layer_filters(network("softmax"))
    np.testing.assert_allclose(found, filters[classes], atol=1e-6)


def test_saliency_of_no_image_is_empty():
    assert saliency(network("mlp"), IMAGES[:0], np.zeros(0, int)).shape == (0, 28, 28)


@pytest.mark.parametrize("name", ["softmax", "mlp-50-50", "cnn-dropout", "tiny"])
def test_the_last_layer_makes_the_logits_of_the_features(name):
    trained = network(name)
    features = hidden_features(trained, IMAGES, batch_size=5)
    params = trained.variables["params"]
    last = params[max(layer for layer in params if layer.startswith("Dense"))]
    assert features.shape == (12, last["kernel"].shape[0])
    assert features.dtype == np.float32
    expected = features @ np.asarray(last["kernel"]) + np.asarray(last["bias"])
    np.testing.assert_allclose(mnistjax.predict_logits(trained, IMAGES), expected, atol=1e-4)


def test_a_model_may_keep_its_features_to_itself():
    trained = network("mlp")
    model = mnistjax.Model(trained.model.init, trained.model.apply)
    assert model.features is None
    bare = dataclasses.replace(trained, model=model)
    with pytest.raises(ConfigError, match="expected a model with a function `features`"):
        hidden_features(bare, IMAGES)
    logits = (mnistjax.predict_logits(network, IMAGES) for network in (bare, trained))
    np.testing.assert_array_equal(*logits)


def test_a_module_without_a_dense_layer_has_no_features():
    trained = draw_network(mnistjax.from_linen(Pooled()))
    with pytest.raises(ValueError, match=r"expected a module with an nn\.Dense, found Pooled"):
        hidden_features(trained, IMAGES)


def blobs(count=30, columns=60):
    """Two groups of points that lie far apart in one direction."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2 * count, columns))
    features[count:, 3] += 50
    return features.astype(np.float32)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_a_projection_keeps_groups_apart_and_the_seed_decides(method):
    points = project_2d(blobs(), method=method, seed=1)
    assert points.shape == (60, 2)
    first, second = points[:30], points[30:]
    gap = np.linalg.norm(first.mean(0) - second.mean(0))
    assert gap > 2 * max(first.std(0).max(), second.std(0).max())
    np.testing.assert_array_equal(points, project_2d(blobs(), method=method, seed=1))


def test_pca_keeps_as_much_variance_as_two_directions_can():
    points = project_2d(blobs())
    centered = blobs() - blobs().mean(0)
    largest = np.linalg.svd(centered, compute_uv=False)[:2] ** 2
    np.testing.assert_allclose((points**2).sum(0), largest, rtol=1e-3)
    assert abs((points[:, 0] * points[:, 1]).sum()) < 1e-2 * largest[1]


@pytest.mark.parametrize(("method", "min_rows"), [("pca", 2), ("tsne", 4)])
def test_few_rows_are_laid_out_and_fewer_are_an_error(method, min_rows):
    features = blobs()[:: 60 // min_rows][:min_rows]
    assert project_2d(features, method=method).shape == (min_rows, 2)
    with pytest.raises(ConfigError, match=f"at least {min_rows} images and 2 columns"):
        project_2d(features[1:], method=method)
    with pytest.raises(ConfigError, match=r"found \[60, 1\]"):
        project_2d(blobs()[:, :1], method=method)


def test_an_unknown_projection_is_an_error():
    with pytest.raises(UnknownNameError, match="unknown projection 'umap'"):
        project_2d(blobs(), method="umap")


# The other thread loads and unloads a library while it holds Python's lock, as each import of an
# extension does. threadpoolctl before 3.7 lists libraries under the loader's lock, in Python code:
# both threads then waited for each other, and the report of a run was never finished.
PROJECTING_WHILE_LIBRARIES_ARE_LOADED = """
import _ctypes, concurrent.futures, shutil, sys
import numpy as np
from mnistjax.evaluation import project_2d

library = shutil.copy(_ctypes.__file__, sys.argv[1])
features = np.random.default_rng(0).normal(size=(4, 2))
project_2d(features, method="tsne")
with concurrent.futures.ThreadPoolExecutor(1) as pool:
    for _ in range(10):
        projected = pool.submit(project_2d, features, method="tsne")
        while not projected.done():
            _ctypes.dlclose(_ctypes.dlopen(library, 0))
print(projected.result().shape)
"""


def test_tsne_runs_while_another_thread_imports(tmp_path):
    command = [sys.executable, "-c", PROJECTING_WHILE_LIBRARIES_ARE_LOADED, tmp_path / "copy.so"]
    ended = subprocess.run(command, timeout=100, check=True, capture_output=True, text=True)
    assert ended.stdout == "(4, 2)\n"
