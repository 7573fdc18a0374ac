"""Runs that were interrupted: they go on from any step, and end as if they had not been."""

from __future__ import annotations

import json
import shutil

import jax
import numpy as np
import pytest
from small_runs import CONFIG, Recorder, dataset, squares

from mnistjax import CheckpointPolicy, Dataset, fit, load_run
from mnistjax.errors import ConfigError, NonFiniteLossError, RunError
from mnistjax.runs.directory import find_checkpoints
from mnistjax.runs.result import CLOCKS
from mnistjax.runs.sealed import read_sealed

EVERY_STEP = CheckpointPolicy(every="1step", keep=100)
# Averaged weights, batch statistics, a schedule, a last epoch in part, early stopping.
SETTINGS = {
    "mlp": CONFIG,
    "tiny": CONFIG.replace(model="tiny", ema_decay=0.9, schedule="cosine", epochs=2.5, shift=1),
    "patience": CONFIG.replace(learning_rate=0.3, patience=2, epochs=40),
}


class Killed(BaseException):
    """Ends a run as a signal that nothing handles would."""


def without_clocks(row):
    return {key: value for key, value in row.items() if key not in CLOCKS}


def assert_equal_runs(one, other):
    jax.tree.map(np.testing.assert_array_equal, raw(one.state), raw(other.state))
    jax.tree.map(np.testing.assert_array_equal, one.trained.variables, other.trained.variables)
    assert without_clocks(one.result) == without_clocks(other.result)
    assert [*map(without_clocks, one.history)] == [*map(without_clocks, other.history)]


def raw(state):
    return state.replace(key=jax.random.key_data(state.key))


@pytest.fixture(scope="module", params=SETTINGS)
def whole(request, tmp_path_factory):
    """A run without interruption, with a checkpoint after every step."""
    config = SETTINGS[request.param]
    workdir = tmp_path_factory.mktemp("whole")
    return config, fit(config, dataset(), workdir=workdir, checkpoints=EVERY_STEP)


def copy_until(workdir, folder, step):
    """Copies a run as it was when it was killed after the checkpoint of a step."""
    shutil.copytree(workdir, folder)
    for name in ("result.json", "weights.safetensors"):
        (folder / name).unlink()
    for file in find_checkpoints(folder):
        if int(file.stem.removeprefix("step-")) > step:
            file.unlink()
    return folder


def test_checkpoints_do_not_change_the_run(whole):
    config, run = whole
    assert_equal_runs(fit(config, dataset()), run)


@pytest.mark.parametrize("step", [1, 3, 5, 6, 8])
def test_a_run_resumed_at_any_step_ends_in_the_same_bits(whole, step, tmp_path):
    config, run = whole
    folder = copy_until(run.workdir, tmp_path / "run", step)
    recorder = Recorder()
    policy = CheckpointPolicy(every="4steps")
    resumed = fit(
        config, dataset(), workdir=folder, resume=True, checkpoints=policy, callbacks=[recorder]
    )
    assert_equal_runs(resumed, run)
    assert recorder.calls[0][2]["step"] == step
    assert min(value for _, hook, value in recorder.calls if hook == "steps") == step + 1
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == resumed.history
    assert load_run(folder).result == resumed.result
    assert len(find_checkpoints(folder)) == policy.keep


def test_a_finished_run_that_is_resumed_gives_the_same_result(whole, tmp_path):
    config, run = whole
    folder = tmp_path / "run"
    shutil.copytree(run.workdir, folder)
    recorder = Recorder()
    again = fit(config, dataset(), workdir=folder, resume=True, callbacks=[recorder])
    assert_equal_runs(again, run)
    assert not [hook for _, hook, _ in recorder.calls if hook in {"steps", "epoch"}]


def test_a_run_that_was_killed_again_and_again_ends_in_the_same_bits(tmp_path):
    """Each time in the middle of a call of the loop, between two checkpoints."""

    def fit_until(step):
        class Kill(Recorder):
            def on_steps(self, now):
                if now >= step:
                    raise Killed

        policy = CheckpointPolicy(every="2steps")
        return fit(
            CONFIG, dataset(), workdir=tmp_path, resume=True, checkpoints=policy, callbacks=[Kill()]
        )

    for step in (1, 4, 5, 9, 13, 17):
        with pytest.raises(Killed):
            fit_until(step)
        assert not (tmp_path / "result.json").exists()
    assert_equal_runs(fit_until(100), fit(CONFIG, dataset()))


def test_resuming_where_there_is_no_run_starts_one(tmp_path):
    run = fit(CONFIG.replace(steps=2), dataset(), workdir=tmp_path / "new", resume=True)
    assert run.result["steps"] == 2


