"""The report of an ensemble has what can be known of it without the record of a run."""

from __future__ import annotations

import jax
import pytest
from pages import Page, assert_closed
from report_runs import make_dataset

import mnistjax
from mnistjax.errors import ConfigError
from mnistjax.evaluation import first_layer_filters
from mnistjax.runs import ensemble

DATASET = make_dataset(4, noise=0.2)


@pytest.fixture(scope="module")
def vote():
    config = mnistjax.TrainConfig(batch_size=16, epochs=2, shift=1)
    settings = {"model": ["mlp", "softmax"], "seeds": range(2)}
    return mnistjax.fit_population(config, DATASET, **settings).ensemble()


def test_what_is_known_of_an_ensemble_is_reported(vote, tmp_path):
    page = mnistjax.write_report(vote, DATASET, tmp_path)
    text = page.read_text(encoding="utf-8")
    parsed = Page(text)
    assert_closed(parsed)
    analysis = mnistjax.analyze(vote, DATASET)
    assert f"{100 * analysis.accuracy:.2f} %" in parsed.text
    assert "ensemble of 4 on squares" in parsed.text
    parameters = mnistjax.count_parameters(vote.variables)
    assert f"ensemble of 4, {parameters:,} parameters, measured on all 80 test" in parsed.text
    assert " networks 4 models mlp, softmax recipe of the first network custom " in parsed.text
    links = {link["href"] for link in parsed.all("a")}
    assert links == {"#" + heading["id"] for heading in parsed.all("h2")}
    assert "#learning" not in links
    assert "held out" not in text
    pictures = {path.stem for path in (tmp_path / "plots").iterdir()}
    assert pictures == {
        *("samples", "class_distribution", "confusion", "mistakes", "reliability"),
        *("robustness", "saliency"),
    }


def test_an_ensemble_has_no_first_layer(vote):
    with pytest.raises(ConfigError, match="expected one network, found an ensemble of 4"):
        first_layer_filters(vote)
    # The biases of as many networks as an image has pixels would have the shape of one.
    info = mnistjax.DatasetInfo("tiny", 4, image_shape=(1, 2, 1))
    model = mnistjax.create_model("softmax")
    variables = model.init(jax.random.key(0), DATASET.test.images[:1, :1, :2] / 255.0)
    network = mnistjax.TrainedModel(model, variables, info)
    with pytest.raises(ConfigError, match="ensemble of 2"):
        first_layer_filters(ensemble([network] * 2))
