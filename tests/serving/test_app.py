"""The routes answer what the library computes, and refuse everything else in one line."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from degraded import degraded_rows
from PIL import Image

import mnistjax
from mnistjax import serving
from mnistjax.errors import ConfigError
from mnistjax.serving import app as application

JSON, PNG, JPEG = "application/json", "image/png", "image/jpeg"
TEST = mnistjax.load_dataset("digits").test
LIMITS = serving.Limits(picture_bytes=900_000, picture_pixels=2_000_000, images=9, seconds=0.5)


@pytest.fixture(scope="module")
def client(digits_network, serve_app):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(application, "try_draw_page", lambda trained: "<p>draw</p>")
        app = serving.make_app(digits_network, limits=LIMITS)
    with serve_app(app) as client:
        yield client


def encode(picture, kind="PNG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def enlarged(index):
    """A picture of a digit, dark on light."""
    return Image.fromarray(np.kron(255 - TEST.images[index, ..., 0], np.ones((5, 5), np.uint8)))


def same(described, predictions, index):
    names = predictions.class_names
    assert described["label"] == names[predictions.labels[index]]
    assert described["probability"] == max(described["probabilities"])
    np.testing.assert_allclose(
        described["probabilities"], predictions.probabilities[index], atol=1e-5
    )
    assert described["warnings"] == list(predictions.warnings[index])


@pytest.mark.parametrize("count", [1, 2, 4, 5, 9])
def test_pixels_are_predicted_as_by_the_library(client, digits_network, count):
    images = TEST.images[:count]
    expected = mnistjax.predict(digits_network, images)
    for pixels in (images, images[..., 0]):
        found = client.predict(pixels)
        assert len(found) == count
        for index, described in enumerate(found):
            same(described, expected, index)
    same(client.predict(images[0])[0], expected, 0)
    same(client.predict(images[0, ..., 0])[0], expected, 0)


@pytest.mark.parametrize(("kind", "content_type"), [("PNG", PNG), ("JPEG", JPEG)])
def test_pictures_are_predicted_as_by_the_library(client, digits_network, kind, content_type):
    for index in range(3):
        body = encode(enlarged(index), kind)
        with Image.open(io.BytesIO(body)) as picture:
            expected = mnistjax.predict(digits_network, picture)
        status, _, answer = client.ask("POST", "/predict", body, content_type)
        assert status == 200
        assert answer["classes"] == list("0123456789")
        same(answer["predictions"][0], expected, 0)


def test_the_warnings_of_a_picture_are_answered(client):
    noise = np.random.default_rng(0).integers(0, 256, (90, 90), dtype=np.uint8)
    _, _, answer = client.ask("POST", "/predict", encode(Image.fromarray(noise)), PNG)
    assert answer["predictions"][0]["warnings"]


def test_a_photo_is_read_as_by_the_library(client, digits_network):
    ((photo, _),) = degraded_rows(TEST.images[:5], TEST.labels[:5], 0, furniture="")
    body = encode(photo.convert("RGB"))
    with Image.open(io.BytesIO(body)) as picture:
        reading = mnistjax.read_digits(digits_network, picture)
    status, _, answer = client.ask("POST", "/read", body, PNG)
    assert status == 200
    assert answer["text"] == reading.text
    assert [[tuple(digit["box"]) for digit in row] for row in answer["rows"]] == [
        [digit.box for digit in row] for row in reading.rows
    ]
    blank = encode(Image.new("L", (90, 50), 255))
    assert client.ask("POST", "/read", blank, PNG)[2]["rows"] == []


def test_health_names_the_network_its_data_its_accuracy_and_the_versions(client, digits_network):
    status, _, answer = client.ask("GET", "/health")
    assert (status, answer["status"]) == (200, "ok")
    assert (answer["network"], answer["dataset"]) == ("mlp", "digits")
    assert answer["test_accuracy"] == digits_network.result["test_accuracy"]
    assert answer["versions"] == mnistjax.runs.package_versions()
    assert answer["image_shape"] == [28, 28, 1]


def test_the_page_to_draw_on_is_served(client):
    status, headers, text = client.ask("GET", "/")
    assert (status, text) == (200, "<p>draw</p>")
    assert headers["Content-Type"].startswith("text/html")
    assert client.ask("HEAD", "/")[0] == 200


def bad_pixels(text):
    return ("POST", "/predict", f'{{"pixels": {text}}}', JSON)


ROW = "[" + ", ".join(["0"] * 28) + "]"
IMAGE = "[" + ", ".join([ROW] * 28) + "]"


@pytest.mark.parametrize(
    ("status", "words", "message"),
    [
        (404, ("GET", "/nowhere"), "expected /, /health, /predict or /read, found /nowhere"),
        (404, ("POST", "/predict/", "{}", JSON), "found /predict/"),
        (405, ("GET", "/predict"), "expected the method POST, found GET"),
        (405, ("OPTIONS", "/read"), "expected the method POST, found OPTIONS"),
        (415, ("POST", "/predict", "x"), "found none"),
        (415, ("POST", "/predict", "x", "text/plain"), "found text/plain"),
        (415, ("POST", "/read", "{}", JSON), "expected Content-Type image/png, image/jpeg"),
        (415, ("POST", "/predict", encode(enlarged(0)), JPEG), "found a file of another kind"),
        (415, ("POST", "/predict", b"no image", PNG), "found a file of another kind"),
        (422, ("POST", "/predict", encode(enlarged(0))[:-40], PNG), "expected a sound image"),
        (422, ("POST", "/predict", encode(Image.new("L", (50, 50))), PNG), "one color only"),
        (413, ("POST", "/read", encode(Image.new("1", (1000, 2001))), PNG), "1,000 x 2,001"),
        (413, ("POST", "/read", encode(Image.new("1", (20000, 9000))), PNG), "found far more"),
        (413, ("POST", "/read", bytes(900_001), PNG), "at most 900,000 bytes"),
        (413, ("POST", "/predict", " " * 60_000, JSON), "at most 57,472 bytes"),
        (400, ("POST", "/predict", "{", JSON), "expected JSON"),
        (400, ("POST", "/predict", b'{"pixels": [\xff]}', JSON), "expected JSON"),
        (400, ("POST", "/predict", "[" * 9_000, JSON), "expected JSON"),
        (400, bad_pixels("NaN"), "NaN is not JSON"),
        (422, ("POST", "/predict", "[]", JSON), 'the one key "pixels", found'),
        (422, ("POST", "/predict", '{"pixels": 1, "x": 2}', JSON), "found 'pixels', 'x'"),
        (422, bad_pixels("7"), "found shape []"),
        (422, bad_pixels("[]"), "found shape [0]"),
        (422, bad_pixels("[[1, 2], [3]]"), "[28, 28, 1] or [28, 28], or of several in a list"),
        (422, bad_pixels("[" * 200 + "]" * 200), "found shape"),
        (422, bad_pixels(IMAGE.replace("0", "0.5", 1)), "found 0.5"),
        (422, bad_pixels(IMAGE.replace("0", "256", 1)), "found 256"),
        (422, bad_pixels(IMAGE.replace("0", "-1", 1)), "found -1"),
        (422, bad_pixels(IMAGE.replace("0", "true", 1)), "found true"),
        (422, bad_pixels(IMAGE.replace("0", "1" * 99, 1)), "found 1111"),
        (422, bad_pixels(IMAGE.replace("0", '"' + "a" * 9_000 + '"', 1)), 'found "aaaa'),
        (422, bad_pixels(IMAGE.replace("0", "null", 1)), "found null"),
        (422, bad_pixels(IMAGE.replace("0", "{}", 1)), "found {}"),
        (422, bad_pixels(IMAGE.replace("0", "[0]", 2)), "rows of one length, found rows of"),
        (422, bad_pixels(IMAGE.replace("], [", ", 0], [", 1)), "found shape [28, 29]"),
        (422, bad_pixels(IMAGE[:-2] + ", 0]]"), "different length"),
        (413, bad_pixels("[" + ", ".join([IMAGE] * 10) + "]"), "at most 9 images"),
    ],
)
def test_a_bad_request_is_one_line(client, status, words, message):
    assert message in client.refusal(status, *words)


def test_a_method_that_is_not_allowed_is_told_which_one_is(client):
    _, headers, _ = client.ask("GET", "/read")
    assert headers["Allow"] == "POST"


def test_a_body_of_unknown_length_is_cut_off(client):
    parts = (bytes(1000) for _ in range(10_000))
    # The server may close the connection before all of it is sent.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        client.refusal(413, "POST", "/read", parts, PNG)
    assert client.ask("GET", "/health")[0] == 200


def test_a_body_that_does_not_arrive_is_given_up(client):
    headers = {"Content-Length": "9"}
    assert "within 0.5 seconds" in client.refusal(
        408, "POST", "/predict", content_type=PNG, headers=headers
    )


def test_no_request_compiles(client, caplog):
    before = jax.config.jax_log_compiles
    jax.config.update("jax_log_compiles", True)  # In all threads.
    try:
        for count in range(1, 10):
            client.predict(TEST.images[:count])
        client.ask("POST", "/predict", encode(enlarged(0)), PNG)
        client.ask("POST", "/read", encode(enlarged(1)), PNG)
        assert not [record for record in caplog.records if "Compiling" in record.getMessage()]
        jax.jit(lambda x: x + 1)(np.zeros(3))
        assert [record for record in caplog.records if "Compiling" in record.getMessage()]
    finally:
        jax.config.update("jax_log_compiles", before)


def test_requests_at_the_same_time_get_their_own_answers(client, digits_network):
    expected = mnistjax.predict(digits_network, TEST.images[:200])

    def ask(index):
        if index % 4:
            return client.predict(TEST.images[index : index + index % 3 + 1])
        body = encode(Image.fromarray(TEST.images[index, ..., 0]))
        return client.ask("POST", "/predict", body, PNG)[2]["predictions"]

    with ThreadPoolExecutor(16) as executor:
        answers = list(executor.map(ask, range(190)))
    for index, answer in enumerate(answers):
        if index % 4:
            for offset, described in enumerate(answer):
                same(described, expected, index + offset)
        else:
            assert answer[0]["label"] in "0123456789"


@pytest.mark.parametrize("batching", [True, False])
def test_any_function_can_compute_the_logits(digits_network, serve_app, batching):
    calls = []

    def seven(images):
        calls.append(len(images))
        return np.eye(10, dtype=np.float32)[np.full(len(images), 7)] * 50

    app = serving.make_app(digits_network, network=seven, batching=batching)
    with serve_app(app) as client:
        calls.clear()
        (found,) = client.predict(TEST.images[:1])
        assert (found["label"], calls) == ("7", [1])
        assert found["probability"] > 0.99


@pytest.mark.parametrize("batching", [True, False])
def test_an_unexpected_failure_is_one_line_and_is_logged(
    digits_network, serve_app, caplog, batching
):
    failing = threading.Event()

    def network(images):
        if failing.is_set():
            raise RuntimeError("secret\nstate")
        return np.zeros((len(images), 10), np.float32)

    app = serving.make_app(digits_network, network=network, batching=batching)
    with serve_app(app) as client:
        failing.set()
        body = json.dumps({"pixels": TEST.images[0].tolist()})
        line = client.refusal(500, "POST", "/predict", body, JSON)
        assert "secret" not in line
        assert "POST /predict failed: RuntimeError: secret" in caplog.text
        failing.clear()
        assert client.predict(TEST.images[:1])


def test_a_network_without_a_page_to_draw_on_says_how_to_use_it(
    digits_network, serve_app, monkeypatch
):
    monkeypatch.setattr(application, "try_draw_page", lambda trained: None)
    with serve_app(serving.make_app(digits_network)) as client:
        status, headers, text = client.ask("GET", "/")
        assert status == 200
        assert headers["Content-Type"].startswith("text/plain")
        for word in ("mlp", "digits", "/predict", "/read", "/health", "http://127.0.0.1:"):
            assert word in text


def test_large_bodies_wait_within_bounds(digits_network, serve_app):
    limits = dataclasses.replace(LIMITS, waiting_bytes=100)
    with serve_app(serving.make_app(digits_network, limits=limits)) as client:
        line = client.refusal(503, "POST", "/predict", encode(enlarged(0)), PNG)
        assert "try again later" in line


def test_a_network_for_other_images_takes_pictures_of_their_size(serve_app):
    info = mnistjax.DatasetInfo("colors", 3, ("red", "green", "blue"), image_shape=(4, 6, 3))
    model = mnistjax.create_model("softmax", num_classes=3)
    variables = model.init(jax.random.key(0), np.zeros((1, 4, 6, 3), np.float32))
    trained = mnistjax.TrainedModel(model, variables, info)
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    expected = mnistjax.predict(trained, images)
    with serve_app(serving.make_app(trained)) as client:
        for index, described in enumerate(client.predict(images)):
            same(described, expected, index)
        picture = encode(Image.fromarray(images[1]))
        _, _, answer = client.ask("POST", "/predict", picture, PNG)
        same(answer["predictions"][0], expected, 1)
        larger = encode(Image.fromarray(images[1]).resize((8, 8)))
        line = client.refusal(422, "POST", "/predict", larger, PNG)
        assert "expected an image of 6 x 4 pixels, as the network takes them, found 8 x 8" in line
        line = client.refusal(422, "POST", "/read", picture, PNG)
        assert "expected a network for images of shape (28, 28, 1), found (4, 6, 3)" in line
        assert client.ask("GET", "/health")[2]["test_accuracy"] is None


def test_limits_are_positive():
    with pytest.raises(ConfigError, match="images must be positive, found 0"):
        serving.Limits(images=0)
