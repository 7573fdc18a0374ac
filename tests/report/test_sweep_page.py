"""The report of a population: what it says, and that it is whole, safe and the same again."""

from __future__ import annotations

import base64
import os
import re

import pytest
from pages import Page, assert_closed
from report_runs import HOSTILE_NAME
from sweep_runs import FAILURE, HOSTILE, MADE_UP, RATES, lost

from mnistjax import plots
from mnistjax.errors import ConfigError, RunError
from mnistjax.report import write_sweep_report
from mnistjax.runs import Population, load_population

CELL = re.compile(
    r'<(?:th|td)(?: [a-z]+="[a-z ]+")*(?: data-v="([^"]+)")?>(.*?)</t[hd]>', re.DOTALL
)
KEYS = ("mean", "sd", "low")
LINE = re.compile(r'<path class="line tone-(\d)" data-m="(\d+)" d="([^"]+)"><title>(.*?)</title>')


@pytest.fixture(params=MADE_UP)
def any_page(request, sweep_page):
    """Every population, with the source of its page."""
    population, path = sweep_page(request.param)
    return population, path.read_text(encoding="utf-8")


def source(sweep_page, name):
    return sweep_page(name)[1].read_text(encoding="utf-8")


def tables_of(text):
    """Returns the tables: for each its headings and its rows, of pairs (sorted by, text)."""
    tables = []
    for table in re.findall(r'<table class="sortable">.*?</table>', text, re.DOTALL):
        heads = re.findall(r'<th scope="col"[^>]*>(.*?)</th>', table)
        rows = [
            re.findall(
                r'<(?:th|td)(?: [a-z]+="[a-z ]+")*(?: data-v="([^"]+)")?>(.*?)</t[hd]>',
                row,
                re.DOTALL,
            )
            for row in re.findall(r"<tr data-m=.*?</tr>", table, re.DOTALL)
        ]
        assert all(len(row) == len(heads) for row in rows)
        tables.append((heads, rows))
    return tables


def charts_of(text):
    """Returns for each chart the points, the tone and the title of each network, by its number."""
    charts = []
    for chart in re.findall(r"<svg .*?</svg>", text, re.DOTALL):
        lines = {}
        for tone, number, path, title in LINE.findall(chart):
            points = [
                tuple(map(float, point.split(",")))
                for point in re.findall(r"-?[\d.]+,-?[\d.]+", path.partition("a")[0])
            ]
            lines[int(number)] = (points, int(tone), title)
        assert len(lines) == chart.count('class="line')
        charts.append(lines)
    return charts


def test_the_page_is_well_formed_and_can_be_heard(any_page):
    page = Page(any_page[1])
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == len(page.all("main")) == 1
    assert len(page.all("table")) == len(page.all("caption")) == 2
    assert all(image["alt"] for image in page.all("img"))
    assert all(chart["aria-label"] and chart["role"] == "img" for chart in page.all("svg"))
    assert all(head["scope"] for head in page.all("th"))
    identities = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identities) == len(set(identities))
    links = [link["href"] for link in page.all("a")]
    assert links == ["#" + heading["id"] for heading in page.all("h2")]


def test_the_page_asks_for_nothing_and_allows_nothing_else(any_page):
    assert_closed(Page(any_page[1]))


def test_the_best_settings_are_those_of_the_validation_images(sweep_page):
    population, path = sweep_page("grid")
    shown = Page(path.read_text(encoding="utf-8")).text
    best = population.summary()[-1]
    assert best["test_accuracy_mean"] == min(r["test_accuracy_mean"] for r in population.summary())
    assert "best settings by validation accuracy optimizer adam, learning rate 1 their" in shown
    for split in ("validation", "test"):
        mean, deviation, low, high = (
            f"{100 * best[f'{split}_accuracy_{key}']:.2f}" for key in ("mean", "sd", "low", "high")
        )
        assert f"their {split} accuracy {mean} ± {deviation} % " in shown
        assert f"mean ± standard deviation; 95 % interval of the mean {low} to {high}" in shown
    assert "Nothing is selected by the test images." in shown
    assert "networks 18 all of them trained" in shown
    assert "training 27.0 s" in shown


