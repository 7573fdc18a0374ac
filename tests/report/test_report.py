"""The report of a run: what it says, and that it is whole and safe."""

from __future__ import annotations

import base64
import html
import io
import json
import re

import numpy as np
import pytest
from pages import Page, assert_closed
from PIL import Image
from report_runs import HOSTILE_CLASSES, HOSTILE_NAME, RUNS, few_corruptions, few_pictures

import mnistjax
from mnistjax import load_run, write_report
from mnistjax.evaluation import find_label_errors
from mnistjax.runs import read_result
from mnistjax.runs.directory import PLOT_NAMES


@pytest.fixture(params=RUNS)
def any_run(request, report_run):
    return report_run(request.param)


def analyze_run(workdir, dataset):
    return mnistjax.analyze(load_run(workdir), dataset)


def percent(share, digits):
    return f"{100 * share:.{digits}f} %"


def test_the_page_is_well_formed_and_can_be_heard(any_run):
    page = Page(any_run[2])
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == len(page.all("main")) == len(page.all("title")) == 1
    assert len(page.all("table")) == len(page.all("caption")) > 3
    assert all(image["alt"] for image in page.all("img"))
    assert all(head["scope"] for head in page.all("th"))
    identities = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identities) == len(set(identities))
    links = [link["href"] for link in page.all("a") if link["href"] != "draw.html"]
    assert len(links) == len(page.all("h2"))
    assert {link.removeprefix("#") for link in links} <= set(identities)
    controls = [control["id"] for control in page.all("select")]
    assert [label["for"] for label in page.all("label")] == controls


def test_the_page_asks_for_nothing_and_allows_nothing_else(any_run):
    page = Page(any_run[2])
    assert_closed(page)
    links = [link["href"] for link in page.all("a")]
    assert links.count("draw.html") == 1
    assert all(link.startswith("#") for link in links if link != "draw.html")
    assert (any_run[0] / "draw.html").is_file()


def test_the_page_shows_the_metrics_of_the_run(any_run):
    workdir, dataset, text = any_run
    analysis, shown = analyze_run(workdir, dataset), Page(text).text
    result = read_result(workdir)
    assert percent(analysis.accuracy, 2) in shown
    assert f"95 % interval {' to '.join(percent(end, 2) for end in analysis.interval)}" in shown
    assert f"{analysis.loss:.4f}" in shown
    assert f"{result['parameters']:,} parameters" in shown
    assert percent(analysis.calibration.ece, 2) in shown
    for metrics in analysis.classes:
        shares = " ".join(percent(s, 2) for s in (metrics.precision, metrics.recall, metrics.f1))
        assert f" {shares} {metrics.support:,} " in shown
    config = json.loads((workdir / "config.json").read_text())
    for name, value in config.items():
        assert (f" {name.replace('_', ' ')} {value} " in shown) == (value is not None)
    for name, version in result["versions"].items():
        assert f" {name} {version} " in shown
    assert f" data source {result['source']} " in shown
    assert ("validation accuracy" in shown) == (result["validation_accuracy"] is not None)


def test_every_mistake_is_in_the_gallery_with_its_pixels(any_run):
    workdir, dataset, text = any_run
    analysis = analyze_run(workdir, dataset)
    items = re.findall(
        r'<li data-t="(\d+)" data-p="(\d+)"><img src="data:image/png;base64,([^"]+)" width="12" '
        r'height="12" alt="Test image (\d+)">.*?</b>([\d.]+)',
        text,
    )
    assert [int(index) for *_, index, _ in items] == list(analysis.mistakes)
    for true, predicted, png, index, confidence in items:
        image = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))
        np.testing.assert_array_equal(image, 255 - dataset.test.images[int(index), ..., 0])
        assert int(true) == dataset.test.labels[int(index)]
        assert int(predicted) == analysis.predictions[int(index)]
        assert float(confidence) == pytest.approx(100 * analysis.confidences[int(index)], abs=0.06)
    count = len(dataset.test)
    assert (f"No mistake among {count} test images" in text) == (not items)
    assert ('id="filter"' in text) == bool(items)


def test_the_filter_offers_the_classes_that_were_mistaken_with_their_numbers(report_run):
    workdir, dataset, text = report_run("hostile")
    analysis = analyze_run(workdir, dataset)
    wrong = analysis.mistakes
    for side, labels in (("true", analysis.labels), ("predicted", analysis.predictions)):
        (offered,) = re.findall(f'<select id="filter-{side}">(.*?)</select>', text, re.DOTALL)
        options = re.findall(r'<option value="(\d+)">(.*) \((\d+)\)</option>', offered)
        counts = np.bincount(labels[wrong], minlength=4)
        assert options == [
            (str(label), html.escape(HOSTILE_CLASSES[label]).replace("&quot;", "&#34;"), str(count))
            for label, count in enumerate(counts)
            if count
        ]


