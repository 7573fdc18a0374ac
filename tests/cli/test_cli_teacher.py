"""`--teacher` of train, sweep and repeat: a run or a sweep teaches, or one line says why not."""

from __future__ import annotations

import pytest

import mnistjax
from mnistjax.cli import main

QUICK = ["--dataset", "digits", "--model", "softmax", "--steps", "5"]
TRAIN = ["train", *QUICK, "--no-report"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The directory of a sweep of two networks; not to be changed."""
    workdir = tmp_path_factory.mktemp("sweeps") / "sweep"
    main(["sweep", *QUICK, "--seeds", "2", "--workdir", str(workdir)])
    return workdir


def test_a_run_teaches_and_is_needed_to_repeat_the_student(mlp_run, tmp_path, capsys, refusal):
    main([*TRAIN, "--teacher", str(mlp_run), "--temperature", "3", "--workdir", str(tmp_path)])
    assert "teacher  mlp\n" in capsys.readouterr().out
    found = mnistjax.load_run(tmp_path)
    assert found.result["teacher"] == "mlp"
    assert found.config.temperature == 3
    assert "expected the teacher of SHA-256" in refusal("repeat", tmp_path)
    main(["repeat", str(tmp_path), "--teacher", str(mlp_run)])
    assert "equal: every number of" in capsys.readouterr().out


def test_a_sweep_teaches_and_is_taught(sweep, tmp_path, capsys):
    words = ["--teacher", str(sweep), "--temperature", "1", "4", "--workdir", str(tmp_path / "s")]
    main(["sweep", *QUICK, *words])
    assert "2 of 2 trained in " in capsys.readouterr().out
    found = mnistjax.runs.load_population(tmp_path / "s")
    assert [row["temperature"] for row in found.rows] == [1, 4]
    assert found.member(1).result["teacher"] == "ensemble of 2"


@pytest.mark.parametrize("command", [TRAIN, ["sweep", *QUICK]])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--temperature", "3"], "--distill-weight and --temperature need --teacher"),
        (["--distill-weight", "0.5"], "--distill-weight and --temperature need --teacher"),
        (["--teacher", "nowhere"], "found no file nowhere"),
        (["--teacher", "nowhere", "--distill-weight", "2"], "distill_weight must be from 0 to 1"),
        (["--teacher", "nowhere", "--temperature", "0"], "temperature must be from 0.01 to 1,000"),
    ],
)
def test_what_cannot_teach_is_one_line(command, words, message, refusal, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refusal(*command, *words)
    assert not list(tmp_path.iterdir())


def test_a_run_is_not_resumed_without_its_teacher(mlp_run, tmp_path, refusal):
    words = [*TRAIN, "--workdir", str(tmp_path)]
    main([*words, "--teacher", str(mlp_run)])
    (tmp_path / "result.json").unlink()
    assert "found no teacher" in refusal(*words, "--resume")
