"""The pretraining methods, one row each."""

from __future__ import annotations

import difflib
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any

from densescope.errors import InputError
from densescope.pretraining.encoders import FAMILY_TITLES, SMALL, family_of, fit_to_image_size
from densescope.pretraining.learner import Method as Method
from densescope.pretraining.learners import (
    barlowtwins,
    byol,
    densecl,
    dino,
    esvit,
    ibot,
    ijepa,
    mae,
    mec,
    mocov3,
    mugs,
    resa,
    simsiam,
    swav,
    vicreg,
    vicregl,
)
from densescope.pretraining.settings import BackboneSettings, PretrainSettings, flat

_MODULES = (
    *(mocov3, densecl, byol, simsiam, swav, dino, esvit, ibot, mugs),
    *(mec, barlowtwins, vicreg, vicregl, resa, mae, ijepa),
)
METHODS: dict[str, Method] = {module.METHOD.name: module.METHOD for module in _MODULES}


def find_method(name: str) -> Method:
    """The row of a method.

    Raises:
        InputError: there is none of that name.
    """
    if name not in METHODS:
        close = difflib.get_close_matches(name.lower(), METHODS, n=1, cutoff=0.6)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(METHODS)}"
        raise InputError(f"there is no method {name!r}; {hint}")
    return METHODS[name]


def default_backbone(method: Method) -> BackboneSettings:
    """A small network of the family the paper used."""
    return SMALL[method.families[0]]


def resolve_settings(settings: PretrainSettings) -> PretrainSettings:
    """Settings whose defaults are filled in and that fit their method.

    Raises:
        InputError: the method does not exist, cannot use the architecture, needs more images at
            once, or the recipe is another method's.
    """
    method = find_method(settings.method)
    family = family_of(settings.backbone.architecture)
    if family not in method.families:
        usable = " and ".join(FAMILY_TITLES[name] for name in method.families)
        raise InputError(
            f"{method.title} cannot train {settings.backbone.architecture}: it works with {usable}"
        )
    recipe = settings.recipe or method.small
    if type(recipe) is not type(method.small):
        raise InputError(
            f"a {type(recipe).__name__} does not fit {method.title}: it takes a "
            f"{type(method.small).__name__}"
        )
    if settings.micro_batch_size < method.least_micro_batch:
        raise InputError(
            f"{method.title} needs at least {method.least_micro_batch} images at once on a device, "
            f"not {settings.micro_batch_size}: {method.least_reason}"
        )
    return replace(settings, recipe=recipe, backbone=fit_to_image_size(settings.backbone))


def recipe_changes(method: Method) -> list[str]:
    """Where the small recipe differs from the published one: ``name: published -> small``."""
    return _differences(method.published, method.small, "")


def method_lines(method: Method) -> list[str]:
    """A method in full: source, recipe, and what was changed, a line of text each."""
    lines = [
        f"{method.title}: {method.source}",
        f"backbones: {', '.join(method.families)}; the paper's run: {method.batch_size} images a "
        f"step, {method.epochs} epochs",
        f"files: {method.file_name.format(method.numbers(1)[0])}, ...",
        "published recipe:",
        *(f"  {key} = {_text(value)}" for key, value in flat(asdict(method.published)).items()),
        "small recipe, where it differs:",
        *(f"  {change}" for change in recipe_changes(method)),
    ]
    changed = method.changed or ("nothing beside that",)
    return [*lines, "changed from the paper:", *(f"  {line}" for line in changed)]


BEGIN, END = "<!-- methods: begin -->", "<!-- methods: end -->"


def docs_table(text: str) -> str:
    """A document with the rows of ``METHODS`` between its marks brought up to date."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    lines = [BEGIN, "", "| name | method | learns from | backbones | files | source |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for row in METHODS.values():
        name = row.file_name.format(row.numbers(1)[0])
        cells = (row.name, row.title, row.kind, ", ".join(row.families), f"`{name}`", row.source)
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Differences from the public code, apart from the values of the recipe:", ""]
    lines += [
        f"- **{row.title}**: {' '.join(row.changed)}" for row in METHODS.values() if row.changed
    ]
    return f"{before}{chr(10).join([*lines, '', END])}{after}"


def _differences(published: Any, small: Any, prefix: str) -> list[str]:
    found = []
    for part in fields(published):
        old, new = getattr(published, part.name), getattr(small, part.name)
        if is_dataclass(old):
            found += _differences(old, new, f"{prefix}{part.name}.")
        elif old != new:
            found.append(f"{prefix}{part.name}: {_text(old)} -> {_text(new)}")
    return found


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(_text(item) for item in value)})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
