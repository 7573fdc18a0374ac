"""The networks by name: every one that the recipes use, and a tiny one for tests."""

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
        CNN, features=(24, 32), kernel_sizes=(5, 3), dense=(256,), dropouts=(0.0, 0.0)
    ),
    "tiny": functools.partial(CNN, features=(4, 8), batch_norm=True, dropouts=(0.0,)),
}


def create_model(name: str, **overrides: Any) -> Model:
    """Makes a network by name.

    Args:
        name: a key of `MODELS`.
        **overrides: attributes of its module (`CNN` or `MLP`), for example `num_classes=26`.

    Returns:
        The network as a pair of pure functions.

    Raises:
        UnknownNameError: no network has this name.
        ConfigError: its module has no such attribute.
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
    return from_linen(build(**overrides), name=name)
