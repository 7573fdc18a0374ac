"""The report in a real browser: it renders, loads nothing, filters, and fits screens and paper."""

from __future__ import annotations

import numpy as np
import pytest
from pages import PHONE, WIDE, brightness, fits_the_width, requests_outside
from report_runs import HOSTILE_CLASSES

import mnistjax


@pytest.fixture
def runs(report_run):
    """The directory and data set of a run by name."""
    return lambda name: report_run(name)[:2]


def mistakes_of(workdir, dataset):
    """Returns the pairs (true, predicted) of all mistakes."""
    logits = mnistjax.predict_logits(mnistjax.load_run(workdir), dataset.test.images)
    predictions = np.argmax(logits, -1)
    wrong = predictions != dataset.test.labels
    return list(zip(dataset.test.labels[wrong], predictions[wrong], strict=True))


def shown(page):
    """Returns the pairs (true, predicted) of the mistakes that can be seen."""
    items = page.locator("#gallery li:visible")
    return items.evaluate_all("items => items.map(i => [+i.dataset.t, +i.dataset.p])")


@pytest.mark.parametrize("name", ["hostile", "all right", "forty-seven classes"])
def test_it_renders_without_a_complaint_and_asks_for_nothing(name, runs, open_page):
    workdir, dataset = runs(name)
    page = open_page(workdir / "report.html")
    assert page.title().endswith(dataset.info.name)
    images = page.locator("img").evaluate_all(
        "all => all.map(i => [i.complete && i.naturalWidth > 0, i.getBoundingClientRect().width])"
    )
    assert len(images) >= 8
    assert all(loaded and width > 20 for loaded, width in images)
    assert page.evaluate("getComputedStyle(document.body).maxWidth") != "none"
    assert page.complaints == []
    assert requests_outside(page) == [(workdir / "report.html").as_uri()]


def test_its_policy_would_stop_a_request_and_a_script(runs, open_page):
    page = open_page(runs("hostile")[0] / "report.html")
    page.evaluate("""() => {
        const image = document.createElement("img");
        image.src = "http://127.0.0.1:9/x.png";
        const script = document.createElement("script");
        script.textContent = "window.ran = true";
        document.body.append(image, script);
    }""")
    page.wait_for_timeout(100)
    assert page.evaluate("window.ran") is None
    assert len(page.complaints) == 2
    assert all("Content Security Policy" in complaint for complaint in page.complaints)


def test_the_filter_shows_what_was_chosen_and_counts_it(runs, open_page):
    workdir, dataset = runs("hostile")
    page, wrong = open_page(workdir / "report.html"), mistakes_of(workdir, dataset)
    truth, predicted = page.get_by_label("true class"), page.get_by_label("predicted class")
    count = page.locator("#filter-count")
    assert sorted(shown(page)) == sorted([int(t), int(p)] for t, p in wrong)
    assert count.text_content() == f"{len(wrong)} of {len(wrong)} shown"

    first = wrong[0]
    truth.select_option(str(first[0]))
    of_class = [pair for pair in wrong if pair[0] == first[0]]
    assert 0 < len(of_class) < len(wrong)
    assert len(shown(page)) == len(of_class)
    assert {pair[0] for pair in shown(page)} == {first[0]}
    assert count.text_content() == f"{len(of_class)} of {len(wrong)} shown"

    predicted.select_option(str(first[1]))
    both = [pair for pair in wrong if pair == first]
    assert shown(page) == [[first[0], first[1]]] * len(both)
    assert count.text_content() == f"{len(both)} of {len(wrong)} shown"

    page.get_by_role("button", name="Show all").click()
    assert len(shown(page)) == len(wrong)
    assert (truth.input_value(), predicted.input_value()) == ("", "")


def test_the_filter_can_be_used_by_keyboard(runs, open_page):
    workdir, dataset = runs("hostile")
    page, wrong = open_page(workdir / "report.html"), mistakes_of(workdir, dataset)
    page.locator("#filter-true").focus()
    page.keyboard.press("ArrowDown")
    chosen = int(page.locator("#filter-true").input_value())
    assert len(shown(page)) == sum(pair[0] == chosen for pair in wrong)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert len(shown(page)) == len(wrong)
    page.locator(".confusion button").first.focus()
    page.keyboard.press("Space")
    assert 0 < len(shown(page)) < len(wrong)


@pytest.mark.parametrize("name", ["hostile", "forty-seven classes"])
def test_a_pressed_number_shows_its_mistakes(name, runs, open_page):
    workdir, dataset = runs(name)
    page, wrong = open_page(workdir / "report.html"), mistakes_of(workdir, dataset)
    for cell in page.locator("button[data-t]").all()[:12]:
        pair = [int(cell.get_attribute("data-t")), int(cell.get_attribute("data-p"))]
        cell.click()
        assert shown(page) == [pair] * wrong.count(tuple(pair))
        assert len(shown(page)) == int(cell.inner_text())
        assert page.evaluate("document.activeElement.id") == "filter-true"


def test_without_scripts_all_mistakes_are_there_and_no_dead_filter(runs, open_page):
    workdir, dataset = runs("hostile")
    page = open_page(workdir / "report.html", java_script_enabled=False)
    assert page.locator("#gallery li:visible").count() == len(mistakes_of(workdir, dataset))
    assert not page.locator("#filter").is_visible()


@pytest.mark.parametrize("name", ["hostile", "all right", "forty-seven classes"])
@pytest.mark.parametrize("viewport", [PHONE, {"width": 320, "height": 600}, WIDE])
def test_no_screen_has_to_be_scrolled_sideways(name, viewport, runs, open_page):
    page = open_page(runs(name)[0] / "report.html", viewport=viewport)
    assert fits_the_width(page)
    narrow = page.locator(".picture img").evaluate_all(
        "all => all.every(i => i.getBoundingClientRect().right <= window.innerWidth)"
    )
    assert narrow


def test_it_follows_the_light_and_turns_its_pictures(runs, open_page):
    report = runs("hostile")[0] / "report.html"
    look = "e => getComputedStyle(e).filter"
    for scheme, dark in (("light", False), ("dark", True)):
        page = open_page(report, color_scheme=scheme)
        assert (brightness(page, "body") < 60) == dark
        text = page.evaluate("getComputedStyle(document.body).color")
        assert (sum(map(int, text.strip("rgb()").split(","))) > 600) == dark
        for selector in (".picture img", ".gallery img"):
            assert (page.locator(selector).first.evaluate(look) != "none") == dark


def test_paper_is_white_and_holds_every_mistake_but_no_controls(runs, open_page):
    workdir, dataset = runs("hostile")
    page = open_page(workdir / "report.html", color_scheme="dark")
    page.emulate_media(media="print")
    assert brightness(page, "body") > 250
    assert page.locator(".picture img").first.evaluate("e => getComputedStyle(e).filter") == "none"
    for selector in ("nav", "#filter"):
        assert not page.locator(selector).is_visible()
    assert len(shown(page)) == len(mistakes_of(workdir, dataset))
    page.set_viewport_size({"width": 680, "height": 960})  # A4 at 96 dots an inch, less margins.
    assert fits_the_width(page)
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_names_of_classes_are_text_on_the_page(runs, open_page):
    page = open_page(runs("hostile")[0] / "report.html")
    heads = page.locator('.confusion tbody th[scope="row"]').all_text_contents()
    assert heads == list(HOSTILE_CLASSES)
    assert page.complaints == []
