"""The page to draw on, without a browser: whole, closed and small, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
from pages import Page, assert_closed
from random_networks import make_network
from report_runs import HOSTILE_CLASSES, HOSTILE_NAME

import mnistjax
from mnistjax.errors import ConfigError, RunError
from mnistjax.models import MODELS
from mnistjax.report import render_draw_page, write_draw_page


def named(network, name, classes):
    info = dataclasses.replace(network.info, name=name, class_names=tuple(classes))
    return dataclasses.replace(network, info=info)


@pytest.mark.parametrize("name", MODELS)
def test_the_page_is_closed_and_well_formed(name):
    text = render_draw_page(make_network(name))
    page = Page(text)
    assert_closed(page)
    assert len(page.all("h1")) == len(page.all("main")) == 1
    identities = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identities) == len(set(identities))
    assert all(canvas["aria-label"] for canvas in page.all("canvas"))
    assert text == render_draw_page(make_network(name))


SIZES = {"softmax": 150, "cnn": 300, "mlp-50-50": 350, "mlp": 350, "speed": 400}
SIZES |= {"cnn-dropout": 650, "cnn-bn": 1350}


@pytest.mark.parametrize(("name", "kilobytes"), SIZES.items())
def test_pages_stay_small(name, kilobytes):
    assert len(render_draw_page(make_network(name)).encode()) < 1000 * kilobytes


def test_names_stay_text():
    network = make_network("softmax", image_shape=(9, 9, 1), num_classes=4)
    text = render_draw_page(named(network, HOSTILE_NAME, HOSTILE_CLASSES))
    page = Page(text)
    assert len(page.all("script")) == 2
    assert not page.all("img")
    for name in (HOSTILE_NAME, *HOSTILE_CLASSES):
        assert name in page.text
    (data,) = re.findall(r'<script type="application/json" id="network">(.*?)</script>', text)
    assert json.loads(data)["names"] == list(HOSTILE_CLASSES)


def test_the_preparation_of_mnist_is_offered_where_it_fits():
    network = make_network("softmax")
    small = make_network("softmax", image_shape=(12, 12, 1))
    for trained, offered, used in (
        (network, True, True),
        (named(network, "fashion_mnist", "abcdefghij"), True, False),
        (small, False, False),
    ):
        page = Page(render_draw_page(trained))
        boxes = [one for one in page.all("input") if one.get("type") == "checkbox"]
        assert len(boxes) == offered
        assert any("checked" in box for box in boxes) == used


@pytest.mark.parametrize(
    ("image_shape", "classes", "message"),
    [
        ((28, 28, 3), 10, r"expected a network for grayscale images .*found .*\(28, 28, 3\)"),
        ((300, 28, 1), 10, r"of at most 256 pixels a side .*\(300, 28, 1\)"),
        ((8, 8, 1), 65, r"expected a network of at most 64 classes to draw for, found 65"),
    ],
)
def test_networks_for_other_images_are_refused(image_shape, classes, message, tmp_path):
    network = make_network("softmax", image_shape=image_shape, num_classes=classes)
    with pytest.raises(ConfigError, match=message):
        write_draw_page(network, tmp_path)
    assert not list(tmp_path.iterdir())


def test_networks_of_unknown_layers_are_refused():
    network = make_network("softmax")
    own = dataclasses.replace(network, model=dataclasses.replace(network.model, module=None))
    vote = mnistjax.runs.ensemble([network, network])
    for other in (own, vote):
        with pytest.raises(ConfigError, match="expected a network whose layers are known"):
            render_draw_page(other)


def test_it_is_written_to_a_folder_or_a_file(tmp_path):
    network = make_network("softmax")
    text = render_draw_page(network)
    for path, file in ((tmp_path, "draw.html"), (tmp_path / "new" / "a.html", "new/a.html")):
        assert write_draw_page(network, path) == tmp_path / file
        assert (tmp_path / file).read_text(encoding="utf-8") == text
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"expected to write the page to .*file.draw\.html: "):
        write_draw_page(network, tmp_path / "file" / "draw.html")
    assert {path.name for path in tmp_path.iterdir()} == {"draw.html", "new", "file"}


def test_the_record_of_a_run_does_not_change_the_page(digits_run):
    pages = {
        render_draw_page(load(digits_run)) for load in (mnistjax.load_run, mnistjax.load_weights)
    }
    assert len(pages) == 1


def test_a_smaller_dtype_makes_a_smaller_page():
    network = make_network("mlp")
    sizes = [
        len(render_draw_page(network, dtype=dtype)) for dtype in ("float32", "float16", "int8")
    ]
    count = mnistjax.count_parameters(network.variables)
    np.testing.assert_allclose(-np.diff(sizes), [count * 2 * 4 / 3, count * 4 / 3], rtol=0.02)
