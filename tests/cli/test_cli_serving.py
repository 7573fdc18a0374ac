"""`mnistjax serve` as a process: it says when it is ready, answers, and ends with a signal."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys

import pytest

import mnistjax

pytest.importorskip("uvicorn", reason="the extra serve is not installed")

ENVIRONMENT = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal(digits_run, kind):
    child = subprocess.Popen(
        [sys.executable, "-m", "mnistjax", "serve", str(digits_run), "--port", "0"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = child.stdout.readline()
    found = re.fullmatch(
        rf"serving {digits_run} at http://(127.0.0.1:\d+) \(Ctrl-C to stop\)\n", line
    )
    assert found, line + child.stderr.read()
    connection = http.client.HTTPConnection(found[1], timeout=60)
    images = mnistjax.load_dataset("digits").test.images[:2]
    body = json.dumps({"pixels": images.tolist()})
    connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    expected = mnistjax.predict(mnistjax.load_weights(digits_run), images).labels
    assert [row["label"] for row in answer["predictions"]] == [str(label) for label in expected]
    child.send_signal(kind)
    out, err = child.communicate(timeout=60)
    connection.close()
    assert (child.returncode, out) == (128 + kind, "")
    assert err == f"stopped by {kind.name}\n"


def test_what_cannot_be_served_is_one_line(digits_run, refusal, monkeypatch, tmp_path):
    assert "found no file" in refusal("serve", tmp_path / "nowhere")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = refusal("serve", digits_run, "--port", port)
        assert f"cannot listen on port {port} of 127.0.0.1" in line
    assert "expected a port from 0 to 65535, found 70000" in refusal(
        "serve", digits_run, "--port", "70000"
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert 'pip install "mnistjax[serve]"' in refusal("serve", digits_run)
