"""Computes the images of several requests together."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np

from mnistjax.serving.network import Logits


class _Waiting(NamedTuple):
    """The images of a request, and where its logits go."""

    images: np.ndarray
    logits: asyncio.Future[np.ndarray]


class Batcher:
    """Runs a network in a thread, on all requests that arrived while it was busy.

    Nothing waits for a batch to fill: the first request runs at once, and those that arrive
    meanwhile run together after it. It belongs to one event loop.
    """

    def __init__(self, network: Logits, executor: Executor, max_images: int) -> None:
        """Creates a batcher without requests.

        Args:
            network: the function that computes logits.
            executor: where it runs, one call after the other.
            max_images: number of images that are computed together at most, apart from those of a
                single request.
        """
        self._network = network
        self._executor = executor
        self._max_images = max_images
        self._queue: list[_Waiting] = []
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, images: np.ndarray) -> np.ndarray:
        """Computes the logits of the images of one request.

        Args:
            images: uint8 [N, H, W, C], N at least 1.

        Returns:
            float32 [N, num_classes].

        Raises:
            Exception: whatever the network raises, for each request of the batch.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(images, loop.create_future())
        self._queue.append(waiting)
        if self._task is None:
            self._task = loop.create_task(self._run())
        return await waiting.logits

    async def _run(self) -> None:
        """Computes batches until no request is waiting."""
        loop = asyncio.get_running_loop()
        try:
            while self._queue:
                batch = self._take()
                images = np.concatenate([waiting.images for waiting in batch])
                try:
                    logits = await loop.run_in_executor(self._executor, self._network, images)
                except Exception as error:  # To be raised where the requests wait.
                    _refuse(batch, error)
                else:
                    _distribute(batch, logits)
        finally:
            self._task = None

    def _take(self) -> list[_Waiting]:
        """Removes the requests of the next batch from the queue, the first of them in any case."""
        count = total = 0
        for waiting in self._queue:
            total += len(waiting.images)
            if count and total > self._max_images:
                break
            count += 1
        batch, self._queue = self._queue[:count], self._queue[count:]
        return batch


def _distribute(batch: list[_Waiting], logits: np.ndarray) -> None:
    start = 0
    for images, future in batch:
        if not future.done():  # Its request may have been cancelled.
            future.set_result(logits[start : start + len(images)])
        start += len(images)


def _refuse(batch: list[_Waiting], error: Exception) -> None:
    for waiting in batch:
        if not waiting.logits.done():
            waiting.logits.set_exception(error)
