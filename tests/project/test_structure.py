"""The house rules of the code, checked on its syntax; each check is shown to find an offence."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import mnistjax

ROOT = Path(__file__).resolve().parents[2]

# What may import what: a file only from the layers before its own, and from no file beside it.
WINGS = {
    "data": [
        {"augment", "cache", "embedded", "gzipped", "splits"},
        {"idx", "kaggle_csv", "picture_folder", "registry", "tfds_download", "tfds_prepared"},
        {"batches", "folders"},
        {"load"},
        {"streaming"},
    ],
    "models": [{"layers", "lowering", "norm"}, {"model", "ops"}, {"dense", "cnn"}, {"registry"}],
    "training": [
        {"compiler", "distillation", "metrics", "optimizers", "pixels", "placing", "state"}
        | {"transforms"},
        {"averaging", "inference", "microbatches"},
        {"step"},
    ],
    "runs": [
        {"checkpoint_policy", "config", "microbatch", "processes", "sealed"},
        {"build", "directory", "placement", "recipes", "sweeping", "trained"},
        {"ensemble", "fingerprints"},
        {"plan", "population_files"},
        {"callbacks", "weights"},
        {"compiled", "orbax_format", "progress", "tensorboard"},
        {"programs", "result", "mapped"},
        {"finite", "checkpoints"},
        {"start", "side_by_side"},
        {"loop", "population"},
        {"repeat", "teacher", "trainer"},
        {"halving", "pbt"},
        {"populate"},
    ],
    "evaluation": [
        {"label_errors", "sampling", "significance"},
        {"analysis", "robustness", "insight", "comparison"},
    ],
    "plots": [{"style"}, {"mosaic"}, {"images", "charts", "seeds", "sweeps"}],
    "export": [
        {"layers", "origin", "writing"},
        {"onnx_file", "safetensors_file", "stablehlo"},
        {"loading"},
        {"checking"},
    ],
    "reading": [
        {"planes", "pictures", "network", "cuts", "strangers"},
        {"gray", "ink", "lines", "pieces", "mnist_format", "submission"},
        {"doubts", "strokes"},
        {"digit", "page"},
    ],
    "report": [
        {"lines", "packing", "pictures", "rendering"},
        {"draw_page", "sweep_page"},
        {"page"},
        {"callback"},
    ],
    "serving": [{"limits", "network", "server"}, {"answers", "batching", "inputs"}, {"app"}],
    "cli": [
        {"shell"},
        {"compilation_cache", "drawing", "exporting", "launching", "listing", "measuring"}
        | {"reading", "reporting", "serving"},
        {"training"},
        {"sweeping"},
    ],
}
# A wing from those before it; the package itself stands before its command line.
ORDER = ["data", "models", "training", "runs", "evaluation", "plots", "export", "reading", "report"]
ORDER += ["serving"]
STRANGERS = [{"data", "models"}, {"reading", "plots"}, {"reading", "report"}, {"reading", "export"}]
LAYERS = [{"errors", "atomic"}, {"files"}, {"signals"}]
for _wing in [*ORDER, "", "cli"]:
    LAYERS += [{f"{_wing}.{name}" for name in layer} for layer in WINGS.get(_wing, [])]
    LAYERS.append({_wing})
LAYERS.append({"__main__"})
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}

CLI = {name for name in RANK if name.partition(".")[0] == "cli"}
HEAVY = {
    "tensorflow_datasets": {"data.tfds_download", "data.tfds_prepared"},
    "PIL": {"data.embedded", "data.tfds_download", "data.tfds_prepared", "report.pictures"}
    | {"data.picture_folder", "reading.pictures", "reading.gray", "reading.planes"}
    | {"reading.page", "cli.reading", "serving.app", "serving.inputs"},
    "sklearn": {"data.embedded", "data.splits", "evaluation.analysis", "evaluation.insight"},
    "safetensors": {"data.cache", "runs.sealed"},
    "tensorboardX": {"runs.tensorboard"},
    "rich": {"runs.callbacks", "report.callback", "cli.shell"},
    "filelock": {"data.tfds_download", "runs.directory"},
    "orbax": {"runs.orbax_format"},
    "tyro": CLI,
    "matplotlib": {"plots.style", "plots.mosaic", "plots.images", "plots.charts", "plots.seeds"}
    | {"plots.sweeps", "report.pictures", "report.lines"},
    "jinja2": {"report.rendering"},
    "onnx": {"export.onnx_file", "export.loading"},
    "onnxruntime": {"export.loading"},
    "starlette": {"serving.app", "serving.server"},
    "uvicorn": {"serving.server"},
}
FORBIDDEN = ("tensorflow", "pickle", "cloudpickle", "dill")
# These compute and do nothing else: they know no file, clock, process, network or setting.
PURE = ("models", "training", "data.augment", "data.batches")
IMPURE = (
    *("os", "io", "sys", "pathlib", "tempfile", "shutil", "time", "datetime", "random"),
    *("logging", "warnings", "signal", "subprocess", "threading", "socket", "urllib", "requests"),
    *("json", "rich", "tyro", "mnistjax.atomic", "mnistjax.runs"),
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT / "mnistjax").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


SOURCES = {module_name(path): path.read_text() for path in (ROOT / "mnistjax").rglob("*.py")}
TREES = {name: ast.parse(source) for name, source in SOURCES.items()}
SCRIPTS = {
    str(path.relative_to(ROOT)): path.read_text()
    for folder in ("examples", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
}

TESTS = {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "tests").rglob("*.py")}


def imports(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Yields each imported module, and whether importing its importer runs the import."""
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) or for_types_alone(function)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            dots = "." * node.level
            base = dots + (node.module or "")
            joined = [f"{base}.{alias.name}" for alias in node.names]
            names = [name if is_module(name) else base for name in joined]
        else:
            continue
        yield from ((name, id(node) not in inside) for name in names)


