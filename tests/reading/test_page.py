"""Reading pages: ink is found, lines of forms are removed, digits come in reading order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from degraded import degraded_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scipy import ndimage

import mnistjax
from mnistjax.reading import lines, page, pieces
from mnistjax.reading.cuts import MAX_CUT, best_path, find_strips
from mnistjax.reading.page import find_rows
from mnistjax.reading.pieces import Piece

HEIGHT = 60


def strokes(texts, *, furniture=(), angle=0.0) -> np.ndarray:
    """A page with a row of slanted bars for each number of `texts`, bool [H, W]."""
    image = Image.new("L", (900, 200 * len(texts)))
    draw = ImageDraw.Draw(image)
    for row, count in enumerate(texts):
        for place in range(count):
            x, y = 150 + 90 * place, 200 * row + 70
            draw.line((x + 15, y, x, y + HEIGHT), 255, 8)
            draw.line((x, y + HEIGHT - 4, x + 30, y + HEIGHT - 4), 255, 8)
    for line in furniture:
        draw.line(line, 255, 3)
    return ndimage.rotate(np.asarray(image), angle, order=1, reshape=False) > 127


BOX = [(100, 45, 800, 45), (100, 155, 800, 155), (100, 45, 100, 155), (800, 45, 800, 155)]
CELLS = [(x, 45, x, 155) for x in range(225, 700, 90)]
FURNITURE = {"none": [], "underline": BOX[1:2], "box": BOX, "cells": BOX + CELLS}


@pytest.mark.parametrize("furniture", FURNITURE)
@pytest.mark.parametrize("angle", [-5, -1.3, 0, 2, 6])
def test_lines_of_forms_are_no_digits(furniture, angle):
    mask = strokes([6], furniture=FURNITURE[furniture], angle=angle)
    (row,) = find_rows(mask, mask)
    assert len(row) == 6
    alone = strokes([6], angle=angle)
    (clean,) = find_rows(alone, alone)
    for piece, expected in zip(row, clean, strict=True):
        assert abs(piece.left - expected.left) <= 3
        assert abs(piece.top - expected.top) <= 3


@pytest.mark.parametrize("width", [3, 6, 9])
def test_a_frame_with_thick_lines_does_not_pass_for_the_height_of_a_digit(width):
    found = []
    for box in ([], BOX + CELLS):
        image = Image.fromarray(strokes([6]))
        for line in box:
            ImageDraw.Draw(image).line(line, 1, width)
        mask = np.asarray(image)
        found.append(pieces.digit_height(pieces.find_pieces(mask)))
        (row,) = find_rows(mask, mask)
        assert len(row) == 6
    assert found[0] == found[1]


@given(st.lists(st.integers(1, 7), min_size=1, max_size=3), st.floats(-3, 3))
@settings(max_examples=10)
def test_rows_come_in_reading_order(counts, angle):
    mask = strokes(counts, angle=angle)
    rows = find_rows(mask, mask)
    assert [len(row) for row in rows] == counts
    for row in rows:
        assert [piece.left for piece in row] == sorted(piece.left for piece in row)
    assert [row[0].top for row in rows] == sorted(row[0].top for row in rows)


def test_a_page_without_ink_has_no_rows():
    blank = np.zeros((80, 90), bool)
    assert find_rows(blank, blank) == []


def test_a_stroke_that_crosses_a_line_stays_whole():
    mask = np.zeros((300, 600), bool)
    mask[100:200, 300:310] = True
    mask[150:154, 20:580] = True
    rest = lines.without_lines(mask, mask, 100)
    assert rest[100:200, 300:310].mean() > 0.95
    assert rest.sum() < 1.2 * 100 * 10


def test_a_speck_is_no_digit_and_a_bar_belongs_to_its_five():
    body = Piece(np.ones((60, 40), bool), 20, 100)
    bar = Piece(np.ones((6, 30), bool), 10, 120)
    speck = Piece(np.ones((3, 3), bool), 70, 200)
    far = Piece(np.ones((70, 10), bool), 12, 300)
    found = pieces.join_broken([speck, bar, far, body], 70)
    assert sorted((piece.left, piece.right, piece.top, piece.bottom) for piece in found) == [
        (100, 150, 10, 80),
        (300, 310, 12, 82),
    ]


@given(st.integers(0, 2**31))
@settings(max_examples=20)
def test_joining_the_pieces_of_a_mask_gives_it_back(seed):
    mask = np.random.default_rng(seed).random((12, 17)) < 0.3
    mask[0, 0] = mask[-1, -1] = True
    whole = pieces.join(pieces.find_pieces(mask))
    np.testing.assert_array_equal(whole.mask, mask)
    assert (whole.top, whole.left, whole.bottom, whole.right) == (0, 0, 12, 17)


def test_strips_separate_a_mask_without_loss():
    mask = np.zeros((80, 150), bool)
    mask[:, :60] = mask[:, 70:] = True
    mask[38:42] = True
    strips, costs = find_strips(mask, 80.0)
    np.testing.assert_array_equal(strips > 0, mask)
    np.testing.assert_array_equal(np.unique(strips), np.arange(len(costs)))
    assert len(costs) >= 3
    assert (costs[0], costs[-1]) == (0, 0)
    assert costs[1:-1].max() < MAX_CUT
    assert (np.diff(np.where(strips, strips, np.nan), axis=1)[38:42] >= 0).all()


def wave(width) -> Piece:
    """A stroke as wide as a page that goes up and down, with loops; 24 pixels high."""
    turn = np.linspace(0, 2 * np.pi * width / 40, 40 * width)
    column = turn / (2 * np.pi) * 40 - 10 * np.sin(2 * turn)
    mask = np.zeros((24, width + 20), bool)
    mask[np.round(11.5 + 11.5 * np.sin(turn)).astype(int), np.round(column + 10).astype(int)] = True
    return Piece(mask | np.roll(mask, 1, axis=1), 0, 0)


def test_the_ways_to_split_a_piece_grow_linearly_with_its_width(monkeypatch):
    tried = []
    join_boxes = page.join_boxes
    monkeypatch.setattr(
        page, "join_boxes", lambda *boxes: tried.append(boxes) or join_boxes(*boxes)
    )
    counts = []
    for width in (300, 1200):
        tried.clear()
        splits = page.split(wave(width), 24.0)
        counts.append((len(splits.costs), len(splits.parts), len(tried)))
        assert len(tried) <= 20 * len(splits.costs)
        assert max(part.width for part in list(splits.parts.values())[1:]) < 1.5 * 24
    assert counts[0][0] > 50
    for small, large in zip(*counts, strict=True):
        assert large < 4.5 * small


def test_a_wave_is_a_line_and_no_row_of_digits():
    column = np.arange(1400)
    mask = np.zeros((200, 1400), bool)
    for thickness in range(4):
        mask[(100 + 10 * np.sin(column / 10)).astype(int) + thickness, column] = True
    assert find_rows(mask, mask) == []
    mask[20:60, 100:130] = mask[20:60, 150:180] = True
    mask[25:55, 105:125] = mask[25:55, 155:175] = False
    assert [len(row) for row in find_rows(mask, mask)] == [2]


@given(st.integers(1, 5), st.randoms(use_true_random=False))
def test_the_best_path_is_the_best_of_all(last, random):
    steps = list(itertools.combinations(range(last + 1), 2))
    scores = {ends: random.uniform(-3, 0) for ends in steps if random.random() < 0.7}
    scores[0, last] = random.uniform(-9, 0)
    cuts = np.array([random.uniform(0, 1) for _ in range(last + 1)])

    def worth(path):
        return sum(scores[ends] - cuts[ends[1]] for ends in path)

    paths = []
    for size in range(last):
        for inner in itertools.combinations(range(1, last), size):
            path = list(itertools.pairwise([0, *inner, last]))
            if all(ends in scores for ends in path):
                paths.append(path)
    assert worth(best_path(scores, cuts)) == pytest.approx(max(map(worth, paths)))


@pytest.fixture(scope="module")
def trained(digits_network):
    return digits_network


@pytest.fixture(scope="module")
def rows():
    test = mnistjax.load_dataset("digits").test
    return degraded_rows(test.images[:40], test.labels[:40], 0)


def test_photographed_rows_are_read(trained, rows):
    readings = [mnistjax.read_digits(trained, picture) for picture, _ in rows]
    found = [len(reading.text) for reading in readings]
    assert np.mean(np.array(found) == 5) > 0.7
    right = [
        one == other
        for reading, (_, text) in zip(readings, rows, strict=True)
        if len(reading.text) == 5
        for one, other in zip(reading.text, text, strict=True)
    ]
    assert np.mean(right) > 0.7


def test_a_reading_is_consistent(trained, rows):
    for picture, _ in rows[:2]:
        reading = mnistjax.read_digits(trained, picture)
        digits = [digit for row in reading.rows for digit in row]
        lines_ = ["".join(str(digit.label) for digit in row) for row in reading.rows]
        assert reading.text == "\n".join(lines_)
        assert reading.confidence == pytest.approx(np.prod([d.confidence for d in digits]))
        annotated = mnistjax.reading.annotate(picture, reading, trained.info.class_names)
        assert annotated.mode == "RGB"
        for digit in digits:
            left, top, right, bottom = digit.box
            assert 0 <= left < right <= annotated.width
            assert 0 <= top < bottom <= annotated.height
        before = np.asarray(
            mnistjax.reading.annotate(picture, mnistjax.reading.Reading((), "", 1.0), ())
        )
        assert (np.asarray(annotated) != before).any()


@pytest.mark.parametrize("value", [0, 255])
def test_a_page_of_one_color_says_nothing(trained, value):
    reading = mnistjax.read_digits(trained, Image.new("L", (300, 200), value))
    assert (reading.rows, reading.text, reading.confidence) == ((), "", 1.0)


def test_a_noisy_blank_page_says_nothing(trained):
    noise = np.random.default_rng(0).normal(200, 12, (300, 500)).clip(0, 255).astype(np.uint8)
    assert mnistjax.read_digits(trained, Image.fromarray(noise)).rows == ()