def test_resuming_needs_a_directory_and_excludes_overwriting(tmp_path):
    with pytest.raises(ConfigError, match="needs a workdir"):
        fit(CONFIG, dataset(), resume=True)
    with pytest.raises(ConfigError, match="expected overwrite or resume, found both"):
        fit(CONFIG, dataset(), workdir=tmp_path / "run", resume=True, overwrite=True)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def interrupted(whole, tmp_path):
    config, run = whole
    return config, copy_until(run.workdir, tmp_path / "run", 4)


def refused(folder, config, data, message):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=message) as caught:
        fit(config, data, workdir=folder, resume=True)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_another_run_is_not_resumed(interrupted):
    config, folder = interrupted
    changed = config.replace(seed=3, batch_size=16)
    refused(folder, changed, dataset(), "other settings: batch_size 32 there and 16 here, seed 0 ")
    other = Dataset(squares(203, 5), dataset().test, dataset().info)
    refused(folder, config, other, "the data set is not the one that .*: its content differs")


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(interrupted, caplog):
    config, folder = interrupted
    newest = find_checkpoints(folder)[0]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    recorder = Recorder()
    fit(config, dataset(), workdir=folder, resume=True, callbacks=[recorder])
    assert recorder.calls[0][2]["step"] == 3
    assert str(newest) in caplog.text
    assert "is damaged" in caplog.text


def test_a_run_whose_checkpoints_are_all_damaged_is_refused(interrupted):
    config, folder = interrupted
    for file in find_checkpoints(folder):
        file.write_bytes(file.read_bytes()[:-1])
    refused(folder, config, dataset(), "none of the 4 checkpoints")


def test_a_finished_run_without_checkpoints_is_not_trained_again(whole, tmp_path):
    config, run = whole
    folder = tmp_path / "run"
    shutil.copytree(run.workdir, folder)
    shutil.rmtree(folder / "checkpoints")
    refused(folder, config, dataset(), "a finished run without checkpoints")


def test_an_interrupted_run_says_so_when_its_directory_is_used_again(interrupted):
    config, folder = interrupted
    with pytest.raises(RunError, match=r"a run that was interrupted .*--resume.*--overwrite"):
        fit(config, dataset(), workdir=folder)


def test_versions_that_differ_are_named_in_a_warning(interrupted, caplog, monkeypatch):
    config, folder = interrupted
    monkeypatch.setattr("mnistjax.runs.checkpoints.package_versions", lambda: {"jax": "99"})
    fit(config, dataset(), workdir=folder, resume=True)
    assert "and goes on with 99" in caplog.text


def test_a_run_that_diverges_keeps_its_checkpoints(tmp_path):
    config = CONFIG.replace(optimizer="sgd", learning_rate=1e20, epochs=3)
    with pytest.raises(NonFiniteLossError, match=r"in step \d+ became"):
        fit(config, dataset(), workdir=tmp_path, checkpoints=EVERY_STEP)
    files = find_checkpoints(tmp_path)
    assert files
    for file in files:
        tensors, _ = read_sealed(file, ["mnistjax-checkpoint-1"])
        for name, tensor in tensors.items():
            if name.startswith("state/params/"):
                assert np.isfinite(tensor).all()


def test_a_damaged_checkpoint_does_not_count_among_those_that_are_kept(interrupted):
    config, folder = interrupted
    newest, before, *_ = find_checkpoints(folder)
    newest.write_bytes(newest.read_bytes()[:-1])
    policy = CheckpointPolicy(every="1000steps", keep=2)
    fit(config, dataset(), workdir=folder, resume=True, checkpoints=policy)
    found = find_checkpoints(folder)
    assert found[1:] == [before]
    assert newest not in found


def test_a_run_without_a_checkpoint_is_not_replaced_by_one_with_other_settings(interrupted):
    config, folder = interrupted
    for file in find_checkpoints(folder):
        file.unlink()
    refused(folder, config.replace(seed=3), dataset(), "other settings: seed 0 there and 3 here")
    fit(config, dataset(), workdir=folder, resume=True)


def test_a_run_is_overwritten_only_by_one_that_has_something_to_keep(interrupted, monkeypatch):
    config, folder = interrupted
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def refuse(*_):
        raise NonFiniteLossError("as if the weights had become NaN")

    class Kill(Recorder):
        def on_steps(self, step):
            if step == 8:  # In the second epoch.
                raise Killed

    monkeypatch.setattr("mnistjax.runs.checkpoints._check_finite", refuse)
    options = {"workdir": folder, "overwrite": True, "checkpoints": EVERY_STEP}
    with pytest.raises(Killed):
        fit(config.replace(seed=1), dataset(), callbacks=[Kill()], **options)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
