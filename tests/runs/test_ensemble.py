"""Ensembles vote by the mean of their probabilities, and are used as one network."""

import jax
import numpy as np
import pytest
from small_runs import CONFIG, dataset

import mnistjax
from mnistjax import fit_population
from mnistjax.errors import ConfigError
from mnistjax.runs import ensemble


@pytest.fixture(scope="module")
def found():
    """Two seeds of two networks of different kinds."""
    return fit_population(
        CONFIG.replace(epochs=1), dataset(), model=["mlp", "softmax"], seeds=range(2)
    )


def test_an_ensemble_averages_probabilities(found):
    networks = [found.member(number) for number in range(4)]
    images = dataset().test.images
    mean = np.mean(
        [jax.nn.softmax(mnistjax.predict_logits(network, images)) for network in networks], 0
    )
    together = ensemble(networks)
    logits = mnistjax.predict_logits(together, images)
    np.testing.assert_allclose(jax.nn.softmax(logits), mean, rtol=1e-5, atol=1e-7)
    metrics = mnistjax.evaluate(together, dataset().test).summary()
    assert metrics["accuracy"] == np.mean(mean.argmax(1) == dataset().test.labels)
    assert mnistjax.analyze(together, dataset()).accuracy == metrics["accuracy"]


def test_an_ensemble_of_one_is_its_member(found):
    images = dataset().test.images
    alone, together = (
        jax.nn.softmax(mnistjax.predict_logits(network, images))
        for network in (found.member(0), ensemble([found.member(0)]))
    )
    np.testing.assert_allclose(together, alone, rtol=1e-6, atol=1e-9)


def test_a_vote_that_is_certain_stays_finite():
    def apply(variables, images, **_):
        return jax.numpy.full((len(images), 4), -1e4).at[:, 0].set(1e4), {}

    certain = mnistjax.Model(lambda key, images: {"params": {}, "batch_stats": {}}, apply)
    variables = {"params": {"unused": np.zeros(1)}, "batch_stats": {}}
    network = mnistjax.TrainedModel(certain, variables, dataset().info)
    logits = mnistjax.predict_logits(ensemble([network] * 2), dataset().test.images[:3])
    assert np.isfinite(logits).all()


def test_what_cannot_vote_together_is_refused(found):
    other = mnistjax.TrainedModel(
        found.member(0).model,
        found.member(0).variables,
        mnistjax.DatasetInfo("other", 10, image_shape=(12, 12, 1)),
    )
    with pytest.raises(ConfigError, match="num_classes"):
        ensemble([found.member(0), other])
    with pytest.raises(ConfigError, match="found none"):
        ensemble([])
    together = ensemble([found.member(0)])
    with pytest.raises(ConfigError, match="save its members"):
        mnistjax.save_weights("nowhere.safetensors", together)
    with pytest.raises(ConfigError, match="found an ensemble"):
        together.model.apply(together.variables, np.zeros((1, 12, 12, 1), np.float32), train=True)
    with pytest.raises(ConfigError, match="found an ensemble"):
        together.model.init(jax.random.key(0), np.zeros((1, 12, 12, 1), np.float32))
