"""Counting the FLOPs of a network, and measuring the peak FLOP/s of a device.

The multiplications and additions of convolutions and dense layers are counted as these are defined,
2 per multiply-add. A lowering that needs fewer (Winograd's) shows as more FLOP/s, and may exceed
the peak. Biases, activations, pooling, normalization, dropout, augmentation, loss and optimizer are
overhead and are not counted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

import mnistjax


def layer_flops(model: mnistjax.Model, image_shape: Sequence[int]) -> list[int]:
    """Counts the FLOPs of one image in the forward pass, from the traced network.

    Multiplications with padding are counted, because every implementation does them.

    Args:
        model: the network.
        image_shape: height, width, channels.

    Returns:
        The FLOPs of each convolution and dense layer, in order.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    traced = jax.make_jaxpr(lambda variables, images: model.apply(variables, images)[0])
    return _products(traced(variables, images).jaxpr)


def training_flops(layers: Sequence[int]) -> int:
    """Returns the FLOPs of one image forward and backward.

    The backward pass takes twice the FLOPs of the forward pass (gradients with respect to kernel
    and input), except in the first layer, whose input needs no gradient. Recomputation to save
    memory is not counted.

    Args:
        layers: what `layer_flops` returned.
    """
    return 3 * sum(layers) - layers[0]


def _products(jaxpr: Any) -> list[int]:
    """Returns the FLOPs of every convolution and matrix product of a traced function."""
    found: list[int] = []
    for equation in jaxpr.eqns:
        match equation.primitive.name:
            case "dot_general":
                found.append(_dot_flops(equation))
            case "conv_general_dilated":
                found.append(_conv_flops(equation))
            case "cond":
                # The branches lower the same operation. The one with fewest products is its plain
                # form; others (Winograd's) need fewer FLOPs, but the network stays the same.
                branches = [_products(branch.jaxpr) for branch in equation.params["branches"]]
                plainest = min(branches, key=len)
                found += plainest
            case "scan":
                length = equation.params["length"]
                found += [length * count for count in _nested(equation)]
            case "while":
                if _nested(equation):
                    raise ValueError("cannot count a product in a loop of unknown length")
            case _:
                found += _nested(equation)
    return found


def _nested(equation: Any) -> list[int]:
    return [count for jaxpr in _jaxprs(equation) for count in _products(jaxpr)]


def _jaxprs(equation: Any) -> Iterator[Any]:
    for value in equation.params.values():
        if hasattr(value, "eqns"):
            yield value
        elif hasattr(value, "jaxpr"):
            yield value.jaxpr


def _dot_flops(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    depth = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    return 2 * math.prod(equation.outvars[0].aval.shape) * depth


def _conv_flops(equation: Any) -> int:
    kernel = equation.invars[1].aval.shape
    outputs = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    return 2 * math.prod(equation.outvars[0].aval.shape) * (math.prod(kernel) // outputs)


def matmul_peak(
    dtype: jnp.dtype, *, sizes: Sequence[int] | None = None, seconds: float = 0.5
) -> float:
    """Measures the peak FLOP/s of the default device in square matrix products.

    Args:
        dtype: dtype of the matrices.
        sizes: sides of the matrices; chosen for the platform if None.
        seconds: how long each size is measured.

    Returns:
        The highest rate over all sizes, in FLOP/s.
    """
    if sizes is None:
        cpu = jax.devices()[0].platform == "cpu"
        sizes = (512, 1024, 2048) if cpu else (2048, 4096, 8192)
    return max(_matmul_rate(size, dtype, seconds) for size in sizes)


def _matmul_rate(size: int, dtype: jnp.dtype, seconds: float, repeats: int = 10) -> float:
    keys = jax.random.split(jax.random.key(0))
    a, b = (jax.random.normal(key, (size, size), dtype) for key in keys)
    multiply = jax.jit(jnp.matmul).lower(a, b).compile()
    multiply(a, b).block_until_ready()
    best, end = math.inf, time.perf_counter() + seconds
    while best == math.inf or time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(repeats):
            product = multiply(a, b)
        product.block_until_ready()
        best = min(best, (time.perf_counter() - start) / repeats)
    return 2 * size**3 / best
