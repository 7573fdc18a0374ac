"""The page to draw on prepares ink as `mnistjax.reading` does, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from drawing_pages import scripted_preparation, sheet_of
from PIL import Image, ImageDraw
from random_networks import make_network

from mnistjax.errors import DataFormatError
from mnistjax.reading import open_picture, prepare_digit
from mnistjax.report import write_draw_page

SIZES = [(400, 400), (400, 400), (280, 280), (90, 130), (700, 500), (1000, 640)]


@pytest.fixture
def page(open_page, tmp_path):
    return open_page(write_draw_page(make_network("softmax"), tmp_path))


def scribble(rng, size):
    """Strokes of any width and place on a sheet of (height, width), uint8, dark on light."""
    height, width = size
    image = Image.new("L", (width * 2, height * 2), 255)
    draw = ImageDraw.Draw(image)
    pen = rng.uniform(0.01, 0.2) * max(size)
    place, spread = rng.uniform(0.2, 0.8, 2), rng.uniform(0.05, 0.5)
    for _ in range(rng.integers(1, 4)):
        steps = rng.normal(0, spread, (rng.integers(2, 7), 2)).cumsum(0) * 0.5
        points = np.clip(place + steps, -0.05, 1.05) * image.size
        draw.line([tuple(point) for point in points], 0, max(1, round(2 * pen)), joint="curve")
    return np.asarray(image.resize((width, height), Image.Resampling.BOX))


def in_bad_light(rng, gray):
    """The same as in a photograph: paper and ink of any tone, a slope of light, noise."""
    low, high = np.sort(rng.uniform(0.1, 0.9, 2)) + np.array([0, 0.1])
    tones = (low, high) if rng.random() < 0.7 else (high, low)
    rows, columns = np.meshgrid(*(np.linspace(-0.1, 0.1, n) for n in gray.shape), indexing="ij")
    light = rows * rng.normal() + columns * rng.normal()
    plane = tones[0] + (tones[1] - tones[0]) * gray / 255 + light + rng.normal(0, 0.02, gray.shape)
    return np.uint8(np.clip(plane, 0, 1) * 255)


def without_hints(warnings):
    """Warnings without the commands that they recommend."""
    return tuple(warning.partition(" (")[0] for warning in warnings)


def assert_prepared_alike(page, gray):
    image, warnings = scripted_preparation(page, gray)
    expected = prepare_digit(gray)
    np.testing.assert_array_equal(image, expected.image)
    assert warnings == without_hints(expected.warnings)


def test_drawings_are_prepared_alike(page):
    rng = np.random.default_rng(0)
    count = 0
    for index in range(54):
        gray = scribble(rng, SIZES[index % len(SIZES)])
        if np.ptp(gray) > 5:
            assert_prepared_alike(page, gray)
            count += 1
    assert count >= 50


def test_photographs_of_drawings_are_prepared_alike(page):
    rng = np.random.default_rng(1)
    for index in range(12):
        gray = in_bad_light(rng, scribble(rng, SIZES[index % len(SIZES)]))
        assert_prepared_alike(page, gray)


def test_an_image_of_mnist_s_format_is_not_changed(page):
    rng = np.random.default_rng(2)
    for _ in range(5):
        image = prepare_digit(scribble(rng, (300, 300))).image
        assert_prepared_alike(page, image[..., 0])


def test_a_picture_of_one_color_has_no_digit(page):
    for gray in (np.full((50, 40), 255, np.uint8), np.full((400, 400), 7, np.uint8)):
        assert scripted_preparation(page, gray) is None
        with pytest.raises(DataFormatError):
            prepare_digit(gray)


def test_what_is_drawn_by_pointer_is_prepared_alike(page, tmp_path):
    box = page.locator("#pad").bounding_box()
    rng = np.random.default_rng(3)
    for width in (12, 36, 72):
        page.locator("#width").fill(str(width))
        page.locator("#clear").click()
        for _ in range(2):
            points = rng.uniform(0.1, 0.9, (4, 2)) * box["width"] + [box["x"], box["y"]]
            page.mouse.move(*points[0])
            page.mouse.down()
            for point in points[1:]:
                page.mouse.move(*point, steps=2)
            page.mouse.up()
        Image.fromarray(sheet_of(page)).save(tmp_path / "sheet.png")
        expected = prepare_digit(open_picture(tmp_path / "sheet.png")).image
        found = page.evaluate("Array.from(see().image)")
        np.testing.assert_array_equal(np.reshape(found, expected.shape), expected)
