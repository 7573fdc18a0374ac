"""`mnistjax predict` and `mnistjax read`: what they print and write, and how they fail."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from data_files import csv_text
from degraded import degraded_rows
from PIL import Image

import mnistjax
from mnistjax.cli import main
from mnistjax.runs.sealed import write_sealed


@pytest.fixture(scope="module")
def run(digits_run):
    return digits_run


TEST = mnistjax.load_dataset("digits").test


@pytest.fixture
def files(tmp_path):
    """Three enlarged digits, dark on light."""
    paths = []
    for index in range(3):
        plane = np.kron(255 - TEST.images[index, ..., 0], np.ones((5, 5), np.uint8))
        paths.append(tmp_path / f"digit{index}.png")
        Image.fromarray(plane).save(paths[-1])
    return paths


def opened(path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


def said(capsys, *words, status=0):
    """Runs a command; returns the lines of stdout and of stderr."""
    try:
        main([str(word) for word in words])
        ended = 0
    except SystemExit as exit_:
        ended = exit_.code
    captured = capsys.readouterr()
    errors = captured.err
    if isinstance(ended, str):
        errors, ended = errors + ended, 1
    assert ended == status
    assert "Traceback" not in errors
    return captured.out.splitlines(), errors.splitlines()


def test_the_embedded_digits_are_learned(run):
    assert mnistjax.runs.read_result(run)["test_accuracy"] >= 0.95


def test_predict_prints_a_line_an_image(run, files, capsys):
    lines, errors = said(capsys, "predict", run, *files)
    assert not errors
    predictions = mnistjax.predict(mnistjax.load_weights(run), files)
    assert len(lines) == 3
    for index, (line, file) in enumerate(zip(lines, files, strict=True)):
        label, second = predictions.labels[index], predictions.runners_up[index]
        assert line.startswith(f"{file}  {label}  {predictions.confidences[index]:.1%}  ")
        assert f"(then {second}, " in line


def test_the_good_files_are_predicted_and_each_bad_one_is_one_line(run, files, capsys, tmp_path):
    text = tmp_path / "text.png"
    text.write_text("no image")
    empty = tmp_path / "white.png"
    Image.new("L", (50, 50), 255).save(empty)
    bad = [tmp_path / "missing.png", text, tmp_path, empty]
    words = [files[0], bad[0], bad[1], files[1], bad[2], bad[3], files[2]]
    lines, errors = said(capsys, "predict", run, *words, status=1)
    assert [line.split()[0] for line in lines] == [str(file) for file in files]
    assert len(errors) == 4
    for path, error in zip(bad, errors, strict=True):
        assert error.startswith("error: expected ")
        assert str(path) in error


def test_if_every_file_is_bad_nothing_is_written(run, tmp_path, capsys):
    show = tmp_path / "seen.png"
    lines, errors = said(capsys, "predict", run, tmp_path / "no.png", "--show", show, status=1)
    assert (lines, len(errors)) == ([], 1)
    assert not show.exists()


def test_json_says_the_same(run, files, capsys):
    lines, _ = said(capsys, "predict", run, *files, "--json")
    rows = json.loads("\n".join(lines))
    predictions = mnistjax.predict(mnistjax.load_weights(run), files)
    assert [row["file"] for row in rows] == [str(file) for file in files]
    assert [row["label"] for row in rows] == [str(label) for label in predictions.labels]
    assert all(row["probability"] >= row["runner_up_probability"] for row in rows)


def test_show_writes_what_the_network_saw(run, files, capsys, tmp_path):
    inputs = mnistjax.predict(mnistjax.load_weights(run), files).inputs
    said(capsys, "predict", run, *files, "--show", tmp_path / "seen.png")
    assert opened(tmp_path / "seen.png").size == (3 * (28 * 8 + 8), 28 * 8 + 8)
    again = tmp_path / "again"
    again.mkdir()
    shutil.copy(files[0], again / files[0].name)
    words = [*files, again / files[0].name, "--show", tmp_path / "seen"]
    said(capsys, "predict", run, *words)
    names = sorted(path.name for path in (tmp_path / "seen").iterdir())
    assert names == ["digit0-1.png", "digit0.png", "digit1.png", "digit2.png"]
    plane = np.asarray(opened(tmp_path / "seen" / "digit1.png"))
    np.testing.assert_array_equal(plane[::8, ::8], inputs[1, ..., 0])


def test_a_picture_of_noise_gets_a_warning(run, tmp_path, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (90, 90), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    lines, _ = said(capsys, "predict", run, tmp_path / "noise.png")
    assert "  warning: " in lines[0]


def test_a_csv_becomes_a_submission(run, tmp_path, capsys):
    (tmp_path / "test.csv").write_text(csv_text(TEST.images[:9]))
    output = tmp_path / "submission.csv"
    lines, _ = said(capsys, "predict", run, "--csv", tmp_path / "test.csv", "--output", output)
    assert lines == [f"labels of 9 images in {output}"]
    assert len(output.read_text().splitlines()) == 10


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected either pictures or --csv with --output"),
        (["a.png", "--csv", "b.csv", "--output", "c.csv"], "expected either pictures or --csv"),
        (["--csv", "b.csv"], "--csv and --output go together"),
        (["a.png", "--output", "c.csv"], "--csv and --output go together"),
        (["--csv", "missing.csv", "--output", "c.csv"], "found none at missing.csv"),
    ],
)
def test_impossible_words_are_one_line(run, words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines, errors = said(capsys, "predict", run, *words, status=1)
    assert lines == []
    assert len(errors) == 1
    assert message in errors[0]
    assert not list(tmp_path.iterdir())


def test_a_csv_of_other_columns_is_one_line_with_file_and_line(run, tmp_path, capsys):
    path = tmp_path / "test.csv"
    path.write_text("a,b\n1,2\n")
    words = ["predict", run, "--csv", path, "--output", tmp_path / "s.csv"]
    _, errors = said(capsys, *words, status=1)
    assert len(errors) == 1
    assert f"{path} line 1" in errors[0]


def test_a_run_that_is_none_incomplete_or_of_another_version_is_one_line(run, files, capsys):
    broken = run.parent / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    for words in (["predict", broken, files[0]], ["read", broken, files[0]]):
        _, errors = said(capsys, *words, status=1)
        assert len(errors) == 1
        assert "weights.safetensors" in errors[0]
    write_sealed(broken / "weights.safetensors", {}, {"format": "mnistjax-9"})
    for command in ("predict", "read"):
        _, errors = said(capsys, command, broken, files[0], status=1)
        assert len(errors) == 1
        assert "expected format mnistjax-2, found mnistjax-9" in errors[0]
        assert "a newer version of mnistjax wrote it" in errors[0]


@pytest.fixture
def photo(tmp_path):
    ((picture, _),) = degraded_rows(TEST.images[:5], TEST.labels[:5], 0, furniture="")
    picture.convert("RGB").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_read_prints_a_line_a_row_and_writes_the_annotated_picture(run, photo, capsys, tmp_path):
    output = tmp_path / "annotated.png"
    lines, _ = said(capsys, "read", run, photo, "--output", output)
    reading = mnistjax.read_digits(mnistjax.load_weights(run), photo)
    assert [line.split()[0] for line in lines] == reading.text.split("\n")
    assert lines[0].endswith("%")
    assert opened(output).size == opened(photo).size
    lines, _ = said(capsys, "read", run, photo, "--json")
    described = json.loads("\n".join(lines))
    assert described["text"] == reading.text
    assert [len(row) for row in described["rows"]] == [len(row) for row in reading.rows]


def test_a_page_without_digits_is_one_line(run, tmp_path, capsys):
    Image.new("L", (90, 50), 255).save(tmp_path / "white.png")
    for name, words in (("white.png", "found none in"), ("no.png", "found no file at")):
        lines, errors = said(capsys, "read", run, tmp_path / name, status=1)
        assert lines == []
        assert len(errors) == 1
        assert words in errors[0]
        assert str(tmp_path / name) in errors[0]


@pytest.mark.parametrize("command", ["predict", "read"])
def test_a_picture_that_cannot_be_written_is_one_line(run, photo, tmp_path, capsys, command):
    (tmp_path / "file").touch()
    flag = {"predict": "--show", "read": "--output"}[command]
    _, errors = said(capsys, command, run, photo, flag, tmp_path / "file" / "a.png", status=1)
    assert len(errors) == 1
    assert "cannot write" in errors[0]
