"""Pictures of one digit: opened whatever they are, prepared as MNIST's were, or refused."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from degraded import degraded_digits
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

import mnistjax
from mnistjax.reading import ink, pictures
from mnistjax.reading.digits import LEAST_CONFIDENCE, confidence_doubts, predict_prepared

# Polylines on a canvas of 100x100: a 2, a 4, a 7 and a 0.
DRAWINGS = (
    [(25, 30), (40, 12), (62, 15), (65, 38), (28, 85), (72, 82)],
    [(35, 12), (25, 55), (75, 52), (62, 30), (60, 90)],
    [(25, 15), (72, 15), (45, 88)],
    [(50, 10), (28, 30), (27, 65), (48, 90), (70, 70), (72, 30), (50, 10)],
)


def drawn(which=0, *, scale=2, width=8, margins=(20, 20, 20, 20)) -> np.ndarray:
    """A digit, 1 on 0, float [H, W]; margins are top, bottom, left, right in the canvas's unit."""
    top, bottom, left, right = margins
    image = Image.new("L", ((100 + left + right) * scale, (100 + top + bottom) * scale))
    points = [((x + left) * scale, (y + top) * scale) for x, y in DRAWINGS[which]]
    ImageDraw.Draw(image).line(points, 255, width * scale, joint="curve")
    return np.asarray(image) / 255.0


def prepared(grey) -> np.ndarray:
    return mnistjax.prepare_digit(np.asarray(grey, np.float32)).image.astype(float) / 255


def difference(one, other) -> float:
    """How much ink of two images lies apart, as a share of all; a pixel off is no difference."""
    moves = itertools.product((-1, 0, 1), repeat=2)
    moved = (np.roll(one, move, axis=(0, 1)) for move in moves)
    return min(float(np.abs(image - other).sum() / (image + other).sum()) for image in moved)


REFERENCE = prepared(drawn())


def test_a_prepared_digit_has_the_geometry_of_mnist():
    for which in range(len(DRAWINGS)):
        image = prepared(drawn(which))[..., 0]
        rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
        assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
        assert np.abs(np.subtract(ink.centre_of_mass(image), 14)).max() <= 0.51
        assert image.max() == 1
        assert np.mean(image == 0) > 0.6


@given(
    which=st.integers(0, 3),
    margins=st.tuples(*[st.integers(5, 90)] * 4),
    scale=st.integers(2, 5),
    dark=st.booleans(),
    slope=st.tuples(*[st.floats(-0.3, 0.3)] * 2),
    contrast=st.floats(0.2, 1),
)
@settings(max_examples=40)
def test_place_size_polarity_light_and_contrast_do_not_matter(
    which, margins, scale, dark, slope, contrast
):
    plane = contrast * drawn(which, margins=margins, scale=scale)
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, n) for n in plane.shape), indexing="ij")
    light = slope[0] * rows + slope[1] * columns
    image = prepared((1 - plane if dark else plane) + light)
    assert difference(image, prepared(drawn(which))) < 0.2


@given(which=st.integers(0, 3), width=st.integers(5, 12), rows=st.integers(0, 1))
@settings(max_examples=15)
def test_an_image_like_mnist_s_stays_as_it_is(which, width, rows):
    image = mnistjax.prepare_digit(drawn(which, width=width)).image
    image = np.roll(image, rows, axis=0)
    again = mnistjax.prepare_digit(image[..., 0])
    np.testing.assert_array_equal(again.image, image)
    assert again.warnings == ()


def test_a_small_image_that_is_off_centre_is_centred():
    image = mnistjax.prepare_digit(drawn(0)).image[..., 0]
    moved = np.roll(image, (3, -3), axis=(0, 1))
    assert difference(prepared(moved / 255.0), image[..., None] / 255) < 0.2


