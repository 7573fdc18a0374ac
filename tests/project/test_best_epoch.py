"""The benchmark of epochs measures checkpoints as the library does, and chooses as it says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import mnistjax

# The benchmarks are scripts: Python finds what lies beside one when it starts it.
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import best_epoch


def train(workdir, **settings):
    config = mnistjax.TrainConfig(
        dataset="digits", model="tiny", epochs=3, seed=1, validation_fraction=0.0
    ).replace(**settings)
    dataset = mnistjax.load_dataset("digits")
    policy = mnistjax.runs.CheckpointPolicy(every="1epoch", keep=10)
    mnistjax.fit(config, dataset, workdir=workdir, checkpoints=policy, callbacks=[])
    return dataset


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_the_last_epoch_is_what_the_run_reports(tmp_path, ema_decay):
    dataset = train(tmp_path, ema_decay=ema_decay)
    row, probabilities = best_epoch.measure_run(tmp_path, dataset)
    reported = json.loads((tmp_path / "result.json").read_text())["test_accuracy"]
    assert row["last"] == pytest.approx(reported, abs=1e-6)
    assert row["by_epoch"][-1] == row["last"]
    assert len(row["by_epoch"]) == row["epochs"] == 3
    assert row["best"] == max(row["by_epoch"]) == row["by_epoch"][row["best_epoch"] - 1]
    assert row["last_clean"] == row["last"]  # No label of this data set is known to be wrong.
    for found in probabilities.values():
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


def test_a_run_without_a_checkpoint_of_every_epoch_is_refused(tmp_path):
    dataset = train(tmp_path)
    next((tmp_path / "checkpoints").glob("*.safetensors")).unlink()
    with pytest.raises(ValueError, match="expected 3 checkpoints, one per epoch, found 2"):
        best_epoch.measure_run(tmp_path, dataset)
