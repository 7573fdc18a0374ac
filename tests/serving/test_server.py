"""Listening: which hosts and ports can be used, and what is said of the others."""

from __future__ import annotations

import contextlib
import socket

import pytest

from mnistjax.errors import ConfigError, RunError
from mnistjax.serving import check_installed, listen, run_app
from mnistjax.serving.server import address_of


def test_a_free_port_is_found():
    with listen("localhost", 0) as first, listen("127.0.0.1", 0) as second:
        assert address_of(first) != address_of(second)
        assert address_of(second).startswith("http://127.0.0.1:")


def test_the_address_of_ipv6_is_in_brackets():
    try:
        listener = listen("::1", 0)
    except ConfigError:
        pytest.skip("this machine has no IPv6")
    with listener:
        assert address_of(listener).startswith("http://[::1]:")


def test_a_port_in_use_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"^cannot listen on port {port} of 127.0.0.1: \w.*$"
        ):
            listen(port=port)


def test_answers_do_not_wait_for_the_client_to_confirm_their_first_part():
    with (
        listen(port=0) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("127.0.0.1", -1, "expected a port from 0 to 65535, found -1"),
        ("127.0.0.1", 65536, "found 65536"),
        ("no such host", 8000, "cannot listen on port 8000 of no such host"),
        ("a" * 300, 8000, "cannot listen on port 8000"),
        ("203.0.113.7", 0, "cannot listen on port 0 of 203.0.113.7"),
    ],
)
def test_a_host_or_port_that_cannot_be_used_is_refused(host, port, message):
    with pytest.raises(ConfigError, match=message):
        listen(host, port)


def test_an_application_that_does_not_start_is_an_error(caplog):
    @contextlib.asynccontextmanager
    async def fail(_):
        raise RuntimeError("as the test asked")
        yield

    applications = pytest.importorskip("starlette.applications", reason="no extra serve")
    with (
        listen(port=0) as listener,
        pytest.raises(RunError, match=r"the server (could not start|has ended)"),
    ):
        run_app(applications.Starlette(lifespan=fail), listener, pytest.fail)
    assert "as the test asked" in caplog.text


def test_a_missing_package_is_named_with_the_way_to_get_it(monkeypatch):
    check_installed()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'starlette.*pip install "mnistjax\[serve\]"'):
        check_installed()
