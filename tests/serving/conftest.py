"""A server in a thread, and requests to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time

import pytest

uvicorn = pytest.importorskip("uvicorn", reason="the extra serve is not installed")


class Client:
    """Sends requests, each on a connection of its own; threads may share it."""

    def __init__(self, host, port):
        self.address = (host, port)

    def ask(self, method, path, body=None, content_type=None, headers=()):
        """Returns the status, the headers, and the answer: JSON if it says so, or a text."""
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        given = {**({"Content-Type": content_type} if content_type else {}), **dict(headers)}
        with contextlib.closing(connection):
            connection.request(method, path, body, given)
            response = connection.getresponse()
            text = response.read().decode()
        if response.headers["Content-Type"] == "application/json":
            return response.status, response.headers, json.loads(text)
        return response.status, response.headers, text

    def predict(self, pixels):
        body = json.dumps({"pixels": pixels.tolist()})
        status, _, answer = self.ask("POST", "/predict", body, "application/json")
        assert status == 200, answer
        return answer["predictions"]

    def refusal(self, status, *words, **options):
        """Asserts that a request is refused in one line; returns the line."""
        found, _, answer = self.ask(*words, **options)
        assert (found, list(answer)) == (status, ["error"]), answer
        assert "\n" not in answer["error"]
        assert "Traceback" not in answer["error"]
        return answer["error"]


@contextlib.contextmanager
def running(app):
    """Serves an application in a thread; yields a client."""
    from mnistjax.serving import listen

    with listen(port=0) as listener:
        config = uvicorn.Config(app, log_config=None, log_level="error")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
                assert thread.is_alive()
            yield Client(*listener.getsockname()[:2])
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def serve_app():
    return running