def for_types_alone(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def is_module(name: str) -> bool:
    known = name.removeprefix("mnistjax.") in SOURCES and name.startswith("mnistjax.")
    return known or name == "flax.linen"


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def check_layers(name: str, tree: ast.AST) -> Iterator[str]:
    if name not in RANK:
        yield f"{name} has no place in the order"
        return
    for imported, _ in imports(tree):
        if imported.startswith("."):
            yield f"{name} imports {imported}, which is relative"
        elif within(imported, "mnistjax"):
            target = imported.removeprefix("mnistjax").removeprefix(".")
            if RANK.get(target, len(LAYERS)) >= RANK[name]:
                yield f"{name} imports {imported}, which does not come before it"
            wings = {name.partition(".")[0], target.partition(".")[0]}
            if wings in STRANGERS:
                yield f"{name} imports {imported}, another wing that it must not know"


def check_heavy_imports(name: str, tree: ast.AST) -> Iterator[str]:
    for imported, at_top in imports(tree):
        package = imported.partition(".")[0]
        if package in FORBIDDEN:
            yield f"{name} imports {imported}"
        elif package in HEAVY and name not in HEAVY[package]:
            yield f"{name} imports {imported}, which has its own places"
        elif package in HEAVY and at_top and name not in CLI:
            yield f"{name} imports {imported} outside of the function that needs it"


def check_linen_stays_with_the_models(name: str, tree: ast.AST) -> Iterator[str]:
    for imported, _ in imports(tree):
        if within(imported, "flax.linen") and not within(name, "models"):
            yield f"{name} imports {imported}"


def check_purity(name: str, tree: ast.AST) -> Iterator[str]:
    if not any(within(name, pure) for pure in PURE):
        return
    for imported, _ in imports(tree):
        if any(within(imported, impure) for impure in IMPURE):
            yield f"{name} imports {imported}"


def check_silence(name: str, tree: ast.AST) -> Iterator[str]:
    if name in CLI or name == "signals":  # It ends a process that is not to go on.
        return
    handlers = [node.type for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)]
    caught = {name for handler in handlers if handler for name in ast.walk(handler)}
    for node in ast.walk(tree):
        if node in caught:
            continue
        if isinstance(node, ast.Name) and node.id in {"print", "exit", "quit", "SystemExit"}:
            yield f"{name} uses {node.id} in line {node.lineno}"
        if isinstance(node, ast.Attribute) and node.attr in {"exit", "_exit"}:
            yield f"{name} uses {node.attr} in line {node.lineno}"


