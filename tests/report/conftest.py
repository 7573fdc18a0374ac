"""Runs with their reports, each trained once for all tests of the report."""

import pytest
from report_runs import train


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
