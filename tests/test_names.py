"""Public names are the field's words, and each has one owner."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "densescope"
# Word that says nothing to a reader -> word of the field. As the name of a module, class,
# function, argument or dataclass field.
BANNED = {
    "told": "teacher_output, or what is reported",
    "said": "student_output, or the message",
    "forth": "loss_ab",
    "back": "loss_ba",
    "chance": "generator, chance_loss",
    "look": "observation, scan",
    "look_at": "inspect",
    "viewer": "model_reader",
    "reading": "values, interpretation",
    "readings": "values, interpretations",
    "course": "series",
    "room": "probe_set",
    "rooms": "probe_sets",
    "settled": "resolve_settings",
    "determine": "resolve_spec",
    "agree": "correlate",
    "weight_note": "lambda_note",
    "run_weight": "run_lambda",
    "Said": "DenseOutput",
    "Look": "Observation",
    "Viewer": "ModelReader",
    "Reading": "MetricValue",
    "DenseReading": "MetricValues",
    "Course": "Series",
    "View": "a linear combination; a view is an augmented crop",
    "Here": "InProcess",
    "Ahead": "Prefetcher",
    "Filling": "PrefetchedTensor",
    "Found": "EngineResult",
    "Followed": "EMATeacher",
    "ahead": "prefetch",
    "filling": "prefetched",
    "surroundings": "folder_remarks",
    "weight": "lambda_, where it is that of a run",
}
# `weight` is also the field's word: of a loss, a network or a vote.
IS_WEIGHT = ("evaluation/probes/", "pretraining/", "numerics/", "features/")
# Verbs of the command, in cli/, bear the name of the function that they call.
VERBS = {"correlate", "pretrain", "sweep"}


def modules() -> dict[str, ast.Module]:
    return {
        path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def names_of(tree: ast.Module) -> Iterator[str]:
    """Classes, functions, their arguments, and the fields of classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name
            for part in node.body:
                if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                    yield part.target.id
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
            given = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            yield from (argument.arg for argument in given)


def banned_in(name: str, tree: ast.Module) -> set[str]:
    found = {*names_of(tree), *Path(name).with_suffix("").parts} & BANNED.keys()
    return found - {"weight"} if name.startswith(IS_WEIGHT) else found


def owners(trees: dict[str, ast.Module]) -> dict[str, list[str]]:
    """Public classes and functions of modules -> where they are defined."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, tree in trees.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name[0] != "_":
                found[node.name].append(name)
    return found


def shared(trees: dict[str, ast.Module]) -> dict[str, list[str]]:
    """Names with more than one owner; the verb of a command counts as none."""
    found = {}
    for name, places in owners(trees).items():
        library = [place for place in places if name not in VERBS or not place.startswith("cli/")]
        if len(library) > 1:
            found[name] = library
    return found


def test_names_are_words_of_the_field() -> None:
    found = {name: banned for name, tree in modules().items() if (banned := banned_in(name, tree))}
    assert found == {}, "see BANNED for the field's words"


def test_a_public_name_has_one_owner() -> None:
    assert shared(modules()) == {}


@pytest.mark.parametrize(
    "text",
    [
        "def told(): ...",
        "def f(*, chance): ...",
        "class A:\n    reading: int",
        "class Here: ...",
        "def outer():\n    def f(look): ...",
    ],
)
def test_a_banned_name_is_found(text: str) -> None:
    assert banned_in("runs/a.py", ast.parse(text))
    assert not banned_in("runs/a.py", ast.parse("def f(told_apart): ..."))


def test_a_banned_module_is_found() -> None:
    assert banned_in("runs/ahead.py", ast.parse("")) == {"ahead"}
    assert banned_in("selection/falls.py", ast.parse("def f(weight): ...")) == {"weight"}
    assert not banned_in("pretraining/a.py", ast.parse("def f(weight): ..."))


def test_a_second_owner_is_found() -> None:
    sweep, place = ast.parse("def sweep(): ..."), ast.parse("def place(): ...")
    assert shared({"runs/sweep.py": sweep, "cli/measure.py": sweep}) == {}
    assert shared({"a.py": sweep, "b.py": sweep}) == {"sweep": ["a.py", "b.py"]}
    assert shared({"a.py": place, "cli/parsing.py": place}) == {"place": ["a.py", "cli/parsing.py"]}