def test_the_table_of_the_settings_is_the_summary(any_page):
    population, text = any_page
    (heads, rows), _ = tables_of(text)
    summary = population.summary()
    assert len(rows) == len(summary)
    for line, row in zip(summary, rows, strict=True):
        cells = dict(zip(heads, row, strict=True))
        assert cells["n"] == (f"{line['n']}.0", str(line["n"]))
        assert cells["failed"][1] == str(line["failed"])
        for split in ("validation", "test"):
            mean, deviation, low = (line[f"{split}_accuracy_{key}"] for key in KEYS)
            value, words = cells.get(f"{split} %", ("", ""))
            assert (float(value) if value else None) == mean
            assert words.startswith("" if mean is None else f"{100 * mean:.2f}")
            assert ("±" in words) == (deviation is not None)
            assert bool(cells.get(f"{split} interval", ("", ""))[1]) == (low is not None)


def test_the_table_of_the_networks_has_every_row(any_page):
    population, text = any_page
    heads, rows = tables_of(text)[1]
    assert len(rows) == len(population)
    assert ("error" in heads) == any(member.error for member in population.members)
    for row, found in zip(rows, population.rows, strict=True):
        cells = dict(zip(heads, row, strict=True))
        assert cells["network"] == (f"{found['member']}.0", str(found["member"]))
        for head, name in (("training %", "train_accuracy"), ("test %", "test_accuracy")):
            expected = "" if found[name] is None else f"{100 * found[name]:.2f}"
            assert cells[head][1] == expected
        assert bool(cells["seconds"][1]) == (found["error"] is None)
        if "learning rate" in heads:
            assert float(cells["learning rate"][0]) == found["learning_rate"]


def test_every_network_that_was_trained_has_its_curve(any_page):
    population, text = any_page
    curves = charts_of(text)[0]
    trained = [row for row in population.rows if row["error"] is None]
    assert set(curves) == {row["member"] for row in trained}
    validated = trained[0]["validation_accuracy"] is not None
    key = "validation_accuracy" if validated else "train_accuracy"
    for row in trained:
        points, tone, title = curves[row["member"]]
        assert f"network {row['member']}" in title
        assert f"accuracy {100 * row[key]:.2f} %" in title
        member = population.members[row["member"]]
        history = member.trained.history if member.trained else member.history
        assert len(points) == len(history)
        assert points == sorted(points)
        for other in trained:
            if row[key] > other[key]:
                assert points[-1][1] <= curves[other["member"]][0][-1][1]
                assert tone >= curves[other["member"]][1]
    assert max(tone for _, tone, _ in curves.values()) == 4
    assert f"The {'validation' if validated else 'training'} accuracy after each epoch" in text


def test_the_axes_of_parallel_coordinates_are_the_settings_and_the_accuracy(sweep_page):
    population, path = sweep_page("grid")
    parallel = charts_of(path.read_text(encoding="utf-8"))[1]
    assert len(parallel) == len(population)
    heights = {}
    for row in population.rows:
        points = parallel[row["member"]][0]
        assert len(points) == 3
        heights.setdefault(row["optimizer"], set()).add(points[0][1])
        heights.setdefault(row["learning_rate"], set()).add(points[1][1])
    assert all(len(found) == 1 for found in heights.values())
    low, middle, high = (heights[rate].pop() for rate in RATES)
    assert low - middle == pytest.approx(middle - high, abs=0.2)  # Logarithms, and upward.
    assert low > high
    assert heights["sgd"] != heights["adam"]
    ups = [parallel[number][0][2][1] for number in range(len(population))]
    assert ups == sorted(ups, reverse=True)


def test_networks_that_failed_are_listed_apart(sweep_page):
    population, path = sweep_page("failures")
    text = path.read_text(encoding="utf-8")
    failed = [row["member"] for row in population.rows if row["error"]]
    for chart in charts_of(text):
        assert len(chart) == len(population) - len(failed)
    shown = Page(text).text
    for number in failed:
        rate = f"{population.members[number].settings['learning_rate']:g}"
        settings = f"optimizer [a-z]+, learning rate {rate}, seed "
        assert re.search(rf" network {number}: {settings}\d ", shown)
    assert shown.count(" ".join(FAILURE.split())) == len(failed)
    assert "networks 18 of which 4 failed" in shown


def test_without_validation_images_nothing_is_selected(sweep_page):
    text = source(sweep_page, "without validation")
    assert "No images were held out for validation, so no settings can be selected." in text
    assert "best settings" not in text
    assert not any("validation" in head for heads, _ in tables_of(text) for head in heads)
    assert 'alt="Chart of the test accuracy of every network over optimizer"' in text


