"""Every exported file computes what its network does, and the check would see if it did not."""

from __future__ import annotations

import dataclasses
import sys

import jax
import numpy as np
import pytest
from random_networks import draw_images, make_network

import mnistjax
from mnistjax import export
from mnistjax.errors import ConfigError, DataFormatError, RunError
from mnistjax.runs import export_orbax

WRITERS = {
    "stablehlo": export.write_stablehlo,
    "onnx": export.write_onnx,
    "safetensors": export.write_safetensors,
    "orbax": export_orbax,
}


def make_split(network, count=40):
    labels = np.random.default_rng(2).integers(0, 10, count, dtype=np.int32)
    return mnistjax.Split(draw_images(network, count), labels)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_agrees_with_its_network_and_with_no_other(kind, tmp_path):
    network, other = (make_network("tiny", seed) for seed in range(2))
    split = make_split(network)
    file = WRITERS[kind](network, tmp_path / "exported")
    found = export.check_export(file, network, split)
    assert found.passed
    assert found.difference <= found.tolerance
    assert (found.count, found.output) == (40, "logits")
    accuracy = mnistjax.evaluate(network, split).summary()["accuracy"]
    assert found.accuracy == found.exported_accuracy == pytest.approx(accuracy)
    different = export.check_export(file, other, split)
    assert not different.passed
    assert different.difference > 0.1
    assert different.exported_accuracy == found.accuracy


@pytest.mark.parametrize("write", [export.write_stablehlo, export.write_onnx])
def test_the_input_and_the_output_of_the_file_are_those_compared(write, tmp_path):
    network = make_network("softmax")
    file = write(network, tmp_path / "file", input_dtype="float32", probabilities=True)
    found = export.check_export(file, network, make_split(network))
    assert found.passed
    assert found.output == "probabilities"


def test_half_precision_has_no_tolerance_but_must_be_finite(tmp_path):
    network = make_network("cnn", dtype=jax.numpy.bfloat16)
    found = export.check_export(
        export.write_onnx(network, tmp_path / "file"), network, make_split(network)
    )
    assert found.passed
    assert found.tolerance is None
    assert 1e-4 < found.difference < 0.5
    assert not dataclasses.replace(found, difference=float("nan")).passed
    assert not dataclasses.replace(found, difference=float("inf")).passed
    assert not dataclasses.replace(found, difference=float("nan"), tolerance=1.0).passed


@pytest.mark.parametrize("kind", ["stablehlo", "onnx"])
def test_a_network_for_other_images_or_classes_is_refused(kind, tmp_path):
    network = make_network("softmax")
    split = make_split(network)
    for name, changes in (("a", {"image_shape": (8, 8, 1)}), ("b", {"num_classes": 3})):
        file = WRITERS[kind](make_network("softmax", **changes), tmp_path / name)
        with pytest.raises(RunError, match=f"{tmp_path / name}"):
            export.check_export(file, network, split)
        with pytest.raises(DataFormatError):
            export.check_export(file, make_network("softmax", **changes), split)


def test_the_runtime_is_asked_for_where_it_is_missing(tmp_path, monkeypatch):
    network = make_network("softmax")
    file = export.write_onnx(network, tmp_path / "file")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match="needs the package onnxruntime"):
        export.check_export(file, network, make_split(network))


@pytest.fixture(scope="module")
def speed_run(mnist_dir):
    config = mnistjax.get_recipe("speed").replace(steps=60)
    return mnistjax.fit(config, mnistjax.load_dataset("mnist", data_dir=mnist_dir))


@pytest.mark.mnist
@pytest.mark.parametrize("kind", WRITERS)
def test_every_way_out_is_right_on_all_test_images_of_mnist(kind, speed_run, tmp_path):
    file = WRITERS[kind](speed_run.trained, tmp_path / "exported")
    found = export.check_export(file, speed_run.trained, speed_run.dataset.test)
    assert found.count == 10_000
    assert found.difference < 1e-4
    assert found.exported_accuracy == found.accuracy
    assert found.accuracy == pytest.approx(speed_run.result["test_accuracy"])
    assert found.accuracy > 0.9