@pytest.mark.parametrize("width", [2, 3, 20, 26])
def test_thin_and_thick_strokes_become_like_mnist_s(width):
    strokes = ink.normalise_strokes(ink.crop(drawn(2, width=width, scale=4) > 0.5))
    thickness = ink.stroke_width(strokes) * 20 / max(strokes.shape)
    assert ink.THINNEST - 0.5 < thickness < ink.THICKEST + 0.7


def test_thinning_breaks_no_stroke():
    drawing = drawn(3, width=22, scale=4) > 0.5
    drawing[:200, :] |= drawn(3, width=6, scale=4)[:200] > 0.5
    strokes = ink.normalise_strokes(ink.crop(drawing))
    assert len(ink.find_components(strokes)[1]) == 1


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 9))
@settings(max_examples=40)
def test_to_mnist_takes_any_shape(height, width, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.7
    mask[0, 0] = True
    image = ink.to_mnist(mask)
    assert image.shape == (28, 28, 1)
    assert image.dtype == np.uint8
    assert image.any()


def test_otsu_parts_two_groups():
    values = np.concatenate([np.linspace(0, 1, 500), np.linspace(3, 4, 50)])
    assert 0.9 < ink.otsu_threshold(values) < 3.1


def test_specks_and_what_comes_in_from_the_edge_are_dropped():
    plane = drawn(0, margins=(40, 40, 40, 40))
    plane[20:24, 300:304] = 1
    plane[100:110, :20] = 1
    assert difference(prepared(plane), REFERENCE) < 0.1


@pytest.mark.parametrize(
    ("grey", "words"),
    [
        (np.zeros((0, 5)), "found shape (0, 5)"),
        (np.zeros((5, 5, 3)), "found shape (5, 5, 3)"),
        (np.full((40, 40), 0.5), "one colour only"),
        (np.zeros((28, 28), np.uint8), "one colour only"),
        (np.full((4, 4), np.nan), "one colour only"),
    ],
)
def test_what_cannot_be_a_picture_of_a_digit_is_refused(grey, words):
    with pytest.raises(mnistjax.DataFormatError) as caught:
        mnistjax.prepare_digit(grey, "my.png")
    assert words in str(caught.value)
    assert str(caught.value).endswith(": my.png")


def as_bytes(image, file_format="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def colour_image(paper, pen) -> Image.Image:
    plane = drawn()[..., None]
    return Image.fromarray(
        np.uint8(np.round(np.array(paper) * (1 - plane) + np.array(pen) * plane))
    )


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "I", "F"]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_opened(mode):
    grey = colour_image((255,) * 3, (0,) * 3)
    if mode == "LAB":
        white = Image.new("L", grey.size, 128)
        image = Image.merge("LAB", (grey.convert("L"), white, white))
    elif mode in ("I", "F"):
        image = grey.convert("L").convert(mode)
    else:
        image = grey.convert("LA").convert(mode) if mode == "PA" else grey.convert(mode)
    assert image.mode == mode
    assert difference(prepared(mnistjax.open_picture(image)), REFERENCE) < 0.05


@pytest.mark.parametrize(("top", "kind"), [(65535, np.uint16), (4095, np.uint16), (9000, np.int32)])
def test_deep_greys_are_opened_whatever_their_range(top, kind, tmp_path):
    path = tmp_path / "deep.tiff"
    Image.fromarray((top * (1 - drawn())).astype(kind)).save(path)
    assert difference(prepared(mnistjax.open_picture(path)), REFERENCE) < 0.05


@pytest.mark.parametrize(
    ("paper", "pen"),
    [
        ((255, 255, 255), (250, 240, 60)),
        ((120, 120, 120), (200, 75, 125)),
        ((0, 90, 0), (230, 0, 0)),
        ((20, 20, 120), (250, 250, 250)),
    ],
)
def test_ink_of_any_colour_stands_out(paper, pen):
    image = colour_image(paper, pen)
    assert difference(prepared(mnistjax.open_picture(image)), REFERENCE) < 0.1


@pytest.mark.parametrize("pen", [(0, 0, 0), (255, 255, 255), (200, 30, 30)])
def test_a_drawing_on_nothing_is_seen_whatever_its_colour(pen):
    image = colour_image(pen, pen)
    image.putalpha(Image.fromarray(np.uint8(drawn() * 255)))
    assert difference(prepared(mnistjax.open_picture(image)), REFERENCE) < 0.05


def test_transparent_corners_of_a_photograph_are_no_ink():
    image = colour_image((210, 205, 190), (40, 40, 60))
    alpha = Image.new("L", image.size)
    ImageDraw.Draw(alpha).rounded_rectangle((0, 0, image.width - 1, image.height - 1), 60, 255)
    image.putalpha(alpha)
    assert difference(prepared(mnistjax.open_picture(image)), REFERENCE) < 0.1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_followed(orientation):
    upright = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40)
    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"}
    turns |= {6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}
    turn = turns.get(orientation)
    stored = upright.transpose(Image.Transpose[turn]) if turn else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.open(io.BytesIO(as_bytes(stored, exif=exif)))
    np.testing.assert_array_equal(
        mnistjax.open_picture(image), np.asarray(upright) / np.float32(255)
    )


