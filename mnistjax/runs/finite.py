"""Checks that the losses of a run are finite, and describes the step at which one is not."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from mnistjax.errors import NonFiniteLossError
from mnistjax.runs.build import MAX_SKIPPED, build_schedule, count_skipped
from mnistjax.runs.plan import Plan
from mnistjax.runs.programs import Programs
from mnistjax.runs.progress import Progress
from mnistjax.training import Metrics, TrainState

_SHOWN = 3  # Number of parameters whose norms are shown.


def check_loss(plan: Plan, state: TrainState, metrics: Metrics, what: str) -> None:
    """Checks the loss of a network that has been evaluated.

    Args:
        plan: the run.
        state: the state with its parameters.
        metrics: the metrics.
        what: the name of the loss, for the error message.

    Raises:
        NonFiniteLossError: the loss is NaN or infinite.
    """
    loss = float(metrics.loss_sum)  # float() waits for the device.
    if not math.isfinite(loss):
        raise _error(plan, state, loss, f"{what} after step {int(state.step)}")


def check_training(
    plan: Plan,
    programs: Programs,
    before: Progress,
    after: Progress,
    order: jax.Array,
) -> None:
    """Checks the loss of a stretch of steps, and finds the step at which it is not finite.

    Args:
        plan: the run.
        programs: its programs.
        before: the progress before the stretch.
        after: the progress after it.
        order: the order of the images in this epoch.

    Raises:
        NonFiniteLossError: the loss is NaN or infinite, or too many updates in a row were skipped.
    """
    loss = float(after.metrics.loss_sum)  # float() waits for the device.
    skipped = count_skipped(plan.config, after.state)[0]
    if skipped >= MAX_SKIPPED:
        first = int(after.state.step) - skipped + 1
        where = f"gradients of {MAX_SKIPPED} steps in a row, from step {first} on,"
        raise _error(plan, before.state, math.nan, where)
    if math.isfinite(loss):
        return
    # The steps are taken again, one by one: the same program gives the same bits.
    state, metrics = before.state, before.metrics
    for step in range(before.done, after.done):
        new, metrics = programs.train(state, metrics, order, step, step + 1)
        if not math.isfinite(float(metrics.loss_sum)):
            break
        state = new
    raise _error(plan, state, loss, f"training loss in step {int(state.step) + 1}")


def check_epoch(plan: Plan, progress: Progress) -> None:
    """Checks that not all updates of an epoch were skipped, which would leave it without a loss.

    Args:
        plan: the run.
        progress: its progress after the last step of an epoch.

    Raises:
        NonFiniteLossError: no update of the epoch was finite.
    """
    if not int(progress.metrics.count):
        epoch = len(progress.history) + 1
        raise _error(plan, progress.state, math.nan, f"gradients of all steps of epoch {epoch}")


def _error(plan: Plan, state: TrainState, loss: float, where: str) -> NonFiniteLossError:
    schedule = build_schedule(plan.config, plan.steps)
    rate = float(schedule(max(0, int(state.step) - 1)))
    return NonFiniteLossError(
        f"the {where} became {loss}, with learning rate {rate:g} and norms up to "
        f"{_largest_norms(state)}: a learning_rate below {plan.config.learning_rate:g} or "
        "clip_norm may help"
    )


def _largest_norms(state: TrainState) -> str:
    """Returns the parameters with the largest norms, NaN first."""
    norms = {
        jax.tree_util.keystr(path, simple=True, separator="/"): float(jnp.linalg.norm(leaf))
        for path, leaf in jax.tree_util.tree_flatten_with_path(state.params)[0]
    }
    largest = sorted(norms, key=lambda name: (math.isnan(norms[name]), norms[name]), reverse=True)
    return ", ".join(f"{norms[name]:.3g} ({name})" for name in largest[:_SHOWN])
