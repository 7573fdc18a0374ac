"""Requests that arrive while the network is busy are computed together, and keep their order."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnistjax.serving.batching import Batcher


class Network:
    """Doubles numbers, when it is allowed to; notes how many it was given at a time."""

    def __init__(self):
        self.calls, self.may_run, self.error = [], threading.Event(), None

    def __call__(self, numbers):
        self.calls.append(len(numbers))
        assert self.may_run.wait(20)
        if self.error:
            raise self.error
        return 2 * numbers


def compute(sizes, max_images, network, act=lambda tasks: None):
    """Sends requests of these sizes at once; returns their numbers, and what each got."""
    starts = np.cumsum([0, *sizes])
    requests = [np.arange(start, start + size) for start, size in zip(starts, sizes, strict=False)]

    async def run():
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(network, executor, max_images)
            tasks = [asyncio.create_task(batcher(numbers)) for numbers in requests]
            while not network.calls:
                await asyncio.sleep(0.001)
            act(tasks)
            network.may_run.set()
            return await asyncio.gather(*tasks, return_exceptions=True)

    return requests, asyncio.run(run())


@settings(max_examples=25)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(1, 12))
def test_each_request_gets_its_own_rows_in_batches_within_the_bound(sizes, max_images):
    network = Network()
    requests, answers = compute(sizes, max_images, network)
    for numbers, answer in zip(requests, answers, strict=True):
        np.testing.assert_array_equal(answer, 2 * numbers)
    assert sum(network.calls) == sum(sizes)
    assert max(network.calls) <= max(max_images, *sizes)
    # Batches are full: two neighbors would not fit into one.
    assert all(a + b > max_images for a, b in zip(network.calls, network.calls[1:], strict=False))


def test_an_error_reaches_every_request_of_its_batch_and_no_other():
    network = Network()
    network.error = RuntimeError("as the test asked")
    _, answers = compute([1, 1, 1], 2, network)
    assert [str(answer) for answer in answers] == ["as the test asked"] * 3
    assert network.calls == [2, 1]


def test_a_request_that_was_cancelled_does_not_disturb_the_others():
    network = Network()
    requests, answers = compute([1, 2, 3], 2, network, act=lambda tasks: tasks[1].cancel())
    assert isinstance(answers[1], asyncio.CancelledError)
    for index in (0, 2):
        np.testing.assert_array_equal(answers[index], 2 * requests[index])


def test_requests_after_an_error_are_computed():
    async def run():
        network = Network()
        network.may_run.set()
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(network, executor, 4)
            network.error = RuntimeError()
            with pytest.raises(RuntimeError):
                await batcher(np.arange(2))
            network.error = None
            return await batcher(np.arange(2))

    assert asyncio.run(run()).tolist() == [0, 2]
