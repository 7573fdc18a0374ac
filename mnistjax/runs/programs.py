"""The programs that a run calls: the loop does not know on how many devices they run."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mnistjax.data import Batch, Prefetched, Split, gather
from mnistjax.models import PyTree, Variables
from mnistjax.runs.build import Numbers, traced_numbers
from mnistjax.runs.compiled import CompiledPrograms, compile_programs, evaluate_logits
from mnistjax.runs.plan import Plan
from mnistjax.training import Metrics, TrainState, measure_logits, put

Order = Any  # int32 [steps, B], an array of JAX or, if images are streamed, of NumPy.
Trained = tuple[TrainState, Metrics]


@dataclasses.dataclass(frozen=True)
class Programs:
    """The functions that a run calls, independent of devices and of the number of networks.

    Attributes:
        create_state: `() -> state`, the state at step 0.
        place: `(tree) -> tree`, puts a state or metrics of the host where `train` expects them.
        draw_order: `(epoch) -> order`, int32 [steps, B].
        train: `(state, metrics, order, start, stop) -> (state, metrics)`; the given state stays
            valid, because a run goes back to it where a loss becomes NaN.
        variables: `(state) -> variables`, the variables to evaluate and save.
        evaluate: `(variables, split) -> metrics`.
        close: `()`, ends the threads that fetch images.
    """

    create_state: Callable[[], TrainState]
    place: Callable[[PyTree], PyTree]
    draw_order: Callable[[int], Order]
    train: Callable[[TrainState, Metrics, Order, int, int], Trained]
    variables: Callable[[TrainState], Variables]
    evaluate: Callable[[Variables, Split], Metrics]
    close: Callable[[], None]


def make_programs(plan: Plan) -> Programs:
    """Compiles the programs of one network on the devices of its plan, and places its images.

    Compilation is ahead of time, so that it and training are timed separately.

    Args:
        plan: the run.
    """
    compiled, placement = compile_programs(plan), plan.placement
    key = np.asarray(jax.random.key_data(jax.random.key(plan.config.seed)))
    source = _Streamed if placement.images == "streamed" else _Resident
    images = source(plan, compiled)

    def draw_order(epoch: int) -> Order:
        return images.order(compiled.order(key, epoch))

    def variables(state: TrainState) -> Variables:
        if compiled.batch_stats is None:
            return state.variables
        # The statistics of the raw weights do not belong to the averaged ones.
        first = images.statistics_images(draw_order(0))
        return {**state.variables, "batch_stats": compiled.batch_stats(state.variables, *first)}

    def evaluate(variables: Variables, split: Split) -> Metrics:
        logits = evaluate_logits(plan.model, variables, split.images, placement)
        return measure_logits(logits, split.labels)

    return Programs(
        create_state=lambda: compiled.create_state(key),
        place=placement.replicate,
        draw_order=draw_order,
        train=images.train,
        variables=variables,
        evaluate=evaluate,
        close=images.close,
    )


def _given(plan: Plan) -> tuple[Numbers, Variables | None]:
    """Returns the settings and the teacher that `train` takes as arguments, on the devices."""
    numbers = {name: np.float32(value) for name, value in traced_numbers(plan.config).items()}
    teacher = plan.teacher.variables if plan.teacher else None
    return plan.placement.replicate((numbers, teacher))


class _Resident:
    """Training images on the devices."""

    def __init__(self, plan: Plan, compiled: CompiledPrograms) -> None:
        placement, train = plan.placement, plan.train
        self._compiled, self._whole = compiled, placement.whole
        self._given = _given(plan)
        self._labels = put(train.labels, placement.whole)
        if placement.images != "sharded":
            self._images = put(train.images, placement.whole)
            return
        count = placement.round_up(len(train))

        def shard(index: Any) -> np.ndarray:
            begin, end, _ = index[0].indices(count)
            rows = train.images[begin:end]
            return np.pad(rows, [(0, end - begin - len(rows)), (0, 0), (0, 0), (0, 0)])

        shape = (count, *train.images.shape[1:])
        self._images = jax.make_array_from_callback(shape, placement.rows, shard)

    def order(self, order: jax.Array) -> Order:
        return order

    def train(
        self, state: TrainState, metrics: Metrics, order: Order, start: int, stop: int
    ) -> Trained:
        bounds = (put(np.int32(bound), self._whole) for bound in (start, stop))
        arguments = (state, metrics, self._images, self._labels, order, *bounds)
        return self._compiled.train(*self._given, *arguments)

    def statistics_images(self, order: Order) -> tuple[Any, Any]:
        return self._images, order

    def close(self) -> None:
        pass


class _Streamed:
    """Training images in host memory or on disk, sent to the devices as they are needed."""

    def __init__(self, plan: Plan, compiled: CompiledPrograms) -> None:
        # Nothing is copied: the order becomes one of the whole data set.
        self._split, self._kept = plan.dataset.train, plan.kept.astype(np.int32)
        self._placement, self._compiled = plan.placement, compiled
        self._given = _given(plan)
        self._order: np.ndarray | None = None
        self._groups: Prefetched[Batch] | None = None

    def order(self, order: jax.Array) -> Order:
        rows = np.asarray(order)
        return np.where(rows >= 0, self._kept[rows], np.int32(-1))

    def close(self) -> None:
        if self._groups is not None:
            self._groups.close()

    def train(
        self, state: TrainState, metrics: Metrics, order: Order, start: int, stop: int
    ) -> Trained:
        groups, size = self._prefetched(order), self._compiled.group
        under_way: collections.deque[Metrics] = collections.deque()
        while start < stop:
            number = start // size
            first, end = number * size, min((number + 1) * size, stop)
            bounds = (start - first, end - first)
            arguments = (put(np.int32(bound), self._placement.whole) for bound in bounds)
            state, metrics = self._compiled.train(
                *self._given, state, metrics, groups[number], *arguments
            )
            # The host must not run ahead of the devices, which would fill up with batches.
            under_way.append(metrics)
            if len(under_way) > 1:
                jax.block_until_ready(under_way.popleft())
            start = end
        return state, metrics

    def _prefetched(self, order: np.ndarray) -> Prefetched[Batch]:
        """Returns the batches of an order, which are kept until another order is given."""
        if self._groups is None or self._order is not order:
            self.close()
            size = self._compiled.group
            count = -(-len(order) // size)
            rows = np.pad(order, ((0, count * size - len(order)), (0, 0)), constant_values=-1)
            self._order = order
            self._groups = Prefetched(
                lambda number: self._send(rows[number * size : (number + 1) * size]), count
            )
        return self._groups

    def _send(self, rows: np.ndarray) -> Batch:
        where = self._placement.columns
        if where.is_fully_addressable:
            return Batch(*(put(part, where) for part in gather(self._split, rows)))
        # Each process gathers only the rows of its own devices.
        parts = [
            (device, gather(self._split, rows[index]))
            for device, index in where.addressable_devices_indices_map(rows.shape).items()
        ]
        return Batch(*(self._assemble(rows, [(d, p[i]) for d, p in parts]) for i in range(3)))

    def _assemble(self, rows: np.ndarray, parts: list[tuple[Any, Any]]) -> jax.Array:
        arrays = [jax.device_put(part, device) for device, part in parts]
        shape = (*rows.shape, *arrays[0].shape[2:])
        return jax.make_array_from_single_device_arrays(shape, self._placement.columns, arrays)

    def statistics_images(self, order: Order) -> tuple[Any, Any]:
        rows = order[: self._compiled.statistics_rows].ravel()
        images = gather(self._split, rows).images
        places = np.where(rows >= 0, np.arange(len(rows), dtype=np.int32), -1)
        shape = (self._compiled.statistics_rows, -1)
        whole, columns = self._placement.whole, self._placement.columns
        return put(images, whole), put(places.reshape(shape), columns)
