"""How a report is written: beside a run, by a callback that cannot harm it, and what is refused."""

from __future__ import annotations

import dataclasses
import errno
import logging
import sys

import numpy as np
import pytest
from report_runs import few_corruptions, few_pictures, make_dataset

import mnistjax
from mnistjax import WriteReport, fit, load_run, load_weights, write_report
from mnistjax.errors import ConfigError, RunError

CONFIG = mnistjax.TrainConfig(model="softmax", steps=2, batch_size=16)
DATASET = make_dataset(3)
FILES = {"config.json", "metrics.jsonl", "result.json", "weights.safetensors"} | {
    "checkpoints/step-0000000002.safetensors"
}
REPORT = {"report.html", "draw.html", "plots/samples.png"}


def files_of(workdir):
    found = {str(path.relative_to(workdir)) for path in workdir.rglob("*") if path.is_file()}
    return found - {".lock"}


class Listener(mnistjax.Callback):
    """Notes what lies in the directory when the run has ended."""

    def on_end(self, fitted):
        self.seen = files_of(fitted.workdir)


@pytest.fixture(autouse=True)
def _few_corruptions(monkeypatch):
    few_corruptions(monkeypatch)


# The callback


def test_the_report_comes_after_everything_else(tmp_path, monkeypatch, capsys):
    few_pictures(monkeypatch)
    workdir, listener = tmp_path / "run", Listener()
    fitted = fit(CONFIG, DATASET, workdir=workdir, callbacks=[listener, WriteReport(verbose=True)])
    assert listener.seen == FILES
    assert files_of(workdir) == FILES | REPORT
    assert capsys.readouterr().out == f"writing the report {workdir / 'report.html'}\n"
    text = (workdir / "report.html").read_text(encoding="utf-8")
    assert f"{100 * fitted.result['test_accuracy']:.2f}" in text


def test_a_report_is_silent_by_default(tmp_path, monkeypatch, capsys):
    few_pictures(monkeypatch)
    fit(CONFIG, DATASET, workdir=tmp_path, callbacks=[WriteReport()])
    assert (tmp_path / "report.html").is_file()
    assert not capsys.readouterr().out


def test_without_the_callback_there_is_no_report(tmp_path):
    fit(CONFIG, DATASET, workdir=tmp_path)
    assert files_of(tmp_path) == FILES


def test_without_a_work_directory_nothing_is_trained():
    with pytest.raises(ConfigError, match="a report needs the directory of a run"):
        fit(CONFIG, DATASET, callbacks=[WriteReport()])


def no_matplotlib(workdir, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def plots_is_a_file(workdir, monkeypatch):
    few_pictures(monkeypatch)
    (workdir / "plots").touch()


def full_disk(workdir, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    few_pictures(monkeypatch)
    monkeypatch.setattr("mnistjax.report.page.atomic_path", full)


def broken(workdir, monkeypatch):
    def fail(*args, **options):
        raise ZeroDivisionError("of its own\nmaking")

    monkeypatch.setattr("mnistjax.report.callback.write_report", fail)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (no_matplotlib, "matplotlib"),
        (plots_is_a_file, "expected to write the report to"),
        (full_disk, "No space left on device"),
        (broken, "of its own making"),
    ],
)
def test_a_report_that_fails_is_a_warning_and_costs_nothing_else(
    harm, reason, tmp_path, monkeypatch, caplog
):
    class Harm(mnistjax.Callback):
        def on_epoch(self, row):
            harm(tmp_path, monkeypatch)

    with caplog.at_level(logging.WARNING, "mnistjax"):
        fitted = fit(CONFIG, DATASET, workdir=tmp_path, callbacks=[Harm(), WriteReport()])
    (message,) = caplog.messages
    assert message.startswith("WriteReport.on_end failed, and the run goes on without it: ")
    assert reason in message
    assert "\n" not in message
    assert files_of(tmp_path) >= FILES
    assert not (tmp_path / "report.html").exists()
    loaded = load_run(tmp_path)
    assert loaded.result == fitted.result
    kernel, expected = (
        np.asarray(trained.variables["params"]["Dense_0"]["kernel"])
        for trained in (loaded, fitted.trained)
    )
    np.testing.assert_array_equal(kernel, expected)


def test_an_interrupted_report_leaves_a_whole_run(tmp_path, monkeypatch):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mnistjax.report.callback.write_report", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit(CONFIG, DATASET, workdir=tmp_path, callbacks=[WriteReport()])
    assert files_of(tmp_path) == FILES
    few_pictures(monkeypatch)
    assert write_report(load_run(tmp_path), DATASET, tmp_path).is_file()


# Files


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """The directory of a run, without a report; plots cost nothing."""
    few_pictures(monkeypatch)
    fit(CONFIG, DATASET, workdir=tmp_path / "run")
    return tmp_path / "run"


def test_the_trained_network_of_fit_and_of_load_run_give_the_same_report(workdir, tmp_path):
    fitted = fit(CONFIG, DATASET, workdir=tmp_path / "other")
    write_report(fitted.trained, DATASET, tmp_path / "first")
    write_report(load_run(tmp_path / "other"), DATASET, tmp_path / "second")
    first, second = (tmp_path / name / "report.html" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    assert files_of(tmp_path / "first") == REPORT


def test_a_page_that_breaks_off_leaves_the_old_one(workdir, tmp_path, monkeypatch):
    def full(*args):
        raise OSError("no space left")

    page = tmp_path / "page.html"
    page.write_text("old")
    trained = load_run(workdir)
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(RunError, match=r"expected to write the report to .*: no space left"):
            write_report(trained, DATASET, workdir, output=page)
    assert {path.name for path in tmp_path.iterdir()} == {"page.html", "run"}
    assert page.read_text() == "old"


def test_overwriting_removes_the_report_and_its_pictures_and_nothing_else(workdir):
    write_report(load_run(workdir), DATASET, workdir)
    (workdir / "plots" / "mine.png").touch()
    (workdir / "notes.txt").touch()
    with pytest.raises(RunError):
        fit(CONFIG, DATASET, workdir=workdir)
    assert (workdir / "report.html").exists()
    fit(CONFIG, DATASET, workdir=workdir, overwrite=True)
    assert files_of(workdir) == FILES | {"notes.txt", "plots/mine.png"}


# What is refused


def test_a_run_that_is_not_whole_is_refused(workdir):
    trained = load_run(workdir)
    with pytest.raises(
        RunError, match=r"expected the directory of a run, found the file .*weights"
    ):
        write_report(trained, DATASET, workdir / "weights.safetensors")
    without_device = {name: value for name, value in trained.result.items() if name != "device"}
    for lacking, message in (
        (load_weights(workdir), r"expected a finished run, found .*load_run\(run\) reads them"),
        (dataclasses.replace(trained, result=None), "expected a finished run"),
        (dataclasses.replace(trained, history=()), "expected a finished run"),
        (
            dataclasses.replace(trained, result=without_device),
            "expected device in the result of the run",
        ),
        (
            dataclasses.replace(trained, history=({"epoch": 1},)),
            "expected train_accuracy, train_loss, .* in the history of the run",
        ),
    ):
        with pytest.raises(RunError, match=message):
            write_report(lacking, DATASET, workdir)
    assert files_of(workdir) == FILES


def test_a_data_set_of_another_kind_is_refused(workdir):
    with pytest.raises(ConfigError, match=r"expected a data set of num_classes 3, as .*found"):
        write_report(load_run(workdir), make_dataset(4), workdir)
    assert not (workdir / "report.html").exists()
