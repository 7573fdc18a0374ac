"""Networks by name: those of the recipes, and a tiny one for tests."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from mnistjax.errors import ConfigError, UnknownNameError
from mnistjax.models.cnn import CNN
from mnistjax.models.dense import MLP
from mnistjax.models.model import Model, from_linen

MODELS: Mapping[str, Callable[..., nn.Module]] = {
    "softmax": functools.partial(MLP, features=()),
    "mlp": MLP,
    "mlp-50-50": functools.partial(MLP, features=(50, 50)),
    "cnn": CNN,
    "cnn-dropout": functools.partial(
        CNN,
        features=(8, 16),
        kernel_sizes=(5, 3),
        padding="SAME",
        stage_dropout=0.25,
        dense=(256,),
        dropouts=(0.0, 0.5),
    ),
    "cnn-bn": functools.partial(
        CNN,
        features=(32, 64, 128),
        kernel_sizes=(3, 3, 3),
        pools=(2, 2, 1),
        padding="SAME",
        batch_norm=True,
        dense=(128, 64),
        dropouts=(0.0, 0.5, 0.3),
    ),
    "speed": functools.partial(
        CNN,
        crop_to=24,
        features=(16, 48),
        kernel_sizes=(6, 3),
        first_stride=2,
        pools=(1, 2),
        dense=(128,),
        dropouts=(0.0, 0.0),
    ),
    "minute": functools.partial(
        CNN,
        crop_to=24,
        features=(32, 64, 128),
        kernel_sizes=(6, 3, 3),
        first_stride=2,
        pools=(1, 2, 1),
        padding="SAME",
        batch_norm=True,
        dropouts=(0.3,),
    ),
    "accuracy": functools.partial(
        CNN,
        crop_to=24,
        features=(32, 64, 64, 128, 128),
        kernel_sizes=(6, 3, 3, 3, 3),
        first_stride=2,
        pools=(1, 1, 2, 1, 1),
        padding="SAME",
        batch_norm=True,
        dropouts=(0.3,),
    ),
    "tiny": functools.partial(CNN, features=(4, 8), batch_norm=True, dropouts=(0.0,)),
}


def create_model(name: str, **overrides: Any) -> Model:
    """Makes a network by name.

    Equal calls return the same object, so that compiled programs are reused. Overrides that cannot
    be hashed make a new object every time.

    Args:
        name: a key of `MODELS`.
        **overrides: attributes of its module (`CNN` or `MLP`), for example `num_classes=26`.

    Returns:
        The network as a pair of pure functions.

    Raises:
        UnknownNameError: no network has this name.
        ConfigError: an override is not an attribute of the module, or their lengths do not match.

    Example:
        >>> import jax, mnistjax
        >>> model = mnistjax.create_model("mlp", features=[16], num_classes=3)
        >>> variables = model.init(jax.random.key(0), jax.numpy.zeros((1, 4, 4, 1)))
        >>> mnistjax.count_parameters(variables)
        323
        >>> mnistjax.create_model("mlp", num_classes=3, features=(16,)) is model
        True
    """
    if name not in MODELS:
        raise UnknownNameError("model", name, MODELS)
    build = MODELS[name]
    module_class: Any = build.func if isinstance(build, functools.partial) else build
    known = {field.name for field in dataclasses.fields(module_class)} - {"parent", "name"}
    for key in overrides:
        if key not in known:
            raise ConfigError(
                f"model {name!r} has no attribute {key!r}: it has {', '.join(sorted(known))}"
            )
    settings = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in sorted(overrides.items())
    }
    try:
        hash(tuple(settings.values()))
    except TypeError:
        return _make.__wrapped__(name, build, **settings)
    return _make(name, build, **settings)


# Typed, so that 1, 1.0 and True are different settings.
@functools.lru_cache(maxsize=256, typed=True)
def _make(name: str, build: Callable[..., nn.Module], /, **settings: Any) -> Model:
    return from_linen(build(**settings), name=name)
