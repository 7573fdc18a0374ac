"""The public face: what a reader types exists, loads when it is touched, and says what it does."""

from __future__ import annotations

import inspect
import operator
from typing import get_origin

import pytest

import mnistjax

WINGS = ("data", "models", "training", "runs", "evaluation", "plots", "export", "reading")
WINGS += ("report", "serving")


def names(face) -> list[str]:
    """The public names of a module, without what it imports from elsewhere for its own use."""
    if face is mnistjax:
        return list(mnistjax.__all__)
    own = [name for name in vars(face) if not name.startswith("_") and name != "annotations"]
    if face.__file__.endswith("__init__.py"):
        return own
    return [name for name in own if getattr(vars(face)[name], "__module__", "") == face.__name__]


def documented(value) -> bool:
    """Whether it has words of its own: a dataclass makes its signature the docstring."""
    text = vars(value).get("__doc__") or "" if inspect.isclass(value) else value.__doc__ or ""
    return bool(text.strip()) and not text.startswith(f"{value.__name__}(")


FACES = [mnistjax, *(getattr(mnistjax, wing) for wing in WINGS), mnistjax.augment, mnistjax.ops]
PUBLIC = {
    f"{face.__name__}.{name}": value
    for face in FACES
    for name, value in ((name, getattr(face, name)) for name in names(face))
    if not inspect.ismodule(value) and get_origin(value) is None  # an alias of a type
}
CALLABLES = [name for name, value in PUBLIC.items() if callable(value)]


def test_every_public_name_has_a_docstring():
    assert not [name for name in CALLABLES if not documented(PUBLIC[name])]


def test_the_package_has_about_forty_names_and_its_namespaces():
    namespaces = {name for name in mnistjax.__all__ if inspect.ismodule(getattr(mnistjax, name))}
    assert namespaces == {*WINGS, "augment", "errors", "ops"}
    assert len(set(mnistjax.__all__) - namespaces) <= 44
    assert set(mnistjax.__all__) <= set(dir(mnistjax))
    with pytest.raises(AttributeError, match="has no attribute 'load_datasets'"):
        operator.attrgetter("load_datasets")(mnistjax)


def test_a_missing_docstring_would_be_seen():
    class Bare(mnistjax.Callback):
        pass

    assert not documented(Bare)
    assert not documented(lambda: None)


def test_tables_are_the_only_public_names_without_a_docstring_of_their_own():
    plain = {name.rpartition(".")[2] for name in PUBLIC if name not in CALLABLES}
    tables = {"CORRUPTIONS", "DATASETS", "MODELS", "OPTIMIZERS", "RECIPES", "SCHEDULES"}
    assert plain == tables | {"EVAL_BATCH_SIZE"}