def check_no_pickled_arrays(name: str, tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        allows = isinstance(node, ast.keyword) and node.arg == "allow_pickle"
        if allows and not (isinstance(node.value, ast.Constant) and node.value.value is False):
            yield f"{name} allows pickle in line {node.value.lineno}"


def check_script(name: str, tree: ast.AST) -> Iterator[str]:
    for imported, _ in imports(tree):
        if within(imported, "mnistjax") and imported not in {"mnistjax", "mnistjax.cli"}:
            yield f"{name} imports {imported}, which is not public"
        if imported.partition(".")[0] in FORBIDDEN:
            yield f"{name} imports {imported}"


MODULE_CHECKS = [
    check_layers,
    check_heavy_imports,
    check_linen_stays_with_the_models,
    check_purity,
    check_silence,
    check_no_pickled_arrays,
]


@pytest.mark.parametrize("check", MODULE_CHECKS)
def test_modules_keep_the_rule(check):
    assert not [offence for name, tree in TREES.items() for offence in check(name, tree)]


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_uses_public_names_alone(name):
    assert not list(check_script(name, ast.parse(SCRIPTS[name])))


@pytest.mark.parametrize(
    ("check", "name", "source"),
    [
        (check_layers, "data.idx", "from mnistjax.data.load import load_dataset"),
        (check_layers, "data.idx", "from mnistjax.data import load_dataset"),
        (check_layers, "data.idx", "from mnistjax.data import kaggle_csv"),
        (check_layers, "data.idx", "def f():\n    import mnistjax.training"),
        (check_layers, "data.idx", "from .splits import Split"),
        (check_layers, "data.idx", "import mnistjax"),
        (check_layers, "models.cnn", "from mnistjax.data import Batch"),
        (check_layers, "models.cnn", "from mnistjax.models.dense import MLP"),
        (check_layers, "models", "import mnistjax.cli"),
        (check_layers, "data", "from mnistjax.models.ops import conv"),
        (check_layers, "errors", "from mnistjax.atomic import atomic_path"),
        (check_layers, "training.utils", ""),
        (check_heavy_imports, "data.idx", "def f():\n    import tensorflow_datasets as tfds"),
        (check_heavy_imports, "data.embedded", "from PIL import Image"),
        (check_heavy_imports, "runs.loop", "import tensorflow.data"),
        (check_heavy_imports, "runs.loop", "def f():\n    from pickle import loads"),
        (check_heavy_imports, "runs.callbacks", "import rich.progress"),
        (check_heavy_imports, "plots.style", "if DRAWING:\n    import matplotlib"),
        (check_heavy_imports, "report.page", "if TYPE_CHECKING:\n    import matplotlib"),
        (check_linen_stays_with_the_models, "training.state", "import flax.linen as nn"),
        (check_linen_stays_with_the_models, "training.state", "from flax import linen"),
        (check_purity, "models.ops", "from time import perf_counter"),
        (check_purity, "training.step", "from mnistjax.runs.config import TrainConfig"),
        (check_purity, "training.metrics", "def f():\n    import os.path"),
        (check_silence, "runs.loop", "print(1)"),
        (check_silence, "runs.loop", "import sys\nsys.exit(1)"),
        (check_silence, "runs.loop", "raise SystemExit"),
        (check_no_pickled_arrays, "data.cache", "np.load(path, allow_pickle=True)"),
        (check_no_pickled_arrays, "data.cache", "np.load(path, allow_pickle=flag)"),
        (check_script, "examples/a.py", "from mnistjax.training import fit"),
        (check_script, "examples/a.py", "import mnistjax.data.batches"),
        (check_script, "examples/a.py", "import tensorflow as tf"),
    ],
)
def test_a_check_finds_the_offence(check, name, source):
    assert list(check(name, ast.parse(source)))


@pytest.mark.parametrize(
    ("check", "name", "source"),
    [
        (check_layers, "data.load", "from mnistjax.data.idx import read_idx_folder"),
        (check_layers, "runs.loop", "from mnistjax.data import Split"),
        (check_heavy_imports, "data.embedded", "def f():\n    from PIL import Image"),
        (check_heavy_imports, "plots.style", "if TYPE_CHECKING:\n    import matplotlib"),
        (check_linen_stays_with_the_models, "training.state", "import flax.struct"),
        (check_purity, "runs.loop", "import time"),
        (check_silence, "cli", "print(1)"),
        (check_no_pickled_arrays, "data.cache", "np.load(path, allow_pickle=False)"),
        (check_script, "examples/a.py", "from mnistjax.cli import one_line_errors"),
    ],
)
def test_a_check_lets_the_allowed_pass(check, name, source):
    assert not list(check(name, ast.parse(source)))


def test_every_place_in_the_order_is_taken():
    assert set(SOURCES) == set(RANK)


def named_like_a_function(modules, exported) -> set[str]:
    return {name.rpartition(".")[2] for name in modules} & set(exported)


def test_no_module_has_the_name_of_an_exported_function():
    functions = {name for name in mnistjax.__all__ if inspect.isfunction(getattr(mnistjax, name))}
    assert "fit" in functions
    assert not named_like_a_function(SOURCES, functions)
    assert named_like_a_function(["training.fit"], functions) == {"fit"}


def too_long(source: str) -> bool:
    return len(source.splitlines()) > 350


def test_no_file_is_over_350_lines():
    assert not [
        name for name, source in {**SOURCES, **SCRIPTS, **TESTS}.items() if too_long(source)
    ]
    assert too_long("\n" * 351)
