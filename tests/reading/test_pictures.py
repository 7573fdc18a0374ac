"""Opening pictures: every mode and rotation, ink of every color, and damaged files."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from drawings import REFERENCE, color_image, difference, drawn, prepared
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

import mnistjax
from mnistjax.reading import pictures


def as_bytes(image, file_format="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "I", "F"]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_opened(mode):
    gray = color_image((255,) * 3, (0,) * 3)
    if mode == "LAB":
        white = Image.new("L", gray.size, 128)
        image = Image.merge("LAB", (gray.convert("L"), white, white))
    elif mode in ("I", "F"):
        image = gray.convert("L").convert(mode)
    else:
        image = gray.convert("LA").convert(mode) if mode == "PA" else gray.convert(mode)
    assert image.mode == mode
    assert difference(prepared(mnistjax.reading.open_picture(image)), REFERENCE) < 0.05


@pytest.mark.parametrize(("top", "kind"), [(65535, np.uint16), (4095, np.uint16), (9000, np.int32)])
def test_deep_grays_are_opened_whatever_their_range(top, kind, tmp_path):
    path = tmp_path / "deep.tiff"
    Image.fromarray((top * (1 - drawn())).astype(kind)).save(path)
    assert difference(prepared(mnistjax.reading.open_picture(path)), REFERENCE) < 0.05


@pytest.mark.parametrize(
    ("paper", "pen"),
    [
        ((255, 255, 255), (250, 240, 60)),
        ((120, 120, 120), (200, 75, 125)),
        ((0, 90, 0), (230, 0, 0)),
        ((20, 20, 120), (250, 250, 250)),
    ],
)
def test_ink_of_any_color_stands_out(paper, pen):
    image = color_image(paper, pen)
    assert difference(prepared(mnistjax.reading.open_picture(image)), REFERENCE) < 0.1


@pytest.mark.parametrize("pen", [(0, 0, 0), (255, 255, 255), (200, 30, 30)])
def test_a_drawing_on_nothing_is_seen_whatever_its_color(pen):
    image = color_image(pen, pen)
    image.putalpha(Image.fromarray(np.uint8(drawn() * 255)))
    assert difference(prepared(mnistjax.reading.open_picture(image)), REFERENCE) < 0.05


def test_transparent_corners_of_a_photograph_are_no_ink():
    image = color_image((210, 205, 190), (40, 40, 60))
    alpha = Image.new("L", image.size)
    ImageDraw.Draw(alpha).rounded_rectangle((0, 0, image.width - 1, image.height - 1), 60, 255)
    image.putalpha(alpha)
    assert difference(prepared(mnistjax.reading.open_picture(image)), REFERENCE) < 0.1


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
        mnistjax.reading.open_picture(image), np.asarray(upright) / np.float32(255)
    )


def test_large_pictures_are_reduced():
    image = Image.new("RGB", (5000, 1000), (255, 255, 255))
    assert mnistjax.reading.open_picture(image).shape == (410, 2048)


def png_header(width, height) -> bytes:
    """A PNG file that promises more than it holds."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99))


@pytest.mark.parametrize("thing", [np.zeros((9, 9, 3), np.uint8), b"\x89PNG", 3, None])
def test_what_is_no_picture_is_named(thing):
    with pytest.raises(mnistjax.errors.DataFormatError, match=type(thing).__name__) as caught:
        mnistjax.reading.open_picture(thing)
    assert "expected the path of an image file or a PIL.Image.Image" in str(caught.value)


DAMAGED = {
    "missing": None,
    "text": b"not an image\n",
    "empty file": b"",
    "cut off": as_bytes(color_image((255,) * 3, (0,) * 3))[:-300],
    "cut off jpeg": as_bytes(color_image((255,) * 3, (0,) * 3), "JPEG")[:900],
    "bomb": png_header(30_000, 30_000),
    "bomb that only warns": png_header(10_000, 10_000),
    "larger than we take": png_header(8_400, 8_400),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_file_that_is_no_sound_image_is_one_line_with_its_path(kind, tmp_path):
    path = tmp_path / "digit.png"
    if DAMAGED[kind] is not None:
        path.write_bytes(DAMAGED[kind])
    with pytest.raises(mnistjax.errors.DataFormatError) as caught:
        mnistjax.reading.open_picture(path)
    assert str(path) in str(caught.value)
    assert "expected an image" in str(caught.value) or "expected a sound image" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(mnistjax.errors.DataFormatError, match=f"found a folder at {tmp_path}"):
        mnistjax.reading.open_picture(tmp_path)


SMALL = color_image((255,) * 3, (0,) * 3).resize((40, 40))
WHOLE = {kind: as_bytes(SMALL, kind) for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP")}


@given(
    kind=st.sampled_from(sorted(WHOLE)),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8),
    length=st.floats(0, 1),
)
@settings(max_examples=60)
def test_damaged_bytes_give_a_picture_or_our_error(tmp_path_factory, kind, changes, length):
    data = bytearray(WHOLE[kind])
    for place, value in changes:
        data[int(place * (len(data) - 1))] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data[: max(1, int(length * len(data)))] if length < 0.5 else data)
    with contextlib.suppress(mnistjax.errors.DataFormatError):
        assert mnistjax.reading.open_picture(path).ndim == 2


def test_the_limit_of_pixels_is_checked_before_decoding(monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 99)
    with pytest.raises(mnistjax.errors.DataFormatError, match=r"at most 99 pixels, found 10 x 10"):
        mnistjax.reading.open_picture(Image.new("L", (10, 10)))
