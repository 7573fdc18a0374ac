"""The report of a population in a real browser: it renders, sorts, highlights and fits."""

from __future__ import annotations

import pytest
from pages import PHONE, WIDE, brightness, fits_the_width, requests_outside
from sweep_runs import MADE_UP


@pytest.fixture
def opened(sweep_page, open_page):
    """Opens the page of a made-up population."""
    return lambda name, **settings: open_page(sweep_page(name)[1], **settings)


def column(page, table, number):
    """Returns the texts of a column of a table."""
    cells = page.locator(f".sortable >> nth={table}").locator(f"tbody tr > :nth-child({number})")
    return cells.all_text_contents()


def lit(page, what=".top path"):
    """Returns the numbers of the networks whose lines, in any chart, stand out."""
    return page.locator(what).evaluate_all("all => all.map(e => e.dataset.m)")


@pytest.mark.parametrize("name", MADE_UP)
def test_it_renders_without_a_complaint_and_asks_for_nothing(name, opened, sweep_page):
    page = opened(name)
    assert "squares" in page.title() or name == "hostile"
    images = page.locator("img").evaluate_all("all => all.map(i => i.naturalWidth > 20)")
    assert all(images)
    assert page.locator("svg.chart").first.bounding_box()["height"] > 200
    assert page.complaints == []
    assert requests_outside(page) == [sweep_page(name)[1].as_uri()]


def test_a_trained_population_and_its_members_are_linked(trained_sweep, open_page, tmp_path):
    from mnistjax.report import write_sweep_report

    report = trained_sweep.workdir / "members/001/report.html"
    report.write_text("<title>of a member</title>")
    try:
        page = open_page(write_sweep_report(trained_sweep, output=tmp_path / "here.html"))
        page.get_by_role("link", name="1", exact=True).click()
        page.wait_for_url(report.as_uri())
        assert page.title() == "of a member"
    finally:
        report.unlink()


def test_a_heading_sorts_its_table(opened):
    page = opened("grid")
    accuracies = column(page, 1, 6)  # Network, two settings, the seed, and training before it.
    assert accuracies == sorted(accuracies)
    others = column(page, 0, 4)
    button = page.get_by_role("button", name="validation %").nth(1)
    head = page.locator(".sortable >> nth=1").locator("thead th:nth-child(6)")
    button.click()
    assert column(page, 1, 6) == accuracies
    assert head.get_attribute("aria-sort") == "ascending"
    button.click()
    assert column(page, 1, 6) == accuracies[::-1]
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, 1, 1) == [str(number) for number in range(17, -1, -1)]
    assert column(page, 0, 4) == others
    page.get_by_role("button", name="optimizer").nth(1).click()
    assert column(page, 1, 2) == ["adam"] * 9 + ["sgd"] * 9
    assert head.get_attribute("aria-sort") is None


def test_a_heading_sorts_by_keyboard_and_numbers_by_their_size(opened):
    page = opened("a hundred")
    page.locator(".sortable >> nth=1").locator("thead button").nth(1).focus()
    page.keyboard.press("Enter")
    rates = [float(text) for text in column(page, 1, 2)]
    assert rates == sorted(rates)
    page.keyboard.press("Space")
    assert [float(text) for text in column(page, 1, 2)] == rates[::-1]


@pytest.mark.parametrize("times", [1, 2])
def test_what_is_missing_comes_last(times, opened):
    page = opened("eliminated")
    for _ in range(times):
        page.get_by_role("button", name="test %").nth(1).click()
    assert column(page, 1, 7) == ["50.00"] + [""] * 9


def test_a_row_under_the_pointer_stands_out_with_its_lines(opened):
    page = opened("grid")
    width = "e => parseFloat(getComputedStyle(e).strokeWidth)"
    line = page.locator('path[data-m="4"]').first
    thin = line.evaluate(width)
    page.locator('.sortable tr[data-m="4"]').hover()
    assert lit(page) == ["4", "4"]
    assert page.locator(".top path").first.evaluate(width) > thin
    assert "4" in lit(page, "tr.lit")
    assert page.locator("svg.dim").count() == 2
    page.locator(".sortable >> nth=0").locator("tbody tr").nth(1).hover()
    assert set(lit(page)) == {"3", "4", "5"}
    page.locator("h1").hover()
    assert lit(page) == lit(page, "tr.lit") == []
    assert page.locator("svg.dim").count() == 0


def test_a_row_that_has_the_focus_stands_out_with_its_lines(opened):
    page = opened("grid")
    page.locator('tr[data-m="7"]').focus()
    assert lit(page) == ["7", "7"]
    page.keyboard.press("Tab")
    assert lit(page) == ["8", "8"]
    page.evaluate("document.activeElement.blur()")
    assert lit(page) == []


def test_a_line_under_the_pointer_names_its_network(opened):
    page = opened("one")
    page.locator("path.line").dispatch_event("mouseover")
    assert "0" in lit(page, "tr.lit")
    assert page.locator("path.line title").first.text_content().startswith("network 0")


def test_without_scripts_everything_is_there_and_nothing_is_dead(opened):
    page = opened("grid", java_script_enabled=False)
    assert page.locator(".sortable tbody tr:visible").count() == 6 + 18
    assert page.locator("path.line").count() == 36
    assert page.locator("button").count() == 0
    assert not page.locator("#hint").is_visible()
    assert opened("grid").locator("#hint").is_visible()


@pytest.mark.parametrize("name", ["grid", "failures", "hostile", "a hundred"])
@pytest.mark.parametrize("viewport", [PHONE, {"width": 320, "height": 600}, WIDE])
def test_no_screen_has_to_be_scrolled_sideways(name, viewport, opened):
    page = opened(name, viewport=viewport)
    assert fits_the_width(page)
    boxes = page.locator("figure").evaluate_all("all => all.map(f => f.getBoundingClientRect())")
    assert all(box["right"] <= viewport["width"] for box in boxes)


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_it_can_be_read_in_the_light_and_in_the_dark(scheme, dark, opened):
    page = opened("grid", color_scheme=scheme)
    paper = brightness(page, "body")
    assert (paper < 60) == dark
    for selector, style in (
        *(("body", "color"), (".chart text", "fill"), (".line", "stroke")),
        *((".lead", "color"), (".note", "color"), ("thead .press", "color")),
    ):
        assert abs(brightness(page, selector, style) - paper) > 80, selector
    page.locator('.sortable tr[data-m="4"]').hover()
    assert abs(brightness(page, ".top .line", "stroke") - paper) > 80
    row = 'tr[data-m="4"] td'
    assert abs(brightness(page, row, "color") - brightness(page, row)) > 120
    look = page.locator(".picture img").first.evaluate("e => getComputedStyle(e).filter")
    assert (look != "none") == dark


def test_paper_is_white_and_holds_every_network(opened):
    page = opened("a hundred", color_scheme="dark")
    page.emulate_media(media="print")
    assert brightness(page, "body") > 250
    for selector in ("nav", "#hint"):
        assert not page.locator(selector).is_visible()
    box = page.locator(".tall").nth(1)
    assert box.evaluate("e => e.scrollHeight <= e.clientHeight + 1")
    page.set_viewport_size({"width": 680, "height": 960})  # A4 at 96 dots an inch, less margins.
    assert fits_the_width(page)
    assert page.pdf(format="A4").startswith(b"%PDF")
