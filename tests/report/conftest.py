"""Runs with their reports, each trained once for all tests of the report, and a browser."""

import os
import shutil
from pathlib import Path

import pytest
from pages import WIDE
from report_runs import train
from sweep_runs import MADE_UP
from sweep_runs import train as train_population

from mnistjax.report import write_sweep_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def report_run(tmp_path_factory):
    """Returns the directory, data set and page of a run of `report_runs.RUNS`, by its name."""
    done = {}

    def get(name):
        if name not in done:
            workdir = tmp_path_factory.mktemp("reports") / "run"
            done[name] = (workdir, train(name, workdir))
        workdir, dataset = done[name]
        return workdir, dataset, (workdir / "report.html").read_text(encoding="utf-8")

    return get


@pytest.fixture(scope="session")
def trained_sweep(tmp_path_factory):
    """The population of `sweep_runs.train`."""
    return train_population(tmp_path_factory.mktemp("sweeps") / "sweep")


@pytest.fixture(scope="session")
def sweep_page(tmp_path_factory):
    """Returns a made-up population and the path of its page, by its name."""
    done = {}

    def get(name):
        if name not in done:
            done[name] = write_sweep_report(MADE_UP[name], tmp_path_factory.mktemp("pages"))
        return MADE_UP[name], done[name]

    return get


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    places = [os.environ.get("MNISTJAX_CHROMIUM"), *map(shutil.which, BROWSERS)]
    path = next((place for place in places if place), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser):
    """Opens a file in a new window; what it asked for and complained of is on `page.log`."""
    contexts = []

    def open_file(path: Path, **settings):
        settings = {"viewport": WIDE, **settings}
        context = browser.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.requests, page.complaints = [], []
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (page.complaints.append("dialog"), dialog.dismiss()))
        page.goto(path.as_uri())
        return page

    yield open_file
    for context in contexts:
        context.close()
