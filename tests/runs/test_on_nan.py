"""Gradients that are not finite: the run stops and says where, or skips them, and counts them."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from small_runs import CONFIG, dataset

from mnistjax import TrainConfig, fit
from mnistjax.errors import NonFiniteLossError, UnknownNameError
from mnistjax.runs import compiled

SKIP = CONFIG.replace(on_nan="skip", epochs=2)


@pytest.fixture
def poisoned(monkeypatch):
    """Makes the gradient of some steps infinite; returns the function that chooses the steps."""

    def choose(steps):
        from mnistjax.runs import build

        original = build.make_train_step

        def make(model, optimizer, **options):
            step = original(model, optimizer, **options)

            def poisoned_step(state, batch):
                bad = np.isin(np.arange(100), steps)
                scale = jax.numpy.where(jax.numpy.asarray(bad)[state.step], np.inf, 1.0)
                params = jax.tree.map(lambda leaf: leaf * scale, state.params)
                new, metrics = step(state.replace(params=params), batch)
                # What the optimizer skips must leave the parameters of before.
                kept = jax.tree.map(
                    lambda fresh, poison, old: jax.numpy.where(scale == 1, fresh, old),
                    *(new.params, params, state.params),
                )
                return new.replace(params=kept), metrics

            return poisoned_step

        monkeypatch.setattr(build, "make_train_step", make)
        compiled._compile.cache_clear()

    yield choose
    compiled._compile.cache_clear()


def test_without_such_a_gradient_skipping_changes_nothing():
    plain, skipping = fit(CONFIG.replace(epochs=2), dataset()), fit(SKIP, dataset())
    jax.tree.map(np.testing.assert_array_equal, plain.state.params, skipping.state.params)
    assert [row["skipped_steps"] for row in skipping.history] == [0, 0]
    assert "skipped_steps" not in plain.history[0]


def test_skipped_steps_are_counted_and_the_loss_stays_finite(poisoned):
    poisoned([2, 3, 8])
    run = fit(SKIP, dataset())
    assert [row["skipped_steps"] for row in run.history] == [2, 3]
    assert all(np.isfinite(row["train_loss"]) for row in run.history)
    assert run.result["test_accuracy"] > 0.5


def test_without_skipping_the_run_names_the_step(poisoned):
    poisoned([7])
    with pytest.raises(NonFiniteLossError, match=r"training loss in step 8 became"):
        fit(CONFIG.replace(epochs=2), dataset())


@pytest.mark.parametrize("count", [10, 11])
def test_ten_in_a_row_end_the_run_wherever_the_loop_looks(poisoned, count):
    poisoned(range(2, 2 + count))
    message = "gradients of 10 steps in a row, from step 3 on,"
    with pytest.raises(NonFiniteLossError, match=message):
        fit(SKIP.replace(epochs=9), dataset())


def test_nine_in_a_row_do_not(poisoned):
    poisoned(range(2, 11))
    run = fit(SKIP.replace(epochs=4), dataset())
    assert [row["skipped_steps"] for row in run.history] == [4, 9, 9, 9]


def test_an_epoch_without_a_finite_step_ends_the_run(poisoned):
    """Its loss would be NaN, and its row no JSON."""
    poisoned(range(6, 12))
    with pytest.raises(NonFiniteLossError, match="gradients of all steps of epoch 2"):
        fit(SKIP, dataset())


def test_another_choice_is_refused():
    with pytest.raises(UnknownNameError, match="unknown on_nan 'ignore'"):
        TrainConfig(on_nan="ignore")
