"""The examples run as their docstrings say."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from report_runs import few_corruptions, few_pictures

import mnistjax

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def run_example(tmp_path, monkeypatch, capsys):
    """Runs an example on the embedded digits, in an empty folder; returns what it printed."""
    digits = mnistjax.load_dataset("digits")

    def run(name, *words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(mnistjax, "load_dataset", lambda *args, **options: digits)
        monkeypatch.setattr(sys, "argv", [name, *words])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_train_cnn_needs_no_flag(run_example, tmp_path, monkeypatch):
    few_corruptions(monkeypatch)
    few_pictures(monkeypatch)
    text = run_example("train_cnn.py")
    (workdir,) = (tmp_path / "runs").iterdir()
    result = json.loads((workdir / "result.json").read_text())
    assert f"test accuracy {result['test_accuracy']:.2%} on all 360 images" in text
    assert f"results in {workdir.relative_to(tmp_path)}" in text
    assert (
        len(re.findall(r"^epoch .* loss .* training .* validation .* images/s$", text, re.M)) == 8
    )
    assert result["test_accuracy"] > 0.9
    assert "report.html in a browser" in text
    assert (workdir / "report.html").is_file()


def test_train_dense_prints_a_line_per_epoch_and_the_test_accuracy(run_example):
    text = run_example("train_dense.py")
    assert text.count("epoch ") == 10
    accuracy = re.search(r"test accuracy (\d+\.\d+)% on all 360 images", text)
    assert accuracy
    assert float(accuracy[1]) > 90


def test_tune_cnn_trains_every_combination_and_draws(run_example, tmp_path):
    words = ["--recipe", "softmax", "--seeds", "2", "--learning-rates", "0.01", "0.1"]
    text = run_example("tune_cnn.py", *words)
    assert len(re.findall(r"^network \d: ", text, re.M)) == 8
    assert len(re.findall(r"^(adam|momentum) +0.0?1 +validation .* ± .* %$", text, re.M)) == 4
    assert re.search(r"^best: \w+ at 0.0?1, test accuracy \d+\.\d\d%$", text, re.M)
    assert (tmp_path / "runs/tune/sweep.png").read_bytes().startswith(b"\x89PNG")
    results = [path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")]
    assert len(results) == 8
    run_example("tune_cnn.py", *words)  # What is there is resumed.
    assert [path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")] == results


def test_tune_optuna_tells_the_study_what_was_trained(run_example):
    words = ["--recipe", "softmax", "--trials", "9", "--epochs", "2"]
    text = run_example("tune_optuna.py", *words)
    trials = re.findall(
        r"^trial (\d): .*'learning_rate': (\S+)} (\d+\.\d\d)% (pruned)?$", text, re.M
    )
    assert [int(number) for number, *_ in trials] == list(range(9))
    # Pruned are some, but not among the first five, with which the others are compared.
    pruned = [int(number) for number, *_, end in trials if end]
    assert pruned
    assert min(pruned) >= 5
    best = max((trial for trial in trials if not trial[3]), key=lambda trial: float(trial[2]))
    assert re.search(rf"^best: .*{re.escape(best[1])}}}, test accuracy \d+\.\d\d%$", text, re.M)


@pytest.mark.parametrize("name", ["plain", "nnx", "equinox"])
def test_networks_of_other_kinds_are_trained(run_example, name):
    if name == "equinox":
        pytest.importorskip("equinox", reason="the extra equinox is not installed")
    text = run_example(f"own_network_{name}.py")
    accuracies = re.findall(r"^epoch \d+: training accuracy (\d+\.\d\d)%$", text, re.M)
    assert float(accuracies[-1]) > max(85, float(accuracies[0]))
    accuracy = re.search(r"^test accuracy (\d+\.\d\d)%$", text, re.M)
    assert accuracy
    assert float(accuracy[1]) > 80


def test_own_pictures_from_files_to_a_network_that_recognizes_them(tmp_path, monkeypatch, capsys):
    few_corruptions(monkeypatch)
    few_pictures(monkeypatch)
    small = mnistjax.get_recipe("softmax")  # Compiled sooner than the network of the example.
    monkeypatch.setattr(mnistjax, "get_recipe", {"cnn": small}.__getitem__)
    monkeypatch.chdir(tmp_path)
    program = str(EXAMPLES / "own_pictures.py")
    monkeypatch.setattr(sys, "argv", [program, "--epochs", "1"])
    runpy.run_path(program, run_name="__main__")
    text = capsys.readouterr().out
    assert len(list(tmp_path.glob("runs/digits/train/*/*.png"))) == 1437
    trained = mnistjax.load_run("runs/pictures")
    assert f"test accuracy {trained.result['test_accuracy']:.2%} on ('0', '1', " in text
    dataset = mnistjax.runs.load_run_dataset(trained)
    digits = mnistjax.load_dataset("digits")
    order = np.argsort(digits.test.labels, kind="stable")
    np.testing.assert_array_equal(dataset.test.labels, digits.test.labels[order])
    assert (tmp_path / "runs/pictures/report.html").is_file()
    assert (tmp_path / "runs/pictures/draw.html").is_file()
    assert "mnistjax serve runs/pictures" in text


def test_compare_models_trains_compares_and_draws(run_example, tmp_path):
    words = ["--models", "softmax", "mlp", "--seeds", "0", "1", "--epochs", "3"]
    text = run_example("compare_models.py", *words)
    runs = {path.name for path in (tmp_path / "runs" / "compare").iterdir()}
    assert runs == {"softmax-0", "softmax-1", "mlp-0", "mlp-1", "comparison.png"}
    assert text.count("  test accuracy ") == 4
    assert re.search(r"^softmax +2 .* 7,850 ", text, re.M)
    assert re.search(r"^mlp +2 .* 79,510 ", text, re.M)
    assert re.search(r"^mlp +softmax |^softmax +mlp ", text, re.M)
    assert "bar chart in runs/compare/comparison.png" in text
