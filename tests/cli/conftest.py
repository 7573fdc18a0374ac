"""What the tests of the command line share: how a command ends, and one run."""

from __future__ import annotations

import pytest

from mnistjax.cli import main


@pytest.fixture
def ending(capsys):
    """Runs a command that must exit; returns its status, stdout and stderr."""

    def run(*words):
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        said = capsys.readouterr()
        # A text is what the interpreter prints on stderr, with status 1.
        if isinstance(caught.value.code, str):
            return 1, said.out, said.err + caught.value.code + "\n"
        return caught.value.code, said.out, said.err

    return run


@pytest.fixture
def refusal(ending):
    """Runs a command that must end in an error of one line; returns the line."""

    def run(*words):
        status, out, err = ending(*words)
        assert status == 1
        assert err.startswith("error: ")
        assert err.endswith("\n")
        assert err.count("\n") == 1
        assert "Traceback" not in out + err
        return err

    return run


@pytest.fixture(scope="session")
def mlp_run(tmp_path_factory):
    """The directory of a run of the recipe mlp on the embedded digits; not to be changed."""
    workdir = tmp_path_factory.mktemp("runs") / "digits"
    words = ["--dataset", "digits", "--steps=40", "--no-report", "--workdir", str(workdir)]
    main(["train", "--recipe", "mlp", *words])
    return workdir
