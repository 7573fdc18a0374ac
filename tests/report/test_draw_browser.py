"""The page to draw on in a real browser: by mouse, finger, keyboard and picture, on any screen."""

from __future__ import annotations

import base64
import http.server
import re
import threading

import numpy as np
import pytest
from drawing_pages import sheet_of
from drawings import DRAWINGS, color_image, drawn
from pages import PHONE, WIDE, brightness, fits_the_width, requests_outside
from PIL import Image
from random_networks import make_network

import mnistjax
from mnistjax.report import render_draw_page, write_draw_page

NARROW = {"width": 320, "height": 600}


@pytest.fixture(scope="module")
def draw_page(digits_network, tmp_path_factory):
    return write_draw_page(digits_network, tmp_path_factory.mktemp("pages"), dtype="float32")


@pytest.fixture
def page(draw_page, open_page):
    return open_page(draw_page)


def on_sheet(page, points):
    """Points of `drawings.DRAWINGS` as places on the screen."""
    box = page.locator("#pad").bounding_box()
    return [
        (box["x"] + x / 100 * box["width"], box["y"] + y / 100 * box["height"]) for x, y in points
    ]


def draw(page, which):
    first, *others = on_sheet(page, DRAWINGS[which])
    page.mouse.move(*first)
    page.mouse.down()
    for point in others:
        page.mouse.move(*point, steps=2)
    page.mouse.up()


def shown(page):
    return page.locator("#answer").inner_text(), page.locator("#sure").inner_text()


def assert_answers_like_predict(page, network, picture):
    """Asserts that the page sees what `mnistjax.predict` sees, and answers the same."""
    predictions = mnistjax.predict(network, picture)
    name, share = shown(page)
    assert name == predictions.class_names[predictions.labels[0]]
    assert re.fullmatch(r"\d+\.\d\N{NO-BREAK SPACE}%", share)
    assert float(share[:-2]) == pytest.approx(100 * predictions.confidences[0], abs=0.051)
    found = page.evaluate("Array.from(see().image)")
    np.testing.assert_array_equal(found, predictions.inputs[0].ravel())


def is_blank(page):
    return shown(page) == ("\N{EN DASH}", "nothing drawn yet")


@pytest.mark.parametrize("which", [1, 3])
def test_a_drawn_digit_gets_the_answer_of_predict(which, page, digits_network):
    assert is_blank(page)
    draw(page, which)
    assert_answers_like_predict(page, digits_network, Image.fromarray(sheet_of(page)))
    assert page.locator("#spoken").inner_text().startswith(", ".join(shown(page)))
    shares = page.locator("#bars .share").all_inner_texts()
    assert sum(float(share.rstrip("%").strip()) for share in shares) == pytest.approx(100, abs=0.5)
    assert page.locator("#bars .best .name").inner_text() == shown(page)[0]
    assert page.complaints == []
    assert requests_outside(page) == [page.url]


def test_it_answers_while_one_draws(page):
    first, *others = on_sheet(page, DRAWINGS[0])
    page.mouse.move(*first)
    page.mouse.down()
    seen = set()
    for point in others:
        page.mouse.move(*point, steps=3)
        page.wait_for_timeout(60)
        seen.add(shown(page))
    assert len(seen) > 2
    assert ("\N{EN DASH}", "nothing drawn yet") not in seen
    page.mouse.up()


def test_a_finger_draws_and_does_not_scroll(draw_page, open_page, digits_network):
    page = open_page(draw_page, viewport=PHONE, has_touch=True, is_mobile=True)
    send = page.context.new_cdp_session(page).send
    touches = [{"x": x, "y": y} for x, y in on_sheet(page, DRAWINGS[3])]
    send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": touches[:1]})
    for touch in touches[1:]:
        send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [touch]})
    send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert_answers_like_predict(page, digits_network, Image.fromarray(sheet_of(page)))
    assert page.evaluate("window.scrollY") == 0
    assert page.complaints == []


