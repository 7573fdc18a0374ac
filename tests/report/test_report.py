"""The report of a run: what it says, that it is whole and safe, and how it fails."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from report_runs import HOSTILE_CLASSES, HOSTILE_NAME, RUNS, make_dataset, train

import mnistjax
from mnistjax import ConfigError, RunError, RunNotFoundError, fit, write_report
from mnistjax.report import fit as runs_module
from mnistjax.report import page as report_module
from mnistjax.runs.directory import PLOT_NAMES

VOID = {"meta", "link", "img", "br", "input"}
CONFIG = mnistjax.TrainConfig(model="softmax", steps=2, batch_size=16)


class Page(HTMLParser):
    """The elements of a page in order, and a check that every one is closed where it should be."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self._open = [], [], []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] not in {"script", "style"}:
            self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Returns the directory, data set and page of a run; each is trained once."""
    done = {}

    def get(name):
        if name not in done:
            workdir = tmp_path_factory.mktemp("runs") / "run"
            done[name] = (workdir, train(name, workdir))
        workdir, dataset = done[name]
        return workdir, dataset, (workdir / "report.html").read_text(encoding="utf-8")

    return get


@pytest.fixture(params=RUNS)
def any_run(request, trained):
    return trained(request.param)


def analyse_run(workdir, dataset):
    run = mnistjax.load_weights(workdir)
    probabilities = mnistjax.predict_probabilities(run.model, run.variables, dataset.test.images)
    return mnistjax.analyse(probabilities, dataset.test.labels, dataset.info)


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
    links = [link["href"] for link in page.all("a")]
    assert len(links) == len(page.all("h2"))
    assert {link.removeprefix("#") for link in links} <= set(identities)
    controls = [control["id"] for control in page.all("select")]
    assert [label["for"] for label in page.all("label")] == controls


def test_the_page_asks_for_nothing_and_allows_nothing_else(any_run):
    text = any_run[2]
    page = Page(text)
    addresses = [
        attributes[name]
        for _, attributes in page.elements
        for name in ("src", "href", "action", "data", "srcset")
        if name in attributes
    ]
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "://" not in text
    (policy,) = (
        meta["content"]
        for meta in page.all("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; img-src data:; ")
    for tag in ("style", "script"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not any("style" in attributes for _, attributes in page.elements)
    assert not [name for _, found in page.elements for name in found if name.startswith("on")]


def test_the_page_shows_the_figures_of_the_run(any_run):
    workdir, dataset, text = any_run
    analysis, shown = analyse_run(workdir, dataset), Page(text).text
    result = mnistjax.read_result(workdir)
    assert percent(analysis.accuracy, 2) in shown
    assert f"95 % interval {' to '.join(percent(end, 2) for end in analysis.interval)}" in shown
    assert f"{analysis.loss:.4f}" in shown
    assert f"{result['parameters']:,} parameters" in shown
    assert percent(analysis.calibration.ece, 2) in shown
    for figures in analysis.classes:
        shares = " ".join(percent(s, 2) for s in (figures.precision, figures.recall, figures.f1))
        assert f" {shares} {figures.support:,} " in shown
    config = json.loads((workdir / "config.json").read_text())
    for name, value in config.items():
        assert (f" {name.replace('_', ' ')} {value} " in shown) == (value is not None)
    for name, version in result["versions"].items():
        assert f" {name} {version} " in shown
    assert f" data source {result['source']} " in shown
    assert ("validation accuracy" in shown) == (result["validation_accuracy"] is not None)


def test_every_mistake_is_in_the_gallery_with_its_pixels(any_run):
    workdir, dataset, text = any_run
    analysis = analyse_run(workdir, dataset)
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


def test_the_filter_offers_the_classes_that_were_mistaken_with_their_numbers(trained):
    workdir, dataset, text = trained("hostile")
    analysis = analyse_run(workdir, dataset)
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


def test_the_cells_of_the_matrix_are_its_counts(trained):
    workdir, dataset, text = trained("hostile")
    confusion = analyse_run(workdir, dataset).confusion
    (matrix,) = re.findall(r'<table class="confusion.*?</table>', text, re.DOTALL)
    rows = re.findall(r"<tr><th scope=\"row\">.*?</tr>", matrix)
    cells = [re.findall(r"<td[^>]*>(?:<button.*?>)?(\d*)(?:</button>)?</td>", row) for row in rows]
    np.testing.assert_array_equal([[int(cell or 0) for cell in row] for row in cells], confusion)
    assert matrix.count("<button") == np.count_nonzero(confusion * ~np.eye(4, dtype=bool))


def test_names_stay_text_wherever_they_come_from(trained):
    workdir, dataset, text = trained("hostile")
    page = Page(text)
    assert len(page.all("script")) == 1
    assert not [image for image in page.all("img") if not image["src"].startswith("data:")]
    for name in (HOSTILE_NAME, *HOSTILE_CLASSES, dataset.source):
        assert name not in text or not set(name) & set("<>&\"'")
        assert name in page.text
    assert mnistjax.read_result(workdir)["dataset"] == HOSTILE_NAME


def test_the_same_run_gives_the_same_page(trained, tmp_path):
    workdir, dataset, text = trained("hostile")
    pictures = {path.name: path.read_bytes() for path in (workdir / "plots").iterdir()}
    page = write_report(workdir, dataset, output=tmp_path / "new" / "page.html")
    assert page == tmp_path / "new" / "page.html"
    assert page.read_text(encoding="utf-8") == text
    assert {path.name: path.read_bytes() for path in (workdir / "plots").iterdir()} == pictures
    assert [path.name for path in page.parent.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    ("name", "lacks"),
    [
        ("hostile", set()),
        ("all right", {"augmentation"}),
        ("forty-seven classes", {"augmentation"}),
    ],
)
def test_the_pictures_lie_in_the_run_and_in_the_page(name, lacks, trained):
    workdir, _, text = trained(name)
    files = {path.stem: path for path in (workdir / "plots").iterdir()}
    assert set(files) == set(PLOT_NAMES) - lacks
    # The gallery and, of a few classes, the matrix are part of the page themselves.
    instead = {"mistakes", *(["confusion"] if name != "forty-seven classes" else [])}
    for stem, path in files.items():
        embedded = base64.b64encode(path.read_bytes()).decode() in text
        assert embedded == (stem not in instead), stem


def test_a_gallery_has_an_end(trained, tmp_path, monkeypatch):
    workdir, dataset, _ = trained("all wrong")
    monkeypatch.setattr(report_module, "_MOST_MISTAKES", 7)
    text = write_report(workdir, dataset, output=tmp_path / "page.html").read_text()
    analysis = analyse_run(workdir, dataset)
    assert text.count("<li data-t=") == 7
    assert f"The 7 most confident of {len(analysis.mistakes)} mistakes" in text


@pytest.mark.mnist
def test_wrong_labels_of_mnist_are_marked(mnist_dir, tmp_path):
    dataset = mnistjax.load_dataset("mnist", data_dir=mnist_dir)
    fit(mnistjax.TrainConfig(model="mlp", epochs=1), dataset, workdir=tmp_path)
    text = (tmp_path / "report.html").read_text()
    analysis = analyse_run(tmp_path, dataset)
    marked = re.findall(r'alt="Test image (\d+)">[^/]*</b>[^<]*<small>[^<]*</small><small', text)
    known = set(mnistjax.known_wrong_labels(dataset)) & set(analysis.mistakes)
    assert {int(index) for index in marked} == known != set()
    assert "without wrong labels" in text
    assert (tmp_path / "report.html").stat().st_size < 3e6


# How `fit` writes it.


class Listener(mnistjax.Callback):
    def __init__(self):
        self.heard = []

    def on_end(self, result):
        self.heard.append("end")

    def on_report(self, path):
        self.heard.append(path)

    def close(self):
        self.heard.append("close")


def test_fit_announces_the_report_after_the_result(tmp_path):
    listener = Listener()
    fit(CONFIG, make_dataset(3), workdir=tmp_path, callbacks=[listener])
    assert listener.heard == ["end", str(tmp_path / "report.html"), "close"]
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize("workdir", [True, False])
def test_fit_without_a_report_writes_and_announces_none(workdir, tmp_path):
    listener = Listener()
    where = {"workdir": tmp_path, "report": False} if workdir else {}
    fit(CONFIG, make_dataset(3), callbacks=[listener], **where)
    assert listener.heard == ["end", "close"]
    assert not (tmp_path / "report.html").exists()
    assert not (tmp_path / "plots").exists()


def test_an_interrupted_report_leaves_a_whole_run(tmp_path, monkeypatch):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    dataset, listener = make_dataset(3), Listener()
    with monkeypatch.context() as patch:
        patch.setattr(runs_module, "write_report", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit(CONFIG, dataset, workdir=tmp_path, callbacks=[listener])
    assert listener.heard[-1] == "close"
    assert mnistjax.read_result(tmp_path)["steps"] == 2
    assert mnistjax.load_weights(tmp_path).config == CONFIG
    assert not (tmp_path / "report.html").exists()
    assert write_report(tmp_path, dataset).is_file()


def test_a_page_that_breaks_off_leaves_the_old_one(trained, tmp_path, monkeypatch):
    workdir, dataset, _ = trained("hostile")
    page = tmp_path / "page.html"
    page.write_text("old")

    def full(*args):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(RunError, match=r"expected to write the report to .*: no space left"):
            write_report(workdir, dataset, output=page)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert page.read_text() == "old"


def test_overwriting_removes_the_report_and_its_pictures_and_nothing_else(trained, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained("hostile")[0], workdir)
    (workdir / "plots" / "mine.png").touch()
    (workdir / "notes.txt").touch()
    with pytest.raises(RunError):
        fit(CONFIG, make_dataset(3), workdir=workdir, report=False)
    assert (workdir / "report.html").exists()
    fit(CONFIG, make_dataset(3), workdir=workdir, overwrite=True, report=False)
    files = {str(path.relative_to(workdir)) for path in workdir.rglob("*") if path.is_file()}
    written = {"config.json", "metrics.jsonl", "result.json", "weights.safetensors"}
    assert files == written | {"notes.txt", "plots/mine.png"}


# How it fails.


def test_a_run_that_is_not_whole_is_refused(trained, tmp_path):
    workdir, dataset, _ = trained("hostile")
    with pytest.raises(RunNotFoundError, match="expected a run directory"):
        write_report(tmp_path / "none", dataset)
    with pytest.raises(
        RunError, match=r"expected the directory of a run, found the file .*weights"
    ):
        write_report(workdir / "weights.safetensors", dataset)
    result = json.loads((workdir / "result.json").read_text())
    del result["device"]
    for name, content, message in (
        ("result.json", None, r"expected a finished run, found no result.json"),
        ("result.json", "{", r"expected a JSON object in .*result.json"),
        ("result.json", json.dumps(result), r"expected device in .*result.json"),
        ("metrics.jsonl", None, r"expected a JSON object a line in .*metrics.jsonl"),
        ("metrics.jsonl", "", r"expected a JSON object a line, at least one, in .*metrics.jsonl"),
        ("metrics.jsonl", "[1]\n", r"expected a JSON object a line, at least one"),
        (
            "metrics.jsonl",
            '{"epoch": 1}\n',
            r"expected train_accuracy, train_loss, .* in .*metrics",
        ),
    ):
        broken = tmp_path / "broken"
        shutil.copytree(workdir, broken)
        (broken / name).unlink()
        if content is not None:
            (broken / name).write_text(content)
        with pytest.raises(RunError, match=message):
            write_report(broken, dataset)
        shutil.rmtree(broken)


def test_a_data_set_of_another_kind_is_refused(trained, tmp_path):
    workdir, _, text = trained("hostile")
    with pytest.raises(ConfigError, match=r"expected a data set of num_classes 4, as in .*found"):
        write_report(workdir, make_dataset(3))
    assert (workdir / "report.html").read_text(encoding="utf-8") == text
