"""Callbacks watch a run: they are told of everything, may end it, and can do it no harm."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from small_runs import CONFIG, Recorder, dataset

from mnistjax import ProgressBar, fit, load_run
from mnistjax.errors import ConfigError, RunError
from mnistjax.runs import directory


def test_callbacks_are_called_in_order():
    calls = []
    result = fit(CONFIG, dataset(), callbacks=[Recorder(calls, "a"), Recorder(calls, "b")])
    assert calls[::2] == [("a", hook, value) for _, hook, value in calls[1::2]]
    hooks = [hook for name, hook, _ in calls if name == "a"]
    phases = [hook for hook in hooks if hook != "steps"]
    assert phases == ["start", "compiled", "epoch", "epoch", "epoch", "end", "close"]
    values = {
        hook: [value for name, h, value in calls if (name, h) == ("a", hook)] for hook in hooks
    }
    assert values["steps"] == sorted(values["steps"])
    assert values["steps"][-1] == result.result["steps"]
    assert values["epoch"] == result.history
    assert values["end"] == [result]
    assert (
        values["start"][0].items() >= {"model": "mlp", "train_count": 182, "workdir": None}.items()
    )


@pytest.mark.parametrize("hook", ["start", "compiled", "steps", "epoch", "end"])
def test_callbacks_are_closed_when_the_run_breaks_off(hook):
    calls = []
    callbacks = [Recorder(calls, "a", fails_at=hook), Recorder(calls, "b"), ProgressBar()]
    with pytest.raises(KeyboardInterrupt):
        fit(CONFIG, dataset(), callbacks=callbacks)
    assert [(name, hook) for name, hook, _ in calls[-2:]] == [("a", "close"), ("b", "close")]


def test_the_progress_bar_says_what_is_trained_and_how_well(capsys):
    result = fit(CONFIG, dataset(), callbacks=[ProgressBar()])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "dataset  squares (drawn by a test)"
    assert sum(line.startswith("epoch ") for line in lines) == 3
    assert f"test accuracy {result.result['test_accuracy']:.2%} on all 77 images" in lines[-1]


@pytest.mark.parametrize("hook", ["start", "compiled", "steps", "epoch", "end", "close"])
def test_a_callback_that_fails_costs_one_warning_and_nothing_else(hook, tmp_path, caplog):
    calls = []
    failing = Recorder(calls, "a", fails_at=hook, error=OSError)
    fitted = fit(CONFIG, dataset(), workdir=tmp_path, callbacks=[failing, Recorder(calls, "b")])
    (record,) = [it for it in caplog.records if it.levelno >= logging.WARNING]
    assert f"Recorder.on_{hook} failed".replace("on_close", "close") in record.getMessage()
    assert "as the test asked" in record.getMessage()
    assert load_run(tmp_path).result == fitted.result
    heard = {name: [it for n, it, _ in calls if n == name] for name in "ab"}
    assert heard["b"][-2:] == ["end", "close"]
    # It is told nothing more, but it is closed.
    assert heard["a"].count(hook) == 1
    assert heard["a"][-1] == "close"


def test_a_callback_that_cannot_be_used_as_asked_ends_the_run_before_it_begins(tmp_path):
    with pytest.raises(ConfigError, match="as the test asked"):
        fit(CONFIG, dataset(), callbacks=[Recorder(fails_at="start", error=ConfigError)])


@pytest.mark.parametrize("kind", [bool, np.bool_])
def test_a_callback_may_end_the_run_after_an_epoch(tmp_path, kind):
    class StopAfterTwo(Recorder):
        def on_epoch(self, row):
            return kind(row["epoch"] >= 2)

    fitted = fit(CONFIG, dataset(), workdir=tmp_path, callbacks=[StopAfterTwo()])
    assert [row["epoch"] for row in fitted.history] == [1.0, 2.0]
    assert fitted.result["epochs"] == load_run(tmp_path).result["epochs"] == 2.0


def test_metrics_that_cannot_be_written_do_not_end_the_run(tmp_path, caplog, monkeypatch):
    def refuse(*arguments):
        raise OSError("no space left on device")

    monkeypatch.setattr("mnistjax.runs.loop.write_metrics", refuse)
    fitted = fit(CONFIG, dataset(), workdir=tmp_path)
    assert "no space left on device" in caplog.text
    assert (tmp_path / directory.WEIGHTS).is_file()
    assert fitted.result["epochs"] == 3.0


def test_a_second_run_is_kept_out_of_a_directory_in_use_even_if_it_may_overwrite(tmp_path):
    class Intruder(Recorder):
        def on_epoch(self, row):
            with pytest.raises(RunError, match="which another run writes to"):
                fit(CONFIG.replace(seed=1), dataset(), workdir=tmp_path, overwrite=True)
            self.note("refused")

    calls = []
    fitted = fit(CONFIG, dataset(), workdir=tmp_path, callbacks=[Intruder(calls)])
    assert [hook for _, hook, _ in calls].count("refused") == 3
    assert load_run(tmp_path).result == fitted.result
    # The lock goes with the run, and the file that it leaves is no obstacle.
    fit(CONFIG.replace(seed=1), dataset(), workdir=tmp_path, overwrite=True)
    assert load_run(tmp_path).config.seed == 1
