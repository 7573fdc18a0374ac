"""The processes of the peers: starting them, asking them, and letting them take turns."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from conditions import Row

import mnistjax

WORKERS = Path(__file__).with_name("workers")

# Name: program and variant. The others are compared with the first one.
PEERS = {
    "mnistjax": ("this_library.py", ""),
    "pytorch-eager": ("pytorch.py", "eager"),
    "pytorch-channels-last": ("pytorch.py", "channels-last"),
    "pytorch-uint8-channels-last": ("pytorch.py", "uint8-channels-last"),
    "pytorch-compiled": ("pytorch.py", "compiled"),
    "keras-tensorflow": ("keras_tensorflow.py", "fit"),
    "keras-tensorflow-xla": ("keras_tensorflow.py", "xla"),
    "flax-loop": ("stock_flax.py", "loop"),
    "flax-scan": ("stock_flax.py", "scan"),
}


class PeerError(Exception):
    """A peer cannot start or failed."""


class Worker:
    """The process of a peer."""

    def __init__(self, name: str, task: Row, python: str, folder: Path) -> None:
        program, variant = PEERS[name]
        self.name = name
        task_file = folder / f"{name}.json"
        task_file.write_text(json.dumps({**task, "variant": variant}))
        self._log = folder / f"{name}.log"
        environment = {
            **os.environ,
            # Several frameworks share one accelerator.
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",
            "TF_CPP_MIN_LOG_LEVEL": "2",
        }
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [python, str(WORKERS / program), str(task_file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                text=True,
            )
        try:
            self.description = self._answer()
        except PeerError:
            self.close()
            raise
        if "missing" in self.description:
            self.close()
            raise PeerError(f"{self.description['missing']} is not installed")

    def ask(self, what: Literal["train", "classify"]) -> Row:
        """Lets the peer train an epoch or classify the test images, and returns its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Row:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            last = (self._log.read_text().strip().splitlines() or ["no message"])[-1]
            raise PeerError(f"ended: {last}")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def start_workers(
    names: Sequence[str], task: Row, python: str, folder: Path, stack: contextlib.ExitStack
) -> list[Worker]:
    """Starts the peers one after the other, and prints which cannot start."""
    workers = []
    for name in names:
        if name not in PEERS:
            raise mnistjax.errors.UnknownNameError("peer", name, PEERS)
        try:
            worker = Worker(name, task, python, folder)
        except PeerError as error:
            print(f"{name}: skipped, {error}", flush=True)
            continue
        stack.callback(worker.close)
        workers.append(worker)
    return workers


def take_turns(
    workers: list[Worker], what: Literal["train", "classify"], rounds: int
) -> dict[str, list[Row]]:
    """Lets the peers take turns; prints which fail, and removes them.

    Args:
        workers: the peers; those that fail are removed from the list.
        what: what each does in its turn.
        rounds: number of rounds; each begins with another peer.

    Returns:
        The answers of the peers that did not fail, one per round.
    """
    answers: dict[str, list[Row]] = {worker.name: [] for worker in workers}
    for turn in range(rounds):
        first = turn % max(1, len(workers))
        for worker in workers[first:] + workers[:first]:
            try:
                answers[worker.name].append(worker.ask(what))
            except PeerError as error:
                print(f"{worker.name}: {error}", flush=True)
                workers.remove(worker)
    return {worker.name: answers[worker.name] for worker in workers}
