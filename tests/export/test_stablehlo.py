"""StableHLO files: one program for all platforms and batch sizes, which needs JAX alone."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import zipfile

import jax
import jax.export
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from random_networks import CASES, as_output, draw_images, make_network, own_network

import mnistjax
from mnistjax.errors import ConfigError, RunError
from mnistjax.export import write_stablehlo


def load(file):
    return jax.export.deserialize(bytearray(file.read_bytes()))


def assert_computes(file, network, counts=(0, 1, 7), output="logits", images=None, atol=1e-4):
    images = draw_images(network) if images is None else images
    expected = as_output(mnistjax.predict_logits(network, images), output)
    program = load(file)
    for count in counts:
        found = program.call(images[:count])
        assert found.dtype == np.float32
        assert found.shape == (count, network.info.num_classes)
        np.testing.assert_allclose(found, expected[:count], rtol=1e-4, atol=atol)


@pytest.mark.parametrize(("name", "overrides"), CASES)
def test_the_program_computes_the_logits_of_any_number_of_images(name, overrides, tmp_path):
    network = make_network(name, **overrides)
    file = write_stablehlo(network, tmp_path / "new" / "network.stablehlo")
    assert file == tmp_path / "new" / "network.stablehlo"
    assert_computes(file, network)


@pytest.mark.parametrize("output", ["logits", "probabilities"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_input_and_output_are_what_was_asked_for(dtype, output, tmp_path):
    network = make_network("tiny")
    file = write_stablehlo(
        network, tmp_path / "file", input_dtype=dtype, probabilities=output == "probabilities"
    )
    images = draw_images(network)
    images = images if dtype == "uint8" else np.float32(images) / 255
    assert_computes(file, network, (7,), output, images)
    assert load(file).in_avals[0].dtype == dtype
    assert load(file).fun_name == output


def test_one_file_is_for_cpu_cuda_and_tpu(tmp_path):
    program = load(write_stablehlo(make_network("cnn"), tmp_path / "file"))
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert program.nr_devices == 1
    assert "callback" not in program.mlir_module()


def test_the_weights_are_in_the_file_once(tmp_path):
    network = make_network("cnn-bn")
    size = write_stablehlo(network, tmp_path / "file").stat().st_size
    weights = 4 * mnistjax.count_parameters(network.variables)
    assert weights < size < weights + 40_000


def test_a_fresh_process_needs_jax_alone(tmp_path):
    network = make_network("cnn")
    images = draw_images(network, 5)
    write_stablehlo(network, tmp_path / "network.stablehlo")
    np.save(tmp_path / "images.npy", images)
    code = """
import sys
from pathlib import Path
import jax.export, numpy
program = jax.export.deserialize(bytearray(Path("network.stablehlo").read_bytes()))
numpy.save("logits.npy", program.call(numpy.load("images.npy")))
assert not {"mnistjax", "flax", "optax"} & set(sys.modules), sys.modules
"""
    run = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    expected = mnistjax.predict_logits(network, images)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, rtol=1e-4, atol=1e-4)


def test_the_same_network_gives_the_same_bytes_and_no_path_of_this_machine(tmp_path):
    network = make_network("cnn-bn")
    first, second = (write_stablehlo(network, tmp_path / name).read_bytes() for name in "ab")
    assert first == second
    folders = [os.path.dirname(module.__file__) for module in (mnistjax, jax)]
    for folder in [*folders, os.getcwd()]:
        assert os.fsencode(folder) not in first


def test_any_zip_reader_finds_the_origin(tmp_path):
    file = write_stablehlo(make_network("tiny"), tmp_path / "file")
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["origin.json"]
        assert archive.read("origin.json").startswith(b"{")


def test_an_ensemble_is_a_network_like_any_other(tmp_path):
    members = [make_network("tiny", seed) for seed in range(2)] + [make_network("softmax")]
    vote = mnistjax.runs.ensemble(members)
    assert_computes(write_stablehlo(vote, tmp_path / "file"), vote)


def test_half_precision_stays_half_precision(tmp_path):
    network = make_network("cnn", dtype=jax.numpy.bfloat16)
    file = write_stablehlo(network, tmp_path / "file")
    assert "bf16" in load(file).mlir_module()
    # Two programs may round in different places, to 8 bits each time.
    assert_computes(file, network, (7,), atol=0.1)


def test_weights_on_several_devices_give_a_program_for_one(tmp_path):
    network = make_network("tiny")
    mesh = jax.make_mesh((8,), ("data",))
    spread = jax.device_put(network.variables, NamedSharding(mesh, PartitionSpec()))
    file = write_stablehlo(dataclasses.replace(network, variables=spread), tmp_path / "file")
    assert_computes(file, network, (7,))


def test_a_network_of_plain_jax_is_exported(tmp_path):
    network = own_network(lambda kernel, x: x.reshape(x.shape[0], -1) @ kernel)
    assert_computes(write_stablehlo(network, tmp_path / "file"), network)


def test_a_network_that_needs_a_number_of_images_is_an_error_that_names_it(tmp_path):
    network = own_network(lambda kernel, x: x.reshape(len(x), -1) @ kernel)
    with pytest.raises(ConfigError, match=r"'linear' cannot be exported .* not for len\(images\)"):
        write_stablehlo(network, tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_replaced_and_a_folder_is_not(tmp_path):
    network = make_network("softmax")
    (tmp_path / "file").write_text("older")
    assert_computes(write_stablehlo(network, tmp_path / "file"), network, (1,))
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "folder", tmp_path / "file" / "below"):
        with pytest.raises(RunError, match=f"expected to write StableHLO to {place}"):
            write_stablehlo(network, place)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


def test_an_unknown_dtype_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="must be uint8 or float32, found 'int8'"):
        write_stablehlo(make_network("softmax"), tmp_path / "file", input_dtype="int8")
