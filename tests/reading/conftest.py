"""The data and the network with which pictures are read."""

from __future__ import annotations

import pytest

import mnistjax


@pytest.fixture(scope="session")
def dataset(mnist_dir):
    return mnistjax.load_dataset("mnist", data_dir=mnist_dir)


@pytest.fixture(scope="session")
def trained(dataset):
    # Smoothed labels would make every prediction less confident, and warnings of doubt frequent.
    config = mnistjax.get_recipe("speed").replace(label_smoothing=0.0)
    return mnistjax.fit(config, dataset).trained