def test_a_digit_can_be_drawn_by_keyboard_and_is_spoken(page, digits_network):
    page.locator("#pad").focus()
    assert not page.locator("#pen").is_visible()
    for _ in range(7):
        page.keyboard.press("ArrowUp")
    assert page.locator("#spoken").inner_text() == "pen up, 50 across, 22 down"
    page.keyboard.press("Space")
    assert page.locator("#spoken").inner_text() == "pen down"
    for _ in range(14):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+ArrowRight")
    assert page.locator("#spoken").inner_text() == "pen down, 51 across, 78 down"
    assert page.locator("#pen").is_visible()
    page.keyboard.press("Space")
    assert_answers_like_predict(page, digits_network, Image.fromarray(sheet_of(page)))
    assert page.locator("#spoken").inner_text().startswith(", ".join(shown(page)))
    page.keyboard.press("z")
    assert is_blank(page)
    assert page.locator("#spoken").inner_text() == "nothing drawn yet"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "undo"
    assert not page.locator("#pen").is_visible()


def test_undo_and_clear_take_back_one_step_each(page, tmp_path):
    drawn_picture = tmp_path / "two.png"
    Image.fromarray(np.uint8(255 * (1 - drawn(0)))).save(drawn_picture)
    states = [shown(page)]
    steps = [
        lambda: draw(page, 0),
        lambda: draw(page, 2),
        lambda: page.locator("#clear").click(),
        lambda: page.locator("#file").set_input_files(drawn_picture),
        lambda: draw(page, 3),
    ]
    for step in steps:
        step()
        page.wait_for_timeout(80)
        states.append(shown(page))
    assert states[3] == states[0]
    for state in reversed(states[:-1]):
        page.locator("#undo").click()
        assert shown(page) == state
    page.locator("#undo").click()
    assert is_blank(page)


def picture_files(folder):
    """A gray picture, one that is light on dark, a large one and a small one, in PNG files."""
    gray = np.uint8(255 * (1 - drawn(1)))
    large = Image.fromarray(gray).resize((900, 900), Image.Resampling.BICUBIC)
    small = mnistjax.load_dataset("digits").test.images[3, ..., 0]
    for index, image in enumerate(
        map(Image.fromarray, (gray, 255 - gray, np.asarray(large), small))
    ):
        path = folder / f"{index}.png"
        image.save(path)
        yield path


def test_a_picture_gets_the_answer_of_predict(page, digits_network, tmp_path):
    for path in picture_files(tmp_path):
        page.locator("#file").set_input_files(path)
        page.locator("#sure", has_text="%").wait_for()
        assert_answers_like_predict(page, digits_network, path)
        page.locator("#clear").click()
        assert is_blank(page)
    assert page.complaints == []


DROP = """([text, type, name]) => {
    const bytes = Uint8Array.from(atob(text), one => one.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], name, { type }));
    const drop = new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: data });
    const paste = new ClipboardEvent("paste", { bubbles: true, clipboardData: data });
    return document.body.dispatchEvent(name.startsWith("pasted") ? paste : drop);
}"""


@pytest.mark.parametrize("name", ["dropped.png", "pasted.png"])
def test_a_picture_can_be_dropped_and_pasted(name, page, tmp_path):
    color_image((250, 240, 200), (20, 40, 120)).save(tmp_path / "a.png")
    text = base64.b64encode((tmp_path / "a.png").read_bytes()).decode()
    page.evaluate(DROP, [text, "image/png", name])
    page.locator("#answer", has_text="2").wait_for()
    assert page.complaints == []


def test_pictures_of_any_size_are_answered_or_said_to_be_empty(page, tmp_path):
    rng = np.random.default_rng(0)
    for index, shape in enumerate([(1, 1), (1, 900), (500, 2), (28, 28), (2, 3), (2100, 40)]):
        for pixels in (np.full(shape, 90, np.uint8), rng.integers(0, 256, shape, np.uint8)):
            path = tmp_path / f"{index}-{pixels.std() > 0}.png"
            Image.fromarray(pixels).save(path)
            page.locator("#clear").click()
            page.locator("#file").set_input_files(path)
            empty = np.ptp(pixels) < 5
            page.locator("#sure", has_text="a picture of one color" if empty else "%").wait_for()
    assert page.complaints == []


def test_what_is_no_picture_is_one_line_and_changes_nothing(page):
    draw(page, 0)
    before = shown(page)
    page.evaluate(DROP, [base64.b64encode(b"no picture").decode(), "text/plain", "notes.txt"])
    page.locator("#problem", has_text="expected an image, found notes.txt").wait_for()
    assert shown(page) == before
    assert page.complaints == []


