"""Bodies become images or are refused, whatever they hold."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from mnistjax.errors import DataFormatError
from mnistjax.serving.inputs import FORMATS, open_image, parse_pixels, prepare_image
from mnistjax.serving.limits import Limits, RequestError

SHAPE = (2, 3, 1)
LIMITS = Limits(picture_pixels=10_000)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 300) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=2),
)


@given(
    arrays.arrays(np.uint8, st.tuples(st.integers(1, 5), *map(st.just, SHAPE))),
    st.sampled_from([None, 2]),
)
def test_pixels_come_back_as_they_were_sent(images, indent):
    for sent in (images, images[..., 0]):
        body = json.dumps({"pixels": sent.tolist()}, indent=indent).encode()
        np.testing.assert_array_equal(parse_pixels(body, SHAPE, max_images=5), images)
    body = json.dumps({"pixels": images[0, ..., 0].tolist()}).encode()
    np.testing.assert_array_equal(parse_pixels(body, SHAPE, max_images=1), images[:1])


def is_image(value):
    """Whether a value is an image of `SHAPE`, said in another way than the parser says it."""
    rows = isinstance(value, list) and len(value) == 2
    cells = [cell for row in value if isinstance(row, list) for cell in row] if rows else []
    whole = rows and all(isinstance(row, list) and len(row) == 3 for row in value)
    if whole and all(isinstance(cell, list) and len(cell) == 1 for cell in cells):
        cells = [cell[0] for cell in cells]
    return whole and all(type(cell) is int and 0 <= cell <= 255 for cell in cells)


NEARLY = st.lists(
    st.lists(
        st.integers(-1, 256) | st.sampled_from([True, 1.0, [7], None]), min_size=2, max_size=4
    ),
    min_size=1,
    max_size=3,
)
PIXELS = st.lists(st.lists(st.integers(0, 255), min_size=3, max_size=3), min_size=2, max_size=2)


@settings(max_examples=300)
@given(VALUES | NEARLY | PIXELS | st.lists(NEARLY | PIXELS, max_size=3))
def test_any_json_is_an_image_or_is_refused(value):
    body = json.dumps({"pixels": value}).encode()
    one, several = is_image(value), isinstance(value, list) and value and all(map(is_image, value))
    # Of several images, all have to be written in one way.
    alike = bool(several) and len({type(image[0][0]) for image in value}) == 1
    if one or alike:
        images = parse_pixels(body, SHAPE, max_images=3)
        assert images.dtype == np.uint8
        assert images.shape == (1 if one else len(value), *SHAPE)
    else:
        with pytest.raises(RequestError) as caught:
            parse_pixels(body, SHAPE, max_images=3)
        assert caught.value.status == 422


@given(st.binary(max_size=60))
def test_any_bytes_are_refused(body):
    with pytest.raises(RequestError) as caught:
        parse_pixels(body, SHAPE, max_images=3)
    assert caught.value.status in (400, 422)


def encoded(kind):
    plane = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(plane).save(file, kind)
    return file.getvalue()


@settings(max_examples=150)
@given(st.sampled_from(sorted(FORMATS)), st.data())
def test_a_damaged_file_is_decoded_or_refused(content_type, data):
    body = bytearray(encoded(FORMATS[content_type]))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    del body[data.draw(st.integers(1, len(body))) :]
    # Nothing else is raised.
    with contextlib.suppress(RequestError, DataFormatError):
        image = open_image(bytes(body), content_type, LIMITS)
        assert prepare_image(image, (28, 28, 1)).image.shape == (28, 28, 1)
