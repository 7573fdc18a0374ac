"""A work directory is claimed by one run, or refused in one line."""

from __future__ import annotations

import pytest

from mnistjax import TrainConfig
from mnistjax.errors import ConfigError, RunError
from mnistjax.runs.directory import claim_run_directory

CONFIG = TrainConfig()


def claim(path, **options):
    with claim_run_directory(path, CONFIG, **options):
        pass


@pytest.mark.parametrize("overwrite", [False, True])
def test_of_two_runs_at_once_one_is_refused(tmp_path, overwrite):
    with claim_run_directory(tmp_path, CONFIG, overwrite=True):
        (tmp_path / "config.json").unlink()  # As if the first had only just begun.
        with pytest.raises(RunError, match="which another run writes to"):
            claim(tmp_path, overwrite=overwrite)


def test_a_run_that_ended_meanwhile_is_kept(tmp_path, monkeypatch):
    """The other has come to its end between the first look and the lock."""
    claim(tmp_path)
    looks = iter([False] * 4)
    original = type(tmp_path).exists
    monkeypatch.setattr(type(tmp_path), "exists", lambda path: next(looks, None) or original(path))
    with pytest.raises(RunError, match=r"without a run, found a run that was interrupted"):
        claim(tmp_path)


def test_a_lock_file_that_was_left_behind_is_no_obstacle(tmp_path):
    (tmp_path / ".lock").touch()
    claim(tmp_path)
    assert (tmp_path / "config.json").is_file()


@pytest.mark.parametrize("error", [PermissionError, OSError])
def test_a_directory_that_cannot_be_written_is_refused(tmp_path, monkeypatch, error):
    def refuse(*args, **options):
        raise error("no")

    monkeypatch.setattr("mnistjax.runs.directory.write_text_atomically", refuse)
    with pytest.raises(RunError, match=r"expected a writable work directory, found .*: no"):
        claim(tmp_path)
    assert not (tmp_path / "config.json").exists()


def test_a_name_that_is_too_long_and_a_folder_in_the_place_of_a_file_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"expected the path of a work directory, found .* long"):
        claim(tmp_path / ("x" * 300))
    (tmp_path / "config.json").mkdir()
    with pytest.raises(RunError, match=r"found .*config.json, which does not belong to a run"):
        claim(tmp_path, overwrite=True)


def test_a_run_that_is_overwritten_stays_until_the_new_one_begins(tmp_path):
    claim(tmp_path)
    (tmp_path / "result.json").write_text("{}")
    new = CONFIG.replace(seed=1)
    with claim_run_directory(tmp_path, new, overwrite=True) as directory:
        assert TrainConfig.from_json((tmp_path / "config.json").read_text()) == CONFIG
        assert (tmp_path / "result.json").exists()
        directory.begin()
        assert TrainConfig.from_json((tmp_path / "config.json").read_text()) == new
        assert not (tmp_path / "result.json").exists()
        (tmp_path / "result.json").write_text("{}")
        directory.begin()  # Only the first call removes anything.
        assert (tmp_path / "result.json").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"compilerOptions": {}}', "[" * 10_000])
def test_a_config_of_another_program_is_never_replaced(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(RunError, match=r"found .*config.json, which does not belong to a run"):
            claim(tmp_path, **options)
    assert (tmp_path / "config.json").read_text() == text


@pytest.mark.parametrize("name", ["report.html", "draw.html", "plots/confusion.png"])
def test_a_report_of_no_run_is_not_replaced(tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(RunError, match=rf"found .*{file.name} without a run"):
            claim(tmp_path, **options)
    assert [path.name for path in tmp_path.iterdir()] == [name.partition("/")[0]]