def test_a_class_that_is_pressed_is_explained_until_it_is_pressed_again(page):
    draw(page, 0)
    best = shown(page)[0]
    look = "document.getElementById('saliency').toDataURL()"
    assert page.locator("#explained").inner_text() == best
    before = page.evaluate(look)
    other = page.locator("#bars button").nth(0 if best != "0" else 1)
    other.click()
    assert other.get_attribute("aria-pressed") == "true"
    assert page.locator("#explained").inner_text() == other.locator(".name").inner_text() != best
    assert page.evaluate(look) != before
    other.click()
    assert other.get_attribute("aria-pressed") == "false"
    assert page.evaluate(look) == before


def test_the_preparation_can_be_switched_off(page):
    draw(page, 1)
    centered = page.evaluate("Array.from(see().image)")
    page.get_by_label("Scale and center like MNIST").uncheck()
    expected = Image.fromarray(255 - sheet_of(page)).convert("F").resize((28, 28), Image.BOX)
    found = np.reshape(page.evaluate("Array.from(see().image)"), (28, 28))
    np.testing.assert_allclose(found, np.asarray(expected), atol=1)
    assert not np.array_equal(found.ravel(), centered)


def test_images_of_other_sizes_are_drawn_as_they_are(open_page, tmp_path):
    network = make_network("tiny", image_shape=(12, 16, 1), num_classes=47)
    page = open_page(write_draw_page(network, tmp_path))
    assert page.get_by_role("checkbox").count() == 0
    draw(page, 0)
    image = np.reshape(page.evaluate("Array.from(see().image)"), (12, 16))
    # The sheet is a square: as tall as the images, and in their middle.
    assert not image[:, [0, 1, -2, -1]].any()
    expected = Image.fromarray(255 - sheet_of(page)).convert("F").resize((12, 12), Image.BOX)
    np.testing.assert_allclose(image[:, 2:-2], np.asarray(expected), atol=1)
    logits = mnistjax.predict_logits(network, np.uint8(image)[None, ..., None])
    assert shown(page)[0] == str(logits.argmax())
    for viewport in (NARROW, PHONE, WIDE):
        page.set_viewport_size(viewport)
        assert fits_the_width(page)


def test_every_layer_shows_its_activations(open_page, tmp_path):
    page = open_page(write_draw_page(make_network("cnn-bn"), tmp_path, dtype="int8"))
    draw(page, 0)
    canvases = page.locator("canvas[id^=stage]")
    assert canvases.count() == 5  # Three convolutions and two dense layers.
    lit = canvases.evaluate_all(
        """all => all.map(c => {
            const { data } = c.getContext("2d").getImageData(0, 0, c.width, c.height);
            return [Math.max(...data), new Set(data).size];
        })"""
    )
    assert all(largest == 255 and different > 10 for largest, different in lit)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_every_screen_in_both_schemes(scheme, draw_page, open_page):
    page = open_page(draw_page, color_scheme=scheme)
    draw(page, 0)
    assert (brightness(page, "body") < 60) == (scheme == "dark")
    for viewport in (NARROW, {"width": 360, "height": 740}, PHONE, WIDE):
        page.set_viewport_size(viewport)
        assert fits_the_width(page)
        box = page.locator("#pad").bounding_box()
        assert 0 <= box["x"] <= viewport["width"] - box["width"]


def test_paper_is_white_and_holds_the_answer_but_no_controls(draw_page, open_page):
    page = open_page(draw_page, color_scheme="dark")
    draw(page, 0)
    page.emulate_media(media="print")
    assert brightness(page, "body") > 250
    for selector in ("#undo", "#width", "#keys"):
        assert not page.locator(selector).is_visible()
    assert page.locator("#answer").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_it_works_from_a_server_too(open_page, digits_network, tmp_path):
    text = render_draw_page(digits_network).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *args):
            pass

    page = open_page(write_draw_page(digits_network, tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            page.requests.clear()
            address = f"http://127.0.0.1:{server.server_port}/"
            page.goto(address)
            draw(page, 3)
            assert not is_blank(page)
            assert requests_outside(page) == [address]
        finally:
            server.shutdown()
            thread.join()
    assert page.complaints == []