def test_an_eliminated_network_has_no_test_accuracy(sweep_page):
    text = source(sweep_page, "eliminated")
    heads, rows = tables_of(text)[1]
    assert [row[heads.index("test %")][1] for row in rows] == [""] * 9 + ["50.00"]
    shown = Page(text).text
    # What was ended early was better then, and is no candidate any more.
    assert "optimizer adam, learning rate 0.01 their validation accuracy 90.00 %" in shown
    assert "networks 10 of which 9 were ended early" in shown
    heads, rows = tables_of(text)[0]
    assert [row[heads.index("eliminated")][1] for row in rows] == ["3", "3", "3", "0"]


@pytest.mark.parametrize("name", ["one", "seeds"])
def test_where_nothing_varies_but_the_seed_there_are_no_axes(name, sweep_page):
    text = source(sweep_page, name)
    assert len(charts_of(text)) == 1
    assert "<img" not in text
    assert "best settings" not in text
    assert Page(text).text.count(" validation accuracy ") >= 1


def test_every_setting_has_its_plot(sweep_page):
    population, path = sweep_page("grid")
    images = Page(path.read_text(encoding="utf-8")).all("img")
    assert len(images) == 2
    for image, name in zip(images, ("optimizer", "learning_rate"), strict=True):
        png = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"))
        assert png == plots.render_png(plots.sweep(population, name))
        assert f"validation accuracy of every network over {name.replace('_', ' ')}" in image["alt"]


def test_texts_stay_texts_wherever_they_come_from(sweep_page):
    text = source(sweep_page, "hostile")
    page = Page(text)
    assert len(page.all("script")) == 1
    assert not [image for image in page.all("img") if not image["src"].startswith("data:")]
    for name in (HOSTILE_NAME, *HOSTILE, " ".join(FAILURE.split())):
        assert name in page.text
        assert name not in text or not set(name) & set("<>&\"'")


def test_the_same_population_gives_the_same_page(trained_sweep, tmp_path):
    page = write_sweep_report(trained_sweep)
    assert page == trained_sweep.workdir / "report.html"
    first = page.read_bytes()
    again = write_sweep_report(load_population(trained_sweep.workdir), output=page)
    assert again.read_bytes() == first
    other = write_sweep_report(MADE_UP["grid"], tmp_path / "a")
    assert other.read_bytes() == write_sweep_report(MADE_UP["grid"], tmp_path / "b").read_bytes()
    assert [path.name for path in other.parent.iterdir()] == ["report.html"]


def test_what_was_trained_is_on_the_page(trained_sweep, tmp_path):
    text = write_sweep_report(trained_sweep, output=tmp_path / "page.html").read_text("utf-8")
    shown = Page(text).text
    assert "6 mlp networks on squares" in shown
    assert "of which 2 failed" in shown
    assert " optimizer sgd " in shown  # A setting that all members have in common.
    assert " training images " in shown
    assert shown.count("the training loss in step") == 2


def test_it_links_to_the_reports_of_members(trained_sweep, tmp_path):
    reports = [trained_sweep.workdir / f"members/{n:03d}/report.html" for n in (1, 4)]
    for report in reports:
        report.parent.mkdir(exist_ok=True)
        report.touch()
    try:
        for output in (trained_sweep.workdir / "page.html", tmp_path / "a b" / "#1.html"):
            page = Page(write_sweep_report(trained_sweep, output=output).read_text("utf-8"))
            links = [link["href"] for link in page.all("a") if not link["href"].startswith("#")]
            assert len(links) == 2
            for link, report in zip(links, reports, strict=True):
                assert os.path.samefile(output.parent / link, report)
    finally:
        for path in (*reports, trained_sweep.workdir / "page.html"):
            path.unlink()


def test_what_cannot_be_reported_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="a workdir or an output for the report, found neither"):
        write_sweep_report(MADE_UP["grid"])
    alone = Population(MADE_UP["grid"].config, (lost({"shift": 1}),))
    with pytest.raises(RunError, match="the training of all failed"):
        write_sweep_report(alone, tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"expected to write the report to .*report.html"):
        write_sweep_report(MADE_UP["one"], tmp_path / "file")


def test_a_page_that_breaks_off_leaves_the_old_one(tmp_path, monkeypatch):
    def full(*args):
        raise OSError("no space left")

    (tmp_path / "report.html").write_text("old")
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(RunError, match="no space left"):
        write_sweep_report(MADE_UP["one"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == "old"
