"""Programs of several networks at once: those of one network, mapped over an axis of networks."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.stages import Compiled

from mnistjax.errors import ConfigError
from mnistjax.models import PyTree, Variables, ops
from mnistjax.runs.compiled import Blueprint, Shapes, static_parts
from mnistjax.runs.config import TrainConfig
from mnistjax.runs.placement import AXIS, Placement, memory_bytes
from mnistjax.runs.plan import Plan
from mnistjax.training import EVAL_BATCH_SIZE, compiler_options, scale_pixels

# Share of the memory of the devices that networks may take, beside the program's workspace.
_SHARE = 2


@dataclasses.dataclass(frozen=True)
class MappedPrograms:
    """The compiled programs of K networks.

    Attributes:
        create_state: `(keys) -> states`, with keys uint32 [K, 2]; every array of the states has a
            first axis K, and so have the metrics, numbers and variables below.
        order: `(keys, epoch) -> orders`, int32 [K, steps, B].
        train: `(numbers, teacher, states, metrics, images, labels, orders, start, stop)` to
            `(states, metrics)`, as in `CompiledPrograms`.
        logits: `(variables, images) -> logits`, uint8 [B, H, W, C] to float32 [B, K, num_classes].
        batch_stats: `(variables, images, orders) -> batch_stats`, or None if none are needed.
    """

    create_state: Compiled
    order: Compiled
    train: Compiled
    logits: Compiled
    batch_stats: Compiled | None = None


def compile_mapped(plan: Plan, count: int) -> MappedPrograms:
    """Compiles the programs of several networks, or returns those of an earlier call.

    Args:
        plan: the run of one of them; the others may differ as for `compile_programs`.
        count: their number, a multiple of the number of devices, which each hold as many of them.
    """
    return _compile(*static_parts(plan), count, jax.config.read("jax_enable_x64"))


@functools.lru_cache(maxsize=8)
def _compile(
    config: TrainConfig, shapes: Shapes, placement: Placement, count: int, x64: bool
) -> MappedPrograms:
    del x64  # It is only part of the cache key.
    one = Blueprint(config, shapes, _one_device(placement))
    batch = jax.ShapeDtypeStruct((EVAL_BATCH_SIZE, *shapes.image_shape), jnp.uint8)

    def logits(variables: Variables, images: jax.Array) -> jax.Array:
        return one.model.apply(variables, scale_pixels(images))[0]

    # The axis of networks of each argument; the networks share those that have none.
    mapped: dict[str, tuple[Callable[..., Any], tuple[int | None, ...]]] = {
        "create_state": (one.create_state, (0,)),
        "order": (one.draw_order, (0, None)),
        "train": (one.train_function, (0, None, 0, 0, None, None, 0, None, None)),
        "batch_stats": (one.batch_stats, (0, None, 0)),
        "logits": (logits, (0, None)),
    }
    arguments = {name: given for name, (_, given) in one.calls().items()}
    arguments["logits"] = (one.state.variables, batch)
    options = compiler_options(deterministic=config.deterministic)
    programs = {}
    for name, given in arguments.items():
        function, axes = mapped[name]
        out = 1 if name == "logits" else 0
        where = placement.columns if out else placement.rows
        program = _map_members(function, axes, out, placement=placement)
        jitted = jax.jit(program, out_shardings=where, compiler_options=options)
        programs[name] = jitted.lower(*_stack(given, axes, count, placement)).compile()
    return MappedPrograms(**programs)


def _map_members(
    function: Callable[..., Any], axes: Sequence[int | None], out: int = 0, *, placement: Placement
) -> Callable[..., Any]:
    """Maps a function over networks, which are divided over the devices.

    Args:
        function: a function of one network.
        axes: for each argument the axis of networks, 0, or None if all share it.
        out: the axis of networks of the result.
        placement: the devices.
    """
    mapped = jax.vmap(function, axes, out)

    def lowered(*arguments: Any) -> Any:
        with ops.lower_to_matmuls():
            return mapped(*arguments)

    if len(placement.devices) == 1:
        return lowered
    # Left to itself, XLA would gather the networks of all devices where it cannot divide an
    # operation. Nothing is differentiated by what the devices share, so JAX need not keep track.
    whole, several = PartitionSpec(), PartitionSpec(AXIS)
    given = tuple(whole if axis is None else several for axis in axes)
    result = PartitionSpec(*[None] * out, AXIS)
    return jax.shard_map(
        lowered, mesh=placement.mesh, in_specs=given, out_specs=result, check_vma=False
    )


def _one_device(placement: Placement) -> Placement:
    """Returns the placement of one network, all of whose arrays lie on one device."""
    return dataclasses.replace(placement, devices=placement.devices[:1])


def _stack(
    arguments: Sequence[PyTree], axes: Sequence[int | None], count: int, placement: Placement
) -> list[PyTree]:
    """Returns the shapes of the arguments of `count` networks, on the devices where they belong."""

    def stack(leaf: jax.ShapeDtypeStruct, axis: int | None) -> jax.ShapeDtypeStruct:
        shape = leaf.shape if axis is None else (count, *leaf.shape)
        where = placement.whole if axis is None else placement.rows
        return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=where)

    shapes = jax.eval_shape(lambda *given: given, *arguments)
    return [
        jax.tree.map(functools.partial(stack, axis=axis), tree)
        for tree, axis in zip(shapes, axes, strict=True)
    ]


def check_mapped(plans: Sequence[Plan], count: int) -> None:
    """Checks that networks can be trained side by side, and fit in memory.

    Args:
        plans: their runs, which share programs.
        count: the number of them that are trained at a time.

    Raises:
        ConfigError: they cannot, or do not.
    """
    for plan in plans:
        if reason := obstacle(plan):
            raise ConfigError(f"expected networks to train side by side, found that {reason}")
    if count > (most := most_at_once(plans[0])):
        raise ConfigError(
            f"expected at most {most} networks side by side, as half of the memory holds no more, "
            f"found {count}"
        )


def obstacle(plan: Plan) -> str | None:
    """Returns why a network cannot be trained side by side with others, or None if it can.

    Args:
        plan: its run.
    """
    if plan.config.patience is not None:
        return "patience ends each of them at an epoch of its own"
    if plan.config.on_nan != "stop":
        return f"on_nan={plan.config.on_nan!r} skips updates of each of them"
    if plan.placement.images != "replicated":
        return f"the training images are {plan.placement.images}, not whole on every device"
    return None


def most_at_once(plan: Plan) -> int:
    """Estimates how many networks fit in half of the memory of the devices.

    A network takes four times its state (before and after an update, with gradients and what
    becomes of them), and twice what the forward pass of a batch keeps for the backward pass.

    Args:
        plan: the run of one of them.
    """
    placement, config = plan.placement, plan.config
    state = Blueprint(*static_parts(plan)[:2], _one_device(placement)).state
    rows = config.microbatch_size or config.batch_size
    images = jax.ShapeDtypeStruct((rows, *plan.dataset.info.image_shape), jnp.float32)

    def backward(params: PyTree, batch_stats: PyTree, images: jax.Array) -> Any:
        def loss(params: PyTree) -> jax.Array:
            variables = {"params": params, "batch_stats": batch_stats}
            return plan.model.apply(variables, images, train=True, key=jax.random.key(0))[0].sum()

        return jax.vjp(loss, params)[1]

    kept = jax.eval_shape(backward, state.params, state.batch_stats, images)
    each = 4 * _count_bytes(state) + 2 * _count_bytes(kept)
    pixels = len(plan.kept) * math.prod(plan.dataset.info.image_shape)
    free = memory_bytes(placement.devices) // _SHARE - pixels
    return max(0, free // each) * len(placement.devices)


def _count_bytes(tree: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
