"""Compiles the programs of a run ahead of time, and keeps them for runs that can share them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.stages import Compiled

from mnistjax.data import Batch, epoch_order, take_batch, take_sharded_batch
from mnistjax.models import Model, PyTree, Variables
from mnistjax.runs.build import (
    Numbers,
    build_model,
    build_optimizer,
    build_train_step,
    state_function,
    traced_numbers,
)
from mnistjax.runs.config import TrainConfig
from mnistjax.runs.placement import Placement
from mnistjax.runs.plan import Plan
from mnistjax.training import (
    EVAL_BATCH_SIZE,
    Metrics,
    Teacher,
    TrainState,
    compiler_options,
    make_batch_stats_fn,
    make_epoch_fn,
    make_stream_fn,
    measure_logits,
    predict_logits,
)

# Number of images for the batch statistics of averaged weights; enough for three digits.
_STATISTICS_IMAGES = 10_000
# Batches are sent to the device in groups of about this many bytes, because each call of a compiled
# program costs a fraction of a millisecond.
_GROUP_BYTES = 1 << 20

# A value that is allowed for every setting that is an argument.
_ANY_NUMBER = 0.5

Call = tuple[jax.stages.Wrapped, tuple[Any, ...]]


@dataclasses.dataclass(frozen=True)
class CompiledPrograms:
    """The compiled programs of a run.

    Attributes:
        train: `(numbers, teacher, state, metrics, images, labels, order, start, stop)`, or
            `(numbers, teacher, state, metrics, batches, start, stop)` if images are streamed, to
            `(state, metrics)`; the numbers are those of `traced_numbers`, float32 [] each, and
            `teacher` is the variables of the teacher, or None.
        create_state: `(key_data) -> state`.
        order: `(key_data, epoch) -> order`, int32 [steps, B], with as many columns of -1 added as
            the number of devices needs.
        statistics_rows: number of rows of the order, the first ones, that `batch_stats` uses.
        group: number of batches that `train` takes at once if images are streamed.
        batch_stats: `(variables, images, order) -> batch_stats`, or None if none are needed.
    """

    train: Compiled
    create_state: Compiled
    order: Compiled
    statistics_rows: int
    group: int
    batch_stats: Compiled | None = None


@dataclasses.dataclass(frozen=True)
class Shapes:
    """What a program depends on besides the settings."""

    count: int
    image_shape: tuple[int, ...]
    num_classes: int
    teacher: Model | None
    # In two parts, because a tree of dictionaries cannot be hashed.
    teacher_structure: jax.tree_util.PyTreeDef
    teacher_leaves: tuple[jax.ShapeDtypeStruct, ...]

    @property
    def teacher_variables(self) -> PyTree:
        """The variables of the teacher, as shapes and dtypes; None without a teacher."""
        return jax.tree.unflatten(self.teacher_structure, self.teacher_leaves)


def compile_programs(plan: Plan) -> CompiledPrograms:
    """Compiles the programs of a run, or returns those of an earlier run that can share them.

    They are cached by the settings that affect them: a second run that differs only in its seed, in
    numbers that are arguments (`traced_numbers`), in the weights of its teacher or, at a constant
    learning rate, in its length compiles nothing.

    Args:
        plan: the run.
    """
    return _compile(*static_parts(plan), jax.config.read("jax_enable_x64"))


def program_calls(plan: Plan) -> dict[str, Call]:
    """Returns the programs of a run as jitted functions, with the shapes of their arguments.

    Args:
        plan: the run.

    Returns:
        By name: a function, and arguments to trace, lower or export it with.
    """
    return Blueprint(*static_parts(plan)).calls()


def static_parts(plan: Plan) -> tuple[TrainConfig, Shapes, Placement]:
    """Returns all that the programs of a run depend on; equal parts can share programs.

    Args:
        plan: the run.
    """
    info, teacher = plan.dataset.info, plan.teacher
    model, variables = (teacher.model, teacher.variables) if teacher else (None, None)
    leaves, structure = jax.tree.flatten(jax.eval_shape(lambda tree: tree, variables))
    image_shape, weights = tuple(info.image_shape), tuple(leaves)
    shapes = Shapes(len(plan.kept), image_shape, info.num_classes, model, structure, weights)
    return _static_settings(plan), shapes, plan.placement


def _static_settings(plan: Plan) -> TrainConfig:
    """Returns the settings of a program, with the length that its schedule depends on."""
    # Only a learning rate that changes depends on the length of the run.
    constant = plan.config.schedule == "constant" and not plan.config.warmup
    return program_settings(plan.config).replace(steps=1 if constant else plan.steps)


def program_settings(config: TrainConfig) -> TrainConfig:
    """Returns the settings with those that affect no program set to the same values.

    Runs with the same length and data set share programs where these are equal.

    Args:
        config: the settings of a run.
    """
    defaults = TrainConfig()
    names = (
        *("recipe", "dataset", "seed"),
        *("validation_fraction", "validation_seed", "patience"),
    )
    unused = {name: getattr(defaults, name) for name in names}
    return config.replace(**unused, **dict.fromkeys(traced_numbers(config), _ANY_NUMBER))


@functools.lru_cache(maxsize=8)
def _compile(
    config: TrainConfig, shapes: Shapes, placement: Placement, x64: bool
) -> CompiledPrograms:
    """Compiles the programs in parallel."""
    del x64  # It is only part of the cache key.
    blueprint = Blueprint(config, shapes, placement)
    with ThreadPoolExecutor() as pool:
        # XLA releases the GIL: it compiles the first programs while the next ones are traced.
        pending = {
            name: pool.submit(call.lower(*given).compile)
            for name, (call, given) in blueprint.calls().items()
        }
        blueprint.warm_up()
        compiled = {name: program.result() for name, program in pending.items()}
    return CompiledPrograms(**compiled, group=blueprint.group, statistics_rows=blueprint.rows)


class Blueprint:
    """The programs of a run, with the shapes and places of their arguments."""

    def __init__(self, config: TrainConfig, shapes: Shapes, placement: Placement) -> None:
        """Takes what `static_parts` returns."""
        assert config.steps is not None
        self.config, self.shapes, self.placement = config, shapes, placement
        self.model = build_model(config, shapes.num_classes)
        self.create_state = state_function(config, self.model, config.steps, shapes.image_shape)
        self.key = jax.ShapeDtypeStruct((2,), jnp.uint32, sharding=placement.whole)
        self.state = self._replicated(jax.eval_shape(self.create_state, self.key))
        order = jax.eval_shape(self.draw_order, self.key, 0)
        streamed = placement.images == "streamed"
        # Every process gathers on the host the rows of its own devices.
        where = placement.whole if streamed else placement.columns
        self.order = jax.ShapeDtypeStruct(order.shape, order.dtype, sharding=where)
        steps, batch = order.shape
        # XLA would drop an axis of one batch, and compile the rest of the program to other bits.
        self.group = max(2, min(steps, _GROUP_BYTES // (batch * int(np.prod(shapes.image_shape)))))
        self.rows = max(1, min(steps, _STATISTICS_IMAGES // config.batch_size))

    def calls(self) -> dict[str, Call]:
        """Returns the programs that are compiled ahead of time, with their arguments.

        The one that takes longest to trace comes last.
        """
        calls = {
            "create_state": (self.jit(self.create_state, runs_once=True), (self.key,)),
            "order": (self.jit(self.draw_order, self.order.sharding), (self.key, 0)),
        }
        # Only averaged parameters of a network with batch statistics need others.
        if self.config.ema_decay is not None and self.state.batch_stats:
            calls["batch_stats"] = self.statistics()
        return {**calls, "train": self.train()}

    def draw_order(self, key: jax.Array, epoch: jax.Array | int) -> jax.Array:
        """The function `order` of `CompiledPrograms`, not jitted."""
        size = self.config.batch_size
        order = epoch_order(jax.random.wrap_key_data(key), epoch, self.shapes.count, size)
        return jnp.pad(
            order, ((0, 0), (0, self.placement.round_up(size) - size)), constant_values=-1
        )

    def train(self) -> Call:
        """Returns the loop over the steps of a stretch."""
        metrics = self._replicated(Metrics.empty(self.shapes.num_classes))
        data = self._batches() if self.placement.images == "streamed" else self._resident()
        number, bound = (self._replicated(np.zeros((), kind)) for kind in (np.float32, np.int32))
        numbers = dict.fromkeys(traced_numbers(self.config), number)
        teacher = self._replicated(self.shapes.teacher_variables)
        return self.jit(self.train_function), (
            numbers,
            teacher,
            self.state,
            metrics,
            *data,
            bound,
            bound,
        )

    def train_function(
        self, numbers: Numbers, teacher: Variables | None, *arguments: Any
    ) -> tuple[TrainState, Metrics]:
        """The function `train` of `CompiledPrograms`, not jitted."""
        config = self.config
        assert config.steps is not None
        step = build_train_step(
            config,
            self.model,
            build_optimizer(config, config.steps, numbers=numbers),
            numbers=numbers,
            teacher=self._teacher(teacher),
            cache_bytes=self.placement.cache_bytes,
        )
        if self.placement.images == "streamed":
            return make_stream_fn(step)(*arguments)
        return make_epoch_fn(step, take=self._take)(*arguments)

    def _teacher(self, variables: Variables | None) -> Teacher | None:
        model = self.shapes.teacher
        if model is None or variables is None:
            return None
        return lambda images: model.apply(variables, images)[0]

    def statistics(self) -> Call:
        """Returns `(variables, images, order) -> batch_stats` of the first rows of an order."""
        rows = self.rows
        images, _, order = self._resident()
        if self.placement.images == "streamed":
            # Only the images of these rows are sent.
            columns, placement = order.shape[1], self.placement
            shape = (rows * columns, *self.shapes.image_shape)
            images = jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=placement.whole)
            order = jax.ShapeDtypeStruct((rows, columns), jnp.int32, sharding=placement.columns)
        return self.jit(self.batch_stats), (self.state.variables, images, order)

    def batch_stats(self, variables: Variables, images: jax.Array, order: jax.Array) -> PyTree:
        """The function `batch_stats` of `CompiledPrograms`, not jitted."""
        stats_fn = make_batch_stats_fn(self.model, take=self._take)
        return stats_fn(variables, images, order[: self.rows])

    def warm_up(self) -> None:
        """Compiles the evaluation programs into the caches of `jit`, which `predict` uses, too."""
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), self.state.variables)
        images = np.zeros((EVAL_BATCH_SIZE, *self.shapes.image_shape), np.uint8)
        variables = self.placement.replicate(zeros)
        logits = evaluate_logits(self.model, variables, images, self.placement)
        measure_logits(logits, np.zeros(EVAL_BATCH_SIZE, np.int32))

    def jit(
        self, function: Callable[..., Any], out: Any = None, *, runs_once: bool = False
    ) -> jax.stages.Wrapped:
        """Jits a function; its results are replicated unless `out` says where they are."""
        options = compiler_options(deterministic=self.config.deterministic, runs_once=runs_once)
        out = out or self.placement.whole
        return jax.jit(function, out_shardings=out, compiler_options=options)

    @property
    def _take(self) -> Callable[..., Batch]:
        if self.placement.images == "sharded":
            return functools.partial(take_sharded_batch, mesh=self.placement.mesh)
        return take_batch

    def _resident(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        placement, count = self.placement, self.shapes.count
        sharded = placement.images == "sharded"
        images = jax.ShapeDtypeStruct(
            (placement.round_up(count) if sharded else count, *self.shapes.image_shape),
            jnp.uint8,
            sharding=placement.rows if sharded else placement.whole,
        )
        labels = jax.ShapeDtypeStruct((count,), jnp.int32, sharding=placement.whole)
        return images, labels, self.order

    def _batches(self) -> tuple[Batch]:
        def part(dtype: Any, *shape: int) -> Any:
            rows = (self.group, self.order.shape[1])
            return jax.ShapeDtypeStruct((*rows, *shape), dtype, sharding=self.placement.columns)

        return (Batch(part(jnp.uint8, *self.shapes.image_shape), part(jnp.int32), part(bool)),)

    def _replicated(self, tree: PyTree) -> PyTree:
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=self.placement.whole
            ),
            tree,
        )


def evaluate_logits(
    model: Model, variables: Variables, images: np.ndarray, placement: Placement
) -> np.ndarray:
    """Computes the logits of every image, on all devices of a run.

    Args:
        model: the network.
        variables: its variables, on every device.
        images: uint8 [N, H, W, C].
        placement: the devices.
    """
    rows = placement.rows if isinstance(placement.rows, NamedSharding) else None
    size = placement.round_up(EVAL_BATCH_SIZE)
    return predict_logits(model, variables, images, batch_size=size, rows=rows)
