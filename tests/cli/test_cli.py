"""The command line: what it prints, and how it ends on every error of its user."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

import mnistjax
from mnistjax.cli import main, measuring

QUICK = ["--dataset", "digits", "--model", "softmax", "--steps", "5", "--no-report"]


def ending(capsys, *words):
    """Runs a command that must end in an error; returns its status and what it said."""
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    said = capsys.readouterr()
    # A text is what the interpreter prints on stderr, with status 1.
    if isinstance(caught.value.code, str):
        return 1, said.out, said.err + caught.value.code + "\n"
    return caught.value.code, said.out, said.err


def assert_one_line(status, out, err):
    assert status != 0
    assert err.startswith("error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert "Traceback" not in out + err


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "digits"
    words = ["--dataset", "digits", "--steps=40", "--no-report", "--workdir", str(workdir)]
    main(["train", "--recipe", "mlp", *words])
    return workdir


def test_train_takes_the_settings_of_the_recipe_and_of_the_flags(run):
    config = mnistjax.TrainConfig.from_json((run / "config.json").read_text())
    assert config == mnistjax.get_recipe("mlp").replace(dataset="digits", steps=40)
    assert mnistjax.read_result(run)["steps"] == 40


def test_evaluate_prints_the_accuracy_of_the_result(run, capsys):
    result = mnistjax.read_result(run)
    for place in (run, run / "weights.safetensors"):
        main(["evaluate", str(place), "--no-robustness"])
        out = capsys.readouterr().out
        assert out.splitlines()[0] == (
            f"test accuracy {result['test_accuracy']:.2%} on all 360 images, "
            f"loss {result['test_loss']:.4f}"
        )
        assert "Robustness" not in out


def test_evaluate_shows_every_side_of_a_run_in_80_columns(run, tmp_path, capsys):
    file = tmp_path / "new" / "figures.json"
    main(["evaluate", str(run), "--json", str(file)])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= max(80, len(str(run)) + 20, len(str(file)) + 20)
    for title in ("Classes", "Confusion matrix", "Most confused", "Calibration", "Robustness"):
        assert f"\n{title}" in out
    figures = json.loads(file.read_text())
    result = mnistjax.read_result(run)
    assert figures["accuracy"] == pytest.approx(result["test_accuracy"])
    assert figures["loss"] == pytest.approx(result["test_loss"], rel=1e-4)
    assert figures["interval"][0] < figures["accuracy"] < figures["interval"][1]
    assert sum(map(sum, figures["confusion"])) == figures["count"] == 360
    assert sum(figures["calibration"]["counts"]) == 360
    assert figures["clean_accuracy"] is None
    for row in figures["robustness"]:
        assert f"{row['accuracy']:.2%}" in out
    for row in figures["classes"]:
        shares = " +".join(f"{row[name]:.2%}" for name in ("precision", "recall", "f1"))
        assert re.search(rf"^{row['name']} +{shares} +{row['support']}$", out, re.M)


@pytest.mark.parametrize(("count", "shown"), [(3, True), (26, False)])
def test_long_class_names_are_numbered_and_a_matrix_too_wide_is_spared(count, shown, capsys):
    info = mnistjax.DatasetInfo("mine", count, tuple(f"kind [{index}]" for index in range(count)))
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(count), 1000).astype(np.float32)
    labels = rng.integers(0, count, 1000, dtype=np.int32)
    measuring.print_tables(mnistjax.analyse(probabilities, labels, info))
    out = capsys.readouterr().out
    assert re.search(r"^kind \[2\] +\d", out, re.M)
    assert ("\nConfusion matrix" in out) == shown
    assert ("\n2 kind [2]" in out) == shown
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.mnist
def test_evaluate_counts_the_known_wrong_labels_of_mnist_apart(mnist_dir, tmp_path, capsys):
    words = ["--data-dir", str(mnist_dir), "--dataset", "mnist", "--no-report"]
    main(["train", "--model", "softmax", "--steps=50", "--workdir", str(tmp_path / "run"), *words])
    capsys.readouterr()
    main(["evaluate", str(tmp_path / "run"), "--no-robustness", *words[:2]])
    second, third = capsys.readouterr().out.splitlines()[1:3]
    assert re.fullmatch(r"95 % interval \d\d\.\d\d% to \d\d\.\d\d%", second)
    assert third.startswith("without the 15 images whose label is known to be wrong: ")
    assert third.endswith("% on 9,985 images")


def test_figures_that_cannot_be_written_are_one_line(run, tmp_path, capsys):
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file" / "figures.json"):
        words = ["evaluate", run, "--no-robustness", "--json", place]
        status, out, err = ending(capsys, *words)
        assert_one_line(status, out, err)
        assert f"cannot write {place}" in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.fixture(scope="module")
def another_run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "another"
    words = ["--dataset", "digits", "--model", "softmax", "--steps=3", "--seed=1", "--no-report"]
    main(["train", "--recipe", "softmax", *words, "--workdir", str(workdir)])
    return workdir


def test_compare_prints_a_row_a_recipe_and_the_test_between_them(run, another_run, capsys):
    main(["compare", str(run), str(another_run)])
    out = capsys.readouterr().out
    assert out.startswith("digits, 360 test images\n")
    for workdir, recipe in ((run, "mlp"), (another_run, "softmax")):
        accuracy = mnistjax.read_result(workdir)["test_accuracy"]
        assert re.search(rf"^{recipe} +1 +{100 * accuracy:.2f} ", out, re.M)
    (pair,) = mnistjax.compare_runs([run, another_run]).pairs
    last = out.splitlines()[-1].split()
    assert last[:4] == ["mlp", "softmax", str(pair.test.only_first), str(pair.test.only_second)]
    assert max(map(len, out.splitlines())) <= 80


def test_compare_draws_a_bar_chart_whose_file_can_be_written(run, another_run, tmp_path, capsys):
    chart = tmp_path / "new" / "chart.png"
    main(["compare", str(run), str(another_run), "--plot", str(chart)])
    assert capsys.readouterr().out.splitlines()[-1] == f"bar chart in {chart}"
    assert chart.read_bytes().startswith(b"\x89PNG")
    for place in (tmp_path, chart.with_suffix(".xyz")):
        status, out, err = ending(capsys, "compare", run, "--plot", place)
        assert_one_line(status, out, err)
        assert f"cannot write {place}" in err
    assert [path.name for path in chart.parent.iterdir()] == ["chart.png"]


def test_runs_that_cannot_be_compared_are_one_line(run, tmp_path, capsys):
    for words, message in (
        ([], "expected run directories to compare, found none"),
        ([tmp_path / "none"], "expected a finished run, found no result.json"),
        ([run / "weights.safetensors"], "expected the directory of a run, found the file"),
        ([run, run], "expected different runs"),
    ):
        status, out, err = ending(capsys, "compare", *words)
        assert_one_line(status, out, err)
        assert message in err


def test_train_prints_to_stdout_where_the_results_are(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["train", *QUICK])
    said = capsys.readouterr()
    (workdir,) = (tmp_path / "runs").iterdir()
    assert workdir.name.startswith("cnn-")
    assert said.out.splitlines()[-1] == f"results in runs/{workdir.name}"
    assert not said.err


def test_train_writes_a_report_and_so_does_the_command(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [word for word in QUICK if word != "--no-report"]
    main(["train", *words, "--workdir", "new"])
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "results in new",
        "writing the report new/report.html",
    ]
    assert (tmp_path / "new" / "report.html").is_file()
    before = {path.name for path in run.iterdir()}
    main(["report", str(run), "--output", "here/page.html"])
    assert capsys.readouterr().out == "report in here/page.html\n"
    assert (tmp_path / "here" / "page.html").is_file()
    assert {path.name for path in run.iterdir()} == before | {"plots"}


def test_a_report_that_cannot_be_had_is_one_line(run, tmp_path, capsys):
    (tmp_path / "file").touch()
    for words, message in (
        ([tmp_path / "none"], "expected a run directory or a weights file, found no file"),
        ([run / "weights.safetensors"], "expected the directory of a run, found"),
        ([run, "--output", tmp_path / "file" / "page.html"], "expected to write the report to"),
    ):
        status, out, err = ending(capsys, "report", *words)
        assert_one_line(status, out, err)
        assert message in err


def test_info_names_versions_devices_and_the_data_directory(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("MNISTJAX_DATA_DIR", str(tmp_path / "d"))
    monkeypatch.setenv("COLUMNS", "400")
    main(["info"])
    out = capsys.readouterr().out
    for word in ("python", "jax", "optax", "cpu:0", str(tmp_path / "d")):
        assert word in out


def test_datasets_and_recipes_list_them_all(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for command, names in (("datasets", mnistjax.DATASETS), ("recipes", mnistjax.RECIPES)):
        main([command])
        listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
        assert listed == list(names)


FLAGS = {
    "train": [field.name for field in dataclasses.fields(mnistjax.TrainConfig)]
    + ["workdir", "overwrite", "data_dir", "no_report"],
    "evaluate": ["dataset", "data_dir", "no_robustness", "json"],
    "compare": ["data_dir", "plot"],
    "report": ["data_dir", "output"],
    "predict": ["show", "json", "csv", "output"],
    "read": ["output", "json"],
    "info": [],
    "datasets": [],
    "recipes": [],
}


@pytest.mark.parametrize("command", FLAGS)
def test_the_help_of_a_command_names_every_flag(command, capsys):
    status, out, err = ending(capsys, command, "--help")
    assert (status, err) == (0, "")
    assert command in out
    for flag in FLAGS[command]:
        assert f"--{flag.replace('_', '-')}" in out


def test_the_help_names_every_command_and_its_purpose(capsys):
    _, out, _ = ending(capsys, "--help")
    assert all(command in out for command in FLAGS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe", "cmn"], "unknown recipe 'cmn': did you mean 'cnn'?"),
        (["--recipe=nope"], "unknown recipe 'nope': known are cnn, "),
        (["--model", "mpl"], "unknown model 'mpl': did you mean 'mlp'?"),
        (["--optimizer", "adm"], "unknown optimizer 'adm': did you mean 'adam'?"),
        (["--schedule", "cosin"], "unknown schedule 'cosin': did you mean 'cosine'?"),
        (["--dataset", "mnits"], "unknown dataset 'mnits': did you mean 'mnist'?"),
        (["--epochs", "2", "--steps", "3"], "give epochs (2.0) or steps (3), not both"),
        (["--epochs", "-1"], "epochs must be positive and at most 1,000,000, found -1.0"),
        (["--epochs", "nan"], "epochs must be positive and at most 1,000,000, found nan"),
        (["--steps", "0"], "steps must be from 1 to 2^31 - 1, found 0"),
        (["--warmup", "1"], "warmup must be in [0, 1), found 1.0"),
        (["--label-smoothing", "1.5"], "label_smoothing must be in [0, 1), found 1.5"),
        (["--validation-fraction", "-0.1"], "validation_fraction must be in [0, 1), found -0.1"),
        (["--learning-rate", "0"], "learning_rate must be positive, found 0.0"),
        (["--batch-size", "0"], "batch_size must be at least 1, found 0"),
        ([*QUICK, "--batch-size", "2000"], "at most the number of images, 1005, found 2000"),
        (["--patience", "1", "--validation-fraction", "0"], "patience needs validation images"),
        (["--optimizer", "adam", "--momentum", "0.5"], "'adam' takes no setting 'momentum'"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_line(words, message, capsys, tmp_path):
    workdir = tmp_path / "run"
    status, out, err = ending(capsys, "train", *words, "--workdir", workdir)
    assert_one_line(status, out, err)
    assert message in err
    assert not workdir.exists()


def test_a_directory_that_holds_a_run_is_one_line_and_can_be_overwritten(run, tmp_path, capsys):
    words = ["train", *QUICK, "--workdir", str(tmp_path)]
    (tmp_path / "result.json").write_text("{}")
    status, out, err = ending(capsys, *words)
    assert_one_line(status, out, err)
    assert f"found result.json in {tmp_path}" in err
    main([*words, "--overwrite"])
    assert mnistjax.read_result(tmp_path)["steps"] == 5


def test_a_loss_that_is_not_finite_is_one_line(tmp_path, capsys):
    words = [*QUICK, "--optimizer", "sgd", "--learning-rate", "1e38", "--workdir", tmp_path]
    status, out, err = ending(capsys, "train", *words)
    assert_one_line(status, out, err)
    assert "a learning rate below 1e+38 or clip_norm may help" in err
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a run directory or a weights file, found no file"),
        (b"", "expected a safetensors file"),
        (
            b"not weights at all, but long enough to be taken for some",
            "expected a safetensors file",
        ),
    ],
)
def test_weights_that_cannot_be_read_are_one_line(content, message, tmp_path, capsys):
    file = tmp_path / "weights.safetensors"
    if content is not None:
        file.write_bytes(content)
    status, out, err = ending(capsys, "evaluate", file)
    assert_one_line(status, out, err)
    assert message in err
    assert str(file) in err


def test_a_data_set_of_other_classes_is_one_line(run, tmp_path, capsys):
    (tmp_path / "train.csv").write_text(
        "label,"
        + ",".join(f"pixel{i}" for i in range(784))
        + "\n"
        + f"{'0' + ',0' * 784}\n" * 10
        + f"{'1' + ',9' * 784}\n" * 10
    )
    status, out, err = ending(capsys, "evaluate", run, "--dataset", tmp_path)
    assert_one_line(status, out, err)
    assert "expected a data set of num_classes 10" in err


def test_a_named_data_set_that_cannot_be_had_is_one_line(tmp_path, capsys, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        for variable in (name, name.lower()):
            monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    words = ["train", "--dataset", "kmnist", "--data-dir", tmp_path / "data"]
    status, out, err = ending(capsys, *words, "--workdir", tmp_path / "run")
    assert_one_line(status, out, err)
    assert "data set 'kmnist' not found" in err
    assert not list(tmp_path.iterdir())


def test_a_flag_of_the_wrong_type_is_refused_without_a_traceback(capsys):
    status, out, err = ending(capsys, "train", "--batch-size", "many")
    assert status == 2
    assert "--batch-size" in err
    assert "Traceback" not in out + err


def process(tmp_path, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "mnistjax", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
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
    assert child.returncode == 1
    assert out == ""
    assert_one_line(child.returncode, out, err)


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
    assert err == "interrupted\n"
    assert not (tmp_path / "run" / "result.json").exists()
