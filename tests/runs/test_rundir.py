"""A work directory is claimed by one run, or refused in one line."""

from __future__ import annotations

import pytest

from mnistjax import RunError, TrainConfig
from mnistjax.runs.directory import claim_run_directory

CONFIG = TrainConfig()


def test_of_two_runs_that_start_at_once_one_is_refused(tmp_path, monkeypatch):
    """The other has looked into the directory just before this one claims it."""
    claim_run_directory(tmp_path, CONFIG)
    monkeypatch.setattr(type(tmp_path), "exists", lambda path: False)
    with pytest.raises(RunError, match=r"without a run, found .*config.json"):
        claim_run_directory(tmp_path, CONFIG)


@pytest.mark.parametrize("error", [PermissionError, OSError])
def test_a_directory_that_cannot_be_written_is_refused(tmp_path, monkeypatch, error):
    def refuse(path, *args, **options):
        raise error("no")

    monkeypatch.setattr(type(tmp_path), "open", refuse)
    with pytest.raises(RunError, match=r"expected a writable work directory, found .*: no"):
        claim_run_directory(tmp_path, CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_too_long_and_a_folder_in_the_place_of_a_file_are_refused(tmp_path):
    with pytest.raises(RunError, match="expected a writable work directory"):
        claim_run_directory(tmp_path / ("x" * 300), CONFIG)
    (tmp_path / "config.json").mkdir()
    with pytest.raises(RunError, match="expected a writable work directory"):
        claim_run_directory(tmp_path, CONFIG, overwrite=True)
