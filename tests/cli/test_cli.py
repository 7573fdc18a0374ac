"""The command line as a whole: its help, its lists, and how a process of it ends."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

import mnistjax
from mnistjax.cli import listing, main

QUICK = ["--dataset", "digits", "--model", "softmax", "--steps", "5", "--no-report"]

FLAGS = {
    "train": [field.name for field in dataclasses.fields(mnistjax.TrainConfig)]
    + ["workdir", "overwrite", "data_dir", "tensorboard", "no_report"],
    "sweep": [field.name for field in dataclasses.fields(mnistjax.TrainConfig)]
    + ["seeds", "combine", "workdir", "overwrite", "resume", "data_dir", "ensemble", "no_report"],
    "evaluate": ["dataset", "data_dir", "no_robustness", "json"],
    "compare": ["data_dir", "plot"],
    "report": ["data_dir", "output"],
    "draw": ["dtype", "data_dir", "output"],
    "predict": ["show", "json", "csv", "output"],
    "read": ["output", "json"],
    "serve": ["host", "port"],
    "info": [],
    "datasets": [],
    "recipes": [],
}


@pytest.mark.parametrize("command", FLAGS)
def test_the_help_of_a_command_names_every_flag(command, ending):
    status, out, err = ending(command, "--help")
    assert (status, err) == (0, "")
    assert command in out
    for flag in FLAGS[command]:
        assert f"--{flag.replace('_', '-')} " in out


def test_the_help_of_train_says_what_each_setting_does_and_its_default(ending, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")  # One column of boxes.
    _, out, _ = ending("train", "--help")
    for line in (
        "--batch-size INT Images per update. (default: 32)",
        "--recipe STR Name of the recipe that the settings start from; every other flag changes "
        "one of them. (default: cnn)",
        "--steps {None}|INT Number of updates, instead of epochs. (default: None)",
    ):
        assert line in " ".join(out.replace("│", " ").split())


def test_the_help_names_every_command_and_is_what_no_command_prints(ending):
    status, out, err = ending("--help")
    assert (status, err) == (0, "")
    assert all(command in out for command in FLAGS)
    assert ending() == (0, out, "")


def test_info_names_versions_devices_and_the_data_directory(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("MNISTJAX_DATA_DIR", str(tmp_path / "d"))
    monkeypatch.setenv("COLUMNS", "400")
    main(["info"])
    out = capsys.readouterr().out
    for package, version in mnistjax.runs.package_versions().items():
        assert re.search(rf"^{package} +{re.escape(version)} *$", out, re.M)
    for word in ("cpu:0", str(tmp_path / "d")):
        assert word in out


def test_datasets_lists_them_all(capsys):
    main(["datasets"])
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert listed == list(mnistjax.data.DATASETS)


def test_recipes_shows_size_accuracy_and_time_of_each_in_80_columns(capsys):
    main(["recipes"])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    measured = listing.read_measured()
    assert list(measured) == list(mnistjax.runs.RECIPES)
    for name, found in measured.items():
        accuracy = f"{100 * found['test_accuracy']:.2f} ± {100 * found['test_accuracy_sd']:.2f}"
        cells = [name, f"{found['parameters']:,}", r"[\d.]+", str(found["seeds"]), accuracy]
        line = " +".join([*cells, f"{found['train_seconds']:.1f}", ""])
        assert re.search(f"^{line}", out, re.M)
        assert mnistjax.runs.RECIPES[name].summary.split()[0] in out


@pytest.mark.parametrize("name", mnistjax.runs.RECIPES)
def test_the_recipes_were_measured_with_the_networks_of_today(name):
    model = mnistjax.create_model(mnistjax.get_recipe(name).model)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    measured = listing.read_measured()[name]
    assert measured["parameters"] == mnistjax.count_parameters(variables)


def process(tmp_path, *words):
    """Starts the command in a process of its own, which compiles as quickly as it can."""
    quick = {"PYTHONUNBUFFERED": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "mnistjax", *words],
        cwd=tmp_path,
        env={**os.environ, **quick},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_module_trains_and_writes_json(tmp_path):
    child = process(tmp_path, "train", *QUICK, "--workdir", "run")
    out, err = child.communicate()
    assert (child.returncode, err) == (0, "")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert f"test accuracy {result['test_accuracy']:.2%}" in out


def test_an_error_of_the_module_is_one_line_on_stderr_and_a_status(tmp_path):
    child = process(tmp_path, "train", "--recipe", "mlpp")
    out, err = child.communicate()
    assert (child.returncode, out) == (1, "")
    assert re.fullmatch(r"error: unknown recipe 'mlpp'.*\n", err)


@pytest.mark.usefixtures("interrupts")
def test_ctrl_c_ends_with_one_line_and_the_status_of_an_interrupt(tmp_path):
    words = ["--dataset", "digits", "--model", "softmax", "--steps", "1000000000"]
    child = process(tmp_path, "train", *words, "--workdir", "run")
    said = ""
    while "epoch " not in said:
        line = child.stdout.readline()
        assert line, child.stderr.read()
        said += line
    child.send_signal(signal.SIGINT)
    _, err = child.communicate()
    assert child.returncode == 130
    assert re.fullmatch(r"interrupted at step \d+, which is saved: .* --resume goes on\n", err)
    assert not (tmp_path / "run" / "result.json").exists()
