"""Puts arrays of the host on the devices of a mesh, which may belong to several processes."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding

from mnistjax.models import PyTree


def put(array: Any, sharding: Sharding | None = None) -> jax.Array:
    """Puts an array on devices; each process sends only the parts of its own devices.

    Args:
        array: a NumPy array, or one that is memory-mapped. If several processes share the devices,
            each must hold the same array.
        sharding: where its parts belong; None for the default device.
    """
    if sharding is None:
        return jax.device_put(array)
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    return jax.make_array_from_callback(
        np.shape(array), sharding, lambda index: np.asarray(array[index])
    )


def on_one_device(tree: PyTree) -> PyTree:
    """Returns the copy of a replicated tree that one device of this process holds.

    Args:
        tree: a tree of arrays, each of which every device holds whole.
    """
    return jax.tree.map(
        lambda leaf: leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf, tree
    )
