"""When checkpoints are saved, and which are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_runs import CONFIG, dataset

from mnistjax import CheckpointPolicy, fit
from mnistjax.errors import ConfigError
from mnistjax.runs import checkpoints
from mnistjax.runs.directory import find_checkpoints
from mnistjax.runs.plan import make_plan
from mnistjax.runs.progress import Progress


@pytest.mark.parametrize(
    ("every", "interval"),
    [
        (None, (30, "s")),
        ("30s", (30, "s")),
        ("0.5 s", (0.5, "s")),
        ("5min", (300, "s")),
        ("1step", (1, "step")),
        ("500steps", (500, "step")),
        ("2 epochs", (2, "epoch")),
    ],
)
def test_intervals(every, interval):
    assert CheckpointPolicy(every=every).interval == interval


@pytest.mark.parametrize(
    "every",
    [
        "",
        "30",
        "s",
        "-1s",
        "0s",
        "0steps",
        "1.5epochs",
        "5 minutes",
        "1e9s",
        "nans",
        30,
        "9" * 400 + "steps",
    ],
)
def test_another_interval_is_refused(every):
    with pytest.raises(ConfigError, match=r'must be like "30s"|a whole number of'):
        CheckpointPolicy(every=every)


@pytest.mark.parametrize("keep", [0, -1, 1.5, True, "2"])
def test_another_number_of_checkpoints_is_refused(keep):
    with pytest.raises(ConfigError, match="keep must be at least 1"):
        CheckpointPolicy(keep=keep)


class Clock:
    """Time that passes when the test says so."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


class Directory:
    """Where saving takes a while."""

    path = Path("no such directory")


@given(cost=st.floats(0.01, 30), step=st.floats(0.5, 10))
def test_by_default_saving_takes_at_most_one_fiftieth_of_the_time(cost, step):
    clock, saved = Clock(), []

    def save(*_):
        clock.now += cost
        saved.append(clock.now)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "time", clock)
        patch.setattr(checkpoints, "save_checkpoint", save)
        patch.setattr(checkpoints.Keeper, "_remove_old", lambda *_: None)
        plan = make_plan(CONFIG.replace(steps=10**6), dataset())
        keeper = checkpoints.Keeper(Directory(), plan, CheckpointPolicy(), lambda: "")
        end = 20 * max(30, 50 * cost)
        count = 0
        while clock.now < end:
            clock.now += step
            count += 1
            keeper.offer(Progress(None, None, done=count))
    assert len(saved) * cost <= 0.021 * clock.now
    # But not much less often than that, either.
    assert len(saved) >= 0.5 * clock.now / (max(30, 51 * cost) + step)


def test_the_newest_and_the_best_are_kept(tmp_path):
    policy = CheckpointPolicy(every="1epoch", keep=2, keep_best=True)
    config = CONFIG.replace(epochs=8)
    fitted = fit(config, dataset(), workdir=tmp_path, checkpoints=policy)
    rows = fitted.history
    best = max(rows, key=lambda row: row["validation_accuracy"])["step"]
    assert best < rows[-2]["step"]  # Or this would show nothing.
    steps = [int(file.stem.removeprefix("step-")) for file in find_checkpoints(tmp_path)]
    assert steps == [rows[-1]["step"], rows[-2]["step"], best]


def test_the_best_is_saved_whatever_the_interval(tmp_path):
    policy = CheckpointPolicy(every="1000steps", keep=1, keep_best=True)
    rows = fit(CONFIG.replace(epochs=8), dataset(), workdir=tmp_path, checkpoints=policy).history
    best = max(rows, key=lambda row: row["validation_accuracy"])["step"]
    steps = [int(file.stem.removeprefix("step-")) for file in find_checkpoints(tmp_path)]
    assert steps == [rows[-1]["step"], best]


@pytest.mark.parametrize(("every", "count"), [("2epochs", 2), ("7steps", 3), ("1000steps", 1)])
def test_the_end_is_always_saved(every, count, tmp_path):
    policy = CheckpointPolicy(every=every, keep=100)
    fitted = fit(CONFIG, dataset(), workdir=tmp_path, checkpoints=policy)
    found = [file.stem for file in find_checkpoints(tmp_path)]
    assert len(found) == count
    assert found[0] == f"step-{fitted.result['steps']:010d}"
