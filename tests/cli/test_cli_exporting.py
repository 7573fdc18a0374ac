"""`mnistjax export`: what it writes, what it says about it, and how it fails."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import mnistjax
from mnistjax.cli import main

README = Path(__file__).resolve().parents[2] / "README.md"
PLACES = {
    "stablehlo": "network.stablehlo",
    "onnx": "network.onnx",
    "orbax": "orbax",
    "safetensors": "network.safetensors",
}


@pytest.fixture
def run(mlp_run, tmp_path):
    """A run of its own."""
    return shutil.copytree(mlp_run, tmp_path / "run")


@pytest.mark.parametrize("to", PLACES)
def test_each_format_is_written_to_the_run_and_compared(to, run, capsys):
    before = set(run.iterdir())
    main(["export", str(run), "--to", to])
    place = run / PLACES[to]
    first, second = capsys.readouterr().out.splitlines()
    assert set(run.iterdir()) - before == {place}
    files = [file for file in [place, *place.rglob("*")] if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    assert first == f"{to} in {place}, {size:,} bytes"
    accuracy = f"{mnistjax.runs.read_result(run)['test_accuracy']:.2%}"
    assert re.fullmatch(
        r"compared on all 360 test images of digits: logits differ by at most \d\.\de[-+]\d\d, "
        f"accuracy {accuracy} of the file and {accuracy} of the network",
        second,
    )
    assert mnistjax.export.read_origin(place)["result"]["test_accuracy"] == pytest.approx(
        mnistjax.runs.read_result(run)["test_accuracy"]
    )


def test_the_commands_of_the_readme_work(run, tmp_path, monkeypatch, capsys):
    lines = [line for line in README.read_text().splitlines() if line.startswith("mnistjax export")]
    assert {word for line in lines for word in line.split()} >= {"--to", *PLACES}
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, tmp_path / "runs" / "bn")
    for line in dict.fromkeys(lines):
        main(shlex.split(line)[1:])
        assert "\ncompared on all 360" in capsys.readouterr().out


@pytest.mark.parametrize("to", ["stablehlo", "onnx"])
def test_input_and_output_can_be_chosen(to, mlp_run, tmp_path, capsys):
    file = tmp_path / "new" / "file"
    words = ["--input-dtype", "float32", "--probabilities", "--output", str(file)]
    main(["export", str(mlp_run), "--to", to, *words])
    assert ": probabilities differ by at most" in capsys.readouterr().out
    program = mnistjax.export.loading.load_program(file)
    assert (program.input_dtype, program.output) == ("float32", "probabilities")


def test_a_weights_file_is_exported_beside_it(mlp_run, tmp_path, capsys):
    shutil.copy(mlp_run / "weights.safetensors", tmp_path)
    main(["export", str(tmp_path / "weights.safetensors"), "--to", "stablehlo", "--no-check"])
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"stablehlo in {tmp_path / 'network.stablehlo'}, ")


def test_what_cannot_be_compared_is_written_all_the_same(tmp_path, capsys, mlp_run, monkeypatch):
    trained = mnistjax.load_weights(mlp_run)
    info = mnistjax.DatasetInfo("my digits", 10)
    own = mnistjax.TrainedModel(
        trained.model, trained.variables, info, trained.config.replace(dataset=None)
    )
    mnistjax.save_weights(tmp_path / "own", own)
    main(["export", str(tmp_path / "own"), "--to", "onnx", "--output", str(tmp_path / "a")])
    assert "\nnot compared: unknown" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    main(["export", str(mlp_run), "--to", "onnx", "--output", str(tmp_path / "b")])
    assert "\nnot compared: running ONNX files needs" in capsys.readouterr().out
    assert (tmp_path / "a").is_file()
    assert (tmp_path / "b").is_file()


def test_a_file_that_computes_something_else_is_an_error(run, refusal, monkeypatch):
    def write_another(trained, path, **options):
        changed = {**trained.variables, "params": trained.variables["params"].copy()}
        changed["params"]["Dense_1"] = {
            name: np.asarray(leaf) + 0.01 for name, leaf in changed["params"]["Dense_1"].items()
        }
        other = mnistjax.TrainedModel(trained.model, changed, trained.info, trained.config)
        return write(other, path, **options)

    write = mnistjax.export.write_onnx
    monkeypatch.setattr(mnistjax.export, "write_onnx", write_another)
    err = refusal("export", run, "--to", "onnx")
    assert re.search(r"to compute the logits of the network, found a difference of \d", err)


def test_a_sweep_is_exported_as_one_network_that_votes(tmp_path, capsys, refusal):
    config = mnistjax.get_recipe("softmax").replace(steps=2)
    digits = mnistjax.load_dataset("digits")
    mnistjax.fit_population(config, digits, seeds=range(2), workdir=tmp_path / "sweep")
    main(["export", str(tmp_path / "sweep"), "--to", "stablehlo"])
    assert "compared on all 360 test images" in capsys.readouterr().out
    origin = mnistjax.export.read_origin(tmp_path / "sweep" / "network.stablehlo")
    assert origin["model"] == "ensemble of 2"
    for to, message in (
        ("onnx", "found 'ensemble of 2'; StableHLO"),
        ("safetensors", "found an ensemble"),
        ("orbax", "found an ensemble"),
    ):
        assert message in refusal("export", tmp_path / "sweep", "--to", to)


def test_the_files_of_the_run_are_not_replaced(run, refusal):
    before = {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()}
    weights = run / "weights.safetensors"
    for source, output in (
        *((run, run / name) for name in ("config.json", "metrics.jsonl", "result.json")),
        *((source, weights) for source in (run, weights)),
    ):
        err = refusal("export", source, "--to", "safetensors", "--output", output)
        assert "expected another file than the network's own" in err
    assert before == {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()}


def test_what_cannot_be_exported_is_one_line(run, tmp_path, refusal, ending):
    (run / "orbax").mkdir()
    file = tmp_path / "file"
    file.touch()
    for words, message in (
        ([tmp_path / "none", "--to", "onnx"], "found no file"),
        ([run, "--to", "orbax"], "expected a folder to create, found"),
        ([run, "--to", "onnx", "--output", tmp_path], "expected to write ONNX to"),
        ([run, "--to", "onnx", "--output", file / "x"], "expected to write ONNX to"),
        ([run, "--to", "onnx", "--output", "a\0b"], "expected the path of a"),
        ([run, "--to", "orbax", "--probabilities"], "need --to stablehlo or --to onnx"),
        ([run, "--to", "safetensors", "--input-dtype", "float32"], "need --to stablehlo"),
    ):
        assert message in refusal("export", *words)
    assert ending("export", run, "--to", "pickle")[0] == 2
    assert ending("export", run)[0] == 2
