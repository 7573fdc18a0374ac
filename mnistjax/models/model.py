"""Models as pairs of pure functions, `init` and `apply`, like the optimizers of optax."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from mnistjax.models.layers import Dense

PyTree = Any
Variables = dict[str, PyTree]


class InitFn(Protocol):
    """Initializes the variables of a network."""

    def __call__(self, key: jax.Array, images: jax.Array) -> Variables:
        """Returns `{"params": ..., "batch_stats": ...}` for images of this shape.

        Args:
            key: PRNG key.
            images: float [B, H, W, C]; only shape and dtype matter.
        """


class ApplyFn(Protocol):
    """Runs a network."""

    def __call__(
        self,
        variables: Variables,
        images: jax.Array,
        *,
        train: bool = False,
        key: jax.Array | None = None,
        mask: jax.Array | None = None,
        axis_name: str | None = None,
    ) -> tuple[jax.Array, PyTree]:
        """Returns logits and the running statistics after this batch.

        Args:
            variables: the variables from `init`, or a trained version of them.
            images: float [B, H, W, C], pixels in [0, 1].
            train: whether to apply dropout and to use the statistics of this batch.
            key: PRNG key for dropout; needed if `train` is True.
            mask: bool [B]; False rows are left out of the batch statistics. None keeps all rows.
            axis_name: mapped axis over which batch statistics are summed, as in `pmap`.

        Returns:
            logits float32 [B, num_classes], and `batch_stats` (an empty dict where there are none).
        """


class FeaturesFn(Protocol):
    """Runs a network up to its last layer."""

    def __call__(self, variables: Variables, images: jax.Array) -> jax.Array:
        """Returns the input of the last dense layer, float32 [B, F].

        Args:
            variables: the variables from `init`, or a trained version of them.
            images: float [B, H, W, C], pixels in [0, 1].
        """


@dataclasses.dataclass(frozen=True)
class Model:
    """A network as two pure functions, independent of any module system.

    Attributes:
        init: `(key, images) -> variables`.
        apply: `(variables, images, ...) -> (logits, batch_stats)`.
        name: name of the model.
        features: `(variables, images) -> features`, the input of the last layer; None if the model
            does not provide it. Training does not need it.
        module: the Flax Linen module that the functions run; None if there is none. Only what
            writes the network for programs without JAX needs it.

    Example:
        A network without any module system:

        >>> import jax.numpy as jnp, mnistjax
        >>> def init(key, images):
        ...     return {"params": jnp.zeros((images[0].size, 10), jnp.float32), "batch_stats": {}}
        >>> def apply(variables, images, *, train=False, key=None, mask=None, axis_name=None):
        ...     return images.reshape(len(images), -1) @ variables["params"], {}
        >>> model = mnistjax.Model(init, apply, name="linear")
    """

    init: InitFn
    apply: ApplyFn
    name: str = "model"
    features: FeaturesFn | None = None
    module: nn.Module | None = None


def from_linen(module: nn.Module, *, name: str | None = None) -> Model:
    """Makes a model from a Flax Linen module.

    Args:
        module: its `__call__` takes `(images, *, train, mask, axis_name)` and returns logits
            [B, num_classes]; its collections are `params` and, if it has any, `batch_stats`; its
            only other random stream is `dropout`.
        name: the name of the model; that of the module's class if None.

    Returns:
        The model. Its functions raise TypeError for images that are not floating point and
        ValueError for images that are not [B, H, W, C]. `features` returns the input of the
        last `nn.Dense` that is called, and raises ValueError if none is.

    Example:
        >>> import jax, mnistjax
        >>> model = mnistjax.from_linen(mnistjax.models.MLP(features=(8,)), name="small")
        >>> images = jax.numpy.zeros((2, 4, 4, 1))
        >>> variables = model.init(jax.random.key(0), images)
        >>> logits, _ = jax.jit(model.apply)(variables, images)
        >>> logits.shape
        (2, 10)
    """

    # Jitted, an eager call compiles one program, from which XLA removes the forward pass.
    @jax.jit
    def initialize(key: jax.Array, images: jax.Array) -> Any:
        return module.init(key, images, train=False, mask=None, axis_name=None)

    def init(key: jax.Array, images: jax.Array) -> Variables:
        check_images(images)
        variables = initialize(key, images)
        return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}

    def apply(
        variables: Variables,
        images: jax.Array,
        *,
        train: bool = False,
        key: jax.Array | None = None,
        mask: jax.Array | None = None,
        axis_name: str | None = None,
    ) -> tuple[jax.Array, PyTree]:
        check_images(images)
        logits, updates = module.apply(
            variables,
            images,
            train=train,
            mask=mask,
            axis_name=axis_name,
            rngs={"dropout": key} if key is not None else None,
            mutable=["batch_stats"],
        )
        batch_stats = updates.get("batch_stats", {}) if train else variables["batch_stats"]
        return logits.astype(jnp.float32), batch_stats

    def features(variables: Variables, images: jax.Array) -> jax.Array:
        inputs = _dense_inputs(lambda: apply(variables, images))
        if not inputs:
            raise ValueError(f"expected a module with an nn.Dense, found {type(module).__name__}")
        return inputs[-1].reshape(len(images), -1).astype(jnp.float32)

    return Model(init, apply, name or type(module).__name__, features, module)


def _dense_inputs(run: Callable[[], Any]) -> list[jax.Array]:
    """Returns the input of each `nn.Dense` that `run` calls, in the order of the calls."""
    inputs: list[jax.Array] = []

    def note(
        method: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        if isinstance(context.module, nn.Dense | Dense) and context.method_name == "__call__":
            inputs.append(args[0])
        return method(*args, **kwargs)

    with nn.intercept_methods(note):
        run()
    return inputs


def check_images(images: jax.Array) -> None:
    """Checks that the array is a batch of float images.

    Raises:
        ValueError: the array is not [B, H, W, C].
        TypeError: its dtype is not a floating-point one.
    """
    if images.ndim != 4:
        raise ValueError(f"expected images [batch, height, width, channels], got {images.shape}")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            f"expected floating-point images in [0, 1], got {images.dtype}: "
            "mnistjax.scale_pixels(images) makes them"
        )


def count_parameters(variables: Variables) -> int:
    """Counts the scalars of a network, running statistics included (as Keras does).

    Args:
        variables: the variables of a model, from `init` or trained.

    Returns:
        The number of parameters and running statistics.

    Example:
        >>> import numpy as np, mnistjax
        >>> mnistjax.count_parameters({"params": np.zeros((3, 4)), "batch_stats": np.zeros(4)})
        16
    """
    return sum(leaf.size for leaf in jax.tree.leaves(variables))
