"""Paths, files and outputs that are out to break a command: each ends in one line."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from mnistjax.cli import main
from mnistjax.runs.sealed import read_sealed, write_sealed

PATHS = {
    "of an unknown user": "~nobody_of_this_name/x",
    "too long": "x" * 300,
    "no UTF-8": os.fsdecode(b"\xff\xfe\xfd"),
    "with codes of a terminal": "a\x1b[31mred\nline",
    "with a null": "a\0b",
    "below a file": "{file}/x",
}


@pytest.fixture(params=PATHS)
def path(request, tmp_path):
    (tmp_path / "file").write_text("text")
    return PATHS[request.param].format(file=tmp_path / "file")


def assert_plain(text):
    assert text.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "{path}"],
        ["predict", "{path}", "picture.png"],
        ["predict", "{run}", "{path}"],
        ["read", "{run}", "{path}"],
        ["report", "{path}"],
        ["repeat", "{path}"],
        ["export", "{path}", "--to", "safetensors"],
        ["compare", "{path}", "{path}"],
        ["evaluate", "{run}", "--dataset", "{path}"],
        ["train", "--dataset", "{path}", "--workdir", "{new}"],
        ["train", "--dataset", "mnist", "--data-dir", "{path}", "--workdir", "{new}"],
    ],
    ids=" ".join,
)
def test_a_path_that_cannot_be_used_is_one_line(
    words, path, mlp_run, tmp_path, ending, monkeypatch
):
    monkeypatch.setattr("mnistjax.data.load.prepare", no_network)
    places = {"path": path, "run": mlp_run, "new": tmp_path / "new"}
    status, out, err = ending(*(word.format(**places) for word in words))
    assert status == 1
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert_plain(err)
    assert not (tmp_path / "new").exists()


def no_network(*_, **__):
    from mnistjax.errors import DatasetNotFoundError

    raise DatasetNotFoundError("no answer")


@pytest.mark.parametrize("kind", ["of an unknown user", "too long", "with a null", "below a file"])
def test_a_work_directory_that_cannot_be_used_is_one_line(kind, tmp_path, refusal):
    (tmp_path / "file").write_text("text")
    workdir = PATHS[kind].format(file=tmp_path / "file")
    words = ["--dataset", "digits", "--model", "softmax", "--steps=1", "--no-report"]
    assert_plain(refusal("train", *words, "--workdir", workdir))


def test_an_empty_work_directory_is_refused(tmp_path, refusal, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "empty" in refusal("train", "--dataset", "digits", "--workdir", "")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def run(mlp_run, tmp_path):
    return shutil.copytree(mlp_run, tmp_path / "run")


RESULTS = {
    "text for a number": {"test_accuracy": "high"},
    "a list for a number": {"train_seconds": [1]},
    "a number for text": {"device": 3},
    "codes of a terminal": {"recipe": "\x1b]0;title\x07"},
    "a boolean for a number": {"parameters": True},
}


@pytest.mark.parametrize("change", RESULTS)
@pytest.mark.parametrize("command", ["compare", "report", "evaluate", "repeat"])
def test_a_result_of_wrong_types_is_one_line(change, command, run, refusal):
    result = json.loads((run / "result.json").read_text()) | RESULTS[change]
    (run / "result.json").write_text(json.dumps(result))
    words = [command, run] + [run] * (command == "compare")
    said = refusal(*words)
    assert str(run) in said
    assert_plain(said)


@pytest.mark.parametrize("name", ["result.json", "metrics.jsonl"])
@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "null", "[" * 100_000, '{"step": NaN}', '{"step": "one"}', "\xff", " " * 2**21],
    ids=["empty", "list", "cut", "null", "deep", "NaN", "text", "latin", "long"],
)
def test_a_damaged_record_of_a_run_is_one_line(name, text, run, refusal):
    (run / name).write_bytes(text.encode("latin-1"))
    assert_plain(refusal("report", run))


HUGE = '{"name": "x", "num_classes": 1000000000}'
DESCRIPTIONS = {
    "many classes": ("dataset", HUGE),
    "classes as text": ("dataset", HUGE.replace("1000000000", '"10"')),
    "names with codes": ("dataset", '{"name": "x", "num_classes": 1, "class_names": ["\\u001b"]}'),
    "names of numbers": ("dataset", '{"name": "x", "num_classes": 1, "class_names": [3]}'),
    "a huge image": ("dataset", '{"name": "x", "num_classes": 10, "image_shape": [1e9, 1e9, 1]}'),
    "a tiny image": ("dataset", '{"name": "x", "num_classes": 10, "image_shape": [1, 1, 1]}'),
    "classes as float": (
        "dataset",
        '{"name": "x", "num_classes": 2.0, "class_names": ["a", "b"]}',
    ),
    "a deep shape": ("dataset", '{"name": "x", "num_classes": 10, "image_shape": [1, 1, 99999]}'),
    "deep JSON": ("config", "[" * 100_000),
    "another model": ("config", '{"model": "\\u001b[2J"}'),
    "a model as number": ("config", '{"model": 3}'),
}


@pytest.mark.parametrize("change", DESCRIPTIONS)
def test_weights_that_describe_something_else_are_one_line(change, run, refusal):
    file = run / "weights.safetensors"
    tensors, metadata = read_sealed(file, ["mnistjax-2"])
    name, text = DESCRIPTIONS[change]
    del metadata["sha256"]
    write_sealed(file, tensors, metadata | {name: text})
    assert_plain(refusal("predict", run, "picture.png"))


def test_weights_that_are_not_finite_are_one_line(run, refusal):
    file = run / "weights.safetensors"
    tensors, metadata = read_sealed(file, ["mnistjax-2"])
    del metadata["sha256"]
    name = next(iter(tensors))
    tensors[name] = np.full_like(tensors[name], np.nan)
    write_sealed(file, tensors, metadata)
    assert f"NaN or infinity in {name}" in refusal("evaluate", run)


def tiff(value, path):
    Image.fromarray(np.full((40, 30), value, np.float32), "F").save(path)


def extreme_tiff(path):
    plane = np.zeros((40, 30), np.float32)
    plane[10:30, 12:18] = 3e38
    plane[5:8, 5:8] = -3e38
    Image.fromarray(plane, "F").save(path)


def postscript(path):
    header = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\n"
    path.write_bytes(header + b"showpage\n%%EOF\n")


PICTURES = {
    "float.tif": extreme_tiff,
    "nan.tif": lambda path: tiff(np.nan, path),
    "infinite.tif": lambda path: tiff(np.inf, path),
    "program.eps": postscript,
    "one.png": lambda path: Image.new("L", (1, 1)).save(path),
    "wide.png": lambda path: Image.new("L", (20_000, 1)).save(path),
    "huge.pgm": lambda path: path.write_bytes(b"P5 100000 100000 255\n" + b"0" * 100),
    "bomb.bmp": lambda path: path.write_bytes(
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 2**30, 2**30, 1, 24, *[0] * 6)
    ),
}


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("command", ["predict", "read"])
def test_a_hostile_picture_is_read_or_is_one_line(name, command, mlp_run, tmp_path, capsys):
    PICTURES[name](tmp_path / name)
    try:
        main([command, str(mlp_run), str(tmp_path / name)])
        code = 0
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr()
    text = said.err + (code + "\n" if isinstance(code, str) else "")
    assert text.count("\n") <= 1
    assert (code == 0) == (text == "")
    if name != "float.tif":
        assert text.startswith("error: ")


@pytest.fixture
def picture(tmp_path):
    plane = np.full((60, 60), 255, np.uint8)
    plane[15:45, 28:33] = 0
    file = tmp_path / "inp" / "a.png"
    file.parent.mkdir()
    Image.fromarray(plane).save(file)
    return file


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "{run}", "{file}", "--show", "{folder}"],
        ["predict", "{run}", "{file}", "--show", "{file}"],
        ["read", "{run}", "{file}", "--output", "{file}"],
        ["predict", "{run}", "--csv", "{file}", "--output", "{file}"],
    ],
    ids=" ".join,
)
def test_no_command_writes_over_its_input(words, mlp_run, picture, refusal):
    before = picture.read_bytes()
    places = {"run": mlp_run, "file": picture, "folder": picture.parent}
    said = refusal(*(word.format(**places) for word in words))
    assert f"another file than the input {picture}" in said
    assert picture.read_bytes() == before
    assert list(picture.parent.iterdir()) == [picture]


def test_file_names_reach_the_terminal_escaped(mlp_run, picture, capfd):
    strange = picture.rename(picture.with_name("a\x1b[31m\udcff.png"))
    main(["predict", str(mlp_run), str(strange)])
    out = capfd.readouterr().out
    assert "a\\x1b[31m\\udcff.png" in out
    assert_plain(out)


def piped(words, out):
    """Runs a command whose output goes to a file; returns its status and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "mnistjax", *words],
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


def test_a_closed_pipe_ends_a_command_in_silence():
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as out:
        assert piped(["recipes"], out) == (1, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is a device of Linux alone")
def test_an_output_that_cannot_be_written_is_one_line():
    with open("/dev/full", "w") as out:
        status, err = piped(["recipes"], out)
    assert status == 1
    assert err.startswith("error: ")
    assert "No space left" in err
    assert err.count("\n") == 1


def test_the_names_in_the_weights_are_those_of_the_network(mlp_run):
    """What the tests above change, and that any reader of safetensors opens it."""
    assert set(load_file(mlp_run / "weights.safetensors")) == set(
        read_sealed(mlp_run / "weights.safetensors", ["mnistjax-2"])[0]
    )
