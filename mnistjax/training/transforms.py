"""Adapts steps to the transform that they run under: mapped axes and explicit meshes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mnistjax.models import PyTree

Result = TypeVar("Result")


def varying_axes(array: jax.Array) -> frozenset[str]:
    """Returns the axes of `shard_map` along which JAX knows that an array differs.

    It is empty where JAX does not keep track: under `vmap`, and under `shard_map` with
    `check_vma=False`.
    """
    aval: Any = jax.typeof(array)
    if hasattr(aval, "manual_axis_type"):  # jax 0.10 and newer
        return frozenset(aval.manual_axis_type.varying)
    return frozenset(getattr(aval, "vma", ()))


def sum_gradients(grads: PyTree, *, of: jax.Array, axis_name: str) -> PyTree:
    """Sums gradients of replicated parameters over a mapped axis, unless JAX has already done so.

    Where JAX tracks which values differ between devices, the gradient of a replicated parameter
    with respect to a loss that differs is the sum over the devices: the transpose of replication.
    A second sum would multiply it by the number of devices.

    Args:
        grads: gradients of the loss of this device's share of the batch.
        of: an array of that share.
        axis_name: the mapped axis.

    Returns:
        The gradients of the sum of all devices' losses.
    """
    tracked = axis_name in varying_axes(of)

    def total(grad: jax.Array) -> jax.Array:
        if tracked and axis_name not in varying_axes(grad):
            return grad
        return jax.lax.psum(grad, axis_name)

    return jax.tree.map(total, grads)


def vary_like(tree: PyTree, array: jax.Array) -> PyTree:
    """Marks replicated arrays as different on each device, where JAX tracks that `array` is.

    The gradient with respect to an array that is marked so is that of the device's share alone.
    """

    def mark(leaf: jax.Array) -> jax.Array:
        axes = tuple(varying_axes(array) - varying_axes(leaf))
        if not axes:
            return leaf
        lax: Any = jax.lax
        if hasattr(lax, "pcast"):
            return lax.pcast(leaf, axes, to="varying")
        return lax.pvary(leaf, axes)  # Its name before jax 0.8.

    return jax.tree.map(mark, tree)


def on_any_mesh(function: Callable[..., Result]) -> Callable[..., Result]:
    """Lets the compiler choose the shardings inside a function, even on a mesh of explicit axes.

    `jax.make_mesh` creates explicit axes, under which reshapes and products have to specify how
    their results are sharded. The functions of this package do not, so on such a mesh they run with
    automatic axes, and their results are replicated.

    Args:
        function: a pure function of trees of arrays.

    Returns:
        The same function, which detects the mesh from the types of its arguments.
    """

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Result:
        mesh = _explicit_mesh((args, kwargs))
        if mesh is None:
            return function(*args, **kwargs)
        kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
        automatic = jax.sharding.auto_axes(
            lambda args, kwargs: function(*args, **kwargs),
            axes=tuple(name for name, kind in kinds if kind == AxisType.Explicit),
            out_sharding=NamedSharding(mesh, PartitionSpec()),
        )
        return automatic(args, kwargs)

    return wrapped


def _explicit_mesh(tree: PyTree) -> Any:
    """Returns the mesh of the first array whose mesh has explicit axes, or None."""
    for leaf in jax.tree.leaves(tree):
        mesh: Any = getattr(jax.typeof(leaf).sharding, "mesh", None)
        if mesh is not None and AxisType.Explicit in (mesh.axis_types or ()):
            return mesh
    return None
