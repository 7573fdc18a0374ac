"""What the README says is so: its code runs, its commands exist, its tables match the results."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

import mnistjax
from mnistjax import cli

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_python_code_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # Any network shows that the calls fit together: one of few layers is compiled sooner.
    small = mnistjax.create_model("cnn", features=(4,), kernel_sizes=(3,), pools=(2,))
    monkeypatch.setattr(mnistjax, "create_model", {"cnn": small}.__getitem__)
    namespace: dict = {}
    for block in blocks("python"):
        exec(block, namespace)
    assert "accuracy" in capsys.readouterr().out
    assert namespace["logits"].shape == (5, 10)
    assert namespace["states"].step.shape == (8,)


def test_installing_and_testing_are_self_contained_commands():
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("python3 -m venv .venv && ")]
    assert len(commands) == 2
    assert commands[0].endswith("python examples/train_cnn.py")
    assert commands[1].endswith("&& pytest -n auto")


def test_cli_commands_parse(capsys):
    lines = [line for line in blocks("bash")[1].splitlines() if line]
    assert lines
    for line in lines:
        program, command, *rest = shlex.split(line)
        assert program == "mnistjax"
        with pytest.raises(SystemExit) as exit_info:
            cli.main([command, "--help"])
        assert exit_info.value.code == 0
        known = capsys.readouterr().out
        assert all(word in known for word in rest if word.startswith("--"))


def test_named_settings_exist():
    for names in (mnistjax.training.OPTIMIZERS, mnistjax.training.SCHEDULES):
        assert all(name in README for name in names)


def test_linked_files_exist():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    assert all((ROOT / target).exists() for target in targets if "://" not in target)


def test_tables_are_regenerated():
    script = runpy.run_path(str(ROOT / "benchmarks" / "readme.py"))
    for path in script["READMES"]:
        text = path.read_text()
        assert script["regenerate"](text) == text, "run python benchmarks/readme.py"


def test_help_lists_every_setting(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    text = capsys.readouterr().out
    for name in mnistjax.TrainConfig.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in text
    words = set(re.findall(r"[\w-]+", text))
    assert {
        *mnistjax.models.MODELS,
        *mnistjax.training.OPTIMIZERS,
        *mnistjax.training.SCHEDULES,
    } <= words
