"""A trained network as a list of plain layers, for programs that have no JAX."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from mnistjax.errors import ConfigError
from mnistjax.models import CNN, MLP, BatchNorm
from mnistjax.runs import TrainedModel

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """One step from the pixels to the logits.

    Attributes:
        name: the name of the module that the step belongs to, as in the variables.
        shape: the shape of the result for one image: (H, W, C) or (F,).
    """

    name: str
    shape: Shape


@dataclasses.dataclass(frozen=True, eq=False)
class Crop(Layer):
    """Cuts out `shape` from the row `top` and the column `left` on."""

    top: int
    left: int


@dataclasses.dataclass(frozen=True, eq=False)
class Conv(Layer):
    """Pads with zeros, convolves (without flipping the kernel), and adds the bias.

    Attributes:
        kernel: float32 [KH, KW, C, O]; batch normalization is multiplied into it.
        bias: float32 [O].
        stride: distance of two windows, in pixels, for rows and columns.
        padding: zeros before and after, the same for rows and columns, in pixels.
    """

    kernel: np.ndarray
    bias: np.ndarray
    stride: int
    padding: tuple[int, int]


@dataclasses.dataclass(frozen=True, eq=False)
class MaxPool(Layer):
    """Takes the maximum of each window of `size` by `size` pixels; the windows do not overlap.

    Rows and columns that do not fill a window are left out.
    """

    size: int


@dataclasses.dataclass(frozen=True, eq=False)
class Relu(Layer):
    """Replaces negative numbers by zero."""


@dataclasses.dataclass(frozen=True, eq=False)
class Flatten(Layer):
    """Puts the numbers of an image in a row: by row, then by column, then by channel."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dense(Layer):
    """Multiplies by the kernel, float32 [F, O], and adds the bias, float32 [O]."""

    kernel: np.ndarray
    bias: np.ndarray


def sequential_layers(trained: TrainedModel) -> list[Layer]:
    """Returns the layers that compute the logits of a network, in the order of evaluation.

    The input of the first layer is one image, float [H, W, C] with pixels in [0, 1]; the result of
    the last one are the logits. Dropout does nothing here, and batch normalization by its running
    statistics is part of the convolution before it. All arithmetic is meant to be in float32, so
    the logits are those of the network up to rounding; that of one with `dtype` bfloat16 is coarse.

    Args:
        trained: the network.

    Returns:
        The layers.

    Raises:
        ConfigError: the network is neither an `MLP` nor a `CNN`, so its layers are not known.

    >>> import jax, mnistjax
    >>> model, info = mnistjax.create_model("mlp"), mnistjax.DatasetInfo("my digits", 10)
    >>> variables = model.init(jax.random.key(0), jax.numpy.zeros((1, 28, 28, 1)))
    >>> layers = sequential_layers(mnistjax.TrainedModel(model, variables, info))
    >>> [type(layer).__name__ for layer in layers]
    ['Flatten', 'Dense', 'Relu', 'Dense']
    >>> layers[-1].name, layers[-1].shape
    ('Dense_1', (10,))
    """
    module = trained.model.module
    # A subclass may compute something else.
    if type(module) is MLP:
        build = _dense_layers(trained, len(module.features), trained.info.image_shape)
    elif type(module) is CNN:
        build = _convolutional_layers(trained, module)
    else:
        raise ConfigError(
            f"expected a network whose layers are known, an MLP or a CNN, found "
            f"{trained.model.name!r}"
        )
    return list(build)


def _convolutional_layers(trained: TrainedModel, module: CNN) -> Iterator[Layer]:
    height, width, channels = trained.info.image_shape
    if module.crop_to is not None:
        rows, cols = min(height, module.crop_to), min(width, module.crop_to)
        yield Crop("crop", (rows, cols, channels), (height - rows) // 2, (width - cols) // 2)
        height, width = rows, cols
    for index, pool in enumerate(module.pools):
        name = f"Stage_{index}"
        kernel, bias = _fold_norm(trained, name)
        size = len(kernel)
        # As in `ops.conv`: of two unequal sides, the larger lies below and to the right.
        padding = ((size - 1) // 2, size // 2) if module.padding == "SAME" else (0, 0)
        stride = module.first_stride if index == 0 else 1
        height, width = ((n + sum(padding) - size) // stride + 1 for n in (height, width))
        channels = kernel.shape[-1]
        yield Conv(name, (height, width, channels), kernel, bias, stride, padding)
        if pool > 1:
            height, width = height // pool, width // pool
            yield MaxPool(name, (height, width, channels), pool)
        yield Relu(name, (height, width, channels))
    yield from _dense_layers(trained, len(module.dense), (height, width, channels))


def _dense_layers(trained: TrainedModel, hidden: int, shape: Shape) -> Iterator[Layer]:
    yield Flatten("flatten", (int(np.prod(shape)),))
    for index in range(hidden + 1):
        name = f"Dense_{index}"
        kernel, bias = _read(trained, name, "kernel"), _read(trained, name, "bias")
        yield Dense(name, bias.shape, kernel, bias)
        if index < hidden:
            yield Relu(name, bias.shape)


def _fold_norm(trained: TrainedModel, stage: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernel and bias of a stage, multiplied by its batch normalization if it has one."""
    kernel, bias = _read(trained, stage, "kernel"), _read(trained, stage, "bias")
    params = trained.variables["params"][stage]
    if "norm" not in params:
        return kernel, bias
    statistics = trained.variables["batch_stats"][stage]["norm"]
    norm = {name: np.float64(array) for name, array in {**params["norm"], **statistics}.items()}
    gain = norm["scale"] / np.sqrt(norm["var"] + BatchNorm.epsilon)
    folded = norm["bias"] + gain * (bias - norm["mean"])
    return (kernel * gain).astype(np.float32), folded.astype(np.float32)


def _read(trained: TrainedModel, module: str, name: str) -> np.ndarray:
    return np.asarray(trained.variables["params"][module][name], np.float32)