def test_large_pictures_are_reduced():
    image = Image.new("RGB", (5000, 1000), (255, 255, 255))
    assert mnistjax.open_picture(image).shape == (410, 2048)


def png_header(width, height) -> bytes:
    """A PNG file that promises more than it holds."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99))


DAMAGED = {
    "missing": None,
    "text": b"not an image\n",
    "empty file": b"",
    "cut off": as_bytes(colour_image((255,) * 3, (0,) * 3))[:-300],
    "cut off jpeg": as_bytes(colour_image((255,) * 3, (0,) * 3), "JPEG")[:900],
    "bomb": png_header(30_000, 30_000),
    "bomb that only warns": png_header(10_000, 10_000),
    "larger than we take": png_header(8_400, 8_400),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_file_that_is_no_sound_image_is_one_line_with_its_path(kind, tmp_path):
    path = tmp_path / "digit.png"
    if DAMAGED[kind] is not None:
        path.write_bytes(DAMAGED[kind])
    with pytest.raises(mnistjax.DataFormatError) as caught:
        mnistjax.open_picture(path)
    assert str(path) in str(caught.value)
    assert "expected an image" in str(caught.value) or "expected a sound image" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(mnistjax.DataFormatError, match=f"found a folder at {tmp_path}"):
        mnistjax.open_picture(tmp_path)


SMALL = colour_image((255,) * 3, (0,) * 3).resize((40, 40))
WHOLE = {kind: as_bytes(SMALL, kind) for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP")}


@given(
    kind=st.sampled_from(sorted(WHOLE)),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8),
    length=st.floats(0, 1),
)
@settings(max_examples=80)
def test_damaged_bytes_give_a_picture_or_our_error(tmp_path_factory, kind, changes, length):
    data = bytearray(WHOLE[kind])
    for place, value in changes:
        data[int(place * (len(data) - 1))] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data[: max(1, int(length * len(data)))] if length < 0.5 else data)
    with contextlib.suppress(mnistjax.DataFormatError):
        assert mnistjax.open_picture(path).ndim == 2


def test_the_limit_of_pixels_is_checked_before_decoding(monkeypatch):
    monkeypatch.setattr(pictures, "MOST_PIXELS", 99)
    with pytest.raises(mnistjax.DataFormatError, match=r"at most 99 pixels, found 10 x 10"):
        mnistjax.open_picture(Image.new("L", (10, 10)))


def noise(seed=0):
    return np.random.default_rng(seed).random((80, 80), np.float32)


def several():
    return np.hstack([drawn(0), drawn(1)])


def dots():
    plane = np.zeros((200, 200))
    for row, column in itertools.product(range(30, 170, 30), repeat=2):
        plane[row : row + 9, column : column + 9] = 1
    return plane


def blot():
    plane = np.zeros((200, 200))
    plane[40:160, 50:150] = 1
    return plane


@pytest.mark.parametrize(
    ("grey", "words"),
    [
        (noise(), "contrast"),
        (several(), "several separate"),
        (dots(), "several separate"),
        (blot(), "blot"),
    ],
)
def test_what_looks_like_no_digit_gets_a_warning(grey, words):
    (warning,) = mnistjax.prepare_digit(grey).warnings
    assert words in warning


def test_digits_get_no_warning():
    for which in range(len(DRAWINGS)):
        assert mnistjax.prepare_digit(drawn(which)).warnings == ()


def test_a_network_that_is_not_sure_says_so():
    unsure = np.full(10, (1 - 0.99 * LEAST_CONFIDENCE) / 9)
    unsure[3] = 0.99 * LEAST_CONFIDENCE
    assert len(confidence_doubts(unsure)) == 1
    assert confidence_doubts(np.eye(10)[3]) == ()


@pytest.fixture(scope="module")
def trained(digits_network):
    return digits_network


def test_arrays_are_predicted_as_they_are(trained):
    images = mnistjax.load_dataset("digits").test.images[:7]
    predictions = mnistjax.predict(trained, images)
    expected = mnistjax.predict_probabilities(trained.model, trained.variables, images)
    np.testing.assert_array_equal(predictions.probabilities, expected)
    np.testing.assert_array_equal(predictions.inputs, images)
    assert predictions.class_names == tuple("0123456789")
    assert len(predictions.warnings) == 7
    rows = np.arange(7)
    np.testing.assert_array_equal(expected[rows, predictions.labels], predictions.confidences)
    second = expected[rows, predictions.runners_up]
    np.testing.assert_array_equal(second, np.sort(expected, axis=1)[:, -2])
    with pytest.raises(dataclasses.FrozenInstanceError):
        predictions.inputs = images


def test_no_image_at_all_gives_no_prediction(trained):
    predictions = mnistjax.predict(trained, [])
    assert predictions.probabilities.shape == (0, 10)
    assert predictions.inputs.shape == (0, 28, 28, 1)
    assert len(predictions.labels) == len(predictions.runners_up) == 0


def test_a_path_an_image_and_lists_of_them_are_the_same(trained, tmp_path):
    path = tmp_path / "two.png"
    image = colour_image((255,) * 3, (30,) * 3)
    image.save(path)
    alone = mnistjax.predict(trained, path)
    for pictures_ in ([path], str(path), image, [image], (path,)):
        other = mnistjax.predict(trained, pictures_)
        np.testing.assert_array_equal(other.probabilities, alone.probabilities)
    assert difference(alone.inputs[0] / 255, REFERENCE) < 0.05


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 28, 28, 1)), np.zeros((28, 28, 1), np.uint8), np.zeros((2, 8, 8, 1), "u1")],
)
def test_arrays_of_another_shape_or_dtype_are_refused(trained, images):
    with pytest.raises(mnistjax.DataFormatError, match=r"expected images uint8 \[N, 28, 28, 1\]"):
        mnistjax.predict(trained, images)


def test_a_network_of_another_image_shape_is_refused(trained):
    info = mnistjax.DatasetInfo("colour", 10, image_shape=(32, 32, 3))
    other = dataclasses.replace(trained, info=info)
    digit = mnistjax.prepare_digit(drawn())
    with pytest.raises(mnistjax.ConfigError, match="expected a network of images"):
        predict_prepared(other, [digit])


def test_photographs_are_made_the_same_again():
    images = mnistjax.load_dataset("digits").test.images[:6]
    once, again = degraded_digits(images, 5), degraded_digits(images, 5)
    for one, other in zip(once, again, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    other_seed = degraded_digits(images, 6)
    assert any(one.size != other.size for one, other in zip(once, other_seed, strict=True))


def test_photographs_of_digits_show_what_was_photographed(trained):
    test = mnistjax.load_dataset("digits").test
    images, labels = test.images[:100], test.labels[:100]
    predictions = mnistjax.predict(trained, degraded_digits(images, 1))
    assert np.mean(predictions.labels == labels) > 0.8
