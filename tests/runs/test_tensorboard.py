"""TensorBoard's event files hold what the history holds, and are refused in one line."""

from __future__ import annotations

import importlib.util
import json
import struct
from pathlib import Path

import numpy as np
import pytest

import mnistjax
from mnistjax import TensorBoard, TrainConfig, cli
from mnistjax.errors import ConfigError, RunError

pytest.importorskip("tensorboardX", reason="the extra tensorboard is not installed")

CONFIG = TrainConfig(model="softmax", epochs=2, dataset="digits")


def read_events(folder: Path) -> list:
    """Reads the event files of a folder: records of length, checksum, event, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    events = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            events.append(Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return events


def scalars(folder: Path) -> dict[tuple[str, int], float]:
    return {
        (value.tag, event.step): value.simple_value
        for event in read_events(folder)
        for value in event.summary.value
        if value.HasField("simple_value")
    }


def texts(folder: Path) -> dict[str, str]:
    return {
        value.tag.removesuffix("/text_summary"): value.tensor.string_val[0].decode()
        for event in read_events(folder)
        for value in event.summary.value
        if value.HasField("tensor")
    }


def expected_scalars(fitted: mnistjax.FitResult) -> dict[tuple[str, int], float]:
    rows = {
        (f"{name}/{split}", row["step"]): row[f"{split}_{name}"]
        for row in fitted.history
        for split in ("train", "validation")
        for name in ("loss", "accuracy")
    }
    rows |= {("images_per_second", row["step"]): row["images_per_second"] for row in fitted.history}
    last = fitted.result["steps"]
    rows |= {(f"{name}/test", last): fitted.result[f"test_{name}"] for name in ("loss", "accuracy")}
    return {key: float(np.float32(value)) for key, value in rows.items() if value is not None}


@pytest.mark.parametrize("validation_fraction", [0.1, 0.0])
def test_the_event_file_holds_the_history(tmp_path, validation_fraction):
    config = CONFIG.replace(validation_fraction=validation_fraction)
    dataset = mnistjax.load_dataset("digits")
    fitted = mnistjax.fit(config, dataset, workdir=tmp_path, callbacks=[TensorBoard()])
    found = scalars(tmp_path / "tensorboard")
    assert found == expected_scalars(fitted)
    assert len(found) == (12 if validation_fraction else 8)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == fitted.history


def test_the_texts_say_what_was_run(tmp_path):
    fitted = mnistjax.fit(
        CONFIG,
        mnistjax.load_dataset("digits"),
        workdir=tmp_path,
        callbacks=[TensorBoard()],
    )
    found = texts(tmp_path / "tensorboard")
    assert set(found) == {"run", "config"}
    for name in ("recipe", "model", "parameters", "dataset", "seed", "train_count"):
        assert f"| {name} | {fitted.result[name]} |" in found["run"]
    settings = found["config"].removeprefix("```json\n").removesuffix("```")
    assert TrainConfig.from_json(settings) == CONFIG


def test_a_run_without_a_directory_needs_one_for_the_events(tmp_path):
    dataset = mnistjax.load_dataset("digits")
    with pytest.raises(ConfigError, match="needs a directory where the run has no workdir"):
        mnistjax.fit(CONFIG, dataset, callbacks=[TensorBoard()])
    fitted = mnistjax.fit(CONFIG, dataset, callbacks=[TensorBoard(tmp_path / "new" / "events")])
    assert scalars(tmp_path / "new" / "events") == expected_scalars(fitted)
    assert set(texts(tmp_path / "new" / "events")) == {"run"}


def test_a_second_run_in_the_same_folder_hides_the_first(tmp_path):
    dataset = mnistjax.load_dataset("digits")
    for _ in range(2):
        mnistjax.fit(
            CONFIG,
            dataset,
            workdir=tmp_path,
            overwrite=True,
            callbacks=[TensorBoard()],
        )
    starts = [event for event in read_events(tmp_path / "tensorboard") if event.session_log.status]
    assert starts
    assert all(event.step == 0 for event in starts)


def test_events_are_written_also_where_the_run_breaks_off(tmp_path):
    class Breaks(mnistjax.Callback):
        def on_epoch(self, row):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mnistjax.fit(
            CONFIG,
            mnistjax.load_dataset("digits"),
            workdir=tmp_path,
            callbacks=[TensorBoard(), Breaks()],
        )
    assert {tag for tag, _ in scalars(tmp_path / "tensorboard")} >= {"loss/train", "accuracy/train"}


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match=r"expected a writable folder for event files, found .*file"):
        mnistjax.fit(
            CONFIG,
            mnistjax.load_dataset("digits"),
            callbacks=[TensorBoard(tmp_path / "file" / "events")],
        )


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"tensorboardX.*pip install 'mnistjax\[tensorboard\]'"):
        TensorBoard()


def test_the_flag_of_the_command_line_writes_events(tmp_path, capsys):
    words = [
        "train",
        "--dataset",
        "digits",
        "--model",
        "softmax",
        "--steps",
        "3",
        "--tensorboard",
        "--no-report",
    ]
    cli.main([*words, "--workdir", str(tmp_path / "run")])
    assert ("accuracy/test", 3) in scalars(tmp_path / "run" / "tensorboard")
    assert "test accuracy" in capsys.readouterr().out
