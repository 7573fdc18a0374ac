"""The programs that are measured: training and inference, with images on the device or the host."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import mnistjax

Phase = Literal["training", "inference"]
Feed = Literal["device", "host"]
Run = Callable[[], Any]  # Takes the steps of a stretch; returns arrays to wait for.

IMAGE_SHAPE, CLASSES = (28, 28, 1), 10
SCHEDULE_STEPS = 10_000  # The length of the schedule does not affect the speed.
STRETCH = 12_800  # Images per call of a compiled loop, so that the cost of the call is negligible.


@dataclasses.dataclass(frozen=True)
class Case:
    """One recipe at one batch size.

    Attributes:
        config: the settings of the recipe.
        model: its network, in the dtype that is measured.
        mesh: the devices.
        batch_size: images per step, on all devices together.
        split: the images on the host.
    """

    config: mnistjax.TrainConfig
    model: mnistjax.Model
    mesh: Mesh
    batch_size: int
    split: mnistjax.Split

    @property
    def steps(self) -> int:
        """Number of steps in one stretch."""
        return max(1, min(STRETCH, len(self.split)) // self.batch_size)

    def place(self, tree: Any, *axes: str | None) -> Any:
        """Puts arrays on the devices, replicated or sharded along the axis named "devices"."""
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec(*axes)))

    def resident(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns images and labels on every device, and shuffled full batches as indices."""
        order = mnistjax.epoch_order(jax.random.key(0), 0, len(self.split), self.batch_size)
        images, labels = self.place((self.split.images, self.split.labels))
        return images, labels, self.place(order[: self.steps], None, "devices")

    def stream(self) -> Iterator[mnistjax.Batch]:
        """Yields shuffled full batches from the host indefinitely."""
        full = len(self.split) // self.batch_size
        for epoch in itertools.count():
            batches = mnistjax.data.stream_batches(
                self.split, self.batch_size, key=jax.random.key(0), epoch=epoch
            )
            for batch in itertools.islice(batches, full):
                yield self.place(batch, "devices")

    def train_step(self) -> tuple[Callable[..., Any], mnistjax.TrainState]:
        """Returns the train step of the recipe, and the initial state."""
        optimizer = mnistjax.runs.build_optimizer(self.config, SCHEDULE_STEPS)
        state = mnistjax.create_train_state(
            self.model,
            optimizer,
            jnp.zeros((1, *IMAGE_SHAPE)),
            key=jax.random.key(0),
            ema=self.config.ema_decay is not None,
        )
        step = mnistjax.runs.build_train_step(self.config, self.model, optimizer)
        return step, self.place(state)


def _jit(function: Callable[..., Any], **options: Any) -> Any:
    return jax.jit(function, compiler_options=mnistjax.compiler_options(), **options)


def training_on_device(case: Case) -> tuple[Run, float]:
    """Compiles a stretch of steps over resident images; returns it and the compile seconds."""
    train_step, state = case.train_step()
    images, labels, order = case.resident()
    metrics = case.place(mnistjax.Metrics.empty(CLASSES))
    function = _jit(
        mnistjax.make_epoch_fn(train_step),
        donate_argnums=(0, 1),
        out_shardings=NamedSharding(case.mesh, PartitionSpec()),
    )
    compiled, seconds = _compile(function, state, metrics, images, labels, order, 0, case.steps)
    carry = [state, metrics]

    def run() -> Any:
        carry[:] = compiled(*carry, images, labels, order, 0, case.steps)
        return carry

    return run, seconds


def training_from_host(case: Case) -> tuple[Run, float]:
    """Compiles one train step, which is called with each batch."""
    train_step, state = case.train_step()
    batches = case.stream()
    function = _jit(
        train_step,
        donate_argnums=0,
        out_shardings=NamedSharding(case.mesh, PartitionSpec()),
    )
    compiled, seconds = _compile(function, state, next(batches))
    carry = [state]

    def run() -> Any:
        for batch in itertools.islice(batches, case.steps):
            carry[0], _ = compiled(carry[0], batch)
        return carry

    return run, seconds


def inference_on_device(case: Case) -> tuple[Run, float]:
    """Compiles the evaluation of a stretch of resident images."""
    variables = case.train_step()[1].variables
    arrays = case.resident()
    function = _jit(mnistjax.training.make_eval_fn(mnistjax.make_eval_step(case.model)))
    compiled, seconds = _compile(function, variables, *arrays)
    return partial(compiled, variables, *arrays), seconds


def inference_from_host(case: Case) -> tuple[Run, float]:
    """Compiles the evaluation of one batch, which is called with each batch."""
    variables = case.train_step()[1].variables
    batches = case.stream()
    function = _jit(mnistjax.make_eval_step(case.model))
    compiled, seconds = _compile(function, variables, next(batches))

    def run() -> Any:
        stretch = itertools.islice(batches, case.steps)
        return [compiled(variables, batch) for batch in stretch]

    return run, seconds


PROGRAMS: dict[tuple[Phase, Feed], Callable[[Case], tuple[Run, float]]] = {
    ("training", "device"): training_on_device,
    ("training", "host"): training_from_host,
    ("inference", "device"): inference_on_device,
    ("inference", "host"): inference_from_host,
}


def _compile(function: Any, *arguments: Any) -> tuple[Any, float]:
    begin = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    return compiled, time.perf_counter() - begin
