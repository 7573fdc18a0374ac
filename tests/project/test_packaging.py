"""What is declared of other libraries is what is tested, and what is imported is declared."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Where the name that is imported is not the name that is installed.
INSTALLED_AS = {"orbax": "orbax-checkpoint", "sklearn": "scikit-learn", "PIL": "pillow"}
# Part of the interface of what brings it, in the version that it needs.
COMES_WITH = {"jaxlib": "jax", "markupsafe": "jinja2", "urllib3": "requests"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def bounds(requirements: list[str]) -> dict[str, str]:
    """The lower bound of each requirement; one that has no bound of that form is an error."""
    pairs = [requirement.split(">=") for requirement in requirements]
    return {canonical(name): bound for name, bound in pairs}


def pins(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {canonical(name): version for name, version in (line.split("==") for line in lines)}


def numbers(version: str) -> list[int]:
    """The version's numbers, zeros at their end left out: 3.10 is 3.10.0."""
    found = [int(part) for part in version.split(".")]
    while found[-1] == 0:
        found.pop()
    return found


def test_the_lane_of_lower_bounds_pins_exactly_them():
    extras = [*EXTRAS["dev"], *EXTRAS["onnx"], *EXTRAS["tensorboard"]]
    declared = bounds([*PROJECT["dependencies"], *extras])
    pinned = pins(ROOT / ".ci" / "lower-bounds.txt")
    assert {name: numbers(version) for name, version in pinned.items()} == {
        name: numbers(version) for name, version in declared.items()
    }


def test_the_constraints_meet_every_lower_bound():
    constraints = pins(ROOT / ".ci" / "constraints.txt")
    for name, bound in bounds([*PROJECT["dependencies"], *EXTRAS["dev"]]).items():
        assert numbers(constraints[name]) >= numbers(bound), name


def test_what_the_package_imports_is_declared():
    imported = set()
    for path in (ROOT / "mnistjax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(str(node.module).partition(".")[0])
    imported -= {*sys.stdlib_module_names, "mnistjax"}
    assert {"jax", "sklearn"} <= imported
    extras = [*EXTRAS["onnx"], *EXTRAS["serve"], *EXTRAS["tensorboard"]]
    declared = bounds([*PROJECT["dependencies"], *extras])
    names = {canonical(INSTALLED_AS.get(name, name)) for name in imported}
    assert names - COMES_WITH.keys() <= declared.keys()
    assert {COMES_WITH[name] for name in names & COMES_WITH.keys()} <= declared.keys()
