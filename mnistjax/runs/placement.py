"""Which devices a run trains on, and where its training images are kept."""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from mnistjax.data import Split
from mnistjax.errors import ConfigError, UnknownNameError
from mnistjax.models import PyTree
from mnistjax.runs.microbatch import cpu_cache_bytes
from mnistjax.training import put

AXIS = "data"
IMAGES = ("auto", "replicated", "sharded", "streamed")
# Share of a device's memory that the training images may take, which leaves room for activations.
_SHARE = 4
_UNKNOWN_MEMORY = 8 << 30


@dataclasses.dataclass(frozen=True)
class Placement:
    """The devices of a run, and how its arrays are divided over them.

    The state is replicated and the rows of each batch are divided. Several processes share the
    devices if JAX's distributed runtime is initialized.

    Attributes:
        devices: the devices, of all processes.
        images: where the training images are kept: "replicated" on every device, "sharded" over the
            devices, or "streamed" from the host.
        cache_bytes: size of the caches of the CPU, by which large batches are taken in pieces; None
            on accelerators.
    """

    devices: tuple[jax.Device, ...]
    images: str = "replicated"
    cache_bytes: int | None = None

    @functools.cached_property
    def mesh(self) -> Mesh:
        """The devices as a mesh of one axis."""
        return Mesh(np.array(self.devices), (AXIS,))

    def _sharding(self, *axes: str | None) -> Sharding:
        if len(self.devices) == 1:
            return SingleDeviceSharding(self.devices[0])
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    @property
    def whole(self) -> Sharding:
        """Every device holds the whole array."""
        return self._sharding()

    @property
    def rows(self) -> Sharding:
        """The first axis is divided over the devices."""
        return self._sharding(AXIS)

    @property
    def columns(self) -> Sharding:
        """The second axis is divided over the devices."""
        return self._sharding(None, AXIS)

    @property
    def process_count(self) -> int:
        """The number of processes that share the devices."""
        return len({device.process_index for device in self.devices})

    def round_up(self, count: int) -> int:
        """Returns the next multiple of the number of devices."""
        return -(-count // len(self.devices)) * len(self.devices)

    def replicate(self, tree: PyTree) -> PyTree:
        """Puts a tree of arrays, equal in all processes, on every device.

        Args:
            tree: arrays of NumPy or of one device; PRNG keys are allowed.
        """

        def replicated(leaf: Any) -> jax.Array:
            if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                return put(np.asarray(leaf), self.whole)
            data = put(np.asarray(jax.random.key_data(leaf)), self.whole)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))

        return jax.tree.map(replicated, tree)


def choose_placement(
    train: Split, *, devices: int | str | None = None, images: str = "auto"
) -> Placement:
    """Chooses the devices of a run and where its training images are kept.

    Args:
        train: the training images.
        devices: number of devices of each process, or "all". None means all accelerators, but one
            device on CPU, where virtual devices only divide the same cores.
        images: "replicated", "sharded" or "streamed", as in `Placement`; "auto" is the first of
            them that takes at most a quarter of the memory of a device.

    Raises:
        ConfigError: there are fewer devices, or `devices` is not a number of devices.
        UnknownNameError: `images` is none of the names.
    """
    if images not in IMAGES:
        raise UnknownNameError("images", images, IMAGES)
    chosen = _choose_devices(devices)
    if images == "auto":
        images = _place_images(train.images, chosen)
    if images == "sharded" and len(chosen) == 1:
        images = "replicated"
    return Placement(chosen, images, cpu_cache_bytes())


def _choose_devices(devices: int | str | None) -> tuple[jax.Device, ...]:
    local = jax.local_devices()
    # JAX makes the attributes of its configuration at run time, where no type checker sees them.
    default = jax.config.jax_default_device  # type: ignore[attr-defined]
    if devices is None:
        if isinstance(default, jax.Device) and jax.process_count() == 1:
            return (default,)
        count = 1 if local[0].platform == "cpu" else len(local)
    elif devices == "all":
        count = len(local)
    elif isinstance(devices, int) and not isinstance(devices, bool) and devices >= 1:
        count = devices
    else:
        raise ConfigError(f"devices must be a positive integer or 'all', found {devices!r}")
    if count > len(local):
        kind = f"{local[0].platform} device{'s' if len(local) > 1 else ''}"
        hint = ""
        if local[0].platform == "cpu":
            hint = "; JAX_NUM_CPU_DEVICES sets the number of virtual ones"
        raise ConfigError(f"expected at most {len(local)} {kind}, found devices={count}{hint}")
    everyone = jax.devices()
    by_process = [
        [device for device in everyone if device.process_index == process][:count]
        for process in range(jax.process_count())
    ]
    return tuple(device for some in by_process for device in some)


def _place_images(images: np.ndarray, devices: tuple[jax.Device, ...]) -> str:
    limit = memory_bytes(devices) // _SHARE
    # Virtual devices share one memory.
    shared = devices[0].platform == "cpu"
    if images.nbytes * (len(devices) if shared else 1) <= limit:
        return "replicated"
    return "sharded" if images.nbytes // (1 if shared else len(devices)) <= limit else "streamed"


def memory_bytes(devices: tuple[jax.Device, ...]) -> int:
    """Returns the bytes of memory of the smallest device of this process; on a CPU, all of it.

    Args:
        devices: devices of any process.
    """
    local = [device for device in devices if device.process_index == jax.process_index()]
    limits = [(device.memory_stats() or {}).get("bytes_limit", 0) for device in local]
    if min(limits):
        return int(min(limits))
    if not hasattr(os, "sysconf"):  # Windows has no call for it in the standard library.
        return _UNKNOWN_MEMORY
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
