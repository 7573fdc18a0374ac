"""Recipes: named settings with a target accuracy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from mnistjax.errors import UnknownNameError
from mnistjax.runs.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A configuration and its target accuracy on MNIST.

    Attributes:
        config: the settings.
        target: the published accuracy, in percent; for `speed`, `minute` and
            `accuracy`, this project's own goal.
        measured_on: the split on which the target is measured, "validation" or "test".
        summary: one line about the network and its training.
    """

    config: TrainConfig
    target: float
    measured_on: str
    summary: str


def _recipe(name: str, summary: str, target: float, measured_on: str, **settings: object) -> Recipe:
    config = TrainConfig().replace(recipe=name, model=name, **settings)
    return Recipe(config, target, measured_on, summary)


_ALL = (
    _recipe(
        "softmax",
        "Dense 10: softmax (logistic) regression",
        92.57,
        "test",
        epochs=20,
        validation_fraction=0.0,
    ),
    _recipe(
        "mlp",
        "Dense 100 ReLU, Dense 10; SGD with momentum",
        97.0,
        "validation",
        optimizer="momentum",
        learning_rate=0.01,
        epochs=15,
        batch_size=64,
    ),
    _recipe(
        "mlp-50-50",
        "Dense 50 ReLU twice, Dense 10; Adam",
        97.2,
        "test",
        epochs=10,
        batch_size=32,
        validation_fraction=0.0,
    ),
    _recipe(
        "cnn",
        "Conv 32 and Conv 64, 3x3, each with ReLU and max pooling, Dropout 0.3, Dense 10; Adam",
        98.9,
        "validation",
        epochs=10,
        batch_size=32,
        validation_fraction=0.3,
    ),
    _recipe(
        "cnn-dropout",
        "Conv 8 5x5 and Conv 16 3x3 with dropout after each stage, Dense 256, Dense 10; Adam",
        98.9,
        "validation",
        epochs=10,
        batch_size=64,
    ),
    _recipe(
        "cnn-bn",
        "Conv 32, 64, 128, 3x3, with batch normalization, Dense 128 and 64 with dropout; Adam",
        99.27,
        "test",
        epochs=10,
        schedule="cosine",
        shift=2,
        rotate=10.0,
        scale=0.1,
    ),
    _recipe(
        "speed",
        "24x24 pixels, Conv 16 6x6 with stride 2, Conv 48 3x3, max pooling, Dense 128, Dense 10; "
        "one-cycle Adam, label smoothing",
        99.0,
        "test",
        # Less than an epoch; chosen, like the rest, on held-out training images.
        epochs=0.93,
        learning_rate=1e-2,
        b1=0.7,
        b2=0.9,
        schedule="one-cycle",
        label_smoothing=0.1,
        validation_fraction=0.0,
    ),
    _recipe(
        "minute",
        "24x24 pixels, Conv 32 6x6 with stride 2, Conv 64, max pooling, Conv 128, with batch "
        "normalization, Dropout 0.3, Dense 10; one-cycle Adam, average of the weights",
        99.55,
        "test",
        # About a minute on two CPU cores; chosen on held-out training images.
        epochs=9,
        learning_rate=6e-3,
        schedule="one-cycle",
        label_smoothing=0.1,
        ema_decay=0.995,
        shift=1,
        rotate=7.0,
        scale=0.07,
        cutout=4,
        validation_fraction=0.0,
    ),
    _recipe(
        "accuracy",
        "24x24 pixels, Conv 32 6x6 with stride 2, Conv 64 twice, max pooling, Conv 128 twice, with "
        "batch normalization, Dropout 0.3, Dense 10; one-cycle Adam, average of the weights",
        99.7,
        "test",
        # Chosen on held-out training images; see benchmarks/README.md.
        epochs=20,
        learning_rate=1e-2,
        schedule="one-cycle",
        label_smoothing=0.1,
        ema_decay=0.999,
        shift=1,
        rotate=7.0,
        scale=0.07,
        cutout=4,
        validation_fraction=0.0,
    ),
)

RECIPES: Mapping[str, Recipe] = MappingProxyType({r.config.recipe: r for r in _ALL})


def get_recipe(name: str) -> TrainConfig:
    """Returns the settings of a recipe; change some with `.replace(...)`.

    Args:
        name: a key of `RECIPES`.

    Raises:
        UnknownNameError: no recipe has this name.

    >>> get_recipe("mlp").replace(epochs=2).batch_size
    64
    """
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, RECIPES)
    return RECIPES[name].config
