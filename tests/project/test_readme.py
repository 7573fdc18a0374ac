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
    namespace: dict = {}
    for block in blocks("python"):
        exec(block, namespace)
    assert "accuracy" in capsys.readouterr().out
    assert namespace["logits"].shape == (5, 10)
    assert namespace["metrics"].loss_sum.shape == (8,)


def test_quick_start_has_two_self_contained_commands():
    commands = [line for block in blocks("bash")[:2] for line in block.splitlines()]
    assert len(commands) == 2
    assert all(line.startswith("python3 -m venv .venv && ") for line in commands)
    assert commands[0].endswith("python examples/train_cnn.py")
    assert commands[1].endswith("&& pytest -n auto")


def test_cli_commands_parse(capsys):
    lines = [line for line in blocks("bash")[2].splitlines() if line]
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
    for names in (mnistjax.OPTIMIZERS, mnistjax.SCHEDULES):
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


def test_package_docstring_runs():
    import doctest

    failures, tests = doctest.testmod(mnistjax)
    assert tests > 0
    assert failures == 0


def test_help_lists_every_setting(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    text = capsys.readouterr().out
    for name in mnistjax.TrainConfig.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in text
    words = set(re.findall(r"[\w-]+", text))
    assert {*mnistjax.MODELS, *mnistjax.OPTIMIZERS, *mnistjax.SCHEDULES} <= words
