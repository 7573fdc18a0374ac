"""`mnistjax draw`: what it writes and says, and what it refuses."""

from __future__ import annotations

import dataclasses
import re

import jax
import numpy as np
import pytest

import mnistjax
from mnistjax.cli import main
from mnistjax.report import render_draw_page


def saved(tmp_path, name="softmax", image_shape=(28, 28, 1), dataset="digits"):
    """A directory with the weights of an untrained network."""
    model = mnistjax.create_model(name)
    variables = model.init(jax.random.key(0), np.zeros((1, *image_shape), np.float32))
    info = mnistjax.DatasetInfo(dataset, 10, image_shape=image_shape)
    config = dataclasses.replace(mnistjax.TrainConfig(model=name), dataset=dataset)
    trained = mnistjax.TrainedModel(model, variables, info, config)
    mnistjax.save_weights(tmp_path / "weights.safetensors", trained)
    return trained


def test_a_small_network_is_written_beside_its_weights_with_all_digits(tmp_path, capsys):
    trained = saved(tmp_path)
    for place in (tmp_path, tmp_path / "weights.safetensors"):
        main(["draw", str(place)])
        said = capsys.readouterr().out
        assert re.fullmatch(
            rf"page in {tmp_path}/draw\.html \(\d+ kB, weights as float32\)\n", said
        )
        assert (tmp_path / "draw.html").read_text() == render_draw_page(trained)
        (tmp_path / "draw.html").unlink()


def test_rounding_prints_what_it_costs(mlp_run, tmp_path, capsys):
    file = tmp_path / "new" / "page.html"
    main(["draw", str(mlp_run), "--dtype", "int8", "--output", str(file)])
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"page in {file} ({file.stat().st_size / 1000:.0f} kB, weights as int8)"
    before = mnistjax.runs.read_result(mlp_run)["test_accuracy"]
    assert re.fullmatch(
        rf"test accuracy {before:.2%} with all digits of the weights, \d+\.\d\d% with int8", second
    )


def test_without_the_data_the_page_is_written_all_the_same(tmp_path, capsys):
    saved(tmp_path, dataset="of my own")
    main(["draw", str(tmp_path), "--dtype", "float16"])
    first, second = capsys.readouterr().out.splitlines()
    assert "weights as float16" in first
    assert second.startswith("what float16 costs was not measured: unknown dataset 'of my own'")
    assert (tmp_path / "draw.html").is_file()


@pytest.mark.parametrize(
    ("image_shape", "words", "message"),
    [
        ((28, 28, 3), [], "expected a network for grayscale images"),
        ((28, 28, 1), ["--output", "weights.safetensors/page.html"], "expected to write the page"),
    ],
)
def test_what_cannot_be_drawn_for_is_one_line(
    image_shape, words, message, tmp_path, refusal, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path, image_shape=image_shape)
    assert message in refusal("draw", tmp_path, *words)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]


def test_a_run_that_is_missing_is_one_line(tmp_path, refusal):
    assert "expected a run directory or a weights file" in refusal("draw", tmp_path / "none")
