"""Imports inside the package point down the stair of docs/explanation/architecture.md, never up."""

from __future__ import annotations

import ast
import math
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import densescope

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "densescope"

# One number per room: a room may import rooms with a smaller number. Rooms of one floor of
# docs/explanation/architecture.md that share a number may not import each other.
LAYERS = {
    "_version": 0,
    "text": 0,
    "errors": 1,
    "definitions": 2,
    "layers": 2,
    "estimate": 2,
    "files": 2,
    "locks": 3,
    "toml": 3,
    "writing": 4,
    "records": 5,
    "numerics": 10,
    "metrics": 12,
    "features": 20,
    "evaluation": 30,
    "selection": 40,
    "correlation": 41,
    "runs": 42,
    "monitoring": 43,
    "pretraining": 42,
    "report": 50,
    "demo": 51,
    "study": 51,
    "__init__": 60,
    "cli": 61,
    "__main__": 62,
}
HEAVY = (
    "timm",
    "torchvision",
    "torchmetrics",
    "lightly",
    "pytorch_lightning",
    "lightning",
    "ray",
    "mlflow",
    "wandb",
    "tensorboard",
    "transformers",
    "datasets",
    "jinja2",
    "plotly",
    "cyclopts",
    "scipy",
    "pyarrow",
    "pandas",
    "PIL",
)


def imports(source: str) -> set[str]:
    """Rooms of the package that a module imports, at any depth of nesting."""
    rooms = set()
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "write imports absolutely: from densescope.room import name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "densescope" and len(parts) > 1:
                rooms.add(parts[1])
    return rooms


def violations(room: str, source: str) -> list[str]:
    """Imports that point up, or to a room that has no floor yet."""
    rooms = imports(source) - {room, "__version__"}
    return sorted(r for r in rooms if LAYERS.get(r, math.inf) >= LAYERS[room])


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_imports_point_down() -> None:
    rooms = {path: room_of(path) for path in sorted(PACKAGE.rglob("*.py"))}
    homeless = {room for room in rooms.values() if room not in LAYERS}
    places = "tests/test_layers.py and docs/explanation/architecture.md"
    assert not homeless, f"give each a floor in {places}"
    climbing = {
        str(path.relative_to(PACKAGE)): found
        for path, room in rooms.items()
        if (found := violations(room, path.read_text()))
    }
    assert climbing == {}


def test_the_layer_test_can_fail() -> None:
    assert violations("numerics", "from densescope.features import images") == ["features"]
    assert violations("numerics", "def f():\n    import densescope.report.page") == ["report"]
    assert violations("report", "from densescope.numerics import spectrum") == []


def loaded_by(statement: str, banned: tuple[str, ...]) -> list[str]:
    script = f"import sys; {statement}; print(*[m for m in {banned!r} if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    command = [sys.executable, "-c", script]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return run.stdout.split()


def test_importing_the_package_and_its_command_does_not_wait_for_torch() -> None:
    heavy = tuple(name for name in HEAVY if name != "cyclopts")
    assert loaded_by("import densescope, densescope.cli.app", ("torch", *heavy)) == []


def test_the_public_names_and_the_report_load_torch_and_nothing_heavier() -> None:
    statement = "from densescope import *; import densescope.report"
    assert loaded_by(statement, ("torch", *HEAVY)) == ["torch"]


def test_every_public_name_is_there() -> None:
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text())
    named = {
        (alias.name, f"densescope.{node.module}")
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {name for name, _ in named} == set(densescope.__all__) <= set(dir(densescope))
    for name, module in named:
        assert getattr(densescope, name) is getattr(import_module(module), name)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = densescope.no_such_name


def test_the_light_import_test_can_fail() -> None:
    assert loaded_by("import densescope, PIL", HEAVY) == ["PIL"]


def test_the_numerics_work_without_any_other_library() -> None:
    blocked = [name for name in HEAVY if name != "scipy"]
    script = f"""
import sys
sys.modules.update(dict.fromkeys({blocked!r}))
import torch, densescope
noise = torch.randn(16, 16, 8, generator=torch.Generator().manual_seed(0))
print(float(densescope.dense_structure(noise, global_clusters=6).dse))
print(float(densescope.rankme(noise[:, 0])), float(densescope.alpha_req(noise.flatten(0, 1))))
numbers = densescope.estimate_structure(noise, global_clusters=6, group_size=4)
print(numbers["released.effective_rank"].value)
"""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    command = [sys.executable, "-c", script]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert len(run.stdout.split()) == 4