def test_the_cells_of_the_matrix_are_its_counts(report_run):
    workdir, dataset, text = report_run("hostile")
    confusion = analyze_run(workdir, dataset).confusion
    (matrix,) = re.findall(r'<table class="confusion.*?</table>', text, re.DOTALL)
    rows = re.findall(r"<tr><th scope=\"row\">.*?</tr>", matrix)
    cells = [re.findall(r"<td[^>]*>(?:<button.*?>)?(\d*)(?:</button>)?</td>", row) for row in rows]
    np.testing.assert_array_equal([[int(cell or 0) for cell in row] for row in cells], confusion)
    assert matrix.count("<button") == np.count_nonzero(confusion * ~np.eye(4, dtype=bool))


def test_names_stay_text_wherever_they_come_from(report_run):
    workdir, dataset, text = report_run("hostile")
    page = Page(text)
    assert len(page.all("script")) == 1
    assert not [image for image in page.all("img") if not image["src"].startswith("data:")]
    for name in (HOSTILE_NAME, *HOSTILE_CLASSES, dataset.source):
        assert name not in text or not set(name) & set("<>&\"'")
        assert name in page.text
    assert read_result(workdir)["dataset"] == HOSTILE_NAME


def test_the_same_run_gives_the_same_page(report_run, tmp_path):
    workdir, dataset, text = report_run("hostile")
    pictures = {path.name: path.read_bytes() for path in (workdir / "plots").iterdir()}
    page = write_report(load_run(workdir), dataset, workdir, output=tmp_path / "new" / "page.html")
    assert page == tmp_path / "new" / "page.html"
    assert page.read_text(encoding="utf-8") == text
    assert {path.name: path.read_bytes() for path in (workdir / "plots").iterdir()} == pictures
    assert {path.name for path in page.parent.iterdir()} == {"page.html", "draw.html"}
    drawn = (page.with_name("draw.html"), workdir / "draw.html")
    assert drawn[0].read_bytes() == drawn[1].read_bytes()


@pytest.mark.parametrize(
    ("name", "lacks"),
    [
        ("hostile", set()),
        ("all right", {"augmentation"}),
        ("forty-seven classes", {"augmentation"}),
    ],
)
def test_the_pictures_lie_in_the_run_and_in_the_page(name, lacks, report_run):
    workdir, _, text = report_run(name)
    files = {path.stem: path for path in (workdir / "plots").iterdir()}
    assert set(files) == set(PLOT_NAMES) - lacks
    # The gallery and, of a few classes, the matrix are part of the page themselves.
    instead = {"mistakes", *(["confusion"] if name != "forty-seven classes" else [])}
    for stem, path in files.items():
        embedded = base64.b64encode(path.read_bytes()).decode() in text
        assert embedded == (stem not in instead), stem
    # With the gallery, a page stays below 3 MB.
    assert sum(path.stat().st_size for path in files.values()) < 1e6


def test_a_gallery_has_an_end(report_run, tmp_path, monkeypatch):
    workdir, dataset, _ = report_run("all wrong")
    monkeypatch.setattr("mnistjax.report.page._MAX_MISTAKES", 7)
    few_corruptions(monkeypatch)
    few_pictures(monkeypatch)
    text = write_report(load_run(workdir), dataset, tmp_path).read_text(encoding="utf-8")
    analysis = analyze_run(workdir, dataset)
    assert text.count("<li data-t=") == 7
    assert f"The 7 most confident of {len(analysis.mistakes)} mistakes" in text


@pytest.mark.mnist
def test_label_errors_of_mnist_are_marked(mnist_dir, tmp_path, monkeypatch):
    few_pictures(monkeypatch)
    dataset = mnistjax.load_dataset("mnist", data_dir=mnist_dir)
    config = mnistjax.TrainConfig(model="mlp", epochs=1)
    mnistjax.fit(config, dataset, workdir=tmp_path, callbacks=[mnistjax.WriteReport()])
    text = (tmp_path / "report.html").read_text()
    analysis = analyze_run(tmp_path, dataset)
    marked = re.findall(r'alt="Test image (\d+)">[^/]*</b>[^<]*<small>[^<]*</small><small', text)
    known = set(find_label_errors(dataset)) & set(analysis.mistakes)
    assert {int(index) for index in marked} == known != set()
    assert "without label errors" in text
    assert "Accuracy on a stratified random sample of 1,000 test images" in text
    assert (tmp_path / "report.html").stat().st_size < 1.5e6
