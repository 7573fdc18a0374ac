"""Trains several networks side by side, in one program."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mnistjax.data import Split
from mnistjax.errors import NonFiniteLossError
from mnistjax.models import PyTree, Variables
from mnistjax.runs.build import traced_numbers
from mnistjax.runs.finite import check_loss
from mnistjax.runs.mapped import compile_mapped
from mnistjax.runs.plan import Plan
from mnistjax.runs.progress import History, Progress
from mnistjax.runs.result import describe_epoch, describe_result
from mnistjax.runs.trained import TrainedModel
from mnistjax.signals import Interrupted, defers_signals
from mnistjax.training import Metrics, TrainState, in_batches, measure_logits, put

# A call of the compiled program should take about this long, so that a signal is seen soon.
_STRETCH_SECONDS = 0.25

Received = Callable[[], int | None]


def fit_side_by_side(
    plans: Sequence[Plan], *, data: str, how_to_go_on: str
) -> list[TrainedModel | NonFiniteLossError]:
    """Trains networks together, and evaluates each of them on all test images.

    Each network is the one that `fit` returns for its settings, up to rounding. They are divided
    over the devices, and a network whose loss becomes NaN or infinite affects no other.

    Args:
        plans: their runs: with the same images and length, and with settings that share programs.
        data: the fingerprint of the data set.
        how_to_go_on: what to type if a signal ends the training.

    Returns:
        For each run its network, or the error that ended it. Seconds in history and result are
        those of all networks together, divided by their number.

    Raises:
        Interrupted: a signal ended the training, and nothing of it is kept.
    """
    begin = time.perf_counter()
    several = _Several(plans)
    compile_seconds = time.perf_counter() - begin
    with defers_signals() as received:
        for epoch in range(math.ceil(several.plan.steps / several.plan.steps_per_epoch)):
            _train_epoch(several, epoch, received, how_to_go_on)
    tests = several.evaluate(several.plan.dataset.test, "test loss")
    notes = {
        "dataset_sha256": data,
        "compile_seconds": compile_seconds,
        "total_seconds": time.perf_counter() - begin,
        "side_by_side": len(plans),
    }
    return several.outcomes(tests, notes)


class _Several:
    """Several networks, and how far their training has come.

    Attributes:
        plan: the run of the first of them.
        count: their number; more may be trained to fill the devices.
        state: their states, with an axis of networks in front.
        metrics: their metrics of the current epoch.
    """

    def __init__(self, plans: Sequence[Plan]) -> None:
        self.plan, self.count, self._plans = plans[0], len(plans), plans
        placement = self.plan.placement
        filled = [*plans, *[plans[-1]] * (placement.round_up(len(plans)) - len(plans))]
        self._programs = compile_mapped(self.plan, len(filled))
        keys = [jax.random.key_data(jax.random.key(plan.config.seed)) for plan in filled]
        self._keys = self._divide([np.asarray(key) for key in keys])
        settings = [traced_numbers(plan.config) for plan in filled]
        names = settings[0].keys()
        self._numbers = {
            n: self._divide([np.asarray(one[n], np.float32) for one in settings]) for n in names
        }
        self._teacher = placement.replicate(self.plan.teacher and self.plan.teacher.variables)
        train = self.plan.train
        self._data = [put(part, placement.whole) for part in (train.images, train.labels)]
        empty = jax.device_get(Metrics.empty(self.plan.dataset.info.num_classes))
        self._empty = jax.tree.map(lambda leaf: self._divide([leaf] * len(filled)), empty)
        self._first_order = self.order(0)
        self._histories: list[History] = [() for _ in plans]
        self._errors: dict[int, NonFiniteLossError] = {}
        self.state: TrainState = self._programs.create_state(self._keys)
        self.metrics: Metrics = self._empty

    def _divide(self, arrays: Sequence[np.ndarray]) -> jax.Array:
        return put(np.stack(arrays), self.plan.placement.rows)

    def order(self, epoch: int) -> jax.Array:
        """Returns the order of the images of each network in an epoch."""
        return self._programs.order(self._keys, put(np.int32(epoch), self.plan.placement.whole))

    def train(self, order: jax.Array, start: int, stop: int) -> None:
        """Trains all networks for a stretch of an epoch, and waits for the end of it."""
        bounds = (put(np.int32(bound), self.plan.placement.whole) for bound in (start, stop))
        self.state, self.metrics = self._programs.train(
            self._numbers, self._teacher, self.state, self.metrics, *self._data, order, *bounds
        )
        jax.block_until_ready(self.metrics)

    def variables(self) -> Variables:
        """Returns what is evaluated and kept of each network."""
        variables, programs = self.state.variables, self._programs
        if programs.batch_stats is None:
            return variables
        stats = programs.batch_stats(variables, self._data[0], self._first_order)
        return {**variables, "batch_stats": stats}

    def evaluate(self, split: Split, what: str) -> list[Metrics]:
        """Returns the metrics of each network, after noting those whose loss is not finite."""
        program = functools.partial(self._programs.logits, self.variables())
        logits = in_batches(program, split.images, rows=self.plan.placement.whole)
        found = [measure_logits(logits[:, n], split.labels) for n in range(self.count)]
        for number, metrics in enumerate(found):
            self._check(number, metrics, what)
        return found

    def _check(self, number: int, metrics: Metrics, what: str) -> None:
        if number in self._errors or math.isfinite(float(metrics.loss_sum)):
            return
        try:
            check_loss(self._plans[number], _take(self.state, number), metrics, what)
        except NonFiniteLossError as error:
            self._errors[number] = error

    def finish_epoch(self, step: int, seconds: float) -> None:
        """Adds a row to the history of each network whose losses are finite."""
        stacked, self.metrics = jax.device_get(self.metrics), self._empty
        found = [_take(stacked, number) for number in range(self.count)]
        for number, metrics in enumerate(found):
            self._check(number, metrics, "training loss")
        held_out = self.plan.validation
        validations = (
            self.evaluate(held_out, "validation loss") if held_out else [None] * self.count
        )
        for number, (metrics, validation) in enumerate(zip(found, validations, strict=True)):
            if number not in self._errors:
                plan, share = self._plans[number], seconds / self.count
                row = describe_epoch(plan, step, metrics, share, validation)
                self._histories[number] = (*self._histories[number], row)

    def outcomes(
        self, tests: Sequence[Metrics], notes: Mapping[str, Any]
    ) -> list[TrainedModel | NonFiniteLossError]:
        """Returns each network with its history and result, or its error."""
        steps, variables = jax.device_get((self.state.step, self.variables()))
        outcomes: list[TrainedModel | NonFiniteLossError] = []
        for number, plan in enumerate(self._plans):
            if number in self._errors:
                outcomes.append(self._errors[number])
                continue
            history, info = self._histories[number], plan.dataset.info
            state = dataclasses.replace(self.state, step=steps[number])
            progress = Progress(state, tests[number], history)
            result = {**describe_result(plan, progress, tests[number]), **notes}
            own = jax.tree.map(jax.numpy.asarray, _take(variables, number))
            outcomes.append(TrainedModel(plan.model, own, info, plan.config, result, history))
        return outcomes


def _take(tree: PyTree, number: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[number], tree)


def _train_epoch(several: _Several, epoch: int, received: Received, how_to_go_on: str) -> None:
    plan, order = several.plan, several.order(epoch)
    first = epoch * plan.steps_per_epoch
    stop = min(plan.steps_per_epoch, plan.steps - first)
    begin, done, length = time.perf_counter(), 0, 1
    while done < stop:
        start, until = time.perf_counter(), min(done + length, stop)
        several.train(order, done, until)
        seconds = time.perf_counter() - start
        length = max(1, min(2 * length, int(_STRETCH_SECONDS * (until - done) / seconds)))
        done = until
        if signum := received():
            where = f"interrupted at step {first + done} of {several.count} networks side by side"
            raise Interrupted(signum, f"{where}, of which nothing is saved: {how_to_go_on}")
    several.finish_epoch(first + stop, time.perf_counter() - begin)
