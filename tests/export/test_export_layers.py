"""The plain layers of a network compute its logits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from random_networks import CASES, make_network

import mnistjax
from mnistjax import export
from mnistjax.errors import ConfigError


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


@pytest.mark.parametrize(("name", "overrides"), CASES)
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
