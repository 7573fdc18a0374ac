"""Several processes that train one network, on JAX's distributed runtime.

Every process runs the same program on the same data. What only one of them can know, such as the
time, a signal or the content of the run directory, is exchanged here, so that all of them take the
same decisions. With one process, each function returns what it was given.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import ipaddress
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future

import jax
import numpy as np

from mnistjax.errors import ConfigError, RunError

# Seconds that `initialize` waits for the coordinator and the other processes, as JAX does.
TIMEOUT = 300


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: int = TIMEOUT,
) -> None:
    """Connects this process with the others; to be called before anything else uses JAX's devices.

    On a TPU, under Slurm, Open MPI and Kubernetes, JAX finds out what is not given. A coordinator
    on localhost or 127.0.0.1 listens there alone, any other on all interfaces, as JAX's own does.

    Args:
        coordinator: `host:port` of process 0.
        num_processes: number of processes.
        process_id: number of this process, from 0.
        timeout: seconds to wait for the coordinator and the other processes.

    Raises:
        ConfigError: an argument is missing and cannot be found out, or does not fit the others; or
            the processes have different numbers of devices.
        RunError: the coordinator or another process did not answer in time.
    """
    _check(coordinator, num_processes, process_id)
    # Its handler of SIGTERM would replace that of `mnistjax.signals`.
    jax.config.update("jax_enable_preemption_service", False)
    bind = coordinator if coordinator and _is_loopback(coordinator) else None
    connection: Future[None] = Future()

    def connect() -> None:
        try:
            jax.distributed.initialize(
                coordinator,
                num_processes,
                process_id,
                initialization_timeout=10 * timeout,
                coordinator_bind_address=bind,
            )
            connection.set_result(None)
        except Exception as error:  # To be raised in the thread that waits.
            connection.set_exception(error)

    # JAX ends the process from C++ where a connection takes too long, so it may take its time.
    threading.Thread(target=connect, daemon=True).start()
    try:
        connection.result(timeout)
    except TimeoutError as error:
        where = coordinator or "the coordinator"
        raise RunError(
            f"expected {num_processes or 'all'} processes to connect to {where}, "
            f"found some missing after {timeout} s"
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"expected a coordinator, a number of processes and the number of this one: {error}"
        ) from error
    except RuntimeError as error:
        raise RunError(f"the processes cannot connect: {str(error).splitlines()[0]}") from error
    _check_counts(timeout)
    counts = collections.Counter(device.process_index for device in jax.devices())
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{count} in process {process}" for process, count in counts.items())
        raise ConfigError(f"expected as many devices in every process, found {found}")


def _check_counts(timeout: int) -> None:
    """Checks that all processes expect the same number of them, before they wait for each other."""
    # JAX has no public access to the store that it exchanges addresses with.
    from jax._src import distributed

    state = distributed.global_state
    if state.client is None:
        return
    if state.process_id == 0:
        state.client.key_value_set("mnistjax/processes", str(state.num_processes))
    expected = state.client.blocking_key_value_get("mnistjax/processes", 1000 * timeout)
    if int(expected) != state.num_processes:
        raise ConfigError(
            f"expected num_processes={expected}, as in process 0, found {state.num_processes}"
        )


def _check(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    if coordinator is not None:
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ConfigError(f"expected the coordinator as host:port, found {coordinator!r}")
    if num_processes is not None and num_processes < 1:
        raise ConfigError(f"expected at least 1 process, found num_processes={num_processes}")
    if process_id is not None and not 0 <= process_id < (num_processes or process_id + 1):
        numbers = f"0 to {num_processes - 1}" if num_processes else "0 or more"
        raise ConfigError(f"expected a process_id from {numbers}, found {process_id}")


def _is_loopback(coordinator: str) -> bool:
    host = coordinator.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def is_first() -> bool:
    """Returns whether this process is the one that writes files and shows progress."""
    return jax.process_index() == 0


def first(number: int) -> int:
    """Returns the number that process 0 has given.

    Args:
        number: an int32.
    """
    return int(_gather(np.array(number, np.int32))[0])


def largest(number: int) -> int:
    """Returns the largest of the numbers that the processes have given.

    Args:
        number: an int32.
    """
    return int(_gather(np.array(number, np.int32)).max())


def share(content: bytes | None) -> bytes:
    """Returns the bytes that process 0 has given.

    Args:
        content: the bytes; ignored in the other processes.
    """
    if jax.process_count() == 1:
        assert content is not None
        return content
    from jax.experimental.multihost_utils import broadcast_one_to_all

    here = np.frombuffer(content or b"", np.uint8)
    size = first(len(here))
    return np.asarray(broadcast_one_to_all(np.resize(here, size) if size else here)).tobytes()


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Makes an error in one process an error in all, which would wait for it otherwise.

    Raises:
        RunError: another process failed within the context.
    """
    try:
        yield
    except BaseException:
        largest(jax.process_index() + 1)
        raise
    if failed := largest(0):
        raise RunError(f"process {failed - 1} could not start, and its own message says why")


def check_same(facts: Mapping[str, str]) -> None:
    """Checks that all processes train the same network on the same data.

    Args:
        facts: what must be equal, by name.

    Raises:
        RunError: something differs between this process and process 0, or between two others.
    """
    digests = [hashlib.sha256(fact.encode()).digest() for fact in facts.values()]
    everywhere = _gather(np.frombuffer(b"".join(digests), np.uint8).reshape(len(facts), -1))
    differs = (everywhere != everywhere[0]).any(axis=(0, 2))
    names = [name for name, different in zip(facts, differs, strict=True) if different]
    if names:
        processes = np.flatnonzero((everywhere != everywhere[0]).any(axis=(1, 2)))
        raise RunError(
            f"expected the same {' and '.join(names)} in all processes, found others in process "
            f"{', '.join(map(str, processes))} than in process 0"
        )


def _gather(array: np.ndarray) -> np.ndarray:
    """Returns the arrays of all processes, with an axis of processes in front."""
    if jax.process_count() == 1:
        return array[None]
    from jax.experimental.multihost_utils import process_allgather

    return np.asarray(process_allgather(array))
