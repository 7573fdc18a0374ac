"""`mnistjax evaluate`, `compare` and `report`: what they print and write, and how they fail."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from report_runs import few_corruptions, few_pictures

import mnistjax
from mnistjax.cli import main, measuring


def test_evaluate_prints_the_accuracy_of_the_result(mlp_run, capsys):
    result = mnistjax.runs.read_result(mlp_run)
    for place in (mlp_run, mlp_run / "weights.safetensors"):
        main(["evaluate", str(place), "--no-robustness"])
        out = capsys.readouterr().out
        assert out.splitlines()[0] == (
            f"test accuracy {result['test_accuracy']:.2%} on all 360 images, "
            f"loss {result['test_loss']:.4f}"
        )
        assert "Robustness" not in out


def test_evaluate_shows_every_side_of_a_run_in_80_columns(mlp_run, tmp_path, capsys):
    file = tmp_path / "new" / "metrics.json"
    main(["evaluate", str(mlp_run), "--json", str(file)])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= max(80, len(str(mlp_run)) + 20, len(str(file)) + 20)
    for title in ("Classes", "Confusion matrix", "Most confused", "Calibration", "Robustness"):
        assert f"\n{title}" in out
    metrics = json.loads(file.read_text())
    result = mnistjax.runs.read_result(mlp_run)
    assert metrics["accuracy"] == result["test_accuracy"]
    assert metrics["loss"] == pytest.approx(result["test_loss"], rel=1e-6)
    assert metrics["interval"][0] < metrics["accuracy"] < metrics["interval"][1]
    assert sum(map(sum, metrics["confusion"])) == metrics["count"] == 360
    assert sum(metrics["calibration"]["counts"]) == 360
    assert metrics["accuracy_without_label_errors"] is None
    for row in metrics["robustness"]:
        assert f"{row['accuracy']:.2%}" in out
    for row in metrics["classes"]:
        shares = " +".join(f"{row[name]:.2%}" for name in ("precision", "recall", "f1"))
        assert re.search(rf"^{row['name']} +{shares} +{row['support']}$", out, re.M)


@pytest.mark.parametrize(("count", "shown"), [(3, True), (26, False)])
def test_long_class_names_are_numbered_and_a_matrix_too_wide_is_left_out(count, shown, capsys):
    info = mnistjax.DatasetInfo("mine", count, tuple(f"kind [{index}]" for index in range(count)))
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1000, count)).astype(np.float32)
    labels = rng.integers(0, count, 1000, dtype=np.int32)
    measuring.print_tables(mnistjax.evaluation.analyze_logits(logits, labels, info))
    out = capsys.readouterr().out
    assert re.search(r"^kind \[2\] +\d", out, re.M)
    assert ("\nConfusion matrix" in out) == shown
    assert ("\n2 kind [2]" in out) == shown
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.mnist
def test_evaluate_counts_the_label_errors_of_mnist_apart(mnist_dir, tmp_path, capsys):
    words = ["--data-dir", str(mnist_dir), "--dataset", "mnist", "--no-report"]
    main(["train", "--model", "softmax", "--steps=50", "--workdir", str(tmp_path / "run"), *words])
    capsys.readouterr()
    main(["evaluate", str(tmp_path / "run"), "--no-robustness", *words[:2]])
    second, third = capsys.readouterr().out.splitlines()[1:3]
    assert re.fullmatch(r"95 % interval \d\d\.\d\d% to \d\d\.\d\d%", second)
    assert third.startswith("without the 15 images whose label is known to be wrong: ")
    assert third.endswith("% on 9,985 images")


def test_metrics_that_cannot_be_written_are_one_line(mlp_run, tmp_path, refusal):
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file" / "metrics.json"):
        err = refusal("evaluate", mlp_run, "--no-robustness", "--json", place)
        assert f"cannot write {place}" in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a run directory or a weights file, found no file"),
        (b"", "expected a safetensors file"),
        (b"not weights, but long enough to be taken for some", "expected a safetensors file"),
    ],
)
def test_weights_that_cannot_be_read_are_one_line(content, message, tmp_path, refusal):
    file = tmp_path / "weights.safetensors"
    if content is not None:
        file.write_bytes(content)
    err = refusal("evaluate", file)
    assert message in err
    assert str(file) in err


def test_a_data_set_of_other_classes_is_one_line(mlp_run, tmp_path, refusal):
    (tmp_path / "train.csv").write_text(
        "label,"
        + ",".join(f"pixel{i}" for i in range(784))
        + "\n"
        + f"{'0' + ',0' * 784}\n" * 10
        + f"{'1' + ',9' * 784}\n" * 10
    )
    err = refusal("evaluate", mlp_run, "--dataset", tmp_path)
    assert "expected a data set of num_classes 10" in err


@pytest.fixture(scope="module")
def another_run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "another"
    words = ["--dataset", "digits", "--model", "softmax", "--steps=3", "--seed=1", "--no-report"]
    main(["train", "--recipe", "softmax", *words, "--workdir", str(workdir)])
    return workdir


def test_compare_prints_a_row_per_recipe_and_the_test_between_them(mlp_run, another_run, capsys):
    main(["compare", str(mlp_run), str(another_run)])
    out = capsys.readouterr().out
    assert out.startswith("digits, 360 test images\n")
    for workdir, recipe in ((mlp_run, "mlp"), (another_run, "softmax")):
        accuracy = mnistjax.runs.read_result(workdir)["test_accuracy"]
        assert re.search(rf"^{recipe} +1 +{100 * accuracy:.2f} ", out, re.M)
    (pair,) = mnistjax.compare_runs([mlp_run, another_run]).pairs
    last = out.splitlines()[-1].split()
    assert last[:2] == ["mlp", "softmax"]
    # With one run each it is a test of two networks, not of the recipes.
    assert last[2:4] == [str(pair.mcnemar.only_first), str(pair.mcnemar.only_second)]
    assert max(map(len, out.splitlines())) <= 80


def test_compare_draws_a_bar_chart(mlp_run, another_run, tmp_path, capsys, refusal):
    chart = tmp_path / "new" / "chart.png"
    main(["compare", str(mlp_run), str(another_run), "--plot", str(chart)])
    assert capsys.readouterr().out.splitlines()[-1] == f"bar chart in {chart}"
    assert chart.read_bytes().startswith(b"\x89PNG")
    for place in (tmp_path, chart.with_suffix(".xyz")):
        assert f"cannot write {place}" in refusal("compare", mlp_run, "--plot", place)
    assert [path.name for path in chart.parent.iterdir()] == ["chart.png"]


def test_runs_that_cannot_be_compared_are_one_line(mlp_run, tmp_path, refusal):
    for words, message in (
        ([], "expected run directories to compare, found none"),
        ([tmp_path / "none"], "expected a finished run, found no result.json"),
        ([mlp_run / "weights.safetensors"], "expected the directory of a run, found the file"),
        ([mlp_run, mlp_run], "expected different runs"),
    ):
        assert message in refusal("compare", *words)


def test_report_writes_the_page_where_it_is_asked_to(mlp_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {path.name for path in mlp_run.iterdir()}
    main(["report", str(mlp_run), "--output", "here/page.html"])
    assert capsys.readouterr().out == "report in here/page.html\n"
    assert (tmp_path / "here" / "page.html").is_file()
    assert {path.name for path in mlp_run.iterdir()} - before <= {"plots"}


def test_a_report_that_cannot_be_had_is_one_line(mlp_run, tmp_path, refusal, monkeypatch):
    few_corruptions(monkeypatch)
    few_pictures(monkeypatch)
    (tmp_path / "file").touch()
    for words, message in (
        ([tmp_path / "none"], "expected a run directory or a weights file, found no file"),
        ([mlp_run / "weights.safetensors"], "expected the directory of a run, found"),
        ([mlp_run, "--output", tmp_path / "file" / "page.html"], "expected to write the report to"),
    ):
        assert message in refusal("report", *words)
