"""The origin of a network in every exported file, and files that are none."""

from __future__ import annotations

import json
import sys
import zipfile

import jax
import numpy as np
import pytest
from random_networks import draw_images, make_network
from safetensors.numpy import load_file
from small_runs import CONFIG, dataset
from test_checking import WRITERS

import mnistjax
from mnistjax import export
from mnistjax.errors import ConfigError, RunError, RunNotFoundError
from mnistjax.export.loading import load_program


@pytest.fixture(scope="module")
def fitted():
    return mnistjax.fit(CONFIG.replace(model="softmax", steps=3, recipe="mine"), dataset())


def test_the_origin_is_recipe_data_accuracy_and_versions(fitted):
    origin = export.describe_origin(fitted.trained)
    assert origin["model"] == "softmax"
    assert origin["recipe"] == origin["config"]["recipe"] == "mine"
    assert origin["parameters"] == mnistjax.count_parameters(fitted.trained.variables)
    assert mnistjax.TrainConfig(**origin["config"]) == fitted.trained.config
    assert origin["dataset"]["name"] == "squares"
    assert tuple(origin["dataset"]["image_shape"]) == (12, 12, 1)
    for name in ("test_accuracy", "dataset_sha256", "versions", "seed", "steps"):
        assert origin["result"][name] == fitted.result[name]
    assert origin["exported_with"] == mnistjax.runs.package_versions()


def test_the_origin_says_nothing_about_folders_of_this_machine(fitted):
    assert fitted.result["source"] == "drawn by a test"
    assert "drawn by a test" not in json.dumps(export.describe_origin(fitted.trained))


def test_what_is_unknown_is_none(fitted):
    vote = export.describe_origin(mnistjax.runs.ensemble([fitted.trained] * 2))
    assert vote["model"] == "ensemble of 2"
    assert vote["recipe"] is vote["config"] is vote["result"] is None
    assert export.describe_origin(make_network("softmax"))["result"] is None


@pytest.mark.parametrize("kind", ["stablehlo", "onnx", "safetensors"])
def test_every_file_carries_its_origin(kind, fitted, tmp_path):
    file = WRITERS[kind](fitted.trained, tmp_path / "file")
    expected = json.loads(json.dumps(export.describe_origin(fitted.trained)))
    assert export.read_origin(file) == expected


def test_a_folder_of_orbax_describes_its_origin(fitted, tmp_path):
    origin = export.read_origin(WRITERS["orbax"](fitted.trained, tmp_path / "folder"))
    assert origin["result"] == fitted.result
    assert origin["config"]["recipe"] == "mine"
    assert origin["dataset"]["name"] == "squares"


def test_safetensors_are_weights_that_this_package_and_others_read(fitted, tmp_path):
    file = export.write_safetensors(fitted.trained, tmp_path / "new" / "file")
    back = mnistjax.load_weights(file)
    jax.tree.map(np.testing.assert_array_equal, back.variables, fitted.trained.variables)
    assert (back.config, back.info) == (fitted.trained.config, fitted.trained.info)
    kernel = load_file(file)["params/Dense_0/kernel"]
    np.testing.assert_array_equal(kernel, back.variables["params"]["Dense_0"]["kernel"])


@pytest.mark.parametrize("kind", ["safetensors", "orbax"])
def test_an_ensemble_has_no_weights_to_write(kind, tmp_path):
    vote = mnistjax.runs.ensemble([make_network("softmax")] * 2)
    with pytest.raises(ConfigError, match="found an ensemble"):
        WRITERS[kind](vote, tmp_path / "exported")
    assert not list(tmp_path.iterdir())


def test_safetensors_that_cannot_be_written_are_one_error(tmp_path):
    with pytest.raises(RunError, match="expected to write safetensors to"):
        export.write_safetensors(make_network("softmax"), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("read", [export.read_origin, load_program])
@pytest.mark.parametrize("kind", ["stablehlo", "onnx", "safetensors"])
def test_a_file_that_is_cut_short_is_refused(read, kind, tmp_path):
    whole = WRITERS[kind](make_network("softmax"), tmp_path / "whole").read_bytes()
    for kept in (0, 1, 20, len(whole) // 2, len(whole) - 20):
        file = tmp_path / "file"
        file.write_bytes(whole[:kept])
        with pytest.raises(RunError, match=f"{file}"):
            read(file)


@pytest.mark.parametrize("read", [export.read_origin, load_program])
def test_what_is_no_exported_file_is_refused(read, tmp_path):
    with pytest.raises(RunNotFoundError, match="expected an exported file, found no file"):
        read(tmp_path / "none")
    with pytest.raises(RunError, match=f"{tmp_path}"):
        read(tmp_path)
    (tmp_path / "text").write_text("expected")
    with pytest.raises(RunError, match="of another format"):
        read(tmp_path / "text")
    with pytest.raises(RunError, match="text/below"):
        read(tmp_path / "text" / "below")
    with pytest.raises(ConfigError, match="expected the path of a file that was exported"):
        read("")


def test_an_origin_that_unpacks_to_too_much_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "file", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("origin.json", '"' + " " * (1 << 21) + '"')
    with pytest.raises(RunError, match="expected an exported file"):
        export.read_origin(tmp_path / "file")


def test_weights_without_an_origin_are_refused(tmp_path):
    mnistjax.save_weights(tmp_path / "file", make_network("softmax"))
    with pytest.raises(RunError, match="'origin'"):
        export.read_origin(tmp_path / "file")


def test_the_package_is_asked_for_where_it_is_missing(tmp_path, monkeypatch):
    file = export.write_onnx(make_network("softmax"), tmp_path / "file")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match="needs the package onnx, found none"):
        export.read_origin(file)


def test_a_loaded_program_takes_many_images(tmp_path):
    network = make_network("softmax")
    images = draw_images(network, 1203)
    expected = mnistjax.predict_logits(network, images)
    for kind in ("stablehlo", "onnx"):
        program = load_program(WRITERS[kind](network, tmp_path / kind))
        assert program.kind == kind
        np.testing.assert_allclose(program.run(images), expected, rtol=1e-4, atol=1e-4)
