"""Two processes with two devices each take the steps that one device takes, for every network.

    python tests/two_processes.py NUMBER PORT

`project/test_processes.py` starts both. Each compares what it has with what its first device
computes alone, and prints the names of the cases that agreed.
"""

from __future__ import annotations

import sys

import jax
from training_cases import CLASSES, STEPS, Case, assert_close, data

from mnistjax.models import MODELS
from mnistjax.runs import processes
from mnistjax.runs.placement import Placement
from mnistjax.training import Metrics, make_epoch_fn, put

PAIRS = [(model, optimizer) for model in (*MODELS, "plain") for optimizer in ("adam", "momentum")]


def check(case: Case, placement: Placement) -> None:
    """Takes several steps, the last of which has masked rows, on one device and on all of them."""
    epoch, order = make_epoch_fn(case.quiet_step()), case.order
    images, metrics = data(), Metrics.empty(CLASSES)
    expected = jax.jit(epoch)(case.state, metrics, *images, order, 0, STEPS)

    state, metrics = placement.replicate((case.state, metrics))
    images = (put(array, placement.whole) for array in images)
    order = put(order, placement.columns)
    together = jax.jit(epoch, out_shardings=placement.whole)
    actual = together(state, metrics, *images, order, 0, STEPS)
    assert len(actual[0].step.sharding.device_set) == 4
    # Sums in another order round differently, which turns a few ReLUs and maxima that are nearly
    # equal: 1.6 % in `minute` with momentum, where the weights go furthest.
    assert_close(actual, expected, case.state, share=0.03)


def main(number: int, port: int) -> None:
    """Connects with the other process, and checks all pairs of a network and an optimizer."""
    processes.initialize(f"127.0.0.1:{port}", 2, number, timeout=600)
    placement = Placement(tuple(jax.devices()))
    assert placement.process_count == 2
    for model, optimizer in PAIRS:
        check(Case(model, optimizer), placement)
        sys.stdout.write(f"{model} {optimizer}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
