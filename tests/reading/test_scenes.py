"""Ink is found beside shadows, tables and reflections, which stand out as much as it does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import SCENES, code_scenes, digit_scenes

import mnistjax
from mnistjax.reading import open_picture, prepare_digit
from mnistjax.reading.ink import find_page_ink, stroke_contrast

# Smallest share that must be right: a little below what a thousand pictures of the kind show.
HARD = {"shadow": 0.9, "table": 0.9, "receipt": 0.9, "sticky note": 0.9, "whiteboard": 0.8}


def stroke_beside_edge(paper, ink, table):
    """A vertical stroke 5 pixels wide on paper, which ends at column 60."""
    gray = np.full((60, 90), paper, np.float32)
    gray[15:45, 25:30] = ink
    gray[:, 60:] = table
    return gray


tones = st.floats(0.0625, 1, width=32)


@settings(max_examples=50)
@given(paper=tones, ink=tones, table=tones)
def test_contrast_is_that_of_strokes_and_not_of_edges(paper, ink, table):
    gray = stroke_beside_edge(paper, ink, table)
    for light in (False, True):
        contrast = stroke_contrast(gray, 15, light=light)
        assert contrast.shape == gray.shape
        assert (contrast >= 0).all()
        assert (contrast <= 1).all()
        assert np.allclose(contrast[:, 45:], 0)
        expected = 1 - min(ink, paper) / max(ink, paper) if (ink > paper) == light else 0
        assert contrast[30, 27] == pytest.approx(expected, abs=1e-5)


@settings(max_examples=30)
@given(paper=tones, ink=tones, table=tones, shade=st.floats(0.5, 1, width=32))
def test_a_shadow_does_not_change_the_contrast(paper, ink, table, shade):
    gray = stroke_beside_edge(paper, ink, table)
    plain, dim = (stroke_contrast(plane, 15, light=False) for plane in (gray, shade * gray))
    np.testing.assert_allclose(dim, plain, atol=1e-5)


def page_of_bars(tones) -> np.ndarray:
    """A page [700, 1400] of light paper with a bar of each tone, 20 pixels wide."""
    gray = np.full((700, 1400), 0.8, np.float32)
    for place, tone in enumerate(tones):
        gray[300:420, 300 + 150 * place : 320 + 150 * place] = tone
    return gray


def bars_found(gray, count):
    ink, _ = find_page_ink(gray + np.random.default_rng(0).normal(0, 0.002, gray.shape))
    return [
        float(ink[310:410, 302 + 150 * place : 318 + 150 * place].mean()) for place in range(count)
    ]


@pytest.mark.parametrize("faint", [0.4, 0.5, 0.57])
def test_ink_that_a_reflection_bleaches_is_ink(faint):
    assert min(bars_found(page_of_bars([0.1, 0.1, 0.1, 0.1, faint]), 5)) > 0.9


def test_a_pale_shape_beside_dark_ink_is_a_stain():
    found = bars_found(page_of_bars([0.1, 0.1, 0.1, 0.1, 0.74]), 5)
    assert min(found[:4]) > 0.9
    assert found[4] < 0.1


@pytest.mark.parametrize("paper", [0.0, 0.02, 0.08])
def test_noise_in_black_hides_no_light_ink(paper):
    gray = np.where(page_of_bars([0.1] * 5) < 0.5, 0.8, paper).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 0.02, gray.shape)
    ink, _ = find_page_ink(np.clip(gray + noise, 0, 1))
    assert 0.8 < ink.sum() / (5 * 20 * 120) < 1.4


def test_grain_beside_a_table_is_no_ink_and_a_digit_at_the_border_of_plain_paper_is():
    gray = page_of_bars([0.1] * 5)
    cut = gray.copy()
    cut[300:420, :20] = 0.1
    assert find_page_ink(cut)[0][310:410, 2:18].mean() > 0.9
    table = gray.copy()
    table[:, :120] = 0.3
    table[::9, :115] = 0.05  # Grain that touches the border, and some that does not.
    table[320:400, 60:70] = 0.05
    assert not find_page_ink(table)[0][:, :130].any()
    assert min(bars_found(table, 5)) > 0.9


def two_strokes(gray, tone):
    """Draws a 7 whose box is 60 pixels high and 40 wide."""
    gray[60:67, 50:90] = tone
    for step in range(53):
        gray[67 + step, 83 - step // 2 : 90 - step // 2] = tone
    return gray


@pytest.mark.parametrize("light", [False, True])
def test_strokes_on_a_sheet_are_among_the_candidates(light):
    gray = two_strokes(np.full((200, 160), 0.9, np.float32), 0.1)
    gray[:, :40] = gray[180:] = 0.15  # The table, at two sides.
    prepared = prepare_digit(1 - gray if light else gray)
    alone = prepare_digit(two_strokes(np.full((200, 160), 0.9, np.float32), 0.1))
    assert alone.candidates == ()
    apart = [np.abs(image - alone.image.astype(float)).mean() for image in prepared.images]
    assert min(apart) < 16
    assert prepared.candidates[int(np.argmin(apart))].light == light


@pytest.mark.parametrize("tone", [0.62, 0.68])
def test_strokes_half_of_which_a_reflection_bleaches_are_among_the_candidates(tone):
    clear = two_strokes(np.full((200, 160), 0.72, np.float32), 0.1)
    alone = prepare_digit(clear).image.astype(float)
    gray = clear.copy()
    gray[85:150, 20:130] = 0.9  # A reflection with sharp edges, and the ink under it.
    gray[85:150, 20:130][clear[85:150, 20:130] < 0.5] = tone
    images = prepare_digit(gray).images
    assert min(np.abs(image - alone).mean() for image in images) < 12


def test_a_picture_without_any_stroke_has_an_image_all_the_same():
    gray = np.linspace(0, 1, 200 * 160, dtype=np.float32).reshape(200, 160)
    assert prepare_digit(gray).image.shape == (28, 28, 1)


@pytest.mark.mnist
@pytest.mark.parametrize("kind", HARD)
def test_digits_are_read_in_hard_scenes(trained, dataset, kind):
    images, labels = dataset.test.images[:40], dataset.test.labels[:40]
    predictions = mnistjax.predict(trained, digit_scenes(kind, images, 200))
    assert np.mean(predictions.labels == labels) >= HARD[kind]


@pytest.mark.mnist
@pytest.mark.parametrize("kind", sorted(set(SCENES) - set(HARD)))
def test_digits_on_plain_paper_need_no_other_candidates(dataset, kind):
    pictures = digit_scenes(kind, dataset.test.images[:10], 200)
    settled = [not prepare_digit(open_picture(picture)).candidates for picture in pictures]
    assert np.mean(settled) >= 0.5


@pytest.mark.mnist
@pytest.mark.parametrize(
    "kind", ["table", "shadow", "sticky note", "whiteboard", "receipt", "form"]
)
def test_codes_are_read_in_hard_scenes(trained, dataset, kind):
    codes = code_scenes(kind, dataset.test.images[:60], dataset.test.labels[:60], 200)
    right = [mnistjax.read_digits(trained, picture).text == text for picture, text in codes]
    assert np.mean(right) >= 0.6


@pytest.mark.mnist
def test_prepared_pictures_are_predicted_like_pictures(trained, dataset):
    pictures = digit_scenes("table", dataset.test.images[:6], 200)
    prepared = [prepare_digit(open_picture(picture)) for picture in pictures]
    assert any(digit.candidates for digit in prepared)
    one, other = mnistjax.predict(trained, pictures), mnistjax.predict(trained, prepared)
    np.testing.assert_array_equal(one.inputs, other.inputs)
    np.testing.assert_array_equal(one.probabilities, other.probabilities)
    assert one.warnings == other.warnings
