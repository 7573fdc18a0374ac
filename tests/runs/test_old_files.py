"""Files that earlier versions wrote, in `tests/fixtures`: all of them keep working.

A new format adds its files there, and none is ever removed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_runs import dataset

from mnistjax import TrainConfig, fit, load_run, load_weights, predict_logits
from mnistjax.runs.directory import find_checkpoints

FIXTURES = Path(__file__).parent.parent / "fixtures"
LOGITS = np.array(json.loads((FIXTURES / "logits.json").read_text()), np.float32)


@pytest.mark.parametrize("name", ["weights-1.safetensors", "run-2/weights.safetensors"])
def test_weights_give_the_logits_that_they_gave(name):
    trained = load_weights(FIXTURES / name)
    assert trained.config.model == "softmax"
    assert trained.info == dataset().info
    logits = predict_logits(trained, dataset().test.images[:3])
    np.testing.assert_allclose(logits, LOGITS, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["config-1.json", "run-2/config.json"])
def test_settings_are_read_and_new_ones_have_their_defaults(name):
    text = (FIXTURES / name).read_text()
    config = TrainConfig.from_json(text)
    given = json.loads(text)
    assert {setting: getattr(config, setting) for setting in given} == given
    assert config.replace(**given) == config


def test_a_run_is_loaded_with_its_result_and_history():
    trained = load_run(FIXTURES / "run-2")
    assert trained.result["steps"] == trained.history[-1]["step"] == 20
    assert trained.result["test_accuracy"] == 1.0


@pytest.mark.parametrize("step", [10, 20])
def test_a_run_goes_on_from_its_checkpoints(step, tmp_path):
    run = shutil.copytree(FIXTURES / "run-2", tmp_path / "run")
    (run / "result.json").unlink()
    for file in find_checkpoints(run):
        if file.stem != f"step-{step:010d}":
            file.unlink()
    config = TrainConfig.from_json((run / "config.json").read_text())
    fitted = fit(config, dataset(), workdir=run, resume=True)
    assert [row["step"] for row in fitted.history] == [6, 12, 18, 20]
    logits = predict_logits(fitted.trained, dataset().test.images[:3])
    np.testing.assert_allclose(logits, LOGITS, rtol=1e-3, atol=1e-3)
