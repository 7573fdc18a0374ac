"""Listening on a port and running the application until a signal arrives."""

from __future__ import annotations

import importlib.util
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from mnistjax.errors import ConfigError, RunError
from mnistjax.signals import Interrupted, defers_signals

if TYPE_CHECKING:
    from starlette.applications import Starlette

_POLL_SECONDS = 0.05
# Requests that are being answered when a signal arrives have this long to end.
_GRACE_SECONDS = 5
_MAX_CONNECTIONS = 512  # More get the status 503. Many systems allow a process 1,024 open files.


def check_installed() -> None:
    """Checks that the packages of the extra are installed.

    Raises:
        ConfigError: one of them is missing.
    """
    for package in ("starlette", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f'the server needs the package {package}, found none: pip install "mnistjax[serve]"'
            )


def listen(host: str = "127.0.0.1", port: int = 8000) -> socket.socket:
    """Opens a socket that accepts connections, which then wait until `run_app` answers them.

    Args:
        host: a name or an address of this machine. Only programs on this machine reach 127.0.0.1.
        port: from 0 to 65535; 0 chooses one that is free.

    Returns:
        The socket, which the caller closes.

    Raises:
        ConfigError: the port is in use, or the host or the port cannot be used.

    >>> with listen(port=0) as listener:
    ...     listener.getsockname()[0]
    '127.0.0.1'
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"expected a port from 0 to 65535, found {port}")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=_MAX_CONNECTIONS)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        # Python adds the address, which is in this message already.
        reason = reason.partition(" (while")[0]
        raise ConfigError(f"cannot listen on port {port} of {host}: {reason}") from error
    # Its connections inherit this. asyncio does not set it for a socket that was opened outside of
    # it, and the second part of each answer would wait 40 ms for the client to confirm the first.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def address_of(listener: socket.socket) -> str:
    """Returns the address of a listening socket, such as "http://127.0.0.1:8000"."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run_app(app: Starlette, listener: socket.socket, on_ready: Callable[[str], None]) -> None:
    """Answers requests until SIGINT (Ctrl-C) or SIGTERM arrives.

    Requests that are being answered then are finished; a second signal ends the process at once.

    Args:
        app: the application, from `make_app`.
        listener: the socket, from `listen`.
        on_ready: called with the address when the server answers.

    Raises:
        Interrupted: a signal ended it; it is a `KeyboardInterrupt`.
        RunError: it could not start, or ended by itself.
        ConfigError: uvicorn is not installed.
    """
    check_installed()
    import uvicorn

    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        http="h11",  # It bounds the headers; httptools, which needs less time, does not.
        ws="none",
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = uvicorn.Server(config)
    # Outside of the main thread, uvicorn leaves signals alone.
    with defers_signals() as received, ThreadPoolExecutor(1, "server") as executor:
        running = executor.submit(server.run, sockets=[listener])
        try:
            said = False
            while not wait([running], _POLL_SECONDS).done and received() is None:
                if server.started and not said:
                    said = True
                    on_ready(address_of(listener))
        finally:
            server.should_exit = True
        try:
            running.result()
        except SystemExit as error:  # How uvicorn says that it cannot start.
            raise RunError("the server could not start: its log says why") from error
        signum = received()
    if signum is None:
        raise RunError("the server has ended without a signal: its log may say why")
    raise Interrupted(signum, f"stopped by {signal.Signals(signum).name}")
