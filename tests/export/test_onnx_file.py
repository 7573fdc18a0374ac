"""ONNX files: a graph of standard operators that computes what the network does."""

from __future__ import annotations

import dataclasses
import json
import re
import sys

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator
from random_networks import CASES, as_output, draw_images, make_network, own_network

import mnistjax
from mnistjax import export
from mnistjax.errors import ConfigError, RunError
from mnistjax.export import write_onnx


def run(file, images):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


@pytest.mark.parametrize(("name", "overrides"), CASES)
def test_the_graph_computes_the_logits_of_any_number_of_images(name, overrides, tmp_path):
    network = make_network(name, **overrides)
    file = write_onnx(network, tmp_path / "new" / "network.onnx")
    assert file == tmp_path / "new" / "network.onnx"
    images = draw_images(network)
    expected = mnistjax.predict_logits(network, images)
    for count in (0, 1, 7):
        found = run(file, images[:count])
        assert found.dtype == np.float32
        assert found.shape == (count, network.info.num_classes)
        np.testing.assert_allclose(found, expected[:count], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("output", ["logits", "probabilities"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_input_and_output_are_what_was_asked_for(dtype, output, tmp_path):
    network = make_network("tiny")
    file = write_onnx(
        network, tmp_path / "file", input_dtype=dtype, probabilities=output == "probabilities"
    )
    images = draw_images(network)
    expected = as_output(mnistjax.predict_logits(network, images), output)
    images = images if dtype == "uint8" else np.float32(images) / 255
    np.testing.assert_allclose(run(file, images), expected, rtol=1e-4, atol=1e-4)
    assert onnx.load(file).graph.output[0].name == output


def test_another_implementation_of_onnx_agrees(tmp_path):
    network = make_network("speed")
    images = draw_images(network, 2)
    (found,) = ReferenceEvaluator(str(write_onnx(network, tmp_path / "file"))).run(
        None, {"images": images}
    )
    expected = mnistjax.predict_logits(network, images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_the_graph_is_of_standard_operators_that_old_runtimes_know(tmp_path):
    for name in ("cnn-bn", "speed", "mlp"):
        model = onnx.load(write_onnx(make_network(name), tmp_path / name))
        onnx.checker.check_model(model, full_check=True)
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 13)]
        assert model.ir_version == 7
        operators = [node.op_type for node in model.graph.node]
        assert operators.count("Transpose") == (name != "mlp")
        assert "BatchNormalization" not in operators
        images = model.graph.input[0].type.tensor_type.shape.dim
        assert [dim.dim_param or dim.dim_value for dim in images] == ["N", 28, 28, 1]


def test_the_metadata_hold_the_origin(tmp_path):
    network = make_network("tiny")
    model = onnx.load(write_onnx(network, tmp_path / "file"))
    (entry,) = model.metadata_props
    assert entry.key == "origin"
    assert json.loads(entry.value)["model"] == "tiny"
    assert (model.producer_name, model.producer_version) == ("mnistjax", mnistjax.__version__)


def test_the_same_network_gives_the_same_bytes(tmp_path):
    network = make_network("cnn")
    first, second = (write_onnx(network, tmp_path / name).read_bytes() for name in "ab")
    assert first == second


def test_half_precision_is_written_with_the_same_weights(tmp_path):
    single = make_network("cnn")
    half = dataclasses.replace(single, model=mnistjax.create_model("cnn", dtype=jax.numpy.bfloat16))
    files = [write_onnx(network, tmp_path / name) for network, name in ((single, "a"), (half, "b"))]
    graphs = [onnx.load(file).graph for file in files]
    assert graphs[0] == graphs[1]


def test_what_cannot_be_written_is_an_error_that_names_it(tmp_path):
    vote = mnistjax.runs.ensemble([make_network("softmax")] * 2)
    own = own_network(lambda kernel, x: x.reshape(len(x), -1) @ kernel)
    for network, name in ((vote, "ensemble of 2"), (own, "linear")):
        expected = f"an MLP or a CNN, found '{name}'; StableHLO .* takes any network"
        with pytest.raises(ConfigError, match=expected):
            write_onnx(network, tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_an_unknown_layer_is_an_error_that_names_it(tmp_path, monkeypatch):
    class Gelu(export.Layer):
        pass

    layers = [*export.sequential_layers(make_network("mlp"))[:2], Gelu("Act_0", (100,))]
    monkeypatch.setattr("mnistjax.export.onnx_file.sequential_layers", lambda trained: layers)
    with pytest.raises(ConfigError, match=re.escape("found 'Act_0' (Gelu); StableHLO")):
        write_onnx(make_network("mlp"), tmp_path / "file")


def test_the_package_is_asked_for_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=re.escape("pip install 'mnistjax[onnx]'")):
        write_onnx(make_network("softmax"), tmp_path / "file")


def test_an_existing_file_is_replaced_and_a_folder_is_not(tmp_path):
    network = make_network("softmax")
    (tmp_path / "file").write_text("older")
    assert run(write_onnx(network, tmp_path / "file"), draw_images(network)).shape == (7, 10)
    with pytest.raises(RunError, match="expected to write ONNX to"):
        write_onnx(network, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
