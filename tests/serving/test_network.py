"""The logits of a compiled network are those of the library, for any number of images."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import mnistjax
from mnistjax.serving import CompiledNetwork


@pytest.mark.parametrize("sizes", [(1, 4, 16), (5,)])
def test_logits_are_those_of_the_library_and_nothing_compiles(digits_network, sizes, caplog):
    images = mnistjax.load_dataset("digits").test.images[:40]
    expected = mnistjax.predict_logits(digits_network, images)
    network = CompiledNetwork(digits_network, sizes)
    with jax.log_compiles():
        for count in (1, 2, 4, 5, 15, 16, 17, 40):
            found = network(images[:count])
            assert found.shape == (count, 10)
            np.testing.assert_allclose(found, expected[:count], atol=1e-4)
    assert not [record for record in caplog.records if "Compiling" in record.getMessage()]
