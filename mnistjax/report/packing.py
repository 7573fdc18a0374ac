"""Packing a network into a page: plain layers whose weights are base64 of rounded numbers."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from mnistjax.errors import ConfigError, UnknownNameError
from mnistjax.export import Conv, Crop, Dense, Layer, MaxPool, sequential_layers
from mnistjax.models import count_parameters, from_linen
from mnistjax.runs import TrainedModel

Dtype = Literal["float32", "float16", "int8"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)

MAX_CLASSES = 64  # EMNIST has up to 62; more would not fit a page.
MAX_SIDE = 256  # In pixels; larger images take JavaScript seconds.
# The most parameters for which each dtype is chosen, so that weights take at most 240 kB in base64
# as float32 and 700 kB as float16.
_MAX_FLOAT32, _MAX_FLOAT16 = 45_000, 262_144


def drawable_layers(trained: TrainedModel) -> list[Layer]:
    """Returns the layers of a network that a page to draw on can run.

    Args:
        trained: the network.

    Returns:
        Its layers, as `mnistjax.export.sequential_layers` returns them.

    Raises:
        ConfigError: the layers of the network are not known, or it is not for grayscale images of
            at most `MAX_SIDE` pixels a side and at most `MAX_CLASSES` classes.
    """
    height, width, channels = trained.info.image_shape
    if channels != 1 or max(height, width) > MAX_SIDE:
        raise ConfigError(
            f"expected a network for grayscale images of at most {MAX_SIDE} pixels a side to draw "
            f"for, found images of shape {tuple(trained.info.image_shape)}"
        )
    if trained.info.num_classes > MAX_CLASSES:
        raise ConfigError(
            f"expected a network of at most {MAX_CLASSES} classes to draw for, found "
            f"{trained.info.num_classes:,}"
        )
    return sequential_layers(trained)


def choose_dtype(trained: TrainedModel) -> Dtype:
    """Returns the most exact dtype of weights with which the page to draw on stays small.

    Args:
        trained: the network.

    Returns:
        "float32" for up to 45,000 parameters (240 kB), "float16" for up to 262,144 (700 kB), else
        "int8".
    """
    count = count_parameters(trained.variables)
    if count <= _MAX_FLOAT32:
        return "float32"
    return "float16" if count <= _MAX_FLOAT16 else "int8"


def round_weights(trained: TrainedModel, dtype: Dtype) -> TrainedModel:
    """Returns the network that a page computes: its weights are rounded, norms are folded in.

    Args:
        trained: the network; its layers are known.
        dtype: the dtype to which kernels are rounded; biases stay float32. With "int8" each output
            channel has a scale, the largest absolute weight divided by 127.

    Returns:
        The network with weights float32 that the dtype can represent, without the record of a run.

    Raises:
        UnknownNameError: no such dtype.
        ConfigError: a weight is too large for float16, or not finite, or the layers of the network
            are not known.
    """
    params = {
        layer.name: {"kernel": _rounded(layer.kernel, dtype), "bias": layer.bias}
        for layer in sequential_layers(trained)
        if isinstance(layer, Conv | Dense)
    }
    module = trained.model.module
    assert module is not None  # Its layers are known.
    changes: dict[str, Any] = {"dtype": np.float32}
    if hasattr(module, "batch_norm"):
        changes["batch_norm"] = False
    model = from_linen(module.clone(**changes), name=trained.model.name)
    variables = {"params": params, "batch_stats": {}}
    return dataclasses.replace(trained, model=model, variables=variables, result=None, history=())


def pack_network(trained: TrainedModel, layers: Sequence[Layer], dtype: Dtype) -> dict[str, Any]:
    """Returns what `network.js` unpacks, to be written as JSON.

    Args:
        trained: the network.
        layers: its layers.
        dtype: the dtype of the kernels, as for `round_weights`.

    Returns:
        The shape of the images and the layers; weights are base64 of little-endian numbers.

    Raises:
        UnknownNameError: no such dtype.
        ConfigError: a weight is too large for float16, or not finite.
    """
    shape = [int(size) for size in trained.info.image_shape]
    return {"shape": shape, "layers": [_describe(layer, dtype) for layer in layers]}


def _describe(layer: Layer, dtype: Dtype) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "kind": type(layer).__name__.lower(),
        "name": layer.name,
        "shape": [int(size) for size in layer.shape],
    }
    if isinstance(layer, Crop):
        facts |= {"top": layer.top, "left": layer.left}
    elif isinstance(layer, MaxPool):
        facts |= {"size": layer.size}
    elif isinstance(layer, Conv | Dense):
        facts |= {"kernel": _pack(layer.kernel, dtype), "bias": _pack(layer.bias, "float32")}
    if isinstance(layer, Conv):
        sides = {"size": len(layer.kernel), "stride": layer.stride}
        facts |= {**sides, "padding": list(layer.padding)}
    return facts


def _pack(weights: np.ndarray, dtype: Dtype) -> dict[str, str]:
    if dtype == "int8":
        levels, scale = _quantize(weights)
        return {"dtype": dtype, "data": _base64(levels, "<i1"), "scale": _base64(scale, "<f4")}
    rounded = _rounded(weights, dtype)
    return {"dtype": dtype, "data": _base64(rounded, "<f2" if dtype == "float16" else "<f4")}


def _base64(numbers: np.ndarray, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(numbers, dtype).tobytes()).decode("ascii")


def _rounded(weights: np.ndarray, dtype: Dtype) -> np.ndarray:
    """Returns weights float32 as they are after packing and unpacking."""
    if dtype == "int8":
        levels, scale = _quantize(weights)
        return levels.astype(np.float32) * scale
    _check(weights, dtype)
    return weights.astype(dtype).astype(np.float32)


def _check(weights: np.ndarray, dtype: Dtype) -> None:
    if dtype not in DTYPES:
        raise UnknownNameError("dtype", dtype, DTYPES)
    largest = float(np.abs(weights).max(initial=0))
    limit = float(np.finfo(np.float16 if dtype == "float16" else np.float32).max)
    if not largest <= limit:
        raise ConfigError(f"expected weights that {dtype} can hold, found one of {largest:g}")


def _quantize(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns int8 levels, and float32 [O], the scale of each output channel."""
    _check(weights, "int8")
    largest = np.abs(weights).reshape(-1, weights.shape[-1]).max(axis=0)
    # A channel of zeros, or of numbers too small to divide by, is zero.
    scale = np.maximum(largest / np.float32(127), np.finfo(np.float32).tiny)
    return np.round(weights / scale).astype(np.int8), scale
