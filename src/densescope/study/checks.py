"""Whether the parts of a study fit together, before anything is trained."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from densescope.errors import InputError
from densescope.evaluation.probes import find_protocol

if TYPE_CHECKING:
    from densescope.study.spec import Cell, StudySpec

# Methods and arms name folders: no part of a path leads out of the folder of the study.
_FOLDER_NAME = re.compile(r"[^\W_][\w .+=-]{0,99}")


def runs_before(cells: Sequence[Cell]) -> dict[str, int]:
    """How many runs of the study lie before each, one beginning from the other.

    Returns:
        name of a run -> 0 where it begins by itself; ``len(cells)`` where runs begin from each
        other in a circle.
    """
    by_name = {cell.name: cell for cell in cells}
    found = {}
    for cell in cells:
        count, at = 0, cell
        while at.start_run in by_name and count < len(cells):
            count, at = count + 1, by_name[at.start_run]
        found[cell.name] = count
    return found


def check_spec(spec: StudySpec) -> None:
    """Refuse a study whose parts do not fit together.

    Raises:
        InputError: a name twice or unknown, a folder name that is none, or a run that begins from
            none of the study.
    """
    for what, values in (
        ("methods", spec.methods),
        ("seeds", spec.seeds),
        ("arms", [arm.name for arm in spec.arms]),
    ):
        if not values or len(set(values)) < len(values):
            raise InputError(f"a study needs {what}, and none twice: {list(values)}")
    for arm in spec.arms:
        if not _FOLDER_NAME.fullmatch(arm.name):
            raise InputError(
                f"an arm is named {arm.name!r:.100}, and its runs lie in folders of that name: use "
                "at most 100 letters, digits, spaces and . _ + = -, a letter or a digit first"
            )
    strangers = sorted(set(spec.by_method) - set(spec.methods))
    if strangers:
        raise InputError(f"[method.{strangers[0]}] is not one of methods {list(spec.methods)}")
    if not spec.training.images and set(spec.by_method) < set(spec.methods):
        raise InputError("[pretrain] does not say which images to train on")
    cells = spec.cells()
    before = runs_before(cells)
    for cell in cells:
        if cell.start_run is not None and cell.start_run not in before:
            others = sorted(set(before) - {cell.name})
            raise InputError(
                f"{cell.name} begins from {cell.arm.start_run!r}, which is no run of this study; "
                f"there are {', '.join(others)}"
            )
        if before[cell.name] == len(cells):
            raise InputError(
                f"{cell.name} begins from itself, directly or through other runs: let its arm "
                "begin from another run, or leave out start_run"
            )
    for arm in spec.arms:
        both = (("methods", arm.methods, spec.methods), ("seeds", arm.seeds, spec.seeds))
        for what, of_arm, of_study in both:
            unknown = sorted({*map(str, of_arm)} - {*map(str, of_study)})
            if unknown:
                raise InputError(
                    f"the arm {arm.name} is for {unknown[0]}, which is not one of {what} "
                    f"{list(of_study)}"
                )
    spec.score_settings()
    for labels in spec.labels:
        labels.data.check(find_protocol(labels.protocol).task)
