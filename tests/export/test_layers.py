"""The plain layers of a network compute its logits."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

import mnistjax
from mnistjax import export
from mnistjax.errors import ConfigError
from mnistjax.models import MODELS

DIGITS = mnistjax.load_dataset("digits")


def make_network(name, seed=0, image_shape=(28, 28, 1), **overrides):
    """A network whose variables are all random: running statistics and biases, too."""
    model = mnistjax.create_model(name, **overrides)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, *image_shape), np.float32))
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            return rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape).astype(np.float32)
        low = 0.5 if path[-1].key == "var" else -0.5
        return rng.uniform(low, 1.5, leaf.shape).astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    info = dataclasses.replace(DIGITS.info, image_shape=image_shape)
    return mnistjax.TrainedModel(model, variables, info)


def run_in_numpy(layers, images):
    """What the docstrings of the layers say, in NumPy."""
    x = images
    for layer in layers:
        if isinstance(layer, export.Crop):
            height, width, _ = layer.shape
            x = x[:, layer.top : layer.top + height, layer.left : layer.left + width]
        elif isinstance(layer, export.Conv):
            pad, size, step = layer.padding, len(layer.kernel), layer.stride
            x = np.pad(x, ((0, 0), pad, pad, (0, 0)))
            windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
            kernel = layer.kernel.transpose(2, 0, 1, 3)
            x = np.tensordot(windows[:, ::step, ::step], kernel, 3) + layer.bias
        elif isinstance(layer, export.MaxPool):
            size, (height, width, channels) = layer.size, layer.shape
            x = x[:, : height * size, : width * size]
            x = x.reshape(len(x), height, size, width, size, channels).max((2, 4))
        elif isinstance(layer, export.Relu):
            x = np.maximum(x, 0)
        elif isinstance(layer, export.Flatten):
            x = x.reshape(len(x), -1)
        else:
            assert isinstance(layer, export.Dense)
            x = x @ layer.kernel + layer.bias
        assert x.shape[1:] == layer.shape
    return x


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        *((name, {}) for name in MODELS),
        ("tiny", {"image_shape": (11, 9, 3), "num_classes": 3}),
        ("speed", {"image_shape": (20, 28, 1)}),
        ("cnn", {"padding": "SAME", "first_stride": 2, "kernel_sizes": (4, 2), "pools": (1, 3)}),
    ],
)
def test_layers_compute_the_logits_of_the_network(name, overrides):
    network = make_network(name, **overrides)
    images = np.random.default_rng(1).uniform(size=(5, *network.info.image_shape))
    expected = mnistjax.predict_logits(network, images.astype(np.float32))
    found = run_in_numpy(export.sequential_layers(network), images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_other_networks_have_no_known_layers():
    class Doubled(mnistjax.models.MLP):
        """Computes something else."""

    network = make_network("softmax")
    own = dataclasses.replace(network, model=dataclasses.replace(network.model, module=None))
    sub = dataclasses.replace(network, model=mnistjax.from_linen(Doubled(features=())))
    vote = mnistjax.runs.ensemble([network, network])
    for other, name in [(own, "softmax"), (sub, "Doubled"), (vote, "ensemble of 2")]:
        with pytest.raises(ConfigError, match=f"an MLP or a CNN, found '{name}'"):
            export.sequential_layers(other)
