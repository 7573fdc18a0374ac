"""What the server says of images, without a server."""

from __future__ import annotations

import numpy as np
from scipy.special import softmax

import mnistjax
from mnistjax.reading import PreparedDigit, interpret
from mnistjax.reading.doubts import doubt_warnings
from mnistjax.serving.answers import describe_predictions


def describe(info, images, logits, warnings):
    prepared = [PreparedDigit(*pair) for pair in zip(images, warnings, strict=True)]
    return describe_predictions(interpret(info, prepared, images, softmax(logits, axis=1)))


def test_the_second_opinion_on_a_digit_is_answered():
    images, logits = np.zeros((2, 28, 28, 1), np.uint8), 50 * np.eye(10, dtype=np.float32)[:2]
    info = mnistjax.DatasetInfo("mnist", 10)
    answer = describe(info, images, logits, [(), ("a blot",)])
    (doubt,), _ = doubt_warnings(info, images, np.eye(10)[:2], ((), ()))
    warnings = [described["warnings"] for described in answer["predictions"]]
    assert warnings == [[doubt], ["a blot", doubt]]
    assert answer["predictions"][0]["label"] == "0"


def test_a_network_for_other_images_is_believed():
    images, logits = np.zeros((1, 28, 28, 1), np.uint8), 50 * np.eye(10, dtype=np.float32)[:1]
    info = mnistjax.DatasetInfo("fashion_mnist", 10)
    (described,) = describe(info, images, logits, [()])["predictions"]
    assert described["warnings"] == []
