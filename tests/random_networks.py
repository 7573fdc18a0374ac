"""Networks with random variables, for tests of what computes the same in another way."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

import mnistjax
from mnistjax.models import MODELS

# The name of a network, its image shape and what else is changed: all models, and what they leave
# out (colors, odd sizes, strides, kernels of even size, uneven padding, three classes).
CASES = [
    *((name, {}) for name in MODELS),
    ("tiny", {"image_shape": (11, 13, 3), "num_classes": 3}),
    ("speed", {"image_shape": (20, 28, 1)}),
    ("cnn", {"padding": "SAME", "first_stride": 2, "kernel_sizes": (4, 2), "pools": (1, 3)}),
]


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
    classes = overrides.get("num_classes", 10)
    info = mnistjax.DatasetInfo("random", classes, image_shape=image_shape)
    config = mnistjax.TrainConfig(model=name)
    return mnistjax.TrainedModel(model, variables, info, config)


def draw_images(network, count=7, seed=1):
    """Images of uint8 that the network takes."""
    shape = (count, *network.info.image_shape)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def as_output(logits, output):
    """What a file gives that was written for logits or for probabilities."""
    return np.asarray(jax.nn.softmax(logits)) if output == "probabilities" else logits


def own_network(run):
    """A network of plain JAX, whose logits are `run(weights, images)`."""

    def apply(variables, images, *, train=False, key=None, mask=None, axis_name=None):
        return run(variables["params"], images), {}

    network = make_network("softmax")
    weights = network.variables["params"]["Dense_0"]["kernel"]
    return dataclasses.replace(
        network,
        model=mnistjax.Model(None, apply, name="linear"),
        variables={"params": weights, "batch_stats": {}},
    )
