"""The benchmark of the server measures what it says; speed itself is not tested."""

from __future__ import annotations

import dataclasses
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tyro

import mnistjax

# The benchmarks are scripts: Python finds what lies beside one when it starts it.
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks" / "workers"))

import conditions
import http_server
import readme
import serving

ARGUMENTS = serving.Arguments(
    recipe="softmax", servers=("mnistjax",), clients=(1, 3), seconds=0.2, rounds=2
)


def test_arguments_parse():
    assert tyro.cli(serving.Arguments, args=[]) == serving.Arguments()


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """The rows of a short run, with the output of the program."""
    file = tmp_path_factory.mktemp("serving") / "rows.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        patch.setattr(serving, "WARMUP_SECONDS", 0.05)
        serving.main(dataclasses.replace(ARGUMENTS, json=file))
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_rows(rows):
    assert [(row["server"], row["clients"]) for row in rows] == [("mnistjax", 1), ("mnistjax", 3)]
    for row in rows:
        assert row["requests_per_second"] > 0
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert len(row["requests_per_second_runs"]) == 2
        assert row["reference_is_faster_by"] == 1
        assert {"versions", "processor", "threads", "command"} <= row.keys()
        # A client waits for its answer: together they cannot send more than that allows.
        assert row["requests_per_second"] * row["p50_ms"] / 1000 < 1.5 * row["clients"]
    assert len(conditions.table(rows, serving.COLUMNS).splitlines()) == 4
    assert len(readme.serving_table(rows).splitlines()) == 4


def test_both_requests_hold_an_image():
    for kind in ("pixels", "picture"):
        request = serving.make_request(kind)
        assert request["path"] == "/predict"
        body = request["body"].encode("latin-1")
        assert body.startswith(b'{"pixels"' if kind == "pixels" else b"\x89PNG")


def test_onnxruntime_is_given_the_images_as_they_are(monkeypatch):
    class Session:
        def __init__(self, file, options, providers):
            assert (file, providers) == ("network.onnx", ["CPUExecutionProvider"])
            assert options == {"session.intra_op.allow_spinning": "0"}

        def get_inputs(self):
            return [types.SimpleNamespace(name="pixels")]

        def get_outputs(self):
            return [types.SimpleNamespace(name="logits")]

        def run(self, names, feeds):
            assert names == ["logits"]
            return [feeds["pixels"].sum(axis=(1, 2, 3))]

    class SessionOptions(dict):
        add_session_config_entry = dict.__setitem__

    fake = types.SimpleNamespace(InferenceSession=Session, SessionOptions=SessionOptions)
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    images = mnistjax.load_dataset("digits").test.images[:3]
    found = http_server.onnx_network("network.onnx")(images)
    np.testing.assert_array_equal(found, images.sum(axis=(1, 2, 3)))


def test_a_server_that_cannot_start_is_named():
    files = {"weights": "nowhere.safetensors", "onnx": None}
    with pytest.raises(serving.ServerError, match=r"error: .*nowhere\.safetensors"):
        serving.Server("mnistjax", files)


def test_an_unknown_server_is_refused(capsys):
    with pytest.raises(SystemExit, match="unknown server 'apache'"):
        serving.main(dataclasses.replace(ARGUMENTS, servers=("apache",)))
